//! `sagabus doctor --broker`: what the broker has for the endpoints of the databases, and what about it may do harm.

use crate::{
    databases::{Session, without_password},
    screen::Screen,
    table::{Cell, Table},
    text::{count, plain},
};
use saga_core::{ErrorCode, StoreError, TransportError};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use transports::{Fit, Look, QueueState, RabbitMq};

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
#[derive(Default)]
struct Found {
    name: String,
    queues: Vec<Seen>,
    /// What may do harm.
    advice: Vec<String>,
    /// What may be as it should.
    remarks: Vec<String>,
    /// Whether all databases have named their endpoints.
    is_whole: bool,
}

/// What is told of a queue.
#[derive(Debug, PartialEq)]
enum Told {
    Advice(String),
    Remark(String),
}

/// Returns whether nothing wrong was found; as JSON, it adds an element to `rows`. `read` are the databases that have
/// the tables, each with its clock.
pub(super) async fn run(
    session: &mut Session,
    (url, prefix): (&str, &str),
    read: &BTreeMap<usize, i64>,
    rows: &mut Vec<Value>,
) -> bool {
    let name = without_password(url);
    let (endpoints, is_whole) = endpoints(session, read).await;
    let looked = async {
        let look = RabbitMq::new(url)?.with_prefix(prefix).look().await?;
        found(&look, &endpoints).await
    };
    let found = match looked.await {
        Ok(found) => Found { name, is_whole, ..found },
        Err(error) => {
            session.failed(format!("{name}: {error}"));
            return false;
        }
    };
    if session.screen.json {
        rows.push(as_json(&found));
    } else {
        show(session, &found);
    }
    found.advice.is_empty()
}

/// The endpoints of all databases, with the events that they subscribe to, and whether all databases have said theirs.
async fn endpoints(session: &mut Session, read: &BTreeMap<usize, i64>) -> (BTreeMap<String, Endpoint>, bool) {
    let mut all: BTreeMap<String, Endpoint> = BTreeMap::new();
    // else one could not be opened, or not be read just now
    let mut is_whole = session.is_clean() && read.len() == session.stores().len();
    for (n, now_us) in read {
        let store = &*session.database(*n).store;
        let known = async { Ok((store.definitions().await?, store.processes().await?, store.subscriptions().await?)) };
        let (definitions, processes, subscriptions) = match known.await {
            Ok(known) => known,
            Err(error) => {
                let error: StoreError = error;
                is_whole = false;
                session.failed(format!("cannot read {}: {error}", session.database(*n).name));
                continue;
            }
        };
        for it in definitions {
            all.entry(it.endpoint).or_default();
        }
        for it in processes {
            let is_alive = (now_us - it.process.seen_at_us) / 1000 <= crate::trouble::SILENT_MS;
            all.entry(it.endpoint).or_default().processes += usize::from(is_alive);
        }
        for it in subscriptions {
            all.entry(it.endpoint).or_default().events.insert(it.event);
        }
    }
    (all, is_whole)
}

impl Found {
    fn tell(&mut self, all: Vec<Told>) {
        for told in all {
            match told {
                Told::Advice(text) => self.advice.push(text),
                Told::Remark(text) => self.remarks.push(text),
            }
        }
    }
}

/// The queues that there may be beside that of an endpoint, and whether it declares them itself. What is called so and
/// is an endpoint of its own is none of them.
fn beside(name: &str, endpoints: &BTreeMap<String, Endpoint>) -> impl Iterator<Item = (String, bool)> {
    let all = [LOW].into_iter().chain(LEFT_OVER).map(move |ending| (format!("{name}{ending}"), ending == LOW));
    all.filter(move |(queue, _)| !endpoints.contains_key(queue))
}

