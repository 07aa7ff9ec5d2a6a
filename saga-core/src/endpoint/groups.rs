//! The instances of a unit of sagas, each with what is offered to it.

use super::{
    judge::Before,
    router::{Item, Receiver},
    shared::Shared,
};
use crate::{
    InstanceKey, Store,
    port::{Found, HeldRow, HeldWanted, InstanceRow, Waiting},
    saga::logic::{Decided, Offer, Settled},
};
use std::collections::HashMap;
use tracing::Span;
use uuid::Uuid;

/// The most held messages of one instance that one unit of work reads, bodies included. An instance with more goes on
/// in further units, and other instances run in between.
pub(super) const HELD_ROWS_MAX: i64 = 200;
/// No more held messages are read in a unit of work once the bodies of those before have so many bytes: they are all in
/// memory at once.
pub(super) const HELD_BYTES_MAX: i64 = 16 << 20;

/// The instances of a batch whose locks are held, in order of arrival.
pub(super) struct Groups<'a> {
    pub(super) list: Vec<Group<'a>>,
    pub(super) by_key: HashMap<InstanceKey, usize>,
    /// The bytes of held bodies that may still be read.
    pub(super) bytes_left: i64,
}

pub(super) struct Group<'a> {
    pub(super) saga: usize,
    pub(super) key: InstanceKey,
    pub(super) row: Option<&'a InstanceRow>,
    pub(super) offers: Vec<Offer>,
    pub(super) sources: Vec<Before>,
    /// Their spans.
    pub(super) spans: Vec<Span>,
    /// Held messages that fit: the instance as it is stored, or a state that the batch leads to.
    pub(super) fitting: Vec<&'a Waiting>,
    /// How many of them, the last ones, fit only a state that the batch led to, and were looked for just now.
    reached: usize,
    /// It goes no further in this unit: not all of them could be read.
    stays: bool,
    /// Those that were read, in order of arrival.
    pub(super) held: Vec<HeldRow>,
    /// Held messages that do not fit.
    pub(super) unread: Vec<&'a Waiting>,
    /// What the instance decided; none until it is asked.
    pub(super) decided: Option<Decided>,
}

impl Group<'_> {
    pub(super) fn fitting(&self) -> i64 {
        self.fitting.iter().map(|waiting| waiting.count).sum()
    }

    /// What fits a state that the batch led to is offered when all of it was read. Else the instance would wait for the
    /// rest before it goes to that state, and never go there; so it is left for the next unit, which begins there.
    fn leave_what_was_not_all_read(&mut self) {
        let reached = std::mem::take(&mut self.reached);
        if reached > 0 && (self.held.len() as i64) < self.fitting() {
            let left = self.fitting.split_off(self.fitting.len() - reached);
            let is_left =
                |row: &HeldRow| left.iter().any(|it| it.reason == row.reason && it.type_name == row.envelope.type_name);
            self.held.retain(|row| !is_left(row));
            self.unread.extend(left);
            self.stays = true;
        }
    }
}

fn wanted(waiting: &Waiting) -> HeldWanted {
    HeldWanted { key: waiting.key.clone(), type_name: waiting.type_name.clone(), reason: waiting.reason }
}

impl<'a> Groups<'a> {
    pub(super) fn of<Db: Store>(shared: &Shared<Db>, items: &[Item], found: &'a Found) -> Self {
        let rows: HashMap<&InstanceKey, &InstanceRow> = found.instances.iter().map(|row| (&row.key, row)).collect();
        let mut groups = Self { list: Vec::new(), by_key: HashMap::new(), bytes_left: HELD_BYTES_MAX };
        for item in items {
            let (Receiver::Saga(saga), Some(key)) = (item.receiver, &item.key) else { continue };
            if groups.by_key.contains_key(key) || found.locked_elsewhere.contains(&key.lock()) {
                continue;
            }
            groups.by_key.insert(key.clone(), groups.list.len());
            groups.list.push(Group {
                saga,
                key: key.clone(),
                row: rows.get(key).copied(),
                offers: Vec::new(),
                sources: Vec::new(),
                spans: Vec::new(),
                fitting: Vec::new(),
                reached: 0,
                stays: false,
                held: Vec::new(),
                unread: Vec::new(),
                decided: None,
            });
        }
        for waiting in &found.waiting {
            let Some(group) = groups.by_key.get(&waiting.key).map(|place| &mut groups.list[*place]) else { continue };
            let logic = &shared.sagas[group.saga].logic;
            if group.row.is_some_and(|row| logic.fits(row, &waiting.type_name, waiting.reason)) {
                group.fitting.push(waiting);
            } else {
                group.unread.push(waiting);
            }
        }
        groups
    }

    pub(super) fn wanted(&self) -> Vec<HeldWanted> {
        self.list.iter().flat_map(|group| group.fitting.iter().map(|waiting| wanted(waiting))).collect()
    }

    /// Held messages that fit the states in which the instances have stopped, unless there are too many for the unit.
    /// Their instances are to be asked again.
    pub(super) fn reached<Db: Store>(&mut self, shared: &Shared<Db>) -> Vec<HeldWanted> {
        let mut all = Vec::new();
        for group in &mut self.list {
            let Some(decided) = group.decided.as_ref().filter(|decided| decided.more && !group.stays) else {
                continue;
            };
            let Some(row) = decided.instance.as_ref().map(|write| &write.row).or(group.row) else { continue };
            let logic = &shared.sagas[group.saga].logic;
            let fits = |waiting: &&Waiting| logic.fits(row, &waiting.type_name, waiting.reason);
            let (fit, others): (Vec<&Waiting>, Vec<&Waiting>) = group.unread.iter().copied().partition(fits);
            let count: i64 = fit.iter().map(|waiting| waiting.count).sum();
            if fit.is_empty() || group.fitting() + count > HELD_ROWS_MAX {
                continue;
            }
            all.extend(fit.iter().map(|waiting| wanted(waiting)));
            group.reached = fit.len();
            group.fitting.extend(fit);
            group.unread = others;
            group.decided = None;
        }
        all
    }

    /// Commands of earlier units that the instances take back: their rows in the outbox.
    pub(super) fn cancels(&self) -> Vec<Uuid> {
        let settled = self.list.iter().filter_map(|group| group.decided.as_ref()).flat_map(|decided| &decided.settled);
        let made = settled.filter_map(|(_, settled)| match settled {
            Settled::Moved(made) => Some(made),
            _ => None,
        });
        made.flat_map(|made| &made.cancels).filter_map(|command| command.id).collect()
    }

    pub(super) fn read(&mut self, held: Vec<HeldRow>) {
        for row in held {
            self.bytes_left = self.bytes_left.saturating_sub_unsigned(row.envelope.body.len() as u64);
            let id = row.saga_id.clone().unwrap_or_default();
            let key = InstanceKey { saga: row.receiver.clone(), id };
            let Some(place) = self.by_key.get(&key) else { continue };
            self.list[*place].held.push(row);
        }
        self.list.iter_mut().for_each(|group| group.held.sort_by_key(|row| row.arrival));
        self.list.iter_mut().for_each(Group::leave_what_was_not_all_read);
    }
}
