//! Actions on many rows. A plan names its rows before anybody confirms it, and takes those and no others. It is carried
//! out by a task of its own, so that a browser that leaves stops nothing; a person can.

use super::{
    app::{App, Away},
    sql::Sql,
};
use crate::{
    bulk::{self, Early, Order, Perform},
    commands::{outbox_done, word_of_held},
    text::{count, plain},
};
use saga_core::{HeldAction, HeldRef, HeldView, ORDER_ROWS_MAX, OutboxAction, OutboxView};
use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use uuid::Uuid;

/// The most plans that are kept: a new one takes the place of the oldest that is not being carried out.
const PLANS_MAX: usize = 20;
/// A plan that nobody confirmed within this time is forgotten.
const LIFE: Duration = Duration::from_secs(1800);

/// The rows of a plan.
#[derive(Debug)]
pub(super) struct Chosen<Name, View> {
    /// What names each and no other, with its database's number.
    names: Vec<(usize, Name)>,
    /// The first of them, to be shown.
    pub(super) shown: Vec<(usize, View)>,
}

impl<Name, View: Clone> Chosen<Name, View> {
    fn new(rows: &[(usize, View)], name: impl Fn(&View) -> Name) -> Self {
        Self {
            names: rows.iter().map(|(n, row)| (*n, name(row))).collect(),
            shown: rows.iter().take(ORDER_ROWS_MAX).cloned().collect(),
        }
    }
}

/// What is done with rows of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sending {
    Now,
    GiveUp,
    To(String),
}

impl Sending {
    pub(super) fn action(&self) -> OutboxAction<'_> {
        match self {
            Self::Now => OutboxAction::SendNow,
            Self::GiveUp => OutboxAction::Discard,
            Self::To(to) => OutboxAction::Reroute { to },
        }
    }
}

/// What is done with which rows.
#[derive(Debug)]
pub(super) enum Work {
    Held(HeldAction<'static>, Chosen<HeldRef, HeldView>),
    Outbox(Sending, Chosen<String, OutboxView>),
}

impl Work {
    pub(super) fn on_held(action: HeldAction<'static>, rows: &[(usize, HeldView)]) -> Self {
        Self::Held(action, Chosen::new(rows, HeldView::row))
    }

    pub(super) fn on_outbox(sending: Sending, rows: &[(usize, OutboxView)]) -> Self {
        Self::Outbox(sending, Chosen::new(rows, |row| row.id.clone()))
    }

    /// How many rows.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Held(_, chosen) => chosen.names.len(),
            Self::Outbox(_, chosen) => chosen.names.len(),
        }
    }

    /// How many rows, in words.
    pub(super) fn rows(&self) -> String {
        count(self.len() as i64, if matches!(self, Self::Held(..)) { "message" } else { "row" })
    }

    /// What is asked for.
    pub(super) fn told(&self) -> String {
        let rows = self.rows();
        match self {
            Self::Held(HeldAction::Discard, _) | Self::Outbox(Sending::GiveUp, _) => format!("Discard {rows}"),
            Self::Held(..) => format!("Retry {rows}"),
            Self::Outbox(Sending::Now, _) => format!("Send {rows} now"),
            Self::Outbox(Sending::To(to), _) => format!("Reroute {rows} to {}", plain(to)),
        }
    }

    /// Whether it cannot be undone.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Held(HeldAction::Discard, _) | Self::Outbox(Sending::GiveUp, _))
    }

    /// The result of a row when all went well, and how that is said.
    pub(super) fn done(&self) -> (&'static str, &'static str) {
        match self {
            Self::Held(action, _) => (word_of_held(*action), word_of_held(*action)),
            Self::Outbox(sending, _) => (OutboxAction::DONE, outbox_done(sending.action())),
        }
    }

    /// The page that it was made on.
    pub(super) fn page(&self) -> &'static str {
        if matches!(self, Self::Held(..)) { "/held" } else { "/outbox" }
    }
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) id: String,
    pub(super) work: Work,
    /// The command that does the same, and the query that finds the same rows.
    pub(super) command: String,
    pub(super) sql: Sql,
    /// Who made it: nobody else sees it.
    pub(super) by: String,
    /// Databases that did not answer when it was made: what is in them is no part of it.
    pub(super) away: Vec<Away>,
    /// So many more match: a plan takes no more at once.
    pub(super) beyond: u64,
    made: Instant,
    stop: watch::Sender<bool>,
    progress: Mutex<Progress>,
}

