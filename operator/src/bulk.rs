//! An action on many rows: in steps, not faster than asked for, and it can be interrupted between two steps.

use crate::databases::Session;
use saga_core::{ActionDone, ErrorCode, ORDER_ROWS_MAX, StoreError};
use std::{num::NonZeroU32, pin::pin, time::Duration};

/// What became of the rows of one database.
pub(crate) struct BulkDone {
    pub(crate) done: ActionDone,
    /// Ctrl-C came before the end.
    pub(crate) interrupted: bool,
}

/// Does the work for all rows, at most `rate` a second.
pub(crate) async fn in_steps<T>(
    rows: &[T],
    rate: Option<NonZeroU32>,
    work: impl AsyncFn(&[T]) -> ActionDone,
) -> BulkDone {
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
pub(crate) fn report(
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
