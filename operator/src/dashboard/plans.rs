//! Actions on many held messages. A plan names its rows before anybody confirms it, and takes those and no others. It
//! is carried out by a task of its own, so that a browser that leaves stops nothing; a person can.

use super::app::{App, Away};
use saga_core::{ActionDone, HeldRef, HeldView, ORDER_ROWS_MAX};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use uuid::Uuid;

/// The most plans that are kept: a new one takes the place of the oldest that is not being carried out.
const PLANS_MAX: usize = 20;
/// A plan that nobody confirmed within this time is forgotten.
const LIFE: Duration = Duration::from_secs(1800);

/// What is done with each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Retry,
    Discard,
}

impl Deed {
    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Retry, Self::Discard].into_iter().find(|deed| deed.as_str() == text)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Discard => "discard",
        }
    }

    /// The result of an item when all went well.
    pub(super) fn done(self) -> &'static str {
        match self {
            Self::Retry => "retried",
            Self::Discard => "discarded",
        }
    }
}

/// What is to be done with which messages.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) id: String,
    pub(super) deed: Deed,
    /// Each with its database's number.
    pub(super) rows: Vec<(usize, HeldRef)>,
    /// The first of them, to be shown.
    pub(super) shown: Vec<(usize, HeldView)>,
    /// The command that does the same.
    pub(super) command: String,
    /// Who made it: nobody else sees it.
    pub(super) by: String,
    /// Databases that did not answer when it was made: what is in them is no part of it.
    pub(super) away: Vec<Away>,
    /// There may be more that match: a plan takes no more at once.
    pub(super) beyond: bool,
    made: Instant,
    stop: AtomicBool,
    progress: Mutex<Progress>,
}

/// How far a plan is.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    pub(super) stage: Stage,
    /// How many messages ended with which result.
    pub(super) results: BTreeMap<String, usize>,
    /// Why it stopped early, for each database that it did on.
    pub(super) stopped: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Waits,
    Runs,
    Over,
}

impl Progress {
    pub(super) fn done(&self) -> usize {
        self.results.values().sum()
    }
}

impl Plan {
    pub(super) fn new(deed: Deed, rows: &[(usize, HeldView)], command: String, by: &str) -> Self {
        Self {
            id: Uuid::new_v4().simple().to_string(),
            deed,
            rows: rows.iter().map(|(n, row)| (*n, row.row())).collect(),
            shown: rows.iter().take(ORDER_ROWS_MAX).cloned().collect(),
            command,
            by: by.into(),
            away: Vec::new(),
            beyond: false,
            made: Instant::now(),
            stop: AtomicBool::new(false),
            progress: Mutex::default(),
        }
    }

    /// It does not reach these databases, nor what is beyond the most that a plan takes.
    pub(super) fn without(self, away: Vec<Away>, beyond: bool) -> Self {
        Self { away, beyond, ..self }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note<T>(&self, note: impl FnOnce(&mut Progress) -> T) -> T {
        note(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops it after the messages that are under way.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Carries it out. The second who asks changes nothing.
    pub(super) async fn carry_out(self: Arc<Self>, app: Arc<App>, why: String) {
        let is_first = self.note(|progress| {
            let is_first = progress.stage == Stage::Waits;
            progress.stage = if is_first { Stage::Runs } else { progress.stage };
            is_first
        });
        if !is_first {
            return;
        }
        for rows in self.rows.chunk_by(|(a, _), (b, _)| a == b) {
            self.on_one(&app, rows, &why).await;
        }
        self.note(|progress| progress.stage = Stage::Over);
        app.live.changed();
    }

    /// Its part on one database.
    async fn on_one(&self, app: &App, rows: &[(usize, HeldRef)], why: &str) {
        let source = app.source(rows[0].0);
        let stopped = |text: String| self.note(|progress| progress.stopped.push(format!("{}: {text}", source.name)));
        let store = match source.store().await {
            Ok(store) => store,
            Err(error) => return stopped(error.to_string()),
        };
        for rows in rows.chunks(ORDER_ROWS_MAX) {
            if self.stop.load(Ordering::Relaxed) {
                return stopped("stopped by hand".into());
            }
            let rows: Vec<HeldRef> = rows.iter().map(|(_, row)| row.clone()).collect();
            let ActionDone { items, stopped: failed, .. } = match self.deed {
                Deed::Retry => store.held_retry(&rows, &self.by, why).await,
                Deed::Discard => store.held_discard(&rows, &self.by, why).await,
            };
            self.note(|progress| {
                items.into_iter().for_each(|item| *progress.results.entry(item.result).or_default() += 1)
            });
            app.live.changed();
            if let Some(error) = failed {
                return stopped(error.to_string());
            }
        }
    }
}

/// The plans that are kept.
#[derive(Debug, Default)]
pub(super) struct Plans(Mutex<Vec<Arc<Plan>>>);

impl Plans {
    pub(super) fn add(&self, plan: Plan) -> Arc<Plan> {
        let plan = Arc::new(plan);
        let mut plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        plans.retain(|plan| plan.made.elapsed() < LIFE || plan.progress().stage == Stage::Runs);
        if plans.len() >= PLANS_MAX {
            let oldest = plans.iter().position(|plan| plan.progress().stage != Stage::Runs);
            plans.remove(oldest.unwrap_or_default());
        }
        plans.push(plan.clone());
        plan
    }

    /// One's own plan.
    pub(super) fn get(&self, id: &str, by: &str) -> Option<Arc<Plan>> {
        let plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        plans.iter().find(|plan| plan.id == id && plan.by == by).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_plans_are_kept_than_fit_and_each_is_its_makers_alone() {
        let plans = Plans::default();
        let first = plans.add(Plan::new(Deed::Retry, &[], String::new(), "ann"));
        assert!(plans.get(&first.id, "ann").is_some());
        assert!(plans.get(&first.id, "bob").is_none());
        for _ in 0..PLANS_MAX {
            plans.add(Plan::new(Deed::Retry, &[], String::new(), "ann"));
        }
        assert!(plans.get(&first.id, "ann").is_none());
        assert_eq!(plans.0.lock().unwrap().len(), PLANS_MAX);
    }
}
