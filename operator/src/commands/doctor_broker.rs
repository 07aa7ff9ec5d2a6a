//! `sagabus doctor --broker`: what the broker has for the endpoints of the databases, and what about it may do harm.

use crate::{
    databases::{Session, without_password},
    table::{Cell, Table},
    text::{count, plain},
};
use saga_core::{ErrorCode, Inspect, TransportError};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use transports::{Look, QueueState, RabbitMq};

/// What the names of queues end with in which other libraries, or people, put what failed.
const LEFT_OVER: [&str; 7] = ["_error", "_skipped", ".error", ".errors", ".dlq", "-dlq", ".dead-letter"];
/// The queue of an endpoint for commands that can wait.
const LOW: &str = ".low";

/// What the databases know of an endpoint.
#[derive(Debug, Default)]
struct Endpoint {
    /// Processes that are alive.
    processes: usize,
    events: BTreeSet<String>,
}

/// A queue that is there, or ought to be.
struct Seen {
    queue: String,
    state: QueueState,
}

/// What was found at the broker.
struct Found {
    name: String,
    queues: Vec<Seen>,
    advice: Vec<String>,
}

/// Returns whether nothing wrong was found; as JSON, it adds an element to `rows`.
pub(super) async fn run(session: &mut Session, url: &str, prefix: &str, rows: &mut Vec<Value>) -> bool {
    let name = without_password(url);
    let endpoints = endpoints(session).await;
    let looked = async {
        let look = RabbitMq::new(url)?.with_prefix(prefix).look().await?;
        found(&look, &endpoints).await
    };
    let (queues, advice) = match looked.await {
        Ok(found) => found,
        Err(error) => {
            session.failed(format!("{name}: {error}"));
            return false;
        }
    };
    let found = Found { name, queues, advice };
    if session.screen.json {
        rows.push(as_json(&found));
    } else {
        show(session, &found);
    }
    found.advice.is_empty()
}

/// The endpoints of all databases, with the events that they subscribe to.
async fn endpoints(session: &mut Session) -> BTreeMap<String, Endpoint> {
    let read = async |store: &dyn Inspect| Ok((store.status().await?, store.subscriptions().await?));
    let mut all: BTreeMap<String, Endpoint> = BTreeMap::new();
    for (_, (status, subscriptions)) in session.each(read).await {
        for endpoint in status.endpoints {
            let alive = |seen_us: i64| (status.now_us - seen_us) / 1000 <= crate::trouble::SILENT_MS;
            let processes = endpoint.processes.iter().filter(|process| alive(process.seen_at_us)).count();
            all.entry(endpoint.endpoint).or_default().processes += processes;
        }
        for it in subscriptions {
            all.entry(it.endpoint).or_default().events.insert(it.event);
        }
    }
    all
}

async fn found(
    look: &Look,
    endpoints: &BTreeMap<String, Endpoint>,
) -> Result<(Vec<Seen>, Vec<String>), TransportError> {
    let (mut queues, mut advice) = (Vec::new(), Vec::new());
    for (name, endpoint) in endpoints {
        let state = look.queue(name).await?;
        advice.extend(of_queue(name, &state, Some(endpoint.processes)));
        queues.push(Seen { queue: name.clone(), state });
        for ending in [LOW].into_iter().chain(LEFT_OVER) {
            let queue = format!("{name}{ending}");
            let state = look.queue(&queue).await?;
            if state == QueueState::Missing {
                continue;
            }
            advice.extend(if ending == LOW { of_queue(&queue, &state, None) } else { left_over(&queue, &state) });
            queues.push(Seen { queue, state });
        }
        for event in &endpoint.events {
            advice.extend(match look.has_event(event).await {
                Ok(true) => None,
                Ok(false) => Some(ErrorCode::EventUnbound.told(format_args!(
                    "event {event} has no exchange: {name}, which subscribes to it, is not bound, and what is \
                     published meanwhile does not come to it"
                ))),
                Err(error) if error.code() == ErrorCode::BrokerPermission => Some(error.to_string()),
                Err(error) => return Err(error),
            });
        }
    }
    Ok((queues, advice))
}

