//! Items of a saga lane that wait because of their instance: another transaction holds the instance's lock, or the
//! instance has more to do than fits one unit. Items of other instances do not wait for them.

use super::{router::Item, trouble::Trouble};
use crate::port::Backoff;
use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

/// The first pause before a lock that another transaction holds is tried again; each failed try doubles the pause.
const LOCKED_PAUSE_MIN: Duration = Duration::from_millis(5);
const LOCKED_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A lock that is held longer than this is logged: a unit of work takes milliseconds.
const LOCKED_LONG: Duration = Duration::from_secs(5);

/// Items that wait because of their instance. Bounded by the transport's prefetch, as the lane's channel is.
#[derive(Debug)]
pub(super) struct Parked {
    items: VecDeque<Item>,
    /// Instances that have items here: new items of such an instance wait behind them.
    keys: HashSet<i64>,
    /// When they are tried again; `None` while there are none.
    due: Option<Instant>,
    backoff: Backoff,
    /// Since when a lock has been held by another transaction.
    locked_since: Option<Instant>,
    trouble: Trouble,
}

impl Default for Parked {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            keys: HashSet::new(),
            due: None,
            backoff: Backoff::new(LOCKED_PAUSE_MIN, LOCKED_PAUSE_MAX),
            locked_since: None,
            trouble: Trouble::default(),
        }
    }
}

impl Parked {
    /// Waits until they are to be tried again; for ever while there are none.
    pub(super) async fn due(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// What runs now: parked items that are due, then new ones.
    pub(super) fn next_batch(&mut self, came: &mut Vec<Item>) -> Vec<Item> {
        let mut batch = Vec::new();
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.due = None;
            self.keys.clear();
            batch.extend(self.items.drain(..));
        }
        batch.append(came);
        batch
    }

    /// The items without those whose instance has items parked: these wait behind them.
    pub(super) fn keep_back(&mut self, items: Vec<Item>) -> Vec<Item> {
        if self.items.is_empty() {
            return items;
        }
        let (back, free) = items.into_iter().partition(|item| self.keys.contains(&item.order_key()));
        self.items.extend::<Vec<Item>>(back);
        free
    }

    /// Another transaction holds the lock of the item's instance: the item is tried again, less and less often.
    pub(super) fn locked(&mut self, item: Item) {
        self.locked_since.get_or_insert_with(Instant::now);
        if self.due.is_none() {
            self.due = Some(Instant::now() + self.backoff.next());
        }
        self.park(item);
    }

    /// The item's instance has more to do: it goes on at once, behind other instances.
    pub(super) fn unfinished(&mut self, item: Item) {
        self.due = Some(Instant::now());
        self.park(item);
    }

    fn park(&mut self, item: Item) {
        self.keys.insert(item.order_key());
        self.items.push_back(item);
    }

    /// Logs that instances are locked for long, and when they no longer are.
    pub(super) fn say_how_long(&mut self, endpoint: &str) {
        if self.items.is_empty() {
            self.locked_since = None;
            self.backoff.reset();
            if let Some(lasted) = self.trouble.ends() {
                tracing::info!(endpoint, ?lasted, "instances are no longer locked by another process");
            }
        } else if self.locked_since.is_some_and(|since| since.elapsed() > LOCKED_LONG)
            && let Some(said) = self.trouble.begins()
        {
            let (messages, first) = (self.items.len(), &self.items[0].key);
            tracing::warn!(
                endpoint,
                messages,
                ?first,
                since = ?said.since,
                "instances are locked by another process; their messages wait, others go on"
            );
        }
    }
}

#[cfg(test)]
mod tests;
