//! What needs a person, according to a status.

mod processes;

use crate::text::{age, quoted, some_of};
use saga_core::{EndpointStatus, ErrorCode, HeldCount, HeldReason, StateCount, Status};
use std::fmt;

/// A process writes a heartbeat every ten seconds; after this time without one it is taken for dead.
pub(crate) const SILENT_MS: i64 = 90_000;
/// Due messages are sent at once; after this time something is in their way.
const STUCK_MS: i64 = 60_000;
/// A rolling deployment is over by then. What still waits for a version or a type that no process knows will wait until
/// somebody deploys it: a handler may have been forgotten.
const DEPLOYED_MS: i64 = 3_600_000;
/// An instance that has not changed for this long may wait for something that never comes, or for a customer.
const LINGERS_MS: i64 = 86_400_000;

/// The most troubles that a page shows, of thousands that there may be.
pub(crate) const TOLD_MAX: usize = 50;

/// Something that needs a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Its kind.
    pub(crate) code: ErrorCode,
    /// What it is about: with its kind it tells it from all others, and stays while numbers, ages and names change.
    pub(crate) about: Vec<String>,
    /// What, since when, and why if that is known.
    pub(crate) text: String,
    /// What shows it.
    pub(crate) see: Command,
    /// What mends it, when its cause is gone. There may be no such command.
    pub(crate) mend: Option<Command>,
}

/// A command of this program. Its words in capitals stand for what a person fills in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    /// The words before the options.
    pub(crate) words: String,
    /// Options, with their values if they have any.
    pub(crate) options: Vec<(&'static str, Option<String>)>,
}

impl Command {
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self { words: words.into(), options: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.options.push((name, Some(value.into())));
        self
    }

    pub(crate) fn set(mut self, name: &'static str) -> Self {
        self.options.push((name, None));
        self
    }

    fn because(self) -> Self {
        self.with("reason", "TEXT")
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sagabus {}", self.words)?;
        for (name, value) in &self.options {
            write!(f, " --{name}")?;
            value.iter().try_for_each(|value| write!(f, " {}", quoted(value)))?;
        }
        Ok(())
    }
}

/// The parts of what a trouble is about.
fn about<const N: usize>(parts: [&str; N]) -> Vec<String> {
    parts.map(str::to_owned).into()
}

impl Trouble {
    /// What tells it from all other troubles of its database for as long as it lasts.
    pub(crate) fn key(&self) -> String {
        format!("{}\n{}", self.about.join("\n"), self.code.as_str())
    }

    /// The text with the code at its end.
    pub(crate) fn told(&self) -> String {
        self.code.told(&self.text)
    }
}

/// On one line.
impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.told(), self.see)?;
        self.mend.iter().try_for_each(|mend| write!(f, "; then {mend}"))
    }
}

/// What needs a person.
pub(crate) fn troubles(status: &Status) -> Vec<Trouble> {
    let mut all = Vec::new();
    for endpoint in &status.endpoints {
        all.extend(endpoint.held.iter().filter_map(|held| of_held(&endpoint.endpoint, held)));
        outbox(endpoint, &mut all);
        processes::troubles(endpoint, status.now_us, &mut all);
    }
    let by = paused_by(status);
    all.extend(status.instances.iter().filter(|state| state.paused > 0).map(|state| paused(state, by)));
    all
}

/// States in which an instance has been for long. It may need a person: only who knows the saga can tell.
pub(crate) fn lingering(status: &Status) -> Vec<Trouble> {
    let lingers = |state: &&StateCount| state.waiting_ms > LINGERS_MS;
    let trouble = |state: &StateCount| {
        let (saga, state, oldest) = (&state.saga, &state.state, age(state.waiting_ms));
        let list = Command::new("sagas list").with("saga", saga).with("state", state).set("open");
        Trouble {
            code: ErrorCode::InstanceLingers,
            about: about([saga, state]),
            text: format!("{saga}: an instance in {state} has not changed for {oldest}"),
            see: list.with("older-than", "1d"),
            mend: Some(Command::new(format!("sagas send {} ID TYPE", quoted(saga))).with("body", "JSON").because()),
        }
    };
    status.instances.iter().filter(lingers).map(trouble).collect()
}

