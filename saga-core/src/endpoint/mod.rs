//! The endpoint: receives messages, runs sagas and handlers, and sends what they return.
//!
//! # The way of one message
//!
//! ```text
//! transport:   a delivery, with the right to acknowledge it                                     port/transport.rs
//! router:      for each delivery:                                                               router.rs
//!   admit:       envelope → receivers → decode the body, find the instance → one item each
//!                (what cannot be handled becomes an item that says why)
//!                send the item to the lane of its order key
//!                (a message with an alias goes to the lane of the alias)
//! lane:        take all waiting items; run units of work;                                       lane.rs
//!              wait for the database; never give up                                             handler_lane.rs
//!   find:        look up the aliases; on to the lanes of the instances, or hold as early         finding.rs
//!   unit:        begin a transaction, trying to lock the instances (a locked one waits)         saga_unit.rs
//!                read inbox, instances, what is held for them                                   handler_unit.rs
//!                judge: which messages run, which are duplicates                                judge.rs
//!                decide: transitions (pure), or the handler runs                                saga/run.rs
//!                lock and look up the aliases that instances take; decide again if need be      aliases.rs
//!                        on failure the policy says what next                                   policy.rs
//!                ledger: gather inbox, instance, outbox and held rows                           ledger.rs
//!   finish:      write them all in one statement; commit; measure it                            dispatch/finish.rs
//!                hand the messages to the dispatcher
//!              acknowledge
//! dispatcher:  publish from memory, in a window of confirms; leave the rest to the relay        dispatch.rs
//! transport:   a report for each: confirmed, unroutable, refused, unknown
//! leases:      put off what failed; renew the leases of the rest                                dispatch.rs
//!              wait by destination                                                              destinations.rs
//! confirmed:   delete the rows that arrived                                                     dispatch.rs
//! relay:       lease rows that are due (timers, retries, rows that did not fit the window,
//!              rows of dead processes) and hand them to the dispatcher                          relay.rs
//! ```
//!
//! # Who sends what to whom
//!
//! | from | to | what | bound |
//! |---|---|---|---|
//! | transport | router | deliveries | prefetch, in messages and bytes |
//! | router | lane | items, through its inlet (inlet.rs) | by the same prefetch |
//! | lane | transport | acknowledgements, through the item's guard | by the same prefetch |
//! | unit | dispatcher → transport | messages to publish | window |
//! | transport | leases | reports | window |
//! | leases | confirmed, relay | a wake-up; the lists are in the dispatcher | window |
//!
//! Requests bypass all this: they have a link of their own (requests.rs).
//!
//! One supervisor owns all tasks (supervisor.rs). A saga lane works on instances, and one instance is always in the
//! same lane; each handler has its own lanes, so that a handler that fails or waits does not hold up another.

mod aliases;
mod backlog;
mod breaker;
mod builder;
mod check;
mod destinations;
mod dispatch;
mod emission;
mod finding;
mod groups;
mod guard;
mod handler_lane;
mod handler_unit;
mod held_log;
mod hold_unit;
mod housekeeping;
mod inlet;
mod judge;
mod lane;
mod ledger;
mod limit;
pub(crate) mod low;
mod metrics;
mod mistake;
mod options;
mod pass;
mod policy;
mod progress;
mod queue;
mod relay;
mod request;
mod requests;
mod router;
mod saga_unit;
mod session;
mod settings;
mod shared;
mod start;
mod supervisor;
mod take_back;
#[cfg(test)]
mod tests;
mod trace;
mod trouble;
mod waiting;
mod wiring;

pub use builder::{EndpointBuilder, StartError};
pub use check::{Checked, Unreadable, UnreadableKind};
pub use limit::Limit;
pub use metrics::BundleSizes;
pub use mistake::Mistake;
pub use options::HandlerOptions;
pub use request::{Pending, Request, RequestError, RequestErrorKind, Requested};
pub use session::Session;
pub use settings::{Bundles, Settings};
pub use supervisor::Ended;
pub use trace::{TraceContext, TraceHeaders};
pub use wiring::Wiring;

use crate::{Command, LinkState, ReadOutcome, Store, StoreError, Transport};
use shared::Shared;
use std::{fmt, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A running endpoint. [`Endpoint::stop`] finishes what is running. Dropping it stops without finishing; nothing is
/// lost either way.
///
/// ```no_run
/// # async fn example<Db: sagabus::port::Store>(
/// #     transport: impl sagabus::port::Transport,
/// #     store: Db,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use sagabus::Endpoint;
///
/// let ordering = Endpoint::builder("ordering", transport, store).start().await?;
/// ordering.stop().await?;
/// # Ok(()) }
/// ```
pub struct Endpoint<Db: Store> {
    shared: Arc<Shared<Db>>,
    link: watch::Receiver<LinkState>,
    stop: CancellationToken,
    abandon: CancellationToken,
    ended: watch::Receiver<Option<Ended>>,
}

impl<Db: Store> fmt::Debug for Endpoint<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.shared.name).field("owner", &self.shared.owner()).finish()
    }
}

