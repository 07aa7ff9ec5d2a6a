//! The relay: sends what nobody sends from memory. Rows that became due (timers, retries), that did not fit a window, that
//! other programs inserted, and those of processes that died, this one's own past included.

use super::core::Core;
use crate::{Claim, LinkState, Store, retry::backoff};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// Rows of one claim at most: bounds the statement and the memory.
const CLAIM_ROWS_MAX: usize = 1000;
/// While the window is full, the relay looks this often whether there is room again.
const FULL_WINDOW_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause between two tries while the database is away.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// How often old inbox rows and done instances are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

pub(crate) async fn run<Db: Store>(core: Arc<Core<Db>>, link: watch::Receiver<LinkState>, stop: CancellationToken) {
    let dispatcher = &core.dispatcher;
    let poll = core.settings.poll;
    let mut next_poll = Instant::now();
    let mut tries = 0;
    loop {
        let wake = dispatcher.relay_at(next_poll);
        if Instant::now() < wake {
            tokio::select! {
                () = tokio::time::sleep_until(wake) => {}
                () = dispatcher.relay.notified() => {}
                () = stop.cancelled() => return,
            }
            continue;
        }
        if stop.is_cancelled() {
            return;
        }
        let (room, overflows) = dispatcher.room_for_relay();
        if *link.borrow() != LinkState::Up {
            // what is claimed could not be sent; somebody else's broker may be there
            tokio::time::sleep(poll.min(PAUSE_MAX)).await;
            continue;
        }
        if room == 0 {
            tokio::time::sleep(FULL_WINDOW_PAUSE).await;
            continue;
        }
        let rows_max = room.min(CLAIM_ROWS_MAX);
        dispatcher.forget_due();
        next_poll = Instant::now() + poll;
        match look(&core, rows_max).await {
            Ok(rows) => {
                tries = 0;
                if rows == rows_max {
                    next_poll = Instant::now();
                } else {
                    dispatcher.caught_up(overflows);
                }
            }
            Err(error) => {
                tries += 1;
                tracing::warn!(endpoint = core.name, tries, %error, "the relay waits for the database");
                tokio::time::sleep(backoff(tries, PAUSE_MAX)).await;
            }
        }
    }
}

/// Claims what is due. Returns how many rows were claimed.
async fn look<Db: Store>(core: &Core<Db>, rows_max: usize) -> Result<usize, crate::StoreError> {
    let claim = Claim {
        endpoint: &core.name,
        owner: &core.owner,
        rows_max: rows_max as i64,
        lease: core.settings.lease,
        retention: core.settings.retention,
    };
    let claimed = core.store.claim(&claim).await?;
    let rows = claimed.rows.iter();
    core.dispatcher.push(rows.map(|row| (row.id, &row.envelope, row.attempts, &row.destination)));
    if let Some(delay) = claimed.next_due {
        core.dispatcher.due_in(delay);
    }
    Ok(claimed.rows.len())
}

/// Deletes what is older than the retention, in small steps.
pub(crate) async fn sweep<Db: Store>(core: Arc<Core<Db>>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP_EVERY) => {}
            () = stop.cancelled() => return,
        }
        loop {
            match core.store.sweep(&core.name, core.settings.retention).await {
                Ok(0) => break,
                Ok(rows) => tracing::debug!(endpoint = core.name, rows, "old rows deleted"),
                Err(error) => {
                    tracing::warn!(endpoint = core.name, %error, "old rows not deleted; tried again later");
                    break;
                }
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }
}
