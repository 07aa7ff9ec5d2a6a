//! What all tasks of an endpoint share.

use super::{
    Settings, breaker::Breaker, dispatch::Dispatcher, guard::SetAside, held_log::HeldLog, limit::Limiter, low,
    metrics::Metrics, options::KeyOf, requests::Requests, router::Receiver, saga_unit::ProjectLogic, trace::Trace,
    trouble::Trouble,
};
use crate::{
    Crashes, Retries, Store, StoreError, StoreErrorKind,
    handler::logic::{Description, HandlerLogic},
    port::Process,
    saga::{Chart, logic::SagaLogic},
};
use std::{
    collections::{BTreeMap, HashSet},
    error::Error,
    sync::{Arc, atomic::AtomicU32},
};
use tokio::sync::watch;

pub(crate) struct Shared<Db: Store> {
    pub(crate) name: String,
    /// This process, as registered in the database; its `owner` owns the leases.
    pub(crate) process: Process,
    pub(crate) store: Db,
    pub(crate) settings: Settings,
    pub(crate) retries: Retries,
    pub(crate) crashes: Crashes,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) sagas: Vec<SagaEntry<Db>>,
    pub(crate) handlers: Vec<HandlerEntry<Db>>,
    pub(crate) by_type: BTreeMap<String, Vec<Receiver>>,
    /// Commands whose outcome somebody waits for.
    pub(crate) requests: Arc<Requests>,
    /// Counts the broker's channels that brought deliveries, one after the other.
    pub(crate) channels: watch::Sender<u64>,
    /// The database is away, or its tables are not those that this binary needs.
    pub(crate) database: Trouble,
    /// The same as the relay and the heartbeat meet it, which ask the database whether messages come or not.
    pub(crate) polled: Trouble,
    pub(crate) held_log: HeldLog,
    pub(crate) set_aside: SetAside,
    pub(crate) metrics: Metrics,
    pub(crate) trace: Trace,
}

pub(crate) struct SagaEntry<Db: Store> {
    pub(crate) logic: Arc<dyn SagaLogic>,
    pub(crate) chart: Chart,
    /// Types that answer the saga's own commands: it takes them only when they are addressed to it.
    pub(crate) answers: HashSet<String>,
    pub(crate) projection: Option<Arc<dyn ProjectLogic<Db>>>,
    /// Counts failures of the projection.
    pub(crate) breaker: Breaker,
}

pub(crate) struct HandlerEntry<Db: Store> {
    pub(crate) description: Description,
    pub(crate) logic: Arc<dyn HandlerLogic<Db>>,
    /// What its messages have in common that are handled one after another.
    pub(crate) key: Option<KeyOf>,
    /// Its own policy; else the endpoint's.
    pub(crate) retries: Option<Retries>,
    /// Messages of one batch share a transaction, though each is handled by itself.
    pub(crate) shares_transactions: bool,
    /// What the service behind it can take.
    pub(crate) limit: Option<Arc<Limiter>>,
    pub(crate) breaker: Arc<Breaker>,
    /// Number of upcoming units in which each message gets a transaction of its own, because one recently failed in a
    /// shared one.
    pub(crate) single_units: AtomicU32,
}

impl<Db: Store> HandlerEntry<Db> {
    /// The limit by which each of its runs needs a call.
    pub(crate) fn limiter(&self) -> Option<&Limiter> {
        self.limit.as_deref().filter(|limiter| limiter.limits_calls())
    }

    /// Whether messages may share a transaction.
    pub(crate) fn works_together(&self) -> bool {
        self.description.takes_batches || self.shares_transactions
    }
}

impl<Db: Store> Shared<Db> {
    /// The receiver's name in the inbox.
    pub(crate) fn receiver_name(&self, receiver: Receiver) -> &'static str {
        match receiver {
            Receiver::Saga(i) => self.sagas[i].logic.name(),
            Receiver::Handler(i) => self.handlers[i].description.name,
            Receiver::Nobody => "",
        }
    }

    /// The queue from which messages of this type come.
    pub(crate) fn queue_of(&self, type_name: &str) -> String {
        let handlers = self.handlers.iter().map(|entry| entry.description).filter(|handler| handler.can_wait);
        let of_sagas = self.process.charts.iter().flat_map(|chart| &chart.messages).filter(|message| message.can_wait);
        let mut waiting = handlers.map(|it| it.type_name).chain(of_sagas.map(|it| it.type_name.as_str()));
        match waiting.any(|waits| waits == type_name) {
            true => low::queue(&self.name),
            false => self.name.clone(),
        }
    }

    /// The fields of such messages that operators do not see, as their receivers here know them.
    pub(crate) fn masked<'a>(&'a self, type_name: &'a str) -> impl Iterator<Item = &'a str> {
        let handlers = self.handlers.iter().map(|entry| entry.description).filter(move |it| it.type_name == type_name);
        let of_sagas = self.process.charts.iter().flat_map(|chart| &chart.messages);
        let of_sagas = of_sagas.filter(move |message| message.type_name == type_name);
        handlers
            .flat_map(|it| it.masked.iter().copied())
            .chain(of_sagas.flat_map(|it| it.masked.iter().map(String::as_str)))
    }

    pub(crate) fn owner(&self) -> &str {
        &self.process.owner
    }

    /// What an error from user code means, if it or one of its causes is an error of the store or its driver.
    pub(crate) fn recognise(&self, error: &(dyn Error + 'static)) -> Option<StoreErrorKind> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(ours) = error.downcast_ref::<StoreError>() {
                return Some(ours.kind());
            }
            if let Some(known) = self.store.recognise(error) {
                return Some(known.kind());
            }
            cause = error.source();
        }
        None
    }
}
