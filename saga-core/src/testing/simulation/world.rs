//! What the story of a run and the checks at its end see.

use super::{
    process::{Service, Surroundings},
    trace::CLIENT,
};
use crate::{
    Command, Destination, Encoded, Envelope, Event, Fate, Message, Session, ambient,
    endpoint::low,
    testing::{InstanceRecord, MemoryStore},
};
use serde::de::DeserializeOwned;
use std::{fmt, sync::Arc, time::Duration};

/// How soon it is looked whether a run has come to rest; each look waits longer.
const LOOK_MIN: Duration = Duration::from_millis(250);
const LOOK_MAX: Duration = Duration::from_secs(30);
/// A client whose message was not confirmed sends it again after this time.
const SEND_AGAIN: Duration = Duration::from_millis(200);

/// The services of one run of a [`Simulation`](super::Simulation), with their databases. A clone is the same world.
#[derive(Clone)]
pub struct World {
    pub(super) seed: u64,
    pub(super) services: Arc<[Service]>,
    pub(super) around: Surroundings,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl World {
    /// The seed of this run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A number below `end`, by the seed: stories differ from run to run.
    pub fn random(&self, end: u64) -> u64 {
        self.around.chance.below(end)
    }

    /// A client publishes an event at the broker. It sends it again, as the same message, until the broker has it.
    pub async fn publish<E: Event>(&self, event: E) {
        self.client(Destination::Event(E::TYPE.into()), &event).await;
    }

    /// A client sends a command. It sends it again, as the same message, until the broker has it.
    pub async fn send<C: Command>(&self, command: C) {
        self.client(Destination::Endpoint(C::QUEUE.into()), &command).await;
    }

    async fn client<M: Message>(&self, destination: Destination, message: &M) {
        let Encoded { body, .. } = Encoded::of(message);
        let envelope = Arc::new(Envelope::new(ambient::fresh_id().to_string(), M::TYPE, body));
        while self.around.broker.publish(CLIENT, &destination, &envelope) != Fate::Confirmed {
            tokio::time::sleep(SEND_AGAIN).await;
        }
    }

    /// A transaction of an endpoint, as a web request opens it. Waits until the endpoint runs and its database answers.
    /// The commit may fail, or its outcome may be unknown: then do what a client of yours does.
    ///
    /// # Panics
    /// When there is no such endpoint.
    pub async fn session(&self, endpoint: &str) -> Session<MemoryStore> {
        loop {
            let endpoint = self.service(endpoint).endpoint().await;
            if let Ok(session) = endpoint.session().await {
                return session;
            }
            tokio::time::sleep(SEND_AGAIN).await;
        }
    }

    /// The database of an endpoint.
    ///
    /// # Panics
    /// When there is no such endpoint.
    pub fn store(&self, endpoint: &str) -> &MemoryStore {
        &self.service(endpoint).store
    }

    /// What an endpoint's handlers wrote to a table of their own and committed, in that order.
    ///
    /// # Panics
    /// When there is no such endpoint, or a row cannot be read as a `T`.
    pub fn rows<T: DeserializeOwned>(&self, endpoint: &str, table: &str) -> Vec<T> {
        let rows = self.store(endpoint).rows(table).into_iter();
        let read = |row| serde_json::from_value(row).unwrap_or_else(|error| panic!("table `{table}`: {error}"));
        rows.map(read).collect()
    }

    /// The instances of a saga, by id.
    pub fn instances(&self, saga: &str) -> Vec<InstanceRecord> {
        let all = self.services.iter().flat_map(|service| service.store.instances());
        all.filter(|instance| instance.row.key.saga == saga).collect()
    }

    fn service(&self, name: &str) -> &Service {
        let service = self.services.iter().find(|service| service.name == name);
        service.unwrap_or_else(|| panic!("this simulation has no endpoint `{name}`"))
    }

    /// Waits until nothing is under way and nothing will come. Returns what still goes on after `limit`.
    pub(super) async fn rest(&self, limit: Duration) -> Result<(), String> {
        let until = tokio::time::Instant::now() + limit;
        let mut look = LOOK_MIN;
        loop {
            let failed: Vec<String> = self.services.iter().filter_map(Service::failure).collect();
            if !failed.is_empty() {
                return Err(failed.join("; "));
            }
            if let Some(missing) = self.missing() {
                return Err(missing);
            }
            let busy = self.busy();
            if busy.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() >= until {
                return Err(format!("it does not come to rest in {limit:?}: {}", busy.join("; ")));
            }
            tokio::time::sleep(look).await;
            look = (look * 3 / 2).min(LOOK_MAX);
        }
    }

    /// What waits for an endpoint that this simulation does not have, and would wait for ever.
    fn missing(&self) -> Option<String> {
        let rows = self.services.iter().flat_map(|service| service.store.outbox());
        let to_nobody = rows.filter_map(|row| match &row.destination {
            Destination::Endpoint(to) if !self.has_queue(to) => Some((to.clone(), row.envelope.type_name.clone())),
            _ => None,
        });
        let (to, type_name) = to_nobody.min()?;
        Some(format!("`{type_name}` goes to the endpoint `{to}`, which is not here: add it with `.and(\"{to}\", ..)`"))
    }

    fn has_queue(&self, name: &str) -> bool {
        self.services.iter().any(|service| name == service.name || name == low::queue(&service.name))
    }

    fn busy(&self) -> Vec<String> {
        let mut busy = self.around.broker.busy();
        for service in self.services.iter() {
            if !service.is_up() {
                busy.push(format!("endpoint `{}` does not run", service.name));
            }
            let outbox = service.store.outbox();
            if let Some(row) = outbox.first() {
                let (rows, type_name) = (outbox.len(), &row.envelope.type_name);
                busy.push(format!("outbox of `{}`: {rows} rows, the first a `{type_name}`", service.name));
            }
        }
        busy
    }

    /// What no run may end with.
    pub(super) fn wrong(&self) -> Vec<String> {
        let held = |service: &Service| {
            let name = service.name.clone();
            let rows = service.store.held().into_iter();
            rows.map(move |row| {
                let (type_name, reason) = (&row.envelope.type_name, row.reason.as_str());
                let error = row.error.map(|error| format!(": {error}")).unwrap_or_default();
                format!("`{type_name}` is held at `{name}` as {reason}{error}")
            })
        };
        self.services.iter().flat_map(held).collect()
    }
}