fn of_held(endpoint: &str, held: &HeldCount) -> Option<Trouble> {
    // a reason that this binary does not know may need a person: better report it
    let reason = HeldReason::parse(&held.reason);
    let is_forgotten = reason == Some(HeldReason::Version) && held.oldest_ms > DEPLOYED_MS;
    if reason.is_some_and(HeldReason::releases_itself) && !is_forgotten {
        return None;
    }
    let of = |words: &str| {
        let command = Command::new(words).with("endpoint", endpoint);
        if reason.is_some() { command.with("reason-is", &held.reason) } else { command }
    };
    let (are, oldest) = (if held.count == 1 { "is" } else { "are" }, age(held.oldest_ms));
    Some(Trouble {
        code: reason.map_or(ErrorCode::HeldVersion, HeldReason::code),
        about: about([endpoint, &held.reason]),
        text: format!(
            "{endpoint}: {} {are} held as {}, the oldest for {oldest}",
            some_of(held.count, "message"),
            held.reason
        ),
        see: of(if held.count == 1 { "held list" } else { "held groups" }),
        mend: match reason {
            None | Some(HeldReason::Version) => None,
            Some(HeldReason::Undecodable) => Some(edit()),
            Some(HeldReason::Rejected) => Some(Command::new("held discard MESSAGE").because()),
            Some(_) => Some(of("held retry").because()),
        },
    })
}

/// What is done about a message that cannot be read.
fn edit() -> Command {
    Command::new("held edit MESSAGE").because()
}

fn outbox(endpoint: &EndpointStatus, all: &mut Vec<Trouble>) {
    let name = endpoint.endpoint.as_str();
    let of = |words: &str| Command::new(words).with("endpoint", name);
    for rows in &endpoint.unroutable {
        let (messages, to, oldest) = (some_of(rows.count, "message"), &rows.destination, age(rows.oldest_ms));
        let who = to.strip_suffix(".low").unwrap_or(to); // the queue of an endpoint's commands that can wait
        all.push(Trouble {
            code: ErrorCode::Unroutable,
            about: about([name, to]),
            text: format!(
                "{name}: no queue takes {messages} to {to}, the oldest for {oldest}; check whether {who} runs"
            ),
            see: of("outbox list").set("failing").with("to", to),
            mend: Some(of("outbox send-now").set("failing").with("to", to).because()),
        });
    }
    if endpoint.failing.count > 0 {
        let messages = some_of(endpoint.failing.count, "message");
        let oldest = endpoint.failing.oldest_ms.map_or_else(String::new, |ms| format!(", the oldest for {}", age(ms)));
        let why = endpoint.failing.error.as_ref().map_or_else(String::new, |error| format!("; {error}"));
        all.push(Trouble {
            code: ErrorCode::PublishFailed,
            about: about([name]),
            text: format!("{name}: publishing {messages} failed{oldest}{why}"),
            see: of("outbox list").set("failing"),
            mend: Some(of("outbox send-now").set("failing").because()),
        });
    }
    let oldest = endpoint.due.oldest_ms.filter(|ms| *ms > STUCK_MS && endpoint.due.count > 0);
    if let Some(oldest) = oldest {
        let (messages, oldest) = (some_of(endpoint.due.count, "message"), age(oldest));
        let why = if endpoint.processes.is_empty() { "no process of it runs" } else { "is its broker away?" };
        all.push(Trouble {
            code: ErrorCode::NotSent,
            about: about([name]),
            text: format!("{name}: {messages} due and not confirmed, the oldest for {oldest}; {why}"),
            see: of("outbox list").set("due"),
            mend: None,
        });
    }
}

/// Why messages pause instances, if all that wait for a person do so for one reason. A status does not say it of each
/// saga, and a mend for another reason would find nothing.
fn paused_by(status: &Status) -> Option<HeldReason> {
    let held = status.endpoints.iter().flat_map(|endpoint| &endpoint.held).filter(|held| held.count > 0);
    let mut reasons = held.map(|held| HeldReason::parse(&held.reason)).filter(|it| it.is_none_or(waits_for_a_person));
    let first = reasons.next()?;
    first.filter(|_| reasons.all(|reason| reason == first))
}

fn waits_for_a_person(reason: HeldReason) -> bool {
    !reason.releases_itself()
}