/// How far a plan is.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    pub(super) stage: Stage,
    /// How many rows ended with which result.
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
    pub(super) fn new(work: Work, command: String, sql: Sql, by: &str) -> Self {
        Self {
            id: Uuid::new_v4().simple().to_string(),
            work,
            command,
            sql,
            by: by.into(),
            away: Vec::new(),
            beyond: 0,
            made: Instant::now(),
            stop: watch::Sender::new(false),
            progress: Mutex::default(),
        }
    }

    /// It does not reach these databases, and of the `there` rows that match it takes no more than it has.
    pub(super) fn without(self, away: Vec<Away>, there: u64) -> Self {
        Self { away, beyond: there.saturating_sub(self.work.len() as u64), ..self }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note<T>(&self, note: impl FnOnce(&mut Progress) -> T) -> T {
        note(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops it after the rows that are under way.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Carries it out, at most `rate` rows a second. The second who asks changes nothing.
    pub(super) async fn carry_out(self: Arc<Self>, app: Arc<App>, why: String, rate: Option<NonZeroU32>) {
        let is_first = self.note(|progress| {
            let is_first = progress.stage == Stage::Waits;
            progress.stage = if is_first { Stage::Runs } else { progress.stage };
            is_first
        });
        if !is_first {
            return;
        }
        let (who, why) = (&*self.by, &*why);
        match &self.work {
            Work::Held(action, chosen) => {
                self.on_all(&app, &chosen.names, rate, &Order { action: *action, who, why }).await;
            }
            Work::Outbox(sending, chosen) => {
                self.on_all(&app, &chosen.names, rate, &Order { action: sending.action(), who, why }).await;
            }
        }
        self.note(|progress| progress.stage = Stage::Over);
        app.live.changed();
    }

    async fn on_all<T: Clone + Send + Sync>(
        &self,
        app: &App,
        rows: &[(usize, T)],
        rate: Option<NonZeroU32>,
        order: &impl Perform<T>,
    ) {
        for rows in rows.chunk_by(|(a, _), (b, _)| a == b) {
            let source = app.source(rows[0].0);
            let early = match source.store().await {
                Ok(store) => {
                    let rows: Vec<T> = rows.iter().map(|(_, row)| row.clone()).collect();
                    let mut stop = self.stop.subscribe();
                    let stopped = async { drop(stop.wait_for(|stop| *stop).await) };
                    let count = |items: Vec<saga_core::OperationItem>| {
                        self.note(|progress| {
                            items.into_iter().for_each(|item| *progress.results.entry(item.result).or_default() += 1);
                        });
                        app.live.changed();
                    };
                    bulk::in_steps(&*store, &rows, rate, order, stopped, count).await
                }
                Err(error) => Some(Early::Failed(error)),
            };
            let Some(early) = early else { continue };
            let why = match early {
                Early::Failed(error) => error.to_string(),
                Early::Stopped => "stopped by hand".into(),
            };
            self.note(|progress| progress.stopped.push(format!("{}: {why}", source.name)));
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
        let plan = || Plan::new(Work::on_held(HeldAction::Retry, &[]), String::new(), Sql::default(), "ann");
        let first = plans.add(plan());
        assert!(plans.get(&first.id, "ann").is_some());
        assert!(plans.get(&first.id, "bob").is_none());
        for _ in 0..PLANS_MAX {
            plans.add(plan());
        }
        assert!(plans.get(&first.id, "ann").is_none());
        assert_eq!(plans.0.lock().unwrap().len(), PLANS_MAX);
    }
}
