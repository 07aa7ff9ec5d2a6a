//! What all tasks of an endpoint share.

use super::{breaker::Breaker, dispatch::Dispatcher};
use crate::{
    Faults, Retries, Store, StoreError,
    handler::{About, HandlerLogic},
    project::ProjectLogic,
    saga::run::SagaLogic,
};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

/// An endpoint's settings. Each has a default that fits a service with a few thousand messages a second.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Units of work for sagas that run at a time. Fewer make fuller batches; the default is one for two cores.
    pub saga_lanes: usize,
    /// Units of work for handlers that run at a time: more for handlers that wait for others (a bank, a carrier), one for
    /// handlers that only write to the database. The default is one for each core, at least two.
    pub handler_lanes: usize,
    /// Messages in one unit of work, at most.
    pub batch_messages_max: usize,
    /// Deliveries that may be unacknowledged at a time.
    pub prefetch: u16,
    /// Published messages that may await their confirm at a time; what does not fit waits in the outbox.
    pub window: usize,
    /// How long a process owns the outbox rows that it publishes.
    pub lease: Duration,
    /// How often the outbox is looked through when nothing is known to be due.
    pub poll: Duration,
    /// How long a publish may wait for its confirm.
    pub confirm: Duration,
    /// How long `start` waits for broker and database.
    pub connect: Duration,
    /// How long a handler may run.
    pub handler_time: Duration,
    /// How long `stop` waits for what is running.
    pub stop: Duration,
    /// How long inbox rows and done instances are kept.
    pub retention: Duration,
    /// How long a message waits for its instance to start.
    pub early: Duration,
    /// The largest body that is taken, in bytes.
    pub body_bytes_max: usize,
    /// Declare nothing at the broker: everything was provisioned by hand.
    pub passive: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            saga_lanes: (cores / 2).clamp(1, 8),
            handler_lanes: cores.clamp(2, 8),
            batch_messages_max: 200,
            prefetch: 1000,
            window: 4096,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(2),
            confirm: Duration::from_secs(10),
            connect: Duration::from_secs(30),
            handler_time: Duration::from_secs(300),
            stop: Duration::from_secs(8),
            retention: Duration::from_secs(7 * 86_400),
            early: Duration::from_secs(3600),
            body_bytes_max: 4 << 20,
            passive: false,
        }
    }
}

pub(crate) struct Core<Db: Store> {
    pub(crate) name: String,
    /// This process: the owner of its leases.
    pub(crate) owner: String,
    pub(crate) store: Db,
    pub(crate) settings: Settings,
    pub(crate) retries: Retries,
    pub(crate) faults: Faults,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) sagas: Vec<SagaEntry<Db>>,
    pub(crate) handlers: Vec<HandlerEntry<Db>>,
    pub(crate) by_type: HashMap<String, Vec<Target>>,
}

pub(crate) struct SagaEntry<Db: Store> {
    pub(crate) logic: Arc<dyn SagaLogic>,
    pub(crate) projection: Option<Arc<dyn ProjectLogic<Db>>>,
}

pub(crate) struct HandlerEntry<Db: Store> {
    pub(crate) about: About,
    pub(crate) logic: Arc<dyn HandlerLogic<Db>>,
    pub(crate) retries: Option<Retries>,
    pub(crate) breaker: Breaker,
    /// So many units of work are parted by savepoints, because the handler failed after it had written.
    pub(crate) careful_units: AtomicU32,
}

impl<Db: Store> HandlerEntry<Db> {
    pub(crate) fn new(logic: Arc<dyn HandlerLogic<Db>>) -> Self {
        Self {
            about: logic.about(),
            logic,
            retries: None,
            breaker: Breaker::default(),
            careful_units: AtomicU32::new(0),
        }
    }
}

/// Who a message is for: a saga or a handler, by its place in the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Saga(usize),
    Handler(usize),
    /// Nobody knows it: it will be held.
    Nobody,
}

impl<Db: Store> Core<Db> {
    /// The receiver's name in the inbox.
    pub(crate) fn receiver(&self, target: Target) -> &'static str {
        match target {
            Target::Saga(i) => self.sagas[i].logic.name(),
            Target::Handler(i) => self.handlers[i].about.name,
            Target::Nobody => "",
        }
    }
}

impl<Db: Store> Core<Db> {
    /// Whether an error that user code handed on is the database's own trouble: then nobody's attempt is counted.
    pub(crate) fn store_error(&self, error: &(dyn std::error::Error + 'static)) -> Option<StoreError> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let ours = error.downcast_ref::<StoreError>();
            if ours.is_some_and(StoreError::is_transient) {
                return Some(StoreError::Unavailable(error.to_string()));
            }
            if let Some(known) = self.store.recognise(error).filter(StoreError::is_transient) {
                return Some(known);
            }
            cause = error.source();
        }
        None
    }
}

/// Microseconds since 1970 by this process's clock: good for `sent-at`, for nothing that decides.
pub(crate) fn now_us() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}
