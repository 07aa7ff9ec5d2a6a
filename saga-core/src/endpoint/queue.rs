//! What waits in a saga lane, and which units may run beside each other.
//!
//! Items of an instance run in the order in which they came, and those of other instances do not wait for them: while
//! an item of an instance runs, while another process has locked the instance, and while the instance has more to do
//! than fits one unit, its later items stay here.

use super::{router::Item, trouble::Trouble};
use crate::port::Backoff;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

/// The most units of a lane that run at the same time. With one, the lane would wait while the database works, and the
/// database while the lane decides.
pub(super) const UNITS_MAX: usize = 2;
/// A second unit begins when it has this share of the longest batch: small units cost more than waiting for the first.
const SHARE: usize = 2;
/// The first pause before a lock that another transaction holds is tried again; each failed try doubles the pause.
const LOCKED_PAUSE_MIN: Duration = Duration::from_millis(5);
const LOCKED_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A lock that is held longer than this is logged: a unit of work takes milliseconds.
const LOCKED_LONG: Duration = Duration::from_secs(5);

/// The items of a lane that do not run. Bounded by the transport's prefetch, as the lane's channel is.
#[derive(Debug)]
pub(super) struct Queue {
    batch_max: usize,
    /// With their order keys.
    items: VecDeque<(i64, Item)>,
    /// Instances that run or are locked, by their order keys.
    busy: HashMap<i64, Busy>,
    /// Batches that run.
    running: usize,
    /// One of them is a suspect, which runs alone.
    alone: bool,
    trouble: Trouble,
}

#[derive(Debug, Default)]
struct Busy {
    runs: bool,
    lock: Option<Lock>,
}

/// A lock that another transaction holds.
#[derive(Debug)]
struct Lock {
    since: Instant,
    tries: u32,
    /// When it is tried again.
    due: Instant,
}

/// Items that run together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    keys: Vec<i64>,
}

/// What a batch leaves: each instance's items in their order.
#[derive(Debug, Default)]
pub(super) struct Left {
    items: Vec<Item>,
    keys: HashSet<i64>,
    locked: HashSet<i64>,
}

impl Queue {
    pub(super) fn new(batch_max: usize) -> Self {
        Self {
            batch_max,
            items: VecDeque::new(),
            busy: HashMap::new(),
            running: 0,
            alone: false,
            trouble: Trouble::default(),
        }
    }

    pub(super) fn push(&mut self, came: &mut Vec<Item>) {
        self.items.extend(came.drain(..).map(|item| (item.order_key(), item)));
    }

    /// Whether another batch may run once it is there.
    pub(super) fn has_room(&self) -> bool {
        self.running < UNITS_MAX && !self.alone
    }

