//! What an endpoint measures: all names, their labels, and who records them. docs/book/telemetry.md explains them.
//!
//! | who | what | when |
//! |---|---|---|
//! | `finish` (dispatch/finish.rs) | what a unit's one write says | after its commit |
//! | units | duplicates, which write nothing | when they are settled |
//! | lanes (waiting.rs) | conflicts | when a unit runs again |
//! | relay | how late timers are | when it leases them |
//! | transport | how many messages are in a bundle | when it leaves |
//! | housekeeping | what the database holds; breakers and the link | every [`COUNT_EVERY`] |
//!
//! The handles are made at the start, one for each label value that the endpoint knows, so a record is a few atomic
//! operations. Without a recorder, or without the feature `metrics`, it is one comparison.

use super::shared::{HandlerEntry, SagaEntry};
use crate::{
    Envelope, HeldReason, InboxResult, Store,
    port::{Counts, LeasedRow, Write},
};
use handles::{Counter, Gauge, Histogram};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// How often what the database holds is counted.
pub(super) const COUNT_EVERY: Duration = Duration::from_secs(15);
/// The most rows that one count reads of a kind: beyond it, "many" says enough.
pub(super) const COUNTED_ROWS_MAX: i64 = 50_000;

/// The label of message types and states that the endpoint does not know: strangers choose their names.
const OTHER: &str = "other";
/// The outcome of a message that was known already, beside those of [`InboxResult`].
const DUPLICATE: &str = "duplicate";

const MESSAGES: &str = "sagabus_messages_total";
const CRITICAL: &str = "sagabus_critical_seconds";
const HELD_TOTAL: &str = "sagabus_held_total";
const CONFLICTS: &str = "sagabus_conflicts_total";
const BATCH: &str = "sagabus_batch_messages";
const BUNDLE: &str = "sagabus_bundle_messages";
const COMMIT: &str = "sagabus_commit_seconds";
const TIMER_LATE: &str = "sagabus_timer_late_seconds";
const OUTBOX: &str = "sagabus_outbox_rows";
const OUTBOX_OLDEST: &str = "sagabus_outbox_oldest_seconds";
const UNROUTABLE: &str = "sagabus_outbox_unroutable_rows";
const HELD: &str = "sagabus_held_messages";
const INSTANCES: &str = "sagabus_instances";
const PAUSED: &str = "sagabus_paused_instances";
const BREAKER: &str = "sagabus_breaker_open";
const LINK: &str = "sagabus_link_up";

/// What a name measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    /// In messages.
    Sizes,
    /// In seconds.
    Times,
    Gauge,
}

/// All names, with what an exporter says of them.
const NAMES: [(&str, Kind, &str); 16] = [
    (MESSAGES, Kind::Counter, "Messages that a saga or handler of the endpoint settled or put off, by outcome"),
    (CRITICAL, Kind::Times, "Time from the sending of a message until it was settled; timers are left out"),
    (HELD_TOTAL, Kind::Counter, "Messages that were held, by reason"),
    (CONFLICTS, Kind::Counter, "Units of work that ran again because they met another one"),
    (BATCH, Kind::Sizes, "Messages that one transaction settled"),
    (BUNDLE, Kind::Sizes, "Messages that left in one message of the broker"),
    (COMMIT, Kind::Times, "Time that a commit took"),
    (TIMER_LATE, Kind::Times, "Time by which a timer left after it was due"),
    (OUTBOX, Kind::Gauge, "Messages in the outbox that are due or sent, and not confirmed"),
    (OUTBOX_OLDEST, Kind::Gauge, "Age in seconds of the oldest of them; 0 if there is none"),
    (UNROUTABLE, Kind::Gauge, "Messages in the outbox that no queue takes"),
    (HELD, Kind::Gauge, "Messages that are held, by reason"),
    (INSTANCES, Kind::Gauge, "Instances by saga and state"),
    (PAUSED, Kind::Gauge, "Instances that a failed message has paused, by saga"),
    (BREAKER, Kind::Gauge, "1 while a handler or projection runs one message at a time because messages failed"),
    (LINK, Kind::Gauge, "1 while the endpoint reaches its broker"),
];

/// The metrics of one endpoint.
pub(crate) struct Metrics {
    is_on: bool,
    types: HashMap<String, OfType>,
    other: OfType,
    held_total: HashMap<HeldReason, Counter>,
    conflicts: Counter,
    batch: Histogram,
    commit: Histogram,
    timer_late: Histogram,
    outbox: Gauge,
    outbox_oldest: Gauge,
    unroutable: Gauge,
    held: BTreeMap<&'static str, Gauge>,
    sagas: BTreeMap<String, OfSaga>,
    breakers: BTreeMap<&'static str, Gauge>,
    link: Gauge,
}

/// What is recorded of each message type.
struct OfType {
    outcomes: HashMap<InboxResult, Counter>,
    duplicate: Counter,
    critical: Histogram,
}

