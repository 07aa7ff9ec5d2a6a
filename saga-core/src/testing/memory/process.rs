//! Processes, what they subscribe to, and the charts of their sagas.

use super::state::State;
use crate::{Process, Registered, port::Asked};
use std::collections::BTreeSet;

/// A process without a heartbeat for this long is taken for dead.
const ALIVE_US: i64 = 90_000_000;

/// Rows of processes that did not sign off are deleted after this time.
const KEPT_US: i64 = 86_400_000_000;

/// A process that has registered.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProcessRecord {
    /// Its last report.
    pub process: Process,
    /// When it registered: microseconds since 1970.
    pub started_at_us: i64,
    /// When it was last heard of.
    pub seen_at_us: i64,
    /// What an operator asks of it.
    pub asked: Asked,
}

pub(super) fn register(state: &mut State, process: &Process, now: i64) -> Registered {
    let endpoint = &process.endpoint;
    let ours: BTreeSet<&String> = process.charts.iter().map(|chart| &chart.saga).collect();
    let others = state.definitions.keys().filter(|(saga, _, of)| ours.contains(saga) && of != endpoint);
    let taken: BTreeSet<_> = others.map(|(saga, _, of)| (saga.clone(), of.clone())).collect();
    if !taken.is_empty() {
        return Registered { dropped: Vec::new(), taken: taken.into_iter().collect() };
    }
    for chart in &process.charts {
        state.definitions.insert((chart.saga.clone(), chart.version, endpoint.clone()), chart.clone());
    }
    seen(state, process, now);
    let oldest = now.saturating_sub(ALIVE_US);
    let alive = state.processes.values().filter(|at| at.process.endpoint == *endpoint && at.seen_at_us > oldest);
    let wanted: BTreeSet<&String> = alive.flat_map(|record| &record.process.subscribes).collect();
    let is_dropped = |(of, event): &(String, String)| of == endpoint && !wanted.contains(event);
    let dropped = state.subscriptions.extract_if(.., is_dropped).map(|(_, event)| event).collect();
    Registered { dropped, taken: Vec::new() }
}

pub(super) fn seen(state: &mut State, process: &Process, now: i64) -> Asked {
    let subscriptions = process.subscribes.iter().map(|event| (process.endpoint.clone(), event.clone()));
    state.subscriptions.extend(subscriptions);
    let known = state.processes.get(&process.owner);
    let (started_at_us, asked) = known.map_or((now, Asked::Nothing), |record| (record.started_at_us, record.asked));
    let record = ProcessRecord { process: process.clone(), started_at_us, seen_at_us: now, asked };
    state.processes.insert(process.owner.clone(), record);
    asked
}

/// Deletes processes of an endpoint that died without signing off more than a day ago. Returns how many.
pub(super) fn forget_old(state: &mut State, endpoint: &str, now: i64) -> usize {
    let oldest = now.saturating_sub(KEPT_US);
    let is_old = |_: &String, at: &mut ProcessRecord| at.process.endpoint == endpoint && at.seen_at_us < oldest;
    state.processes.extract_if(.., is_old).count()
}
