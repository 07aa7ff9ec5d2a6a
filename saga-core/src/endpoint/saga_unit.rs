//! The unit of work of sagas: one transaction for a batch of messages, whatever instances they concern.

use super::{
    aliases::TakenAliases,
    dispatch::finish,
    groups::{Groups, HELD_ROWS_MAX},
    judge::{Before, Verdict, judge},
    lane::{CRASHES_MAX, killed_too_often},
    ledger::{Ledger, Offered, Origin},
    policy::{UserFailure, passes},
    router::{Content, Item},
    shared::Shared,
};
use crate::{
    CrashPoint, Envelope, HandlerError, HeldReason, InboxResult, InstanceKey, InstanceRow, Saga, Store, StoreError,
    StoreErrorKind, crash, panics,
    port::{FieldRow, Found, HeldRow, InboxRow, Keys, Unit},
    project::{Change, Project},
    saga::{
        AliasChanges, FieldChanges, KnownAliases,
        logic::{Offer, Offers, Overrule},
    },
};
use async_trait::async_trait;
use futures_util::FutureExt;
use std::{
    any::Any,
    collections::{BTreeMap, HashSet},
    marker::PhantomData,
    panic::AssertUnwindSafe,
    sync::Arc,
};

/// A unit counts as failed when its connection was lost this often in a row after its projection ran.
const LOST_MAX: u32 = 5;

/// What becomes of the items of a batch.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// Indices of items whose instance is locked by another transaction; they had no effect.
    pub(super) locked: HashSet<usize>,
    /// Indices of items that are committed, but whose instance has more to do. They must be run again, as duplicates.
    pub(super) unfinished: HashSet<usize>,
}

/// Why a unit failed.
pub(super) enum Failed {
    Store(StoreError),
    /// A projection refused the transitions; `before` is of the message in a batch of one.
    Projection {
        saga: usize,
        failure: UserFailure,
        before: Before,
    },
}

impl std::convert::From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Runs the batch in one transaction. After an error the same batch can be run again: nothing is written or, when the
/// commit's outcome is unknown, the inbox knows.
///
/// The inbox is asked only about messages that may have come before. Nearly all others are new. If one is a duplicate
/// after all, its claim conflicts and the batch runs `again`, now asking about every message; transitions are pure, so
/// this does no harm.
///
/// `tries` counts the units of the batch that failed in a row. `overrule` says, in a batch of one, what replaces the
/// transition that a projection refused, and how many runs are counted for it.
pub(super) async fn run<Db: Store>(
    shared: &Shared<Db>,
    items: &mut [Item],
    again: bool,
    tries: u32,
    overrule: Option<(Overrule, i64)>,
) -> Result<Ran, Failed> {
    debug_assert!(overrule.is_none() || items.len() == 1, "a projection's refusal concerns one message");
    loop {
        let may = overrule.is_none() && !is_suspect(items);
        let mut follow = Follow { may, ..Follow::default() };
        let ran = match unit(shared, items, again, tries, overrule.clone(), &mut follow).await {
            // a held message that followed may be to blame: each is to fail in a unit of its own
            Err(failed) if failed.waits().is_none() && items.len() == 1 && follow.did => {
                unit(shared, items, again, tries, None, &mut Follow::default()).await
            }
            ran => ran,
        };
        match follow.uncounted {
            Some(row) => items[0].held_counted = Some(count(shared, row).await?),
            None => return ran,
        }
    }
}

/// It runs alone, and so does each held message that fits: which of them has killed the process is not known.
fn is_suspect(items: &[Item]) -> bool {
    matches!(items, [item] if item.suspect)
}

/// Counts a run of a held message that may kill the process.
async fn count<Db: Store>(shared: &Shared<Db>, held: HeldRow) -> Result<(String, i64), StoreError> {
    let message_id = held.envelope.message_id.clone();
    let row = InboxRow { saga_id: held.saga_id, ..InboxRow::new(held.receiver, held.envelope, InboxResult::Held) };
    match shared.store.count_crash(&shared.name, shared.owner(), &row).await {
        Ok(crashes) => Ok((message_id, crashes.unwrap_or_default())),
        Err(error) if error.kind() == StoreErrorKind::Rejected => Ok((message_id, i64::MAX)), // it must not run
        Err(error) => Err(error),
    }
}

/// Whether held messages that fit a state which the batch has reached follow in the same unit.
#[derive(Default)]
struct Follow {
    may: bool,
    did: bool,
    /// Nothing has run: this one is to be counted first, outside the unit.
    uncounted: Option<HeldRow>,
}

