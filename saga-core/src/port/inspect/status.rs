//! Counts and ages: whether all is well, or since when it is not.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Counts and ages. Ages are milliseconds by the database's clock, other times microseconds since 1970. Rows of a kind
/// are counted no further than [`COUNTED_MAX`](super::COUNTED_MAX): a larger number means more.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The database's clock.
    pub now_us: i64,
    /// Per endpoint, by name.
    pub endpoints: Vec<EndpointStatus>,
    /// Per saga and state.
    pub instances: Vec<StateCount>,
}

/// One endpoint's counts. A row of the outbox is counted once.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// Its name.
    pub endpoint: String,
    /// Rows that are due, on their way to the broker, overdue timers included.
    pub due: RowCount,
    /// Rows whose publishing failed, to be tried again.
    pub failing: RowCount,
    /// Messages that failed at their receiver and are put off; the error says why.
    pub retrying: RowCount,
    /// Timers that are not due.
    pub timers: RowCount,
    /// Delayed messages that are not due.
    pub delayed: RowCount,
    /// Rows that no queue takes, by destination.
    pub unroutable: Vec<Unroutable>,
    /// Held messages by reason.
    pub held: Vec<HeldCount>,
    /// The age of the oldest message that is due or was published, and is not confirmed.
    pub unconfirmed_ms: Option<i64>,
    /// Its processes.
    pub processes: Vec<ProcessView>,
    /// Messages that were settled within the last minute.
    pub handled_last_minute: i64,
}

/// Rows of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RowCount {
    /// How many.
    pub count: i64,
    /// Milliseconds since the first of them was due; negative if it is due in the future.
    pub oldest_ms: Option<i64>,
    /// An error of one of them.
    pub error: Option<String>,
}

/// Rows that no queue takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Unroutable {
    /// Where they are to go.
    pub destination: String,
    /// How many.
    pub count: i64,
    /// The age of the oldest.
    pub oldest_ms: i64,
}

/// Held messages for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HeldCount {
    /// Why they wait.
    pub reason: String,
    /// How many.
    pub count: i64,
    /// How long the oldest has been held.
    pub oldest_ms: i64,
}

/// Instances in one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StateCount {
    /// The saga.
    pub saga: String,
    /// The state.
    pub state: String,
    /// How many.
    pub count: i64,
    /// How many of them are paused.
    pub paused: i64,
    /// How many of them are done.
    pub done: i64,
    /// How long the one that has not changed for longest has not.
    pub oldest_ms: i64,
    /// How long the one that has been paused for longest has been; 0 when none is.
    #[serde(default)]
    pub paused_ms: i64,
    /// As `oldest_ms`, of those that are neither paused nor done; 0 when there is none, or when it stands behind
    /// thousands of paused ones.
    #[serde(default)]
    pub waiting_ms: i64,
}

/// A process of an endpoint. Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessView {
    /// Its unique name: the owner of leases.
    pub owner: String,
    /// When it started.
    pub started_at_us: i64,
    /// When it last said that it is alive.
    pub seen_at_us: i64,
    /// Its last report; see [`ProcessReport`].
    pub report: Value,
}

/// A process, with its endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunningProcess {
    /// The endpoint.
    pub endpoint: String,
    /// What an operator asks of it: `drain`.
    #[serde(default)]
    pub asked: Option<String>,
    /// The process.
    #[serde(flatten)]
    pub process: ProcessView,
}

/// What a process reports in its heartbeat: `process.report`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct ProcessReport {
    /// `up`, or why the broker cannot be reached, or why the endpoint failed.
    pub link: String,
    /// Handlers that failed many times in a row and run one message at a time.
    pub breakers: Vec<String>,
    /// Since when the messages of those fail: microseconds since 1970, by the process's clock.
    pub breakers_since_us: BTreeMap<String, i64>,
    /// What stands behind those that share a limit, and so a breaker: its name by the handler's.
    pub breakers_behind: BTreeMap<String, String>,
    /// The machine.
    pub host: String,
    /// The program, as it calls itself ([`EndpointBuilder::program`](crate::EndpointBuilder::program)), or its file.
    pub program: String,
    /// The version of Sagabus in it.
    pub version: String,
    /// Lanes: of all sagas, and of each handler.
    pub lanes: BTreeMap<String, u64>,
}

impl ProcessReport {
    /// Reads a report. One in another format, by a newer binary, counts as empty.
    pub fn read(report: &Value) -> Self {
        Self::deserialize(report).unwrap_or_default()
    }

    /// Why the process is cut off from its broker, if it is.
    pub fn down(&self) -> Option<&str> {
        Some(self.link.as_str()).filter(|link| !matches!(*link, "" | "up"))
    }
}

/// A row of [`Listing::Status`](super::Listing::Status).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    Now(i64),
    Endpoint(String),
    Outbox {
        endpoint: String,
        which: Which,
        #[serde(flatten)]
        rows: RowCount,
    },
    Unroutable {
        endpoint: String,
        #[serde(flatten)]
        rows: Unroutable,
    },
    Unconfirmed {
        endpoint: String,
        oldest_ms: i64,
    },
    Held {
        endpoint: String,
        #[serde(flatten)]
        held: HeldCount,
    },
    Handled {
        endpoint: String,
        count: i64,
    },
    Process {
        endpoint: String,
        #[serde(flatten)]
        process: ProcessView,
    },
    State(StateCount),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Which {
    Due,
    Failing,
    Retrying,
    Timers,
    Delayed,
}

