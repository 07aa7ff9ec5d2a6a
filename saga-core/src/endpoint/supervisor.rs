//! The supervisor: one task owns all others of an endpoint, ends them in order, and notices when one ends unasked.

use super::{Endpoint, dispatch, shared::Shared};
use crate::{ErrorCode, LinkState, Store, panics};
use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::{Id, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// How long the row of a process may take to be removed when it stops.
const SIGN_OFF: Duration = Duration::from_secs(1);

/// What a task belongs to; parts stop in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Receiving,
    Lane,
    Relaying,
    Publishing,
}

/// How an endpoint ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// It was stopped, and finished what was running.
    #[error("the endpoint was stopped")]
    Stopped,
    /// It was stopped, and [`Settings::stop`](crate::Settings::stop) was not enough. Nothing is lost: the next process
    /// runs again what was cut off.
    #[error("the endpoint did not finish in time: {0} [{code}]", code = ErrorCode::CutOff)]
    CutOff(String),
    /// A task ended unexpectedly: a bug in this library, or in a transport or store. Nothing is lost; restart the
    /// process.
    #[error("the endpoint failed: {0} [{code}]", code = ErrorCode::EndpointFailed)]
    Failed(String),
}

/// The links of an endpoint, each with its state.
#[derive(Clone)]
pub(super) struct Links {
    pub(super) link: watch::Receiver<LinkState>,
    /// Whether it can be published to.
    pub(super) publishing: watch::Receiver<LinkState>,
    /// That for commands that can wait, if there are any.
    pub(super) low: Option<watch::Receiver<LinkState>>,
}

impl Links {
    /// What is to be said of both.
    pub(super) fn state(&self) -> LinkState {
        let (link, low) = (self.link.borrow().clone(), self.low.as_ref().map(|low| low.borrow().clone()));
        match (link, low) {
            (LinkState::Up, Some(LinkState::Down(why))) => {
                LinkState::Down(format!("for commands that can wait: {why}"))
            }
            (link, _) => link,
        }
    }
}

pub(super) struct Supervisor<Db: Store> {
    shared: Arc<Shared<Db>>,
    tasks: JoinSet<()>,
    /// Tasks that run.
    running: HashMap<Id, Part>,
    links: Links,
    /// What the endpoint says of them.
    said: watch::Sender<LinkState>,
    receiving: CancellationToken,
    relaying: CancellationToken,
    stop: CancellationToken,
}

impl<Db: Store> Supervisor<Db> {
    pub(super) fn new(shared: Arc<Shared<Db>>, links: Links) -> Self {
        let [receiving, relaying, stop] = [(); 3].map(|()| CancellationToken::new());
        let said = watch::Sender::new(links.state());
        Self { shared, tasks: JoinSet::new(), running: HashMap::new(), links, said, receiving, relaying, stop }
    }

    /// Stops the endpoint when it is cancelled.
    pub(super) fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Cancelled when nothing more is to be received.
    pub(super) fn receiving(&self) -> CancellationToken {
        self.receiving.clone()
    }

    /// Cancelled when nothing more is to be sent from the outbox.
    pub(super) fn relaying(&self) -> CancellationToken {
        self.relaying.clone()
    }

    pub(super) fn spawn(&mut self, part: Part, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(task);
        self.running.insert(task.id(), part);
        self.shared.crashes.began(task);
    }

    /// Begins to watch.
    pub(super) fn run(mut self) -> Endpoint<Db> {
        let stop = self.stop.clone();
        let abandon = CancellationToken::new();
        let (ended, has_ended) = watch::channel(None);
        let endpoint = Endpoint {
            shared: self.shared.clone(),
            link: self.said.subscribe(),
            stop: stop.clone(),
            abandon: abandon.clone(),
            ended: has_ended,
        };
        let shared = self.shared.clone();
        let supervising = tokio::spawn(async move {
            let how = tokio::select! {
                biased;
                () = abandon.cancelled() => Ended::CutOff("it was dropped".into()),
                why = self.watch() => {
                    tracing::error!(endpoint = self.shared.name, error = why, "the endpoint failed");
                    self.said.send_replace(LinkState::Failed(why.clone()));
                    Ended::Failed(why)
                }
                () = stop.cancelled() => tokio::select! {
                    biased;
                    () = abandon.cancelled() => Ended::CutOff("it was dropped".into()),
                    how = self.stop() => how,
                },
            };
            self.receiving.cancel();
            self.relaying.cancel();
            self.tasks.abort_all();
            self.shared.set_aside.give_back();
            self.shared.dispatcher.close();
            ended.send_replace(Some(how));
        });
        shared.crashes.began(supervising.abort_handle());
        endpoint
    }

