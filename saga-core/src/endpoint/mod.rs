//! The endpoint: receives messages, runs sagas and handlers, and sends what they return.

mod breaker;
mod core;
mod dispatch;
mod emission;
mod handler_unit;
mod item;
mod lane;
mod relay;
mod router;
mod saga_unit;
mod session;
mod start;
mod unit;

pub use core::Settings;
pub use session::Session;
pub use start::{EndpointBuilder, Named, StartError};

use crate::{LinkState, Store, StoreError};
use core::Core;
use std::{fmt, sync::Arc};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// A running endpoint. Drop it and it stops without finishing; [`Endpoint::stop`] finishes first. Nothing is lost either way.
///
/// ```no_run
/// # async fn example<Db: saga_core::Store>(transport: impl saga_core::Transport, store: Db) -> Result<(), Box<dyn std::error::Error>> {
/// use saga_core::Endpoint;
///
/// let ordering = Endpoint::named("ordering").transport(transport).store(store).start().await?;
/// ordering.stop().await?;
/// # Ok(()) }
/// ```
pub struct Endpoint<Db: Store> {
    core: Arc<Core<Db>>,
    link: watch::Receiver<LinkState>,
    tasks: Option<Tasks>,
}

/// The running parts, in the order in which they stop.
struct Tasks {
    receiving: CancellationToken,
    relaying: CancellationToken,
    lanes: Vec<JoinHandle<()>>,
    rest: Vec<JoinHandle<()>>,
}

impl<Db: Store> fmt::Debug for Endpoint<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.core.name).field("owner", &self.core.owner).finish()
    }
}

impl Endpoint<crate::NoStore> {
    /// Begins an endpoint. The name is that of its queue and of its rows in the database.
    pub fn named(name: impl Into<String>) -> Named {
        Named::new(name.into())
    }
}

impl<Db: Store> Endpoint<Db> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// This process, as `inbox.handled_by` and `outbox.lease_owner` name it.
    pub fn owner(&self) -> &str {
        &self.core.owner
    }

    /// Its store.
    pub fn store(&self) -> &Db {
        &self.core.store
    }

    /// Whether the broker can be reached.
    pub fn link(&self) -> LinkState {
        self.link.borrow().clone()
    }

    /// Opens a transaction with messages, outside any handler.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn session(&self) -> Result<Session<Db>, StoreError> {
        let unit = self.core.store.begin(&[]).await?;
        Ok(Session { core: self.core.clone(), unit, posted: Vec::new() })
    }

    /// Stops: what is running is committed and acknowledged, what waits goes back to the broker, confirms are awaited.
    /// It ends within [`Settings::stop`].
    ///
    /// # Errors
    /// [`StopError`] when that time was not enough. Nothing is lost: what was cut off is run again by the next process.
    pub async fn stop(mut self) -> Result<(), StopError> {
        let Some(mut tasks) = self.tasks.take() else { return Ok(()) };
        let until = Instant::now() + self.core.settings.stop;
        tasks.receiving.cancel();
        let mut late = Vec::new();
        for lane in &mut tasks.lanes {
            if tokio::time::timeout_at(until, &mut *lane).await.is_err() {
                lane.abort();
                late.push("a unit of work was cut off: its messages will be handled again");
            }
        }
        tasks.relaying.cancel();
        if tokio::time::timeout_at(until, self.core.dispatcher.drained()).await.is_err() {
            late.push("messages were not confirmed: they are in the outbox and will be sent again");
        }
        let deleted = dispatch::delete_all(&self.core);
        if tokio::time::timeout_at(until, deleted).await.is_err() {
            late.push("confirmed messages were not deleted: they will be sent again and found to be duplicates");
        }
        for task in &tasks.rest {
            task.abort();
        }
        self.core.dispatcher.close();
        // the transport says goodbye to the broker; should it not, the broker notices by itself
        let gone = async { while self.link.changed().await.is_ok() {} };
        let _ = tokio::time::timeout_at(until, gone).await;
        if late.is_empty() { Ok(()) } else { Err(StopError { late: late.join("; ") }) }
    }
}

impl<Db: Store> Drop for Endpoint<Db> {
    fn drop(&mut self) {
        if let Some(tasks) = self.tasks.take() {
            tasks.receiving.cancel();
            tasks.relaying.cancel();
            tasks.lanes.iter().chain(&tasks.rest).for_each(JoinHandle::abort);
            self.core.dispatcher.close();
        }
    }
}

/// `stop` ran out of time.
#[derive(Debug, thiserror::Error)]
#[error("the endpoint did not finish in time: {late}")]
pub struct StopError {
    late: String,
}
