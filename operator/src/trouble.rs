//! What needs a person, according to a status.

use crate::text::{age, some_of};
use saga_core::{EndpointStatus, HeldReason, ProcessReport, Status};

/// A process writes a heartbeat every ten seconds; after this time without one it is taken for dead.
pub(crate) const SILENT_MS: i64 = 90_000;
/// Due messages are sent at once; after this time something is in their way.
const STUCK_MS: i64 = 60_000;
/// A rolling deployment is over by then. What still waits for a version or a type that no process knows will wait until
/// somebody deploys it: a handler may have been forgotten.
const DEPLOYED_MS: i64 = 3_600_000;

/// One line for each trouble, with the command that shows more.
pub(crate) fn troubles(status: &Status) -> Vec<String> {
    let mut all = Vec::new();
    for endpoint in &status.endpoints {
        held(endpoint, &mut all);
        outbox(endpoint, &mut all);
        processes(endpoint, status.now_us, &mut all);
    }
    for state in status.instances.iter().filter(|state| state.paused > 0) {
        let (saga, are) = (&state.saga, if state.paused == 1 { "is" } else { "are" });
        let instances = some_of(state.paused, "instance");
        all.push(format!(
            "{saga}: {instances} in {} {are} paused: sagabus sagas list --saga {saga} --paused",
            state.state
        ));
    }
    all
}

fn held(endpoint: &EndpointStatus, all: &mut Vec<String>) {
    let name = &endpoint.endpoint;
    for held in &endpoint.held {
        // a reason that this binary does not know may need a person: better report it
        let reason = HeldReason::parse(&held.reason);
        let is_forgotten = reason == Some(HeldReason::Version) && held.oldest_ms > DEPLOYED_MS;
        if reason.is_some_and(HeldReason::releases_itself) && !is_forgotten {
            continue;
        }
        let (messages, reason) = (some_of(held.count, "message"), &held.reason);
        let (are, oldest) = (if held.count == 1 { "is" } else { "are" }, age(held.oldest_ms));
        all.push(format!(
            "{name}: {messages} {are} held as {reason}, the oldest for {oldest}: \
             sagabus held list --endpoint {name} --reason-is {reason}"
        ));
    }
}

fn outbox(endpoint: &EndpointStatus, all: &mut Vec<String>) {
    let name = &endpoint.endpoint;
    for rows in &endpoint.unroutable {
        let (messages, to, oldest) = (some_of(rows.count, "message"), &rows.destination, age(rows.oldest_ms));
        all.push(format!("{name}: no queue takes {messages} to {to}, the oldest for {oldest}: is {to} running?"));
    }
    if endpoint.failing.count > 0 {
        let messages = some_of(endpoint.failing.count, "message");
        all.push(format!("{name}: publishing {messages} failed: sagabus outbox list --endpoint {name} --failing"));
    }
    let oldest = endpoint.due.oldest_ms.filter(|ms| *ms > STUCK_MS && endpoint.due.count > 0);
    if let Some(oldest) = oldest {
        let (messages, oldest) = (some_of(endpoint.due.count, "message"), age(oldest));
        let why = if endpoint.processes.is_empty() { "no process of it runs" } else { "is its broker away?" };
        all.push(format!("{name}: {messages} due and not confirmed, the oldest for {oldest}: {why}"));
    }
}

fn processes(endpoint: &EndpointStatus, now_us: i64, all: &mut Vec<String>) {
    let name = &endpoint.endpoint;
    for process in &endpoint.processes {
        let owner = &process.owner;
        let silent = now_us.saturating_sub(process.seen_at_us) / 1000;
        if silent > SILENT_MS {
            all.push(format!("{name}: process {owner} has not been seen for {}: it died or is cut off", age(silent)));
            continue; // what it said of itself is old
        }
        let report = ProcessReport::read(&process.report);
        if let Some(why) = report.down() {
            all.push(format!("{name}: process {owner} is cut off from its broker: {why}"));
        }
        for handler in report.breakers {
            all.push(format!("{name}: handler {handler} fails again and again in process {owner}"));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use saga_core::{HeldCount, ProcessView, RowCount, StateCount, Unroutable};
    use serde_json::{Value, json};

    fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
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
                "report": { "link": "up", "breakers": ["charge"] } })),
            of(
                json!({ "owner": "payment-2", "started_at_us": now - 7_200_000_000_i64, "seen_at_us": now - 600_000_000,
                "report": null }),
            ),
        ];
        payment.handled_last_minute = 6;
        let mut ordering = EndpointStatus::default();
        ordering.endpoint = "ordering".into();
        ordering.due = of(json!({ "count": 3, "oldest_ms": 240_000 }));
        ordering.failing = of(json!({ "count": 2, "oldest_ms": 1000, "error": "the broker refuses it" }));
        ordering.unroutable =
            vec![of::<Unroutable>(json!({ "destination": "warehouse", "count": 11, "oldest_ms": 300_000 }))];
        let mut status = Status::default();
        status.now_us = now;
        status.endpoints = vec![ordering, payment];
        status.instances = vec![
            of::<StateCount>(json!({ "saga": "order", "state": "AwaitingPayment", "count": 190, "paused": 180,
                "done": 0, "oldest_ms": 11_000_000 })),
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
        assert_eq!(troubles(&status), [""; 0]);
        status.endpoints[0].held[0].oldest_ms += 60_000;
        assert_eq!(
            troubles(&status),
            ["payment: 4 messages are held as version, the oldest for 1 h 1 min: \
              sagabus held list --endpoint payment --reason-is version"]
        );
    }

    #[test]
    fn each_trouble_is_a_line_that_says_what_to_do() {
        assert_eq!(
            troubles(&bad()),
            [
                "ordering: no queue takes 11 messages to warehouse, the oldest for 5 min: is warehouse running?",
                "ordering: publishing 2 messages failed: sagabus outbox list --endpoint ordering --failing",
                "ordering: 3 messages due and not confirmed, the oldest for 4 min: no process of it runs",
                "payment: 1 message is held as failed, the oldest for 3 h 12 min: \
                 sagabus held list --endpoint payment --reason-is failed",
                "payment: handler charge fails again and again in process payment-1",
                "payment: process payment-2 has not been seen for 10 min: it died or is cut off",
                "order: 180 instances in AwaitingPayment are paused: sagabus sagas list --saga order --paused",
            ]
        );
    }

    #[test]
    fn what_goes_on_by_itself_is_no_trouble() {
        let mut status = bad();
        status.endpoints.remove(0);
        status.instances.clear();
        status.endpoints[0].processes.clear();
        status.endpoints[0].held.remove(0);
        assert_eq!(troubles(&status), [""; 0]);
    }
}
