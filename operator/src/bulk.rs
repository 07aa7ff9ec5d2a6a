//! An action on many rows: which they are, by a filter or by their ids, and then in steps, not faster than asked for.
//! It can be stopped between two steps. The commands and the dashboard act by the same code.

use crate::{
    choice::{self, OneOfSeveral},
    databases::Session,
    find::{self, Found, Named},
    interrupt::Interrupt,
    names,
};
use async_trait::async_trait;
use saga_core::{
    ActionDone, ErrorCode, HeldAction, HeldFilter, HeldRef, HeldView, Inspect, ORDER_ROWS_MAX, OperationItem,
    OutboxAction, OutboxFilter, OutboxView, StoreError,
};
use std::{collections::BTreeSet, num::NonZeroU32, pin::pin, time::Duration};

/// The most rows that a filter takes of each database.
const ROWS_MAX: i64 = 100_000;

/// What a filter finds in one database.
pub(crate) struct Taken<T> {
    pub(crate) rows: Vec<T>,
    /// How many match: more than these, if a filter takes no more at once.
    pub(crate) there: u64,
}

impl<T> Taken<T> {
    /// They are counted only if there may be more: meanwhile rows come and go.
    async fn of(rows: Vec<T>, count: impl Future<Output = Result<u64, StoreError>>) -> Result<Self, StoreError> {
        let there = if rows.len() as i64 >= ROWS_MAX { count.await? } else { 0 };
        Ok(Self { there: there.max(rows.len() as u64), rows })
    }
}

/// Held messages. Those that wait for their turn are taken only when the filter names their reason.
pub(crate) async fn held(store: &dyn Inspect, filter: &HeldFilter) -> Result<Taken<HeldView>, StoreError> {
    let needs_person = filter.needs_person || filter.reason.is_none();
    let filter = names::held(store, &HeldFilter { needs_person, ..filter.clone() }).await?;
    Taken::of(store.held(&filter, ROWS_MAX).await?, store.held_count(&filter)).await
}

/// Rows of the outbox. Timers are taken only when the filter names their kind.
pub(crate) async fn outbox(store: &dyn Inspect, filter: &OutboxFilter) -> Result<Taken<OutboxView>, StoreError> {
    let no_timers = filter.kind.is_none();
    let filter = names::outbox(store, &OutboxFilter { no_timers, ..filter.clone() }).await?;
    Taken::of(store.outbox(&filter, ROWS_MAX).await?, store.outbox_count(&filter)).await
}

/// What a filter finds in all databases, each row with the number of its database. Says if more match than it takes;
/// `None` if nothing does, which `none` says.
pub(crate) async fn of_filter<T>(
    session: &mut Session,
    find: impl AsyncFn(&dyn Inspect) -> Result<Taken<T>, StoreError>,
    none: &str,
) -> Option<Vec<(usize, T)>> {
    let all = session.each(find).await;
    let there: u64 = all.iter().map(|(_, taken)| taken.there).sum();
    let rows = find::flat(all.into_iter().map(|(n, taken)| (n, taken.rows)).collect());
    if rows.is_empty() {
        session.refused(ErrorCode::NotFound, none);
        return None;
    }
    if (rows.len() as u64) < there {
        let text = format!("{} of {there} that match are taken: run it again for the rest", rows.len());
        session.refused(ErrorCode::StoppedHalfway, text);
    }
    Some(rows)
}

/// The one row that an id names; else why there is none to act on. `none` is what an id that names nothing is said to
/// be.
pub(crate) async fn of_id<T: Named + OneOfSeveral>(
    session: &mut Session,
    id: &str,
    find: impl AsyncFn(&mut Session, &str) -> Found<(usize, T)>,
    none: impl Fn(&str) -> String,
) -> Result<(usize, T), String> {
    let mut rows = match find(session, id).await {
        Found::One(rows) => rows,
        Found::None => return Err(session.told(ErrorCode::NotFound, none(id))),
        Found::Several(text) => return Err(ErrorCode::Ambiguous.told(text)),
    };
    let whole = rows.first().map_or_else(String::new, |(_, row)| row.named(id));
    if let Some(text) = find::unsure(id, &whole, session.is_clean()) {
        return Err(ErrorCode::Ambiguous.told(text));
    }
    if rows.len() > 1 {
        return Err(ErrorCode::Ambiguous.told(choice::several(session, &whole, &rows)));
    }
    rows.pop().ok_or_else(|| session.told(ErrorCode::NotFound, none(id)))
}