impl<Db: Store> Endpoint<Db> {
    /// Begins an endpoint. Its queue and its rows in the database carry this name.
    pub fn builder(name: impl Into<String>, transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
        EndpointBuilder::new(name.into(), Arc::new(transport), store)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// This process, as `inbox.handled_by` and `outbox.lease_owner` name it.
    pub fn owner(&self) -> &str {
        self.shared.owner()
    }

    /// Its store.
    pub fn store(&self) -> &Db {
        &self.shared.store
    }

    /// Whether the broker can be reached and the endpoint works.
    pub fn link(&self) -> LinkState {
        self.link.borrow().clone()
    }

    /// Whether the database can be reached, as the endpoint's own work met it last: it asks every
    /// [`Settings::poll`], and every 30 s while the broker is away. Nothing is asked for this call, so a health check
    /// may make it as often as it likes.
    ///
    /// ```no_run
    /// # fn example<Db: sagabus::port::Store>(ordering: &sagabus::Endpoint<Db>) {
    /// use sagabus::endpoint::DatabaseState;
    ///
    /// if let DatabaseState::Down(why) = ordering.database() {
    ///     println!("not ready: {why}");
    /// }
    /// # }
    /// ```
    pub fn database(&self) -> DatabaseState {
        let why = self.shared.database.why().or_else(|| self.shared.polled.why());
        why.map_or(DatabaseState::Up, DatabaseState::Down)
    }

    /// Opens a transaction with messages, outside any handler.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn session(&self) -> Result<Session<Db>, StoreError> {
        Session::begin(self.shared.clone()).await
    }

    /// A command whose outcome the caller waits for: from a web request, say. It is sent at once, without database and
    /// outbox, and its answer comes to a queue that this process has for itself. It is as durable as this process:
    /// where the outcome must not be lost, begin a saga with [`session`](Self::session) instead.
    ///
    /// ```
    /// use sagabus::{port::Store, prelude::*};
    /// use serde::{Deserialize, Serialize};
    /// # #[derive(Reply, Serialize, Deserialize)] struct BoardingPass { seat: String }
    /// # #[derive(Reply, Serialize, Deserialize)] struct Refused { why: String }
    ///
    /// #[derive(Command, Serialize, Deserialize)]
    /// #[command(to = "check-in", outcome = CheckedIn)]
    /// struct CheckIn { ticket: u64 }
    ///
    /// #[derive(Outcome)]
    /// enum CheckedIn { Pass(BoardingPass), Refused(Refused) }
    ///
    /// async fn check_in<Db: Store>(web: &Endpoint<Db>, ticket: u64) -> Result<String, Box<dyn std::error::Error>> {
    ///     Ok(match web.request(CheckIn { ticket }).within(seconds(1)).await? {
    ///         Requested::Answered(CheckedIn::Pass(pass)) => format!("200: seat {}", pass.seat),
    ///         Requested::Answered(CheckedIn::Refused(refused)) => format!("409: {}", refused.why),
    ///         Requested::Pending(pending) => format!("202: ask again for {}", pending.id()),
    ///     })
    /// }
    /// ```
    pub fn request<C: Command>(&self, command: C) -> Request<C>
    where
        C::Outcome: ReadOutcome,
    {
        Request::new(self.shared.requests.clone(), &command)
    }

    /// Waits until the endpoint has ended, and says how. An endpoint can fail by itself, so a service awaits this next
    /// to its own shutdown signal, and exits.
    pub async fn ended(&self) -> Ended {
        ended(self.ended.clone()).await
    }

    /// Stops: commits and acknowledges what is running, gives back what waits to the broker, and awaits confirms. It
    /// ends within [`Settings::stop`], even if this future is dropped before.
    ///
    /// # Errors
    /// [`Ended::CutOff`] when that time was not enough, [`Ended::Failed`] when it had failed before. Nothing is lost:
    /// the next process runs again what was cut off.
    pub async fn stop(self) -> Result<(), Ended> {
        self.stop.cancel();
        let has_ended = self.ended.clone();
        drop(self); // it goes on by itself from here on
        match ended(has_ended).await {
            Ended::Stopped => Ok(()),
            other => Err(other),
        }
    }
}

/// Whether the database can be reached; see [`Endpoint::database`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseState {
    /// It does what it is asked.
    Up,
    /// It is away or full or read-only, or refuses what it is asked because its tables are not those that this program
    /// needs: the latest error. Messages wait, no run is counted, and the endpoint goes on by itself.
    Down(String),
}

async fn ended(mut has_ended: watch::Receiver<Option<Ended>>) -> Ended {
    let ended = has_ended.wait_for(Option::is_some).await.map(|how| how.clone());
    ended.ok().flatten().unwrap_or_else(|| Ended::Failed("its runtime has ended".into()))
}

impl<Db: Store> Drop for Endpoint<Db> {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.abandon.cancel();
        }
    }
}