async fn unit<Db: Store>(
    shared: &Shared<Db>,
    items: &mut [Item],
    again: bool,
    tries: u32,
    overrule: Option<(Overrule, i64)>,
    follow: &mut Follow,
) -> Result<Ran, Failed> {
    shared.dispatcher.may_begin().await;
    let keys = keys(shared, items, again);
    let mut unit = shared.store.begin(&locks(&keys.instances), shared.settings.lease).await?;
    shared.crashes.reach(CrashPoint::Lock);
    let found = unit.read(&keys).await?;
    let mut groups = Groups::of(shared, items, &found);
    let wanted = groups.wanted();
    if !wanted.is_empty() {
        let rows_max = if is_suspect(items) { 1 } else { HELD_ROWS_MAX };
        let held = unit.held(&shared.name, &wanted, rows_max, groups.bytes_left).await?;
        if is_suspect(items)
            && let Some(row) = held.first()
            && items[0].held_counted.as_ref().is_none_or(|(id, _)| *id != row.envelope.message_id)
        {
            follow.uncounted = Some(row.clone());
            unit.rollback().await?;
            return Ok(Ran::default());
        }
        groups.read(held);
    }
    let mut batch = Batch {
        fatal: fatal(items),
        alone: is_suspect(items),
        shared,
        found: &found,
        ledger: Ledger::new(shared),
        changes: BTreeMap::new(),
        duplicates: Vec::new(),
        overrule,
    };
    batch.judge(items, &mut groups);
    let before = groups.list.first().and_then(|group| group.sources.first().copied()).unwrap_or_default();
    let mut aliases = TakenAliases::default();
    batch.ask(&mut groups, &aliases.known);
    loop {
        let reached = if follow.may { groups.reached(shared) } else { Vec::new() };
        if !reached.is_empty() {
            follow.did = true;
            groups.read(unit.held(&shared.name, &reached, HELD_ROWS_MAX, groups.bytes_left).await?);
        } else if !aliases.look_up(&shared.name, &mut unit, &mut groups).await? {
            break;
        }
        batch.ask(&mut groups, &aliases.known);
    }
    let locked = aliases.part(&mut groups)?;
    let cancels = groups.cancels();
    if !cancels.is_empty() {
        let gone = unit.take_back(&cancels).await?;
        batch.ledger.never_left = gone.into_iter().filter(|gone| !gone.tried).map(|gone| gone.row).collect();
    }
    batch.leave_wakes(items, &groups);
    let unfinished = batch.write(groups, &aliases.known);
    let Batch { ledger, changes, duplicates, .. } = batch;
    let projected: Vec<usize> = changes.keys().copied().collect();
    for (saga, changes) in changes {
        if let Err(failed) = project(shared, saga, changes, &mut unit, tries, before).await {
            // when even the rollback fails, the connection is gone and the projection is not to blame, unless it
            // happens again and again
            return Err(match unit.rollback().await {
                Err(error) if tries < LOST_MAX => Failed::Store(error),
                _ => failed,
            });
        }
    }
    finish(shared, unit, ledger).await?;
    duplicates.iter().for_each(|envelope| shared.metrics.duplicate(envelope));
    for saga in projected {
        let entry = &shared.sagas[saga];
        entry.breaker.handled(&shared.name, entry.logic.name());
    }
    let is_locked = |item: &Item| {
        let locked = |key| found.locked_elsewhere.contains(&InstanceKey::lock(key)) || locked.contains(key);
        item.key.as_ref().is_some_and(locked)
    };
    let mut ran = Ran::default();
    for (place, item) in items.iter().enumerate() {
        if is_locked(item) {
            ran.locked.insert(place);
        } else if item.key.as_ref().is_some_and(|key| unfinished.contains(key)) {
            ran.unfinished.insert(place);
        } else {
            item.done();
        }
    }
    Ok(ran)
}

/// What is wrong with the held message that a suspect leads to, if it has killed the process too often.
fn fatal(items: &[Item]) -> Option<(HeldReason, String)> {
    let (_, crashes) = items.first().filter(|_| is_suspect(items))?.held_counted.as_ref()?;
    (*crashes > CRASHES_MAX).then(|| (HeldReason::Crashes, killed_too_often()))
}

fn keys<Db: Store>(shared: &Shared<Db>, items: &[Item], again: bool) -> Keys {
    let asked = items.iter().filter(|item| again || !item.first);
    let mut instances: Vec<InstanceKey> = items.iter().filter_map(|item| item.key.clone()).collect();
    instances.sort_unstable();
    instances.dedup();
    Keys {
        endpoint: shared.name.clone(),
        message_ids: asked.map(|item| item.envelope.message_id.clone()).collect(),
        instances,
    }
}

/// One lock for each instance or alias: sorted, so that the same batch asks in the same order everywhere.
pub(super) fn locks<'a>(keys: impl IntoIterator<Item = &'a InstanceKey>) -> Vec<i64> {
    let mut locks: Vec<i64> = keys.into_iter().map(InstanceKey::lock).collect();
    locks.sort_unstable();
    locks.dedup();
    locks
}