/// The rows that ids name, each once; `None` when an id does not name exactly one.
pub(crate) async fn of_ids<T: Named + OneOfSeveral>(
    session: &mut Session,
    ids: &[String],
    find: impl AsyncFn(&mut Session, &str) -> Found<(usize, T)>,
    none: impl Fn(&str) -> String,
) -> Option<Vec<(usize, T)>> {
    let (mut rows, mut wrong): (Vec<(usize, T)>, _) = (Vec::new(), Vec::new());
    for id in ids {
        match of_id(session, id, &find, &none).await {
            Ok((n, row)) if rows.iter().any(|(of, known)| *of == n && known.key() == row.key()) => {}
            Ok(found) => rows.push(found),
            Err(text) => wrong.push(text),
        }
    }
    // a database that is away keeps nobody from acting on what was found in the others
    let rows = wrong.is_empty().then_some(rows);
    wrong.into_iter().for_each(|text| session.failed(text));
    rows
}

/// What somebody orders, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order<'a, A> {
    pub(crate) action: A,
    pub(crate) who: &'a str,
    pub(crate) why: &'a str,
}

/// An order for rows that are named by `T`.
#[async_trait]
pub(crate) trait Perform<T>: Sync {
    /// Does it with some of them.
    async fn perform(&self, store: &dyn Inspect, rows: &[T]) -> ActionDone;
}

#[async_trait]
impl Perform<HeldRef> for Order<'_, HeldAction<'_>> {
    async fn perform(&self, store: &dyn Inspect, rows: &[HeldRef]) -> ActionDone {
        match self.action {
            HeldAction::Discard => store.held_discard(rows, self.who, self.why).await,
            _ => store.held_retry(rows, self.who, self.why).await,
        }
    }
}

#[async_trait]
impl Perform<String> for Order<'_, OutboxAction<'_>> {
    async fn perform(&self, store: &dyn Inspect, rows: &[String]) -> ActionDone {
        store.outbox_act(self.action, rows, self.who, self.why).await
    }
}

/// Carries an order out on all rows, each with the number of its database, and reports what ended it early.
pub(crate) async fn on_all<T: Clone + Sync>(
    session: &mut Session,
    rows: &[(usize, T)],
    rate: Option<NonZeroU32>,
    order: &impl Perform<T>,
) -> Vec<OperationItem> {
    let (mut items, mut interrupt) = (Vec::new(), Interrupt::listen());
    // ids that were typed lead from one database to another and back: each has its turn once
    let databases: BTreeSet<usize> = rows.iter().map(|(n, _)| *n).collect();
    for n in databases {
        let of_this: Vec<T> = rows.iter().filter(|(of, _)| *of == n).map(|(_, row)| row.clone()).collect();
        let (store, before) = (&*session.database(n).store, items.len());
        let early = in_steps(store, &of_this, rate, order, &mut interrupt, |more| items.extend(more)).await;
        let is_interrupted = matches!(early, Some(Early::Stopped));
        report(session, n, (items.len() - before, of_this.len()), early);
        if is_interrupted {
            break;
        }
    }
    items
}

/// Why not all rows had their turn.
pub(crate) enum Early {
    Failed(StoreError),
    Stopped,
}

/// Carries an order out on rows of one database, at most `rate` a second, until `stop` comes. `done` gets what became
/// of the rows of each step.
pub(crate) async fn in_steps<T: Sync>(
    store: &dyn Inspect,
    rows: &[T],
    rate: Option<NonZeroU32>,
    order: &impl Perform<T>,
    stop: impl Future<Output = ()>,
    mut done: impl FnMut(Vec<OperationItem>),
) -> Option<Early> {
    let rate = rate.map(NonZeroU32::get);
    let step = rate.map_or(ORDER_ROWS_MAX, |rate| ORDER_ROWS_MAX.min(rate as usize));
    let pause = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(step as f64 / f64::from(rate)));
    let mut stop = pin!(stop);
    for (n, rows) in rows.chunks(step).enumerate() {
        let pause = if n == 0 { Duration::ZERO } else { pause };
        // an order that has begun is waited for: then it is known what was done
        tokio::select! {
            biased;
            () = &mut stop => return Some(Early::Stopped),
            () = tokio::time::sleep(pause) => {}
        }
        let ActionDone { items, stopped, .. } = order.perform(store, rows).await;
        done(items);
        if let Some(error) = stopped {
            return Some(Early::Failed(error));
        }
    }
    None
}

/// Says why an action ended early, if it did: `so_far` rows of all were dealt with.
fn report(session: &mut Session, n: usize, (so_far, all): (usize, usize), early: Option<Early>) {
    let name = session.database(n).name.clone();
    let rest = "what was done stays done, run it again for the rest";
    match early {
        Some(Early::Failed(error)) => {
            session.failed(format!("{name} stopped after {so_far} of {all}: {error}; {rest}"));
        }
        Some(Early::Stopped) => {
            let text = format!("{name} was interrupted after {so_far} of {all}; {rest}");
            session.refused(ErrorCode::StoppedHalfway, text);
        }
        None => {}
    }
}