/// What is wrong with the queue of an endpoint. `processes` is how many of it are alive; `None`: it need not have any.
fn of_queue(queue: &str, state: &QueueState, processes: Option<usize>) -> Vec<String> {
    let mut all = Vec::new();
    match state {
        QueueState::Missing => {
            let who = match processes {
                Some(0) | None => "no process of it runs",
                Some(_) => "its processes declare it again within seconds; if not, their logs say why",
            };
            all.push(ErrorCode::QueueMissing.told(format_args!("{queue} has no queue: {who}")));
        }
        QueueState::Closed(words) => {
            all.push(ErrorCode::BrokerPermission.told(format_args!("queue {queue} cannot be looked at: {words}")));
        }
        QueueState::There { messages, consumers, fits } => {
            if *fits == Some(false) {
                all.push(ErrorCode::QueueUnsafe.told(format_args!(
                    "queue {queue} is not the durable quorum queue that an endpoint declares: empty it, delete it, and \
                     start the endpoint"
                )));
            }
            if fits.is_none() {
                all.push(ErrorCode::BrokerPermission.told(format_args!(
                    "this user may not declare queue {queue}: what kind it is cannot be said, and an endpoint of this \
                     user does not start, unless it is passive"
                )));
            }
            if *messages > 0 && *consumers == 0 {
                let messages = count(i64::from(*messages), "message");
                all.push(
                    ErrorCode::QueueUnread.told(format_args!("{messages} in queue {queue}, which nobody consumes")),
                );
            }
        }
        _ => {}
    }
    all
}

/// A queue that nothing of ours has made.
fn left_over(queue: &str, state: &QueueState) -> Vec<String> {
    let messages = match state {
        QueueState::There { messages, .. } => count(i64::from(*messages), "message"),
        _ => "an unknown number of messages".into(),
    };
    vec![ErrorCode::QueueLeftOver.told(format_args!(
        "queue {queue} holds {messages}, and nothing of Sagabus uses it: what fails is in the table `held`"
    ))]
}

/// The columns of a queue: messages, consumers, kind.
fn cells(seen: &Seen) -> Vec<Cell> {
    let queue = Cell::from(seen.queue.as_str());
    let (messages, consumers, kind) = match &seen.state {
        QueueState::Missing => return vec![queue, "".into(), "".into(), "missing".into()],
        QueueState::There { messages, consumers, fits } => {
            let kind = match fits {
                Some(true) => "quorum",
                Some(false) => "another kind",
                None => "may not be asked",
            };
            (*messages, *consumers, kind)
        }
        _ => return vec![queue, "".into(), "".into(), "may not be looked at".into()],
    };
    vec![queue, Cell::number(messages.into()), Cell::number(consumers.into()), kind.into()]
}

fn show(session: &mut Session, found: &Found) {
    let screen = &mut session.screen;
    screen.line("");
    screen.line(plain(&found.name));
    let mut table = Table::new(&["queue", "messages", "consumers", "kind"]);
    found.queues.iter().for_each(|seen| table.row(cells(seen), None));
    screen.section("queues of the endpoints in these databases", &table);
    screen.line("");
    super::doctor::findings(screen, &found.advice);
}

fn as_json(found: &Found) -> Value {
    let queues = found.queues.iter().map(|seen| match &seen.state {
        QueueState::There { messages, consumers, fits } => {
            json!({ "queue": seen.queue, "messages": messages, "consumers": consumers, "fits": fits })
        }
        state => json!({ "queue": seen.queue, "missing": *state == QueueState::Missing }),
    });
    json!({ "broker": found.name, "queues": queues.collect::<Vec<_>>(), "advice": found.advice })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_queues_is_told_with_its_code() {
        let there = |messages, consumers, fits| QueueState::There { messages, consumers, fits };
        let seen = [
            ("ordering", there(0, 2, Some(true)), Some(2)),
            ("payment", QueueState::Missing, Some(0)),
            ("mail", QueueState::Missing, Some(1)),
            ("warehouse", there(53, 0, Some(false)), Some(0)),
            ("warehouse.low", there(1, 0, Some(true)), None),
            ("bank", QueueState::Closed("ACCESS_REFUSED - no read access".into()), Some(0)),
        ];
        let mut table = Table::new(&["queue", "messages", "consumers", "kind"]);
        let mut told = Vec::new();
        for (queue, state, processes) in seen {
            told.extend(of_queue(queue, &state, processes));
            table.row(cells(&Seen { queue: queue.into(), state }), None);
        }
        told.extend(left_over("payment_error", &there(7, 0, Some(false))));
        assert_eq!(told.iter().filter(|text| text.starts_with("queue ordering")).count(), 0, "{told:#?}");
        let view = crate::screen::View { width: Some(100), now_us: 0, zone: jiff::tz::TimeZone::UTC };
        let mut screen = crate::screen::Screen::new(view, false);
        screen.table(&table, "");
        super::super::doctor::findings(&mut screen, &told);
        crate::commands::golden("doctor-broker.txt", screen.out());
    }
}
