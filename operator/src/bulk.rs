//! An action on many rows: in steps, not faster than asked for, and it can be interrupted between two steps.

use crate::databases::Session;
use saga_core::{ActionDone, ErrorCode, Inspect, ORDER_ROWS_MAX, OperationItem, StoreError};
use std::{collections::BTreeSet, num::NonZeroU32, pin::pin, time::Duration};

/// The most rows that a filter takes of each database.
pub(crate) const ROWS_MAX: i64 = 100_000;

/// Does the work for all rows, each with the number of its database, and reports what ended it early.
pub(crate) async fn on_all<T: Clone>(
    session: &mut Session,
    rows: &[(usize, T)],
    rate: Option<NonZeroU32>,
    work: impl AsyncFn(&dyn Inspect, &[T]) -> ActionDone,
) -> Vec<OperationItem> {
    let mut items = Vec::new();
    // ids that were typed lead from one database to another and back: each has its turn once
    let databases: BTreeSet<usize> = rows.iter().map(|(n, _)| *n).collect();
    for n in databases {
        let of_this: Vec<T> = rows.iter().filter(|(of, _)| *of == n).map(|(_, row)| row.clone()).collect();
        let store = &*session.database(n).store;
        let BulkDone { done, interrupted } = in_steps(&of_this, rate, async |rows: &[T]| work(store, rows).await).await;
        report(session, n, (done.items.len(), of_this.len()), done.stopped, interrupted);
        items.extend(done.items);
        if interrupted {
            break;
        }
    }
    items
}

/// Whether more rows may match. Only then are they counted: meanwhile rows come and go.
pub(crate) fn is_full<T>(rows: &[T]) -> bool {
    rows.len() as i64 >= ROWS_MAX
}

/// Says that more rows match than a filter takes at once.
pub(crate) fn beyond(session: &mut Session, taken: usize, there: u64) {
    if (taken as u64) < there {
        let text = format!("{taken} of {there} that match are taken: run it again for the rest");
        session.refused(ErrorCode::StoppedHalfway, text);
    }
}

/// What became of the rows of one database.
struct BulkDone {
    done: ActionDone,
    /// Ctrl-C came before the end.
    interrupted: bool,
}

/// Does the work for all rows, at most `rate` a second.
async fn in_steps<T>(rows: &[T], rate: Option<NonZeroU32>, work: impl AsyncFn(&[T]) -> ActionDone) -> BulkDone {
    let rate = rate.map(NonZeroU32::get);
    let step = rate.map_or(ORDER_ROWS_MAX, |rate| ORDER_ROWS_MAX.min(rate as usize));
    let pause = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(step as f64 / f64::from(rate)));
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut all = BulkDone { done: ActionDone::default(), interrupted: false };
    for (n, rows) in rows.chunks(step).enumerate() {
        let pause = if n == 0 { Duration::ZERO } else { pause };
        // an order that has begun is waited for: then it is known what was done
        tokio::select! {
            biased;
            _ = &mut interrupt => {
                all.interrupted = true;
                break;
            }
            () = tokio::time::sleep(pause) => {}
        }
        let done = work(rows).await;
        all.done.items.extend(done.items);
        if done.stopped.is_some() {
            all.done.stopped = done.stopped;
            break;
        }
    }
    all
}

/// Says why an action ended early, if it did: `so_far` rows of all were dealt with.
fn report(
    session: &mut Session,
    n: usize,
    (so_far, all): (usize, usize),
    stopped: Option<StoreError>,
    interrupted: bool,
) {
    let name = session.database(n).name.clone();
    let rest = "what was done stays done, run it again for the rest";
    if let Some(error) = stopped {
        session.failed(format!("{name} stopped after {so_far} of {all}: {error}; {rest}"));
    } else if interrupted {
        session.refused(ErrorCode::StoppedHalfway, format!("{name} was interrupted after {so_far} of {all}; {rest}"));
    }
}