impl OfType {
    fn new(endpoint: &str, type_name: &str) -> Self {
        let outcome = |outcome| handles::counter(MESSAGES, &[("endpoint", endpoint), ("type", type_name), outcome]);
        // a suspect is not settled: it runs, and then has another outcome
        let outcomes = InboxResult::ALL.iter().filter(|result| **result != InboxResult::Suspect);
        Self {
            outcomes: outcomes.map(|result| (*result, outcome(("outcome", result.as_str())))).collect(),
            duplicate: outcome(("outcome", DUPLICATE)),
            critical: handles::histogram(CRITICAL, &[("endpoint", endpoint), ("type", type_name)]),
        }
    }
}

/// Instances of one saga.
struct OfSaga {
    states: BTreeMap<String, Gauge>,
    paused: Gauge,
}

impl Metrics {
    /// Handles for everything that the endpoint knows. `types` are the types of its messages.
    pub(super) fn new<'a, Db: Store>(
        endpoint: &str,
        types: impl Iterator<Item = &'a String>,
        sagas: &[SagaEntry<Db>],
        handlers: &[HandlerEntry<Db>],
    ) -> Self {
        let is_on = handles::is_on();
        if is_on {
            NAMES.iter().for_each(|(name, kind, help)| handles::describe(name, *kind, help));
        }
        let own = [("endpoint", endpoint)];
        let reason = |name, reason: &HeldReason| {
            (reason.as_str(), handles::gauge(name, &[("endpoint", endpoint), ("reason", reason.as_str())]))
        };
        let of_saga = |saga: &SagaEntry<Db>| {
            let name = saga.chart.saga.clone();
            let states = saga.chart.states.iter().map(|state| state.name.as_str()).chain([OTHER]);
            let states = states.map(|state| {
                let labels = [("endpoint", endpoint), ("saga", &name), ("state", state)];
                (state.to_owned(), handles::gauge(INSTANCES, &labels))
            });
            let states = states.collect();
            let paused = handles::gauge(PAUSED, &[("endpoint", endpoint), ("saga", &name)]);
            (name, OfSaga { states, paused })
        };
        let receivers = sagas.iter().filter(|saga| saga.projection.is_some()).map(|saga| saga.logic.name());
        let receivers = receivers.chain(handlers.iter().map(|handler| handler.description.name));
        let breaker = |name| (name, handles::gauge(BREAKER, &[("endpoint", endpoint), ("receiver", name)]));
        Self {
            is_on,
            types: types.map(|name| (name.clone(), OfType::new(endpoint, name))).collect(),
            other: OfType::new(endpoint, OTHER),
            held_total: HeldReason::ALL
                .iter()
                .map(|reason| {
                    let labels = [("endpoint", endpoint), ("reason", reason.as_str())];
                    (*reason, handles::counter(HELD_TOTAL, &labels))
                })
                .collect(),
            conflicts: handles::counter(CONFLICTS, &own),
            batch: handles::histogram(BATCH, &own),
            commit: handles::histogram(COMMIT, &own),
            timer_late: handles::histogram(TIMER_LATE, &own),
            outbox: handles::gauge(OUTBOX, &own),
            outbox_oldest: handles::gauge(OUTBOX_OLDEST, &own),
            unroutable: handles::gauge(UNROUTABLE, &own),
            held: HeldReason::ALL.iter().map(|it| reason(HELD, it)).collect(),
            sagas: sagas.iter().map(of_saga).collect(),
            breakers: receivers.map(breaker).collect(),
            link: handles::gauge(LINK, &own),
        }
    }

    /// Whether anybody listens: only then the database is asked for counts.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    fn of(&self, envelope: &Envelope) -> &OfType {
        self.types.get(&envelope.type_name).unwrap_or(&self.other)
    }

    /// A unit of work was committed at `now_us`, by this process's clock.
    pub(super) fn committed(&self, write: &Write, took: Duration, now_us: i64) {
        if !self.is_on {
            return;
        }
        self.commit.record(took.as_secs_f64());
        let mut messages: u32 = 0;
        for row in write.claims.iter().chain(write.completes.iter().map(|(row, _)| row)) {
            messages += 1;
            let of_type = self.of(&row.envelope);
            if let Some(outcome) = of_type.outcomes.get(&row.result) {
                outcome.increment(1);
            }
            let is_timer = row.envelope.saga.as_ref().is_some_and(|saga| saga.timer.is_some());
            if let Some(sent) = row.envelope.sent_at_us.filter(|_| row.result.is_final() && !is_timer) {
                of_type.critical.record(now_us.saturating_sub(sent).max(0) as f64 / 1e6); // clocks differ a little
            }
        }
        for row in &write.held_in {
            if let Some(held) = self.held_total.get(&row.reason) {
                held.increment(1);
            }
        }
        if messages > 0 {
            self.batch.record(f64::from(messages));
        }
    }

    /// A message was known already.
    pub(super) fn duplicate(&self, envelope: &Envelope) {
        if self.is_on {
            self.of(envelope).duplicate.increment(1);
        }
    }

    /// A unit runs again because it met another one.
    pub(super) fn conflict(&self) {
        self.conflicts.increment(1);
    }

    /// Rows leave that nobody sent from memory.
    pub(super) fn leased(&self, rows: &[LeasedRow]) {
        if self.is_on {
            rows.iter().filter_map(|row| row.late).for_each(|late| self.timer_late.record(late.as_secs_f64()));
        }
    }

    /// The link, and the handlers and projections whose breaker is open.
    pub(super) fn state(&self, link_is_up: bool, open: &[&str]) {
        self.link.set(number(link_is_up));
        self.breakers.iter().for_each(|(name, breaker)| breaker.set(number(open.contains(name))));
    }

    /// What the database holds. What it does not name is not there.
    pub(super) fn counted(&self, counts: &Counts) {
        self.outbox.set(counts.outbox as f64);
        self.outbox_oldest.set(counts.outbox_oldest.unwrap_or_default().as_secs_f64());
        self.unroutable.set(counts.unroutable as f64);
        for (reason, held) in &self.held {
            let count = counts.held.iter().filter(|(it, _)| it.as_str() == *reason).map(|(_, count)| count);
            held.set(count.sum::<i64>() as f64);
        }
        for (name, saga) in &self.sagas {
            let counts = || counts.instances.iter().filter(|it| it.saga == *name);
            for (state, instances) in &saga.states {
                let is_other = |it: &str| state == OTHER && !saga.states.contains_key(it);
                let of_state = counts().filter(|it| it.state == *state || is_other(&it.state));
                instances.set(of_state.map(|it| it.count).sum::<i64>() as f64);
            }
            saga.paused.set(counts().map(|it| it.paused).sum::<i64>() as f64);
        }
    }
}