    /// Passes on the state of the links until a task ends unexpectedly. Returns which task, and why.
    async fn watch(&mut self) -> String {
        loop {
            let low = async {
                match &mut self.links.low {
                    Some(low) => low.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ended = self.tasks.join_next_with_id() => {
                    let Some(ended) = ended else { return "it has no tasks".into() };
                    let part = self.running.remove(&id(&ended));
                    return why(ended.map(|_| part));
                }
                changed = self.links.link.changed() => {
                    if changed.is_err() {
                        return "the transport has ended".into();
                    }
                }
                changed = low => {
                    if changed.is_err() {
                        return "the transport has ended for commands that can wait".into();
                    }
                }
            }
            self.said.send_replace(self.links.state());
        }
    }

    /// Ends the parts in order: commits and acknowledges what is running, gives back what waits to the broker, and
    /// awaits confirms.
    async fn stop(&mut self) -> Ended {
        let until = Instant::now() + self.shared.settings.stop;
        let mut late = Vec::new();
        self.receiving.cancel();
        if !self.ended(&[Part::Receiving, Part::Lane], until).await {
            late.push("units of work were cut off: their messages will be handled again");
        }
        self.shared.set_aside.give_back();
        self.relaying.cancel();
        let dispatcher = &self.shared.dispatcher;
        if tokio::time::timeout_at(until, dispatcher.emptied()).await.is_err() {
            late.push("messages were not confirmed: they are in the outbox and will be sent again");
        }
        if tokio::time::timeout_at(until, dispatch::delete_all_confirmed(&self.shared)).await.is_err() {
            late.push("confirmed messages were not deleted: they will be sent again and found to be duplicates");
        }
        let sign_off = self.shared.store.sign_off(self.shared.owner());
        let _ = tokio::time::timeout_at(until.min(Instant::now() + SIGN_OFF), sign_off).await; // it ages
        self.tasks.abort_all();
        self.shared.dispatcher.close();
        // wait for the transport to close; if it does not, the broker will time the connection out
        let mut link = self.links.link.clone();
        let gone = async { while link.changed().await.is_ok() {} };
        let _ = tokio::time::timeout_at(until, gone).await;
        if late.is_empty() { Ended::Stopped } else { Ended::CutOff(late.join("; ")) }
    }

    /// Waits until no task of the parts runs.
    async fn ended(&mut self, parts: &[Part], until: Instant) -> bool {
        while self.running.values().any(|part| parts.contains(part)) {
            match tokio::time::timeout_at(until, self.tasks.join_next_with_id()).await {
                Ok(Some(ended)) => drop(self.running.remove(&id(&ended))), // one that panicked has ended too
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

fn id(ended: &Result<(Id, ()), JoinError>) -> Id {
    match ended {
        Ok((id, ())) => *id,
        Err(error) => error.id(),
    }
}

fn why(ended: Result<Option<Part>, JoinError>) -> String {
    match ended {
        Ok(Some(Part::Receiving)) => "the transport delivers no more".into(),
        Ok(Some(Part::Publishing)) => "the transport publishes no more".into(),
        Ok(part) => format!("a task of {part:?} ended"),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => format!("a task panicked: {}", panics::text(&*panic)),
            Err(error) => error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_away_is_told_whichever_it_is() {
        let up = || watch::channel(LinkState::Up).1;
        let down = |why: &str| watch::channel(LinkState::Down(why.into())).1;
        let for_low = "for commands that can wait: b";
        for (link, low, expected) in [
            (up(), None, LinkState::Up),
            (up(), Some(up()), LinkState::Up),
            (down("a"), Some(down("b")), LinkState::Down("a".into())),
            (up(), Some(down("b")), LinkState::Down(for_low.into())),
        ] {
            assert_eq!(Links { publishing: up(), link, low }.state(), expected);
        }
    }
}