struct Batch<'a, Db: Store> {
    shared: &'a Shared<Db>,
    found: &'a Found,
    ledger: Ledger<'a, Db>,
    changes: BTreeMap<usize, Vec<ErasedChange>>,
    /// What was known already.
    duplicates: Vec<Arc<Envelope>>,
    overrule: Option<(Overrule, i64)>,
    /// Why the held message that was read must not run.
    fatal: Option<(HeldReason, String)>,
    /// The message may kill the process: it runs alone.
    alone: bool,
}

impl<Db: Store> Batch<'_, Db> {
    /// Offers each message that is to run to its instance. A duplicate or a wake-up brings nothing new, but a held
    /// message may fit by now, so its instance is asked as well.
    fn judge(&mut self, items: &mut [Item], groups: &mut Groups<'_>) {
        let shared = self.shared;
        let free: Vec<&mut Item> = (items.iter_mut())
            .filter(|item| item.key.as_ref().is_some_and(|key| groups.by_key.contains_key(key)))
            .filter(|item| !matches!(item.content, Content::Wake))
            .collect();
        let messages = free.iter().map(|item| (shared.receiver_name(item.receiver), &*item.envelope));
        let verdicts = judge(messages, &self.found.inbox, self.found.now_us);
        for (item, verdict) in free.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Duplicate if item.is_back => {}
                Verdict::Duplicate => self.duplicates.push(item.envelope.clone()),
                Verdict::Reused(text) => {
                    self.ledger.reused(shared.receiver_name(item.receiver), &item.envelope, text);
                }
                Verdict::Run(before) => {
                    let Some(place) = item.key.as_ref().and_then(|key| groups.by_key.get(key)) else { continue };
                    let group = &mut groups.list[*place];
                    let fault = item.fault();
                    let decoded = match &mut item.content {
                        Content::Message(decoded) => decoded.take(),
                        Content::Faulty(..) | Content::Wake | Content::TakeBack(_) => None,
                    };
                    group.offers.push(Offer { envelope: item.envelope.clone(), decoded, waiting: None, fault });
                    group.sources.push(before);
                    group.spans.push(item.span.clone());
                }
            }
        }
    }

    /// A wake-up of an instance that a newer version wrote comes again, for a process of that version: what an operator
    /// has freed is offered by nothing else. What waits for that version is: those processes look for it themselves.
    fn leave_wakes(&mut self, items: &[Item], groups: &Groups<'_>) {
        let mut left = HashSet::new();
        for item in items.iter().filter(|item| matches!(item.content, Content::Wake)) {
            let Some(place) = item.key.as_ref().and_then(|key| groups.by_key.get(key)) else { continue };
            let group = &groups.list[*place];
            let ours = self.shared.sagas[group.saga].logic.version();
            let is_newer = |row: &InstanceRow| row.version > ours && row.state != InstanceRow::CANCELLED;
            let is_free = group.row.is_some_and(|row| is_newer(row) && row.paused_by.is_none());
            let waits = |reason: HeldReason| reason.releases_itself() && reason != HeldReason::Version;
            if is_free && group.unread.iter().any(|waiting| waits(waiting.reason)) && left.insert(place) {
                self.ledger.comes_again(&item.envelope, "a newer version of the saga wrote the instance");
            }
        }
    }

    /// Lets every instance decide that has not decided yet.
    fn ask(&self, groups: &mut Groups<'_>, aliases: &KnownAliases) {
        for group in groups.list.iter_mut().filter(|group| group.decided.is_none()) {
            group.offers.truncate(group.sources.len());
            group.offers.extend(group.held.iter().map(|row| {
                let (envelope, waiting) = (row.envelope.clone(), Some(row.reason));
                Offer { envelope, decoded: None, waiting, fault: self.fatal.clone() }
            }));
            let unread: Vec<_> = group.unread.iter().map(|it| (it.type_name.clone(), it.reason)).collect();
            let offers = Offers {
                key: &group.key,
                row: group.row,
                now_us: self.found.now_us,
                unread: &unread,
                // beside a message that may kill the process, nothing else runs
                partial: (group.held.len() as i64) < group.fitting() || (self.alone && !group.held.is_empty()),
                overrule: self.overrule.as_ref().map(|(overrule, _)| overrule),
                body_bytes_max: self.shared.settings.body_bytes_max,
                aliases,
                keeps: self.shared.settings.keep_messages,
            };
            group.decided = Some(self.shared.sagas[group.saga].logic.decide(&offers, &mut group.offers));
        }
    }

    /// Enters what the instances decided. Returns those that have more to do than fits this unit.
    fn write(&mut self, groups: Groups<'_>, known: &KnownAliases) -> HashSet<InstanceKey> {
        let mut unfinished = HashSet::new();
        for group in groups.list {
            let Some(mut decided) = group.decided else { continue };
            let came = group.sources.iter().map(|before| Origin::Broker(*before));
            let origins: Vec<Origin<'_>> = came.chain(group.held.iter().map(Origin::Held)).collect();
            if decided.more {
                unfinished.insert(group.key.clone());
            }
            let AliasChanges { taken, new, gone } = std::mem::take(&mut decided.aliases);
            let FieldChanges { new: fields, gone: old_fields } = std::mem::take(&mut decided.fields);
            let row = |alias: InstanceKey| FieldRow::alias(alias, group.key.clone());
            let write = &mut self.ledger.write;
            write.aliases_met.extend(taken.into_iter().filter(|alias| known.awaited.contains(alias)).map(row));
            let is_there = |alias: &InstanceKey| known.taken.get(alias) == Some(&group.key);
            write.fields_in.extend(new.into_iter().filter(|alias| !is_there(alias)).map(row));
            write.fields_out.extend(gone.into_iter().map(row));
            let row = |field: InstanceKey| FieldRow::new(field, group.key.clone());
            write.fields_in.extend(fields.into_iter().map(row));
            write.fields_out.extend(old_fields.into_iter().map(row));
            let saga = &self.shared.sagas[group.saga];
            if let Some(after) = decided.state.take().filter(|_| saga.projection.is_some()) {
                let (id, before) = (group.key.id.clone(), group.row.map(|row| row.state.clone()));
                self.changes.entry(group.saga).or_default().push(ErasedChange { id, before, after });
            }
            let runs = self.overrule.as_ref().map_or(1, |(_, runs)| *runs);
            let offered = Offered { offers: &group.offers, origins: &origins, spans: &group.spans };
            self.ledger.decided(&group.key, &offered, decided, runs, self.found.now_us);
        }
        unfinished
    }
}