    /// Waits until a lock is to be tried again; for ever while there is none.
    pub(super) async fn due(&self) {
        let locks = self.busy.values().filter(|busy| !busy.runs).filter_map(|busy| busy.lock.as_ref());
        match locks.map(|lock| lock.due).min() {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// What runs now, if anything: a suspect runs alone, and nothing overtakes it.
    pub(super) fn next(&mut self) -> Option<Batch> {
        if !self.has_room() {
            return None;
        }
        let now = Instant::now();
        if self.running > 0 {
            let enough = self.batch_max.div_ceil(SHARE);
            let free =
                self.items.iter().take_while(|(_, item)| !item.suspect).filter(|(key, _)| self.is_free(*key, now));
            if self.items.len() < enough || free.take(enough).count() < enough {
                return None;
            }
        }
        let mut items = Vec::new();
        let mut stay = Vec::new();
        let mut dropped = false;
        while items.len() < self.batch_max
            && let Some((key, item)) = self.items.pop_front()
        {
            if item.comes_again() {
                dropped = true;
                continue;
            }
            if !self.is_free(key, now) {
                stay.push((key, item));
            } else if !item.suspect {
                items.push((key, item));
            } else if items.is_empty() && self.running == 0 {
                self.alone = true;
                items.push((key, item));
                break;
            } else {
                stay.push((key, item));
                break;
            }
        }
        stay.into_iter().rev().for_each(|item| self.items.push_front(item));
        if dropped {
            self.forget_locks(&items);
        }
        if items.is_empty() {
            return None;
        }
        let (mut keys, items): (Vec<i64>, Vec<Item>) = items.into_iter().unzip();
        keys.sort_unstable();
        keys.dedup();
        keys.iter().for_each(|key| self.busy.entry(*key).or_default().runs = true);
        self.running += 1;
        Some(Batch { items, keys })
    }

    fn is_free(&self, key: i64, now: Instant) -> bool {
        let Some(busy) = self.busy.get(&key) else { return true };
        !busy.runs && busy.lock.as_ref().is_none_or(|lock| lock.due <= now)
    }

    /// A batch with these keys has ended. What it left goes behind other instances and before later items of its own.
    pub(super) fn ended(&mut self, keys: &[i64], left: Left) {
        (self.running, self.alone) = (self.running - 1, false);
        let now = Instant::now();
        for key in keys {
            if !left.locked.contains(key) {
                self.busy.remove(key);
                continue;
            }
            let busy = self.busy.entry(*key).or_default();
            let tries = busy.lock.as_ref().map_or(0, |lock| lock.tries + 1);
            let since = busy.lock.as_ref().map_or(now, |lock| lock.since);
            let due = now + Backoff::after(LOCKED_PAUSE_MIN, LOCKED_PAUSE_MAX, tries);
            *busy = Busy { runs: false, lock: Some(Lock { since, tries, due }) };
        }
        for item in left.items.into_iter().rev() {
            let key = item.order_key();
            let later = self.items.iter().position(|(of, _)| *of == key);
            self.items.insert(later.unwrap_or(self.items.len()), (key, item));
        }
    }

    /// The broker has taken deliveries back: they will come again.
    pub(super) fn drop_what_comes_again(&mut self) {
        self.items.retain(|(_, item)| !item.comes_again());
        self.items.shrink_to_fit();
        self.forget_locks(&[]);
    }

    /// Forgets the locks for which nothing waits any more, apart from these items: they would be due for ever.
    fn forget_locks(&mut self, items: &[(i64, Item)]) {
        let keys: HashSet<i64> = self.items.iter().chain(items).map(|(key, _)| *key).collect();
        self.busy.retain(|key, busy| busy.runs || keys.contains(key));
    }

    /// Logs that instances are locked for long, and when they no longer are.
    pub(super) fn say_how_long(&mut self, endpoint: &str) {
        let locks = self.busy.iter().filter_map(|(key, busy)| Some((busy.lock.as_ref()?.since, *key)));
        let long = locks.filter(|(since, _)| since.elapsed() > LOCKED_LONG).min();
        let Some((_, key)) = long else {
            if let Some(lasted) = self.trouble.ends() {
                tracing::info!(endpoint, ?lasted, "instances are no longer locked by another process");
            }
            return;
        };
        if let Some(said) = self.trouble.begins() {
            let mut waiting = self.items.iter().filter(|(of, _)| *of == key).peekable();
            let first = waiting.peek().and_then(|(_, item)| item.key.clone().or_else(|| item.alias.clone()));
            let messages = waiting.count();
            tracing::warn!(
                endpoint,
                messages,
                ?first,
                since = ?said.since,
                "an instance is locked by another process; its messages wait, others go on"
            );
        }
    }
}

impl Batch {
    /// The items, and their keys for [`Queue::ended`].
    pub(super) fn part(self) -> (Vec<Item>, Vec<i64>) {
        (self.items, self.keys)
    }
}

impl Left {
    /// The items without those whose instance has left some already: these wait behind them.
    pub(super) fn keep_back(&mut self, items: Vec<Item>) -> Vec<Item> {
        if self.items.is_empty() {
            return items;
        }
        let (back, free): (Vec<Item>, _) = items.into_iter().partition(|item| self.keys.contains(&item.order_key()));
        self.items.extend(back);
        free
    }

    /// Another transaction holds the lock of the item's instance: the item is tried again, less and less often.
    pub(super) fn locked(&mut self, item: Item) {
        self.locked.insert(item.order_key());
        self.unfinished(item);
    }

    /// The item's instance has more to do: it goes on at once, behind other instances.
    pub(super) fn unfinished(&mut self, item: Item) {
        self.keys.insert(item.order_key());
        self.items.push(item);
    }
}

#[cfg(test)]
mod tests;
