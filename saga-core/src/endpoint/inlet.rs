//! The inlet of a lane: what the router has sent and the lane has not taken yet, without what the broker took back.

use super::{router::Item, shared::Shared};
use crate::Store;
use std::{collections::VecDeque, pin::pin};
use tokio::sync::{mpsc, watch};

/// Items that wait for a lane. Those of the broker's channel that lives are bounded by the prefetch. Those of a channel
/// that is gone will come again, so they are dropped here: at the latest when the next channel brings deliveries, even
/// while the lane is busy for hours.
#[derive(Debug)]
pub(super) struct Inlet {
    items: mpsc::UnboundedReceiver<Item>,
    /// Taken from `items` already, while the lane was busy.
    taken: VecDeque<Item>,
    /// Changes when a further channel brings deliveries.
    channels: watch::Receiver<u64>,
}

impl Inlet {
    pub(super) fn new<Db: Store>(shared: &Shared<Db>, items: mpsc::UnboundedReceiver<Item>) -> Self {
        Self { items, taken: VecDeque::new(), channels: shared.channels.subscribe() }
    }

    /// Waits for items and moves at most `most` of them to `into`. Returns false when none will come any more.
    pub(super) async fn take(&mut self, into: &mut Vec<Item>, most: usize) -> bool {
        let before = into.len();
        loop {
            self.take_now(into, most);
            if into.len() > before {
                return true;
            }
            if self.items.recv_many(into, most).await == 0 {
                return false;
            }
            into.extract_if(before.., |item| item.comes_again()).for_each(drop);
            if into.len() > before {
                return true;
            }
        }
    }

    /// The same for a lane that has items: returns as well when the broker has taken some back. With 0 for `most` it
    /// waits for that alone.
    pub(super) async fn take_beside(&mut self, into: &mut Vec<Item>, most: usize) -> bool {
        let mut channels = self.channels.clone();
        tokio::select! {
            biased;
            changed = channels.changed() => {
                self.channels = channels;
                self.drop_what_comes_again();
                changed.is_ok() // else the endpoint has ended
            }
            more = self.take(into, most), if most > 0 => more,
        }
    }

    /// Moves at most `most` items that are there to `into`.
    pub(super) fn take_now(&mut self, into: &mut Vec<Item>, most: usize) {
        let (taken, items) = (&mut self.taken, &mut self.items);
        let there = std::iter::from_fn(|| taken.pop_front().or_else(|| items.try_recv().ok()));
        into.extend(there.filter(|item| !item.comes_again()).take(most));
    }

    /// Runs the lane's work, and drops meanwhile what the broker takes back.
    pub(super) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                changed = self.channels.changed() => match changed {
                    Ok(()) => self.drop_what_comes_again(),
                    Err(_) => return work.await, // the endpoint has ended
                },
            }
        }
    }

    fn drop_what_comes_again(&mut self) {
        self.taken.extend(std::iter::from_fn(|| self.items.try_recv().ok()));
        self.taken.retain(|item| !item.comes_again());
        self.taken.shrink_to_fit();
    }
}