fn number(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

/// How many messages leave in one message of the broker: `sagabus_bundle_messages`. For transports that bundle.
///
/// ```
/// use sagabus::port::BundleSizes;
///
/// let sizes = BundleSizes::new("ordering");
/// sizes.sent(42);
/// ```
#[derive(Debug)]
pub struct BundleSizes(Histogram);

impl BundleSizes {
    /// Of what this endpoint sends.
    pub fn new(endpoint: &str) -> Self {
        Self(handles::histogram(BUNDLE, &[("endpoint", endpoint)]))
    }

    /// A message of the broker with so many messages leaves.
    pub fn sent(&self, messages: usize) {
        self.0.record(messages as f64);
    }
}

/// The facade's handles.
#[cfg(feature = "metrics")]
mod handles {
    use super::Kind;
    pub(super) use metrics::{Counter, Gauge, Histogram};
    use metrics::{Label, SharedString, Unit};

    /// Whether a recorder is installed: the one that stands in for none is the only one without any state.
    pub(super) fn is_on() -> bool {
        metrics::with_recorder(|recorder| size_of_val(recorder) > 0)
    }

    fn labels(labels: &[(&'static str, &str)]) -> Vec<Label> {
        labels.iter().map(|(name, value)| Label::new(*name, SharedString::from((*value).to_owned()))).collect()
    }

    pub(super) fn counter(name: &'static str, of: &[(&'static str, &str)]) -> Counter {
        metrics::counter!(name, labels(of))
    }

    pub(super) fn gauge(name: &'static str, of: &[(&'static str, &str)]) -> Gauge {
        metrics::gauge!(name, labels(of))
    }

    pub(super) fn histogram(name: &'static str, of: &[(&'static str, &str)]) -> Histogram {
        metrics::histogram!(name, labels(of))
    }

    pub(super) fn describe(name: &'static str, kind: Kind, help: &'static str) {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, Unit::Count, help),
            Kind::Sizes => metrics::describe_histogram!(name, Unit::Count, help),
            Kind::Times => metrics::describe_histogram!(name, Unit::Seconds, help),
            Kind::Gauge => metrics::describe_gauge!(name, help),
        }
    }
}

/// Handles of nothing.
#[cfg(not(feature = "metrics"))]
mod handles {
    use super::Kind;

    #[derive(Debug)]
    pub(super) struct Counter;
    #[derive(Debug)]
    pub(super) struct Gauge;
    #[derive(Debug)]
    pub(super) struct Histogram;

    impl Counter {
        pub(super) fn increment(&self, _: u64) {}
    }

    impl Gauge {
        pub(super) fn set(&self, _: f64) {}
    }

    impl Histogram {
        pub(super) fn record(&self, _: f64) {}
    }

    pub(super) fn is_on() -> bool {
        false
    }

    pub(super) fn counter(_: &'static str, _: &[(&'static str, &str)]) -> Counter {
        Counter
    }

    pub(super) fn gauge(_: &'static str, _: &[(&'static str, &str)]) -> Gauge {
        Gauge
    }

    pub(super) fn histogram(_: &'static str, _: &[(&'static str, &str)]) -> Histogram {
        Histogram
    }

    pub(super) fn describe(_: &'static str, _: Kind, _: &'static str) {}
}