impl Status {
    pub(super) fn of(parts: Vec<Part>) -> Self {
        let mut status = Self::default();
        for part in parts {
            match part {
                Part::Now(now_us) => status.now_us = now_us,
                Part::Endpoint(endpoint) => drop(status.endpoint(endpoint)),
                Part::Outbox { endpoint, which, rows } => *status.endpoint(endpoint).outbox(which) = rows,
                Part::Unroutable { endpoint, rows } => status.endpoint(endpoint).unroutable.push(rows),
                Part::Unconfirmed { endpoint, oldest_ms } => {
                    status.endpoint(endpoint).unconfirmed_ms = Some(oldest_ms);
                }
                Part::Held { endpoint, held } => status.endpoint(endpoint).add(held),
                Part::Handled { endpoint, count } => status.endpoint(endpoint).handled_last_minute = count,
                Part::Process { endpoint, process } => status.endpoint(endpoint).processes.push(process),
                Part::State(state) => status.add(state),
            }
        }
        for endpoint in &mut status.endpoints {
            endpoint.unroutable.sort_by(|a, b| a.destination.cmp(&b.destination));
            endpoint.held.sort_by(|a, b| a.reason.cmp(&b.reason));
            endpoint.processes.sort_by(|a, b| (a.started_at_us, &a.owner).cmp(&(b.started_at_us, &b.owner)));
        }
        status.endpoints.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        status.instances.sort_by(|a, b| (&a.saga, &a.state).cmp(&(&b.saga, &b.state)));
        status
    }

    /// Instances of different versions, and the paused ones, are counted apart.
    fn add(&mut self, state: StateCount) {
        let is_same = |known: &&mut StateCount| (&known.saga, &known.state) == (&state.saga, &state.state);
        match self.instances.iter_mut().find(is_same) {
            Some(known) => {
                known.count += state.count;
                known.paused += state.paused;
                known.done += state.done;
                known.oldest_ms = known.oldest_ms.max(state.oldest_ms);
                known.paused_ms = known.paused_ms.max(state.paused_ms);
                known.waiting_ms = known.waiting_ms.max(state.waiting_ms);
            }
            None => self.instances.push(state),
        }
    }

    fn endpoint(&mut self, name: String) -> &mut EndpointStatus {
        let known = self.endpoints.iter().position(|known| known.endpoint == name);
        let place = known.unwrap_or_else(|| {
            self.endpoints.push(EndpointStatus { endpoint: name, ..EndpointStatus::default() });
            self.endpoints.len() - 1
        });
        &mut self.endpoints[place]
    }
}

impl EndpointStatus {
    /// Messages of different types are counted apart.
    fn add(&mut self, held: HeldCount) {
        match self.held.iter_mut().find(|known| known.reason == held.reason) {
            Some(known) => {
                known.count += held.count;
                known.oldest_ms = known.oldest_ms.max(held.oldest_ms);
            }
            None => self.held.push(held),
        }
    }

    fn outbox(&mut self, which: Which) -> &mut RowCount {
        match which {
            Which::Due => &mut self.due,
            Which::Failing => &mut self.failing,
            Which::Retrying => &mut self.retrying,
            Which::Timers => &mut self.timers,
            Which::Delayed => &mut self.delayed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_status_find_their_endpoint() {
        let parts = [
            r#"{"now":5}"#,
            r#"{"endpoint":"payment"}"#,
            r#"{"held":{"endpoint":"payment","reason":"failed","count":3,"oldest_ms":9}}"#,
            r#"{"outbox":{"endpoint":"ordering","which":"retrying","count":2,"oldest_ms":-4,"error":"no table"}}"#,
            r#"{"state":{"saga":"s","state":"A","count":2,"paused":1,"done":0,"oldest_ms":7}}"#,
        ];
        let status = Status::of(parts.iter().map(|part| serde_json::from_str(part).unwrap()).collect());
        let names: Vec<&str> = status.endpoints.iter().map(|endpoint| endpoint.endpoint.as_str()).collect();
        assert_eq!(names, ["ordering", "payment"]);
        assert_eq!(status.endpoints[0].retrying.error.as_deref(), Some("no table"));
        assert_eq!((status.endpoints[1].held[0].count, status.instances[0].paused, status.now_us), (3, 1, 5));
    }

    #[test]
    fn a_report_that_this_binary_does_not_know_counts_as_nothing_said() {
        let report = serde_json::json!({ "link": "refused", "breakers": ["charge"], "tides": 7 });
        assert_eq!(ProcessReport::read(&report).down(), Some("refused"));
        assert_eq!(ProcessReport::read(&serde_json::json!({ "link": "up" })).down(), None);
        assert_eq!(ProcessReport::read(&Value::Null), ProcessReport::default());
    }
}