fn paused(state: &StateCount, by: Option<HeldReason>) -> Trouble {
    let are = if state.paused == 1 { "is" } else { "are" };
    let (saga, instances, longest) = (&state.saga, some_of(state.paused, "instance"), age(state.paused_ms));
    let list = Command::new("sagas list").with("saga", saga).with("state", &state.state);
    let of = |words: &str| Command::new(words).with("saga", saga);
    Trouble {
        code: ErrorCode::InstancePaused,
        about: about([saga, &state.state]),
        text: format!("{saga}: {instances} in {} {are} paused, the longest for {longest}", state.state),
        see: list.set("paused"),
        mend: Some(match by {
            Some(reason @ (HeldReason::Failed | HeldReason::Crashes)) => {
                of("held retry").with("reason-is", reason.as_str()).because()
            }
            Some(HeldReason::Undecodable) => edit(),
            _ => of("held groups"), // it says what pauses them
        }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use saga_core::{ProcessView, RowCount, StateCount, Unroutable};
    use serde_json::{Value, json};

    fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn told(status: &Status) -> Vec<String> {
        troubles(status).iter().map(Trouble::to_string).collect()
    }

    /// A house in which much is wrong.
    pub(crate) fn bad() -> Status {
        let now = 1_790_000_000_000_000_i64;
        let mut payment = EndpointStatus::default();
        payment.endpoint = "payment".into();
        payment.due = of::<RowCount>(json!({ "count": 2, "oldest_ms": 300 }));
        payment.retrying =
            of(json!({ "count": 53, "oldest_ms": -4000, "error": "relation \"charge\" does not exist" }));
        payment.timers = of(json!({ "count": 11, "oldest_ms": -8000 }));
        payment.held = vec![
            of::<HeldCount>(json!({ "reason": "failed", "count": 1, "oldest_ms": 11_520_000 })),
            of(json!({ "reason": "paused", "count": 180, "oldest_ms": 11_000_000 })),
        ];
        payment.processes = vec![
            of::<ProcessView>(json!({ "owner": "payment-1", "started_at_us": now - 7_200_000_000_i64,
                "seen_at_us": now - 5_000_000,
                "report": { "link": "up", "breakers": ["charge"],
                    "breakers_since_us": { "charge": now - 90_000_000_i64 } } })),
            of(
                json!({ "owner": "payment-2", "started_at_us": now - 7_200_000_000_i64, "seen_at_us": now - 600_000_000,
                "report": null }),
            ),
        ];
        payment.handled_last_minute = 6;
        let mut ordering = EndpointStatus::default();
        ordering.endpoint = "ordering".into();
        ordering.due = of(json!({ "count": 3, "oldest_ms": 240_000 }));
        ordering.unconfirmed_ms = Some(240_000);
        ordering.failing = of(json!({ "count": 2, "oldest_ms": 1000, "error": "the broker refuses it" }));
        ordering.unroutable =
            vec![of::<Unroutable>(json!({ "destination": "warehouse", "count": 11, "oldest_ms": 300_000 }))];
        let mut status = Status::default();
        status.now_us = now;
        status.endpoints = vec![ordering, payment];
        status.instances = vec![
            of::<StateCount>(json!({ "saga": "order", "state": "AwaitingPayment", "count": 190, "paused": 180,
                "done": 0, "oldest_ms": 11_000_000, "paused_ms": 11_000_000 })),
            of(json!({ "saga": "order", "state": "AwaitingShipment", "count": 3, "paused": 0, "done": 0,
                "oldest_ms": 93_600_000, "waiting_ms": 93_600_000 })),
            of(json!({ "saga": "order", "state": "Shipped", "count": 7, "paused": 0, "done": 7, "oldest_ms": 5 })),
        ];
        status
    }

    #[test]
    fn a_version_that_nobody_deploys_is_a_trouble_after_an_hour() {
        let mut status = Status::default();
        let mut payment = EndpointStatus::default();
        payment.endpoint = "payment".into();
        payment.held = vec![of(json!({ "reason": "version", "count": 4, "oldest_ms": DEPLOYED_MS }))];
        status.endpoints = vec![payment];
        assert_eq!(told(&status), [""; 0]);
        status.endpoints[0].held[0].oldest_ms += 60_000;
        assert_eq!(
            told(&status),
            ["payment: 4 messages are held as version, the oldest for 1 h 1 min [SB0049]: \
              sagabus held groups --endpoint payment --reason-is version"]
        );
    }

    #[test]
    fn each_trouble_is_a_line_that_says_what_to_do() {
        assert_eq!(
            told(&bad()),
            [
                "ordering: no queue takes 11 messages to warehouse, the oldest for 5 min; check whether \
                 warehouse runs [SB0033]: sagabus outbox list --endpoint ordering --failing --to warehouse; \
                 then sagabus outbox send-now --endpoint ordering --failing --to warehouse --reason TEXT",
                "ordering: publishing 2 messages failed, the oldest for 1 s; the broker refuses it [SB0052]: \
                 sagabus outbox list --endpoint ordering --failing; \
                 then sagabus outbox send-now --endpoint ordering --failing --reason TEXT",
                "ordering: 3 messages due and not confirmed, the oldest for 4 min; no process of it runs [SB0053]: \
                 sagabus outbox list --endpoint ordering --due",
                "payment: 1 message is held as failed, the oldest for 3 h 12 min [SB0040]: \
                 sagabus held list --endpoint payment --reason-is failed; \
                 then sagabus held retry --endpoint payment --reason-is failed --reason TEXT",
                "payment: process payment-2 has not been seen for 10 min; it died or is cut off [SB0054]: \
                 sagabus processes",
                "payment: handler charge keeps failing for 1 min 30 s, in process payment-1 [SB0056]: \
                 sagabus outbox list --endpoint payment --kind retry; \
                 then sagabus outbox send-now --endpoint payment --kind retry --reason TEXT",
                "order: 180 instances in AwaitingPayment are paused, the longest for 3 h 3 min [SB0050]: \
                 sagabus sagas list --saga order --state AwaitingPayment --paused; \
                 then sagabus held retry --saga order --reason-is failed --reason TEXT",
            ]
        );
    }

    #[test]
    fn what_mends_a_paused_instance_fits_the_reason_if_there_is_one() {
        let mended = |reasons: &[&str]| {
            let mut status = bad();
            let held = |reason: &&str| of(json!({ "reason": reason, "count": 1, "oldest_ms": 5 }));
            status.endpoints[1].held = reasons.iter().map(held).collect();
            let told = troubles(&status).pop().and_then(|trouble| trouble.mend).map(|mend| mend.to_string());
            told.unwrap_or_default()
        };
        let retry = |reason: &str| format!("sagabus held retry --saga order --reason-is {reason} --reason TEXT");
        assert_eq!(mended(&["failed", "paused", "early"]), retry("failed"));
        assert_eq!(mended(&["paused", "crashes"]), retry("crashes"));
        assert_eq!(mended(&["undecodable", "paused"]), "sagabus held edit MESSAGE --reason TEXT");
        for reasons in [&["failed", "crashes"][..], &["failed", "undecodable"], &["a newer word"], &["rejected"], &[]] {
            assert_eq!(mended(reasons), "sagabus held groups --saga order", "{reasons:?}");
        }
    }

    #[test]
    fn a_paused_instance_does_not_linger_as_well() {
        let mut status = bad();
        status.instances = vec![of(json!({ "saga": "order", "state": "Waiting", "count": 2, "paused": 1, "done": 0,
            "oldest_ms": 93_600_000, "paused_ms": 93_600_000, "waiting_ms": 5 }))];
        assert_eq!(lingering(&status).len(), 0, "the one that has not changed for a day is paused");
        status.instances[0].waiting_ms = 93_600_000;
        assert_eq!(lingering(&status).len(), 1);
    }

    #[test]
    fn an_instance_that_has_waited_for_more_than_a_day_is_no_trouble_but_is_told() {
        let status = bad();
        let told: Vec<String> = lingering(&status).iter().map(Trouble::to_string).collect();
        assert_eq!(
            told,
            ["order: an instance in AwaitingShipment has not changed for 1 d 2 h [SB0051]: \
              sagabus sagas list --saga order --state AwaitingShipment --open --older-than 1d; \
              then sagabus sagas send order ID TYPE --body JSON --reason TEXT"]
        );
    }

    #[test]
    fn what_goes_on_by_itself_is_no_trouble() {
        let mut status = bad();
        status.endpoints.remove(0);
        status.instances.clear();
        status.endpoints[0].processes.clear();
        status.endpoints[0].held.remove(0);
        assert_eq!(told(&status), [""; 0]);
    }
}