/// Runs a projection, with the same limits and precautions as a handler.
async fn project<Db: Store>(
    shared: &Shared<Db>,
    saga: usize,
    changes: Vec<ErasedChange>,
    unit: &mut Db::Unit,
    tries: u32,
    before: Before,
) -> Result<(), Failed> {
    let Some(projection) = &shared.sagas[saga].projection else { return Ok(()) };
    let limit = shared.settings.handler_time;
    let run = AssertUnwindSafe(projection.run(changes, unit.tx())).catch_unwind();
    let failure = match tokio::time::timeout(limit, run).await {
        Ok(Ok(Ok(()))) => return Ok(()),
        Ok(Ok(Err(error))) => {
            let means = shared.recognise(error.source());
            if let Some(passes) = means.and_then(|kind| passes(&error, kind, tries, before)) {
                return Err(passes.into());
            }
            UserFailure::returned(&error, means)
        }
        Ok(Err(panic)) => UserFailure::transient(format!("it panicked: {}", panics::text(&*crash::survived(panic)))),
        Err(_) => UserFailure::transient(format!("it ran longer than {limit:?}")),
    };
    Err(Failed::Projection { saga, failure, before })
}

/// A change without its type.
pub(crate) struct ErasedChange {
    pub(crate) id: String,
    pub(crate) before: Option<String>,
    pub(crate) after: Box<dyn Any + Send>,
}

/// A projection without its types.
#[async_trait]
pub(crate) trait ProjectLogic<Db: Store>: Send + Sync {
    async fn run(&self, changes: Vec<ErasedChange>, tx: &mut Db::Tx) -> Result<(), HandlerError>;
}

pub(crate) struct TypedProject<S, P> {
    pub(crate) project: P,
    pub(crate) saga: PhantomData<fn() -> S>,
}

#[async_trait]
impl<S: Saga + Sync, Db: Store, P: Project<S, Db>> ProjectLogic<Db> for TypedProject<S, P> {
    async fn run(&self, changes: Vec<ErasedChange>, tx: &mut Db::Tx) -> Result<(), HandlerError> {
        let typed = changes.into_iter().filter_map(|change| {
            let (after, data) = *change.after.downcast::<(S, S::Data)>().ok()?;
            Some(Change { id: change.id, before: change.before, after, data })
        });
        self.project.project(&typed.collect::<Vec<_>>(), tx).await
    }
}

impl Failed {
    /// The error to wait out: the same batch may succeed later, by itself or after a deployment. No message is to
    /// blame.
    pub(super) fn waits(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) if error.kind() != StoreErrorKind::Rejected => Some(error),
            Self::Store(_) | Self::Projection { .. } => None,
        }
    }
}
