//! The relay: sends what nobody sends from memory. These are rows that became due (timers, retries), rows that did not
//! fit a window, rows that other programs inserted, and rows of processes that died, including an earlier run of this
//! one.

use super::{shared::Shared, trouble::Trouble};
use crate::{
    LinkState, Store, StoreError,
    port::{Backoff, LeaseRequest},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// The most rows of one lease: bounds the statement and the memory.
const LEASED_ROWS_MAX: usize = 1000;
/// While the window is full, the relay checks this often whether there is room again.
const FULL_WINDOW_PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two tries while the database or the broker is away.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Runs until `stop` is cancelled.
pub(crate) async fn run<Db: Store>(shared: Arc<Shared<Db>>, link: watch::Receiver<LinkState>, stop: CancellationToken) {
    let dispatcher = &shared.dispatcher;
    let poll = shared.settings.poll;
    let mut next_poll = Instant::now();
    let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    let trouble = Trouble::default();
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
            // leased rows could not be sent now; another process may reach its broker
            tokio::time::sleep(poll.min(PAUSE_MAX)).await;
            continue;
        }
        if room == 0 {
            tokio::time::sleep(FULL_WINDOW_PAUSE).await;
            continue;
        }
        let rows_max = room.min(LEASED_ROWS_MAX);
        dispatcher.forget_due();
        next_poll = Instant::now() + poll;
        match look(&shared, rows_max).await {
            Ok(rows) => {
                backoff.reset();
                if let Some(lasted) = trouble.ends() {
                    tracing::info!(endpoint = shared.name, ?lasted, "the relay reaches the database again");
                }
                if rows == rows_max {
                    next_poll = Instant::now();
                } else {
                    dispatcher.caught_up(overflows);
                }
            }
            Err(error) => {
                if trouble.begins().is_some() {
                    tracing::warn!(endpoint = shared.name, %error, "the relay waits for the database");
                }
                backoff.pause().await;
            }
        }
    }
}

/// Leases what is due and sends it. Returns how many rows there were.
async fn look<Db: Store>(shared: &Shared<Db>, rows_max: usize) -> Result<usize, StoreError> {
    let request = LeaseRequest {
        endpoint: &shared.name,
        owner: shared.owner(),
        rows_max: rows_max as i64,
        lease: shared.settings.lease,
        retention: shared.settings.retention,
    };
    let leased = shared.store.lease(&request).await?;
    shared.dispatcher.send(&leased.rows);
    if let Some(delay) = leased.next_due {
        shared.dispatcher.due_in(delay);
    }
    Ok(leased.rows.len())
}
