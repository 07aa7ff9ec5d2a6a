//! Whole endpoints on a store in memory and a broker in the test's hands. Time is tokio's and paused: hours pass at
//! once.

mod admission;
mod aliases;
mod backlog;
mod broker;
mod channels;
mod check;
mod database;
mod dialects;
mod duplicates;
mod fields;
mod given_up;
mod handlers;
mod identity;
mod later;
mod life;
mod limits;
mod logs;
mod posted;
mod projections;
mod rejected;
mod restarts;
mod returned;
mod saga_answers;
mod saga_life;
mod saga_timers;
mod sending;
mod sessions;
mod slips;
mod statements;
mod suspects;
mod taken_back;
mod together;
mod versions;
mod waiting;

use crate::{
    Endpoint, EndpointBuilder, Envelope, HeldReason, InboxResult, Message, Retries, SagaRef, Settings, StartError,
    StoreErrorKind,
    testing::{HeldRecord, InboxRecord, MemoryStore, Operation, OutboxRecord},
};
use broker::Broker;
use dialects::*;
use std::time::Duration;

/// The endpoint under test.
const NAME: &str = "shop";

/// An endpoint, its store and its broker.
struct Rig {
    store: MemoryStore,
    broker: Broker,
    endpoint: Endpoint<MemoryStore>,
}

type Builder = EndpointBuilder<MemoryStore>;

/// One lane for sagas and one for each handler: what is delivered together is one batch.
fn plain(settings: &mut Settings) {
    settings.saga_lanes = 1;
    settings.handler_lanes = 1;
}

impl Rig {
    async fn start(build: impl FnOnce(Builder) -> Builder) -> Self {
        Self::start_on(MemoryStore::new(), Broker::new(), build).await.expect("the endpoint was expected to start")
    }

    async fn start_on(
        store: MemoryStore,
        broker: Broker,
        build: impl FnOnce(Builder) -> Builder,
    ) -> Result<Self, StartError> {
        let builder = Endpoint::builder(NAME, broker.clone(), store.clone()).settings(plain);
        let endpoint = build(builder).start().await?;
        Ok(Self { store, broker, endpoint })
    }

    /// With the saga `walk` alone.
    async fn walk() -> Self {
        Self::start(|builder| builder.saga::<Walk>()).await
    }

    /// With a handler for [`Do`] that follows a script, and retries neither at once nor later.
    async fn scripted(script: &Script) -> Self {
        Self::start(|builder| builder.retries(Retries::none()).handle::<Do>(script.clone())).await
    }

    /// Waits until `condition` holds, up to a minute of the test's time.
    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        self.until_within(Duration::from_secs(60), what, condition).await;
    }

    async fn until_within(&self, limit: Duration, what: &str, condition: impl Fn(&Self) -> bool) {
        let step = (limit / 1000).max(Duration::from_millis(10));
        for _ in 0..=limit.as_nanos() / step.as_nanos() {
            if condition(self) {
                return;
            }
            tokio::time::sleep(step).await;
        }
        panic!("{what}: not within {limit:?}; {}", self.says());
    }

    /// Waits until every delivery so far is acknowledged.
    async fn all_acked(&self) {
        self.until("every delivery is acknowledged", |rig| rig.broker.is_done()).await;
    }

    fn says(&self) -> String {
        let held: Vec<_> = self.store.held().iter().map(|row| (row.envelope.message_id.clone(), row.reason)).collect();
        let inbox: Vec<_> = self.store.inbox().iter().map(|row| (row.message_id.clone(), row.result)).collect();
        let some = inbox.iter().take(20).collect::<Vec<_>>();
        let (open, queued, rows) = (self.broker.open(), self.broker.queued(), inbox.len());
        format!("held {held:?}, {rows} rows of the inbox {some:?}, {open} unacknowledged, {queued} in the queue")
    }

    /// The inbox row of a message at its one receiver.
    fn inbox(&self, message_id: &str) -> InboxRecord {
        let rows = self.store.inbox();
        let mut rows = rows.into_iter().filter(|row| row.message_id == message_id);
        let row = rows.next().unwrap_or_else(|| panic!("no inbox row of {message_id}; {}", self.says()));
        assert!(rows.next().is_none(), "{message_id} has several receivers");
        row
    }

    fn result(&self, message_id: &str) -> InboxResult {
        self.inbox(message_id).result
    }

    /// Held messages, in order of arrival: id and reason.
    fn held(&self) -> Vec<(String, HeldReason)> {
        self.store.held().into_iter().map(|row| (row.envelope.message_id.clone(), row.reason)).collect()
    }

    fn the_held(&self) -> HeldRecord {
        let mut held = self.store.held();
        assert_eq!(held.len(), 1, "one held message was expected; {}", self.says());
        held.remove(0)
    }

    /// The one row in the outbox.
    fn the_outbox(&self) -> OutboxRecord {
        let mut rows = self.store.outbox();
        assert_eq!(rows.len(), 1, "one row in the outbox was expected: {rows:?}");
        rows.remove(0)
    }

    /// What handlers wrote about their runs that committed: the numbers in the messages.
    fn done(&self) -> Vec<u64> {
        let rows = self.store.rows("done");
        rows.iter().map(|row| row.as_u64().expect("handlers write numbers")).collect()
    }

    /// State and number of transitions of an instance of `walk`.
    fn walk_at(&self, id: u64) -> (String, i64) {
        let found = self.store.instances().into_iter().find(|found| found.row.key.id == id.to_string());
        let row = found.unwrap_or_else(|| panic!("no instance {id}; {}", self.says())).row;
        (row.state, row.seq)
    }

    /// The steps that an instance of `walk` has taken, in their order.
    fn steps(&self, id: u64) -> Vec<u32> {
        let found = self.store.instances().into_iter().find(|found| found.row.key.id == id.to_string());
        let row = found.unwrap_or_else(|| panic!("no instance {id}; {}", self.says())).row;
        let data: serde_json::Value = serde_json::from_str(&row.data).expect("a state is JSON");
        serde_json::from_value(data["steps"].clone()).expect("a state of `walk` has its steps")
    }
}

/// A message as a stranger sends it.
fn message<M: Message>(id: impl Into<String>, message: &M) -> Envelope {
    Envelope::new(id, M::TYPE, message.__encode().expect("it is JSON"))
}

fn command(n: u64) -> Envelope {
    message(format!("do-{n}"), &Do { n })
}

fn begin(id: u64) -> Envelope {
    message(format!("begin-{id}"), &Begin { id })
}

fn step(id: u64, n: u32) -> Envelope {
    message(format!("step-{id}-{n}"), &Step { id, n })
}

fn from_instance(saga: &str, id: &str, envelope: Envelope) -> Envelope {
    Envelope { saga: Some(SagaRef { saga: saga.into(), id: id.into(), entered: None, timer: None }), ..envelope }
}

/// Lets this operation fail as long as it lasts.
fn away(store: &MemoryStore, operation: Operation, kind: StoreErrorKind) {
    store.fail_while(move |asked| (asked == operation).then_some(kind));
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