async fn found(look: &Look, endpoints: &BTreeMap<String, Endpoint>) -> Result<Found, TransportError> {
    let mut found = Found::default();
    for (name, endpoint) in endpoints {
        let state = look.queue(name).await?;
        found.tell(of_queue(name, &state, Some(endpoint.processes)));
        found.queues.push(Seen { queue: name.clone(), state });
        for (queue, is_ours) in beside(name, endpoints) {
            let state = if is_ours { look.queue(&queue).await? } else { look.other(&queue).await? };
            if state == QueueState::Missing {
                continue;
            }
            found.tell(if is_ours { of_queue(&queue, &state, None) } else { vec![left_over(&queue, &state)] });
            found.queues.push(Seen { queue, state });
        }
        for event in &endpoint.events {
            found.advice.extend(match look.has_event(event).await {
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
    Ok(found)
}

/// What is wrong with the queue of an endpoint. `processes` is how many of it are alive; `None`: it need not have any.
fn of_queue(queue: &str, state: &QueueState, processes: Option<usize>) -> Vec<Told> {
    let mut all = Vec::new();
    match state {
        QueueState::Missing => {
            let who = match processes {
                Some(0) | None => "no process of it runs",
                Some(_) => "its processes declare it again within seconds; if not, their logs say why",
            };
            let text = ErrorCode::QueueMissing.told(format_args!("{queue} has no queue: {who}"));
            all.push(Told::Advice(text));
        }
        QueueState::Closed(words) => {
            let text = format_args!("queue {queue} cannot be looked at: {words}");
            all.push(Told::Advice(ErrorCode::BrokerPermission.told(text)));
        }
        QueueState::There { messages, consumers, fits } => {
            all.extend(of_fit(queue, fits));
            if *messages > 0 && *consumers == 0 {
                let messages = count(i64::from(*messages), "message");
                let text = format_args!("{messages} in queue {queue}, which nobody consumes");
                all.push(Told::Advice(ErrorCode::QueueUnread.told(text)));
            }
        }
        _ => {}
    }
    all
}

/// How the queue of an endpoint was declared. Whoever provisions queues may have done it otherwise, for services that
/// are passive, and may give them no right to configure: neither is wrong.
fn of_fit(queue: &str, fit: &Fit) -> Option<Told> {
    Some(match fit {
        Fit::Unsafe => Told::Advice(ErrorCode::QueueUnsafe.told(format_args!(
            "queue {queue} is not the durable quorum queue that an endpoint declares: empty it, delete it, and \
             start the endpoint"
        ))),
        Fit::Drops(words) => Told::Advice(ErrorCode::TopologyDiffers.told(format_args!(
            "queue {queue} may drop messages that came back too often: {words}; RabbitMQ 4.0 and later do so after 20 \
             times, unless a policy, which cannot be seen from here, sets `delivery-limit` to -1; only a service that \
             is `passive` starts with it: declare it with `x-delivery-limit=100000`"
        ))),
        Fit::Otherwise(words) => Told::Remark(ErrorCode::TopologyDiffers.told(format_args!(
            "queue {queue} was declared otherwise than an endpoint does it: {words}; a service that is `passive` uses \
             it as it is, any other does not start before it is deleted"
        ))),
        Fit::Forbidden(_) => Told::Remark(ErrorCode::BrokerPermission.told(format_args!(
            "this user may not declare queue {queue}: what kind it is cannot be said, and an endpoint of this user \
             does not start, unless it is `passive`"
        ))),
        _ => return None,
    })
}

/// A queue that nothing of ours has made. An empty one does no harm.
fn left_over(queue: &str, state: &QueueState) -> Told {
    let unused = "nothing of Sagabus uses it: what fails is in the table `held`";
    let told = |holds: &str| ErrorCode::QueueLeftOver.told(format_args!("queue {queue} {holds}, and {unused}"));
    match state {
        QueueState::There { messages: 0, .. } => Told::Remark(told("is empty")),
        QueueState::There { messages, .. } => {
            Told::Advice(told(&format!("holds {}", count(i64::from(*messages), "message"))))
        }
        _ => Told::Advice(told("holds an unknown number of messages")),
    }
}

/// The columns of a queue: messages, consumers, kind.
fn cells(seen: &Seen) -> Vec<Cell> {
    let queue = Cell::from(seen.queue.as_str());
    let (messages, consumers, kind) = match &seen.state {
        QueueState::Missing => return vec![queue, "".into(), "".into(), "missing".into()],
        QueueState::There { messages, consumers, fits } => {
            let kind = match fits {
                Fit::Same => "quorum",
                Fit::Unsafe => "another kind",
                Fit::Drops(_) => "may drop",
                Fit::Otherwise(_) => "declared otherwise",
                Fit::Forbidden(_) => "may not be asked",
                _ => "not ours",
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
    super::doctor::findings(screen, &found.advice, found.is_whole);
    remarks(screen, found);
}

/// What may be as it should, and what could not be asked.
fn remarks(screen: &mut Screen, found: &Found) {
    if !found.is_whole {
        screen.line("not every database could be read: the queues of its endpoints were not looked at");
    }
    if !found.remarks.is_empty() {
        screen.line(format!("{}:", count(found.remarks.len() as i64, "remark")));
        found.remarks.iter().for_each(|text| screen.long(text));
    }
}

fn as_json(found: &Found) -> Value {
    let queues = found.queues.iter().map(|seen| match &seen.state {
        QueueState::There { messages, consumers, fits } => {
            let fits = match fits {
                Fit::Same => Some(true),
                Fit::Unsafe | Fit::Drops(_) | Fit::Otherwise(_) => Some(false),
                _ => None,
            };
            json!({ "queue": seen.queue, "messages": messages, "consumers": consumers, "fits": fits })
        }
        state => json!({ "queue": seen.queue, "missing": *state == QueueState::Missing }),
    });
    json!({ "broker": found.name, "queues": queues.collect::<Vec<_>>(), "advice": found.advice,
        "remarks": found.remarks, "whole": found.is_whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(messages: u32, consumers: u32, fits: Fit) -> QueueState {
        QueueState::There { messages, consumers, fits }
    }

    #[test]
    fn what_is_wrong_with_queues_is_told_with_its_code() {
        let differs =
            |arg: &str| format!("PRECONDITION_FAILED - inequivalent arg '{arg}' for queue 'stock' in vhost '/'");
        let seen = [
            ("ordering", there(0, 2, Fit::Same), Some(2)),
            ("payment", QueueState::Missing, Some(0)),
            ("mail", QueueState::Missing, Some(1)),
            ("warehouse", there(53, 0, Fit::Unsafe), Some(0)),
            ("warehouse.low", there(1, 0, Fit::Same), None),
            ("bank", QueueState::Closed("ACCESS_REFUSED - no read access".into()), Some(0)),
            ("stock", there(0, 1, Fit::Otherwise(differs("x-message-ttl"))), Some(1)),
            ("parcels", there(0, 1, Fit::Drops(differs("x-delivery-limit"))), Some(1)),
            ("audit", there(0, 1, Fit::Forbidden("ACCESS_REFUSED".into())), Some(1)),
        ];
        let mut table = Table::new(&["queue", "messages", "consumers", "kind"]);
        let mut found = Found { is_whole: true, ..Found::default() };
        for (queue, state, processes) in seen {
            found.tell(of_queue(queue, &state, processes));
            table.row(cells(&Seen { queue: queue.into(), state }), None);
        }
        for (queue, messages) in [("payment_error", 7), ("payment.dlq", 0)] {
            let state = there(messages, 0, Fit::Unasked);
            found.tell(vec![left_over(queue, &state)]);
            table.row(cells(&Seen { queue: queue.into(), state }), None);
        }
        let view = crate::screen::View { width: Some(100), now_us: 0, zone: jiff::tz::TimeZone::UTC };
        let mut screen = Screen::new(view, false);
        screen.table(&table, "");
        super::super::doctor::findings(&mut screen, &found.advice, found.is_whole);
        remarks(&mut screen, &found);
        crate::commands::golden("doctor-broker.txt", screen.out());
    }

    #[test]
    fn an_endpoint_whose_name_ends_as_if_it_were_left_over_is_none() {
        let names = ["mail", "mail.error", "mail_error"].map(|name| (name.to_owned(), Endpoint::default()));
        let all: Vec<(String, bool)> = beside("mail", &BTreeMap::from(names)).collect();
        assert_eq!(all.len(), LEFT_OVER.len() - 1, "{all:?}");
        assert_eq!(all[0], ("mail.low".to_owned(), true));
        assert!(!all.iter().any(|(queue, _)| queue.ends_with("mail.error") || queue == "mail_error"), "{all:?}");
    }

    #[test]
    fn who_could_not_ask_all_does_not_say_that_all_is_well() {
        let view = crate::screen::View { width: Some(100), now_us: 0, zone: jiff::tz::TimeZone::UTC };
        let mut screen = Screen::new(view, false);
        let found = Found::default();
        super::super::doctor::findings(&mut screen, &found.advice, found.is_whole);
        remarks(&mut screen, &found);
        let told = screen.out();
        assert!(told.contains("not every database") && !told.contains("nothing wrong"), "{told}");
    }
}
