//! How the two sides of a link, consuming and publishing, stay connected. lapin's own recovery gives up, and knows
//! nothing about order or messages in flight.

use super::{connection::Broker, health::Side, trouble::Trouble};
use lapin::Connection;
use saga_core::{Backoff, TransportError, TransportErrorKind};
use std::{future::Future, sync::Arc, time::Duration};

/// The shortest and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a close may take.
const GOODBYE: Duration = Duration::from_secs(10);
/// How long the close of a connection may take whose broker does not answer: what is acknowledged there is done with.
pub(super) const FAREWELL: Duration = Duration::from_millis(200);
/// A side that has lived this long works, even if it had nothing to do.
pub(super) const WORKS_AFTER: Duration = Duration::from_secs(5);

/// Why a side cannot go on with its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parted {
    /// The broker said so, or the connection is gone.
    Broken(String),
    /// The broker did not answer in time, although the connection lives: it may be ill, and another of its hosts well.
    Silent(String),
}

impl Parted {
    /// No answer came.
    pub(super) fn unanswered() -> Self {
        Self::Silent("the broker does not answer".into())
    }

    fn why(&self) -> &str {
        match self {
            Self::Broken(why) | Self::Silent(why) => why,
        }
    }
}

impl From<lapin::Error> for Parted {
    fn from(error: lapin::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<TransportError> for Parted {
    fn from(error: TransportError) -> Self {
        match error.kind() {
            TransportErrorKind::Unreachable => Self::Silent(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// One side of a link.
pub(super) trait Life: Send {
    /// What the side does, for log lines.
    const WHAT: &'static str;

    /// Works on this connection until the connection breaks (returns why) or the endpoint is done with it (`None`).
    fn live(&mut self, connection: &Connection, line: &mut Line) -> impl Future<Output = Option<Parted>> + Send;

    /// Whether the endpoint is done with it, so that it need not live again.
    fn is_done(&self) -> bool;
}

/// What outlives a side's single connection.
pub(super) struct Line {
    name: String,
    what: &'static str,
    pub(super) health: Side,
    backoff: Backoff,
    trouble: Trouble,
}

impl Line {
    /// Something succeeded: the next pause is the shortest again, and trouble is over.
    pub(super) fn works(&mut self) {
        if self.backoff.tries() > 0 {
            self.backoff.reset();
        }
        if self.trouble.lasts()
            && let Some(lasted) = self.trouble.is_over()
        {
            tracing::info!(endpoint = self.name, ?lasted, "{} again", self.what);
        }
    }

    fn broken(&mut self, why: &str) {
        if self.trouble.is_news() {
            tracing::warn!(endpoint = self.name, error = why, "{} was interrupted", self.what);
        }
        self.health.down(format!("{} was interrupted: {why}", self.what));
    }
}

/// Runs the side on one connection after another, until the endpoint is done.
pub(super) async fn keep_connected<L: Life>(
    mut life: L,
    broker: Arc<Broker>,
    first: Connection,
    name: String,
    health: Side,
) {
    let backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    let mut line = Line { name, what: L::WHAT, health, backoff, trouble: Trouble::default() };
    let mut connection = first;
    loop {
        let Some(parted) = life.live(&connection, &mut line).await else {
            let _ = tokio::time::timeout(GOODBYE, connection.close(200, "bye".into())).await; // it may be gone already
            return;
        };
        line.broken(parted.why());
        if let Parted::Silent(_) = parted {
            // heartbeats would keep it for as long as this host is ill
            let _ = tokio::time::timeout(FAREWELL, connection.close(200, "no answer".into())).await;
        }
        loop {
            line.backoff.pause().await;
            if life.is_done() {
                return;
            }
            // an error of a channel leaves the connection intact
            if matches!(parted, Parted::Broken(_)) && connection.status().connected() {
                break;
            }
            match broker.connect(&line.name).await {
                Ok(next) => {
                    connection = next;
                    break;
                }
                Err(error) => line.broken(&error.to_string()),
            }
        }
    }
}
