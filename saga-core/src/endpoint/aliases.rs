//! The aliases that the instances of a unit take: another instance may have one of them, and messages may wait for it.
//!
//! Whoever looks an alias up in order to hold a message, and whoever takes it, holds the lock of the alias until the
//! end of the transaction. So a message is held before the alias is taken, and is seen then, or it finds the instance.

use super::{
    groups::{Group, Groups},
    saga_unit::locks,
};
use crate::{
    InstanceKey, StoreError, StoreErrorKind,
    port::Unit,
    saga::{KnownAliases, logic::Decided},
};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What a unit knows of the aliases that its instances take.
#[derive(Debug, Default)]
pub(super) struct TakenAliases {
    pub(super) known: KnownAliases,
    /// Each alias that an instance tried to take, with the instance.
    tried: HashMap<InstanceKey, InstanceKey>,
    /// Two instances of the unit tried to take one.
    meet: bool,
    /// Locks that other transactions hold.
    locked_elsewhere: HashSet<i64>,
}

impl TakenAliases {
    /// Locks the aliases that instances take and looks them up. Returns whether an instance has to decide again.
    pub(super) async fn look_up(
        &mut self,
        endpoint: &str,
        unit: &mut impl Unit,
        groups: &mut Groups<'_>,
    ) -> Result<bool, StoreError> {
        let mut new = BTreeSet::new();
        for (group, decided) in decided(groups) {
            for alias in &decided.aliases.taken {
                if !self.tried.contains_key(alias) {
                    new.insert(alias.clone());
                }
                self.touched(alias, group);
            }
        }
        if new.is_empty() {
            return Ok(false);
        }
        self.locked_elsewhere.extend(unit.lock(&locks(&new)).await?);
        let asked: Vec<InstanceKey> = new.iter().cloned().collect();
        let found = unit.aliases(endpoint, &asked).await?;
        self.known.taken.extend(found.rows.into_iter().map(|row| (row.field, row.instance)));
        self.known.awaited.extend(found.awaited);
        let mut again = false;
        for group in &mut groups.list {
            let concerns = |alias: &&InstanceKey| {
                let another = self.known.taken.get(*alias).is_some_and(|owner| *owner != group.key);
                new.contains(*alias) && (another || self.known.awaited.contains(*alias))
            };
            let taken = group.decided.iter().flat_map(|decided| &decided.aliases.taken);
            if taken.filter(concerns).count() > 0 {
                group.decided = None;
                again = true;
            }
        }
        Ok(again)
    }

    /// Takes out the instances that cannot go on, because another transaction works on an alias that they take.
    ///
    /// # Errors
    /// When one instance takes what another one takes or gives back: who is first depends on the order of their
    /// messages, so these run one by one.
    pub(super) fn part(&mut self, groups: &mut Groups<'_>) -> Result<HashSet<InstanceKey>, StoreError> {
        for (group, decided) in decided(groups) {
            decided.aliases.gone.iter().for_each(|alias| self.touched(alias, group));
        }
        if self.meet {
            let text = "two instances of the unit take or give back one alias";
            return Err(StoreError::new(StoreErrorKind::Rejected, text));
        }
        let is_locked = |group: &mut Group<'_>| {
            let mut taken = group.decided.iter().flat_map(|decided| &decided.aliases.taken);
            taken.any(|alias| self.locked_elsewhere.contains(&alias.lock()))
        };
        Ok(groups.list.extract_if(.., is_locked).map(|group| group.key).collect())
    }

    fn touched(&mut self, alias: &InstanceKey, group: &Group<'_>) {
        let before = self.tried.entry(alias.clone()).or_insert_with(|| group.key.clone());
        self.meet |= *before != group.key;
    }
}

fn decided<'g, 'a>(groups: &'g Groups<'a>) -> impl Iterator<Item = (&'g Group<'a>, &'g Decided)> {
    groups.list.iter().filter_map(|group| Some((group, group.decided.as_ref()?)))
}
