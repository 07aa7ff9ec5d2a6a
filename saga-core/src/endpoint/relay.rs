//! The relay: sends what nobody sends from memory. These are rows that became due (timers, retries), rows that did not
//! fit a window, rows that other programs inserted, and rows of processes that died, including an earlier run of this
//! one.

use super::{
    dispatch::{LATE, Load},
    low,
    shared::Shared,
    supervisor::Links,
    trouble::Trouble,
};
use crate::{
    LinkState, Store, StoreError,
    port::{Backoff, Destination, LeaseRequest},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The most rows of one lease: bounds the statement and the memory.
const LEASED_ROWS_MAX: usize = 1000;
/// While the window is full, the relay checks this often whether there is room again; less and less often, when its
/// receivers are slow.
const FULL_WINDOW_PAUSE: Duration = Duration::from_millis(5);
const FULL_WINDOW_PAUSE_MAX: Duration = Duration::from_millis(100);
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two tries while the database or the broker is away.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// While rows may turn up under our own lease, the looks come this often.
const AGAIN: Duration = Duration::from_secs(1);
/// A look at all rows that takes longer than this reads many that are gone. PostgreSQL cannot remove them while
/// somebody holds a transaction open.
const QUICK: Duration = Duration::from_millis(50);
/// Slow looks at all rows take at most one part in this number of the time; the looks in between go back only to the
/// previous one.
const SHARE: u32 = 20;
/// The longest time between two looks at all rows: so much later go the rows of a dead process, and of a transaction
/// that committed long after it had written them.
const ALL_MAX: Duration = Duration::from_secs(60);

/// The shortest time between two looks for which no unit may begin.
const QUIET_EVERY: Duration = Duration::from_secs(1);

/// How far back the looks go.
#[derive(Debug, Default)]
struct Looks {
    /// When the last one began that left nothing.
    last: Option<Instant>,
    /// When all rows are looked at again, if not each time.
    all_at: Option<Instant>,
}

impl Looks {
    fn since(&self, now: Instant) -> Option<Duration> {
        self.all_at.filter(|at| now < *at)?;
        self.last.map(|last| now - last + LATE)
    }

    /// A look has ended. `rest`: it left rows.
    fn looked(&mut self, since: Option<Duration>, began: Instant, rest: bool) {
        if since.is_none() {
            let took = began.elapsed();
            let slow = took > QUICK && !rest;
            self.all_at = slow.then(|| Instant::now() + (took * SHARE).min(ALL_MAX.max(took)));
        }
        if !rest {
            self.last = Some(began);
        }
    }
}

/// Runs until `stop` is cancelled.
pub(crate) async fn run<Db: Store>(shared: Arc<Shared<Db>>, links: Links, stop: CancellationToken) {
    let dispatcher = &shared.dispatcher;
    let poll = shared.settings.poll;
    let mut next_poll = Instant::now();
    let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    let trouble = Trouble::default();
    let mut looks = Looks::default();
    let mut full_pause = FULL_WINDOW_PAUSE;
    // a look at all rows has left nothing, but units went on meanwhile: the next one is to be quiet
    let (mut wants_quiet, mut quiet_from) = (false, Instant::now());
    loop {
        let wake = dispatcher.relay_at(next_poll);
        if Instant::now() < wake {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = dispatcher.relay.notified() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
            continue;
        }
        if stop.is_cancelled() {
            return;
        }
        if *links.publishing.borrow() != LinkState::Up {
            // leased rows could not be sent now; another process may reach its broker
            tokio::time::sleep(poll.min(PAUSE_MAX)).await;
            continue;
        }
        let is_quiet = wants_quiet && quiet_from <= Instant::now() && looks.since(Instant::now()).is_none();
        let quiet = if is_quiet { Some(dispatcher.quiet().await) } else { None };
        if is_quiet {
            quiet_from = Instant::now() + QUIET_EVERY;
        }
        let (room, overflows) = dispatcher.room_for_relay();
        if room.messages == 0 {
            drop(quiet);
            tokio::time::sleep(full_pause).await;
            full_pause = (full_pause * 2).min(FULL_WINDOW_PAUSE_MAX);
            continue;
        }
        full_pause = FULL_WINDOW_PAUSE;
        let room = Load { messages: room.messages.min(LEASED_ROWS_MAX), ..room };
        let began = Instant::now();
        let known = dispatcher.forget_due();
        next_poll = began + if known.is_some() { poll.min(AGAIN) } else { poll };
        let since = looks.since(began);
        match look(&shared, &links, room, since, known.as_deref()).await {
            Ok(leased) => {
                let rest = leased.messages == room.messages || leased.bytes >= room.bytes;
                looks.looked(since, began, rest);
                backoff.reset();
                shared.polled.ends();
                if let Some(lasted) = trouble.ends() {
                    tracing::info!(endpoint = shared.name, ?lasted, "the relay reaches the database again");
                }
                if rest {
                    next_poll = Instant::now();
                } else if since.is_none() {
                    dispatcher.caught_up(overflows, began);
                    wants_quiet = dispatcher.can_catch_up();
                } else if dispatcher.is_behind() {
                    looks.all_at = None; // what was written longer ago may have been committed just now
                }
            }
            Err(error) => {
                dispatcher.lose_sight();
                shared.polled.begins_with(&error);
                if trouble.begins().is_some() {
                    tracing::warn!(endpoint = shared.name, %error, "the relay waits for the database");
                }
                drop(quiet);
                backoff.pause().await;
            }
        }
    }
}

/// Leases what is due, or became due `since`, and sends it; see [`LeaseRequest::known`]. Returns what there
/// was.
async fn look<Db: Store>(
    shared: &Shared<Db>,
    links: &Links,
    room: Load,
    since: Option<Duration>,
    known: Option<&[Uuid]>,
) -> Result<Load, StoreError> {
    let request = LeaseRequest {
        endpoint: &shared.name,
        owner: shared.owner(),
        rows_max: room.messages as i64,
        bytes_max: i64::try_from(room.bytes).unwrap_or(i64::MAX),
        lease: shared.settings.lease,
        retention: shared.settings.retention,
        since,
        known,
        ahead: shared.settings.poll,
    };
    let mut leased = shared.store.lease(&request).await?;
    if links.low.is_none() {
        // its last priority was taken away after these rows were written: nobody reads that queue any more
        let low = Destination::Endpoint(low::queue(&shared.name));
        for row in leased.rows.iter_mut().filter(|row| row.destination == low) {
            row.destination = Destination::Endpoint(shared.name.clone());
        }
    }
    shared.metrics.leased(&leased.rows);
    shared.dispatcher.send(&leased.rows);
    if let Some(delay) = leased.next_due {
        shared.dispatcher.due_in(delay);
    }
    Ok(Load::of(leased.rows.iter().map(|row| &row.envelope)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slow_looks_at_all_rows_are_rare() {
        let mut looks = Looks::default();
        let mut all = Vec::new();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            let began = Instant::now();
            let since = looks.since(began);
            tokio::time::advance(Duration::from_millis(if since.is_none() { 800 } else { 10 })).await;
            looks.looked(since, began, false);
            match since {
                None => all.push((began - start).as_secs()),
                Some(since) => assert!(since >= LATE && since < LATE + Duration::from_secs(4), "{since:?}"),
            }
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        assert!(all.len() == 4 && all[0] == 0, "at these seconds: {all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_look_has_left_is_in_reach_of_the_next() {
        let mut looks = Looks::default();
        let first = Instant::now();
        tokio::time::advance(Duration::from_millis(800)).await;
        looks.looked(None, first, false);
        tokio::time::advance(Duration::from_secs(2)).await;
        let since = looks.since(Instant::now());
        looks.looked(since, Instant::now(), true);
        tokio::time::advance(Duration::from_secs(8)).await;
        assert_eq!(looks.since(Instant::now()), Some(first.elapsed() + LATE));
    }

    #[tokio::test(start_paused = true)]
    async fn quick_looks_and_those_that_leave_rows_are_at_all_rows() {
        for (takes, rest) in [(10, false), (900, true)] {
            let mut looks = Looks::default();
            let began = Instant::now();
            tokio::time::advance(Duration::from_millis(takes)).await;
            looks.looked(None, began, rest);
            assert_eq!(looks.since(Instant::now()), None, "{takes} ms");
        }
    }
}
