//! The unit of work of sagas: one transaction for a batch of messages, whatever instances they concern.
//! Messages that nobody can handle are held here too.

use super::{
    core::{Core, Target},
    emission::of_transition,
    item::{Item, Known, known},
    unit::commit,
};
use crate::{
    Caused, Envelope, Found, HeldKey, HeldReason, HeldRow, InboxFound, InboxResult, InboxRow, InstanceKey, InstanceRow,
    Keys, OutboxRow, Step, Store, StoreError, Write, hash_of,
    port::Unit,
    project::ErasedChange,
    saga::{
        Route,
        run::{Decided, Move, Offer, Settled},
    },
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Messages held for the instances of one batch that are read with it, at most. With more, instances run one by one, and one
/// that has more of its own goes on in further units until nothing of them fits.
const HELD_ROWS_MAX: i64 = 1000;

/// Runs the batch in one transaction. After an error nothing has happened, or (when the commit's outcome is unknown) the
/// inbox knows: either way the same batch can be run again.
///
/// The inbox is asked about messages that may have come before. Of the others nearly all are new, and transitions are pure: whether
/// one was a duplicate after all, the claim finds out, and the batch is run `again` with all of them asked about.
pub(crate) async fn run<Db: Store>(core: &Core<Db>, items: &mut [Item], again: bool) -> Result<(), StoreError> {
    let mut unit = core.store.begin(&locks(core, items)).await?;
    core.faults.reach(Step::Lock);
    let keys = keys(core, items, again);
    let found = unit.read(&keys).await?;
    let some_unread = found.held.len() as i64 >= HELD_ROWS_MAX;
    if some_unread && keys.instances.len() > 1 {
        return Err(StoreError::Rejected("too many held messages for one batch".into()));
    }
    let mut batch = Batch::new(core, &found);
    batch.decide(items);
    let Batch { write, outbox, changes, .. } = batch;
    let released = !write.held_out.is_empty();
    for (saga, changes) in changes {
        let entry = &core.sagas[saga];
        let Some(projection) = &entry.projection else { continue };
        if let Err(failed) = projection.run(changes, unit.tx()).await {
            let rejected =
                || StoreError::Rejected(format!("the projection of saga `{}` failed: {failed}", entry.logic.name()));
            return Err(core.store_error(failed.source()).unwrap_or_else(rejected));
        }
    }
    commit(core, unit, write, outbox).await?;
    if some_unread && released {
        // the same messages again: duplicates now, whose unit offers what is held next. Acknowledged only after the last, so that
        // a crash in between is made good by their redelivery
        return Box::pin(run(core, items, true)).await;
    }
    items.iter().for_each(|item| item.guard.settled());
    Ok(())
}

/// One lock for each instance, or for the message where there is none: sorted, so that two processes cannot wait for each other.
fn locks<Db: Store>(core: &Core<Db>, items: &[Item]) -> Vec<i64> {
    let lock = |item: &Item| match &item.key {
        Some(key) => hash_of([key.saga.as_bytes(), key.id.as_bytes()]),
        None => hash_of([core.name.as_bytes(), item.envelope.message_id.as_bytes()]),
    };
    let mut locks: Vec<i64> = items.iter().map(lock).collect();
    locks.sort_unstable();
    locks.dedup();
    locks
}

fn keys<Db: Store>(core: &Core<Db>, items: &[Item], again: bool) -> Keys {
    let asked = items.iter().filter(|item| again || !item.first);
    let mut instances: Vec<InstanceKey> = items.iter().filter_map(|item| item.key.clone()).collect();
    instances.sort_unstable();
    instances.dedup();
    Keys {
        endpoint: core.name.clone(),
        message_ids: asked.map(|item| item.envelope.message_id.clone()).collect(),
        instances,
        held_rows_max: HELD_ROWS_MAX,
    }
}

/// Where an offer comes from.
enum Source<'a> {
    /// A message that came; completes the unsettled inbox row with so many attempts, if there is one.
    Came { completes: Option<i64> },
    /// A message that was held.
    Held(&'a HeldRow),
}

struct Batch<'a, Db: Store> {
    core: &'a Core<Db>,
    found: &'a Found,
    inbox: HashMap<(&'a str, &'a str), &'a InboxFound>,
    instances: HashMap<&'a InstanceKey, &'a InstanceRow>,
    write: Write,
    outbox: Vec<OutboxRow>,
    changes: HashMap<usize, Vec<ErasedChange>>,
}

impl<'a, Db: Store> Batch<'a, Db> {
    fn new(core: &'a Core<Db>, found: &'a Found) -> Self {
        let inbox = found.inbox.iter().map(|row| ((row.receiver.as_str(), row.message_id.as_str()), row));
        let instances = found.instances.iter().map(|row| (&row.key, row)).collect();
        let write = core.new_write();
        Self { core, found, inbox: inbox.collect(), instances, write, outbox: Vec::new(), changes: HashMap::new() }
    }

    fn decide(&mut self, items: &mut [Item]) {
        let mut groups: Vec<(usize, InstanceKey, Vec<Offer>, Vec<Source<'a>>)> = Vec::new();
        let mut group_of: HashMap<(usize, InstanceKey), usize> = HashMap::new();
        let mut seen = HashSet::new();
        for Item { envelope, target, key, decoded, fault, .. } in items {
            let receiver = self.core.receiver(*target);
            if !seen.insert((receiver, envelope.message_id.as_str())) {
                continue; // the same message twice in one batch: settled with the first
            }
            let row = self.inbox.get(&(receiver, envelope.message_id.as_str())).copied();
            let completes = match known(row, envelope) {
                Known::Duplicate => {
                    // nothing new, but something held may fit by now
                    if let (Target::Saga(saga), Some(key)) = (*target, &*key) {
                        group_of.entry((saga, key.clone())).or_insert_with(|| {
                            groups.push((saga, key.clone(), Vec::new(), Vec::new()));
                            groups.len() - 1
                        });
                    }
                    continue;
                }
                Known::Fresh => None,
                Known::Continues { attempts } | Known::Suspect { attempts } => Some(attempts),
                Known::Reused(text) => {
                    self.write.held_in.push(reused(self.core, receiver, envelope, text));
                    continue;
                }
            };
            match (*target, &*key) {
                (Target::Saga(saga), Some(key)) => {
                    let group = *group_of.entry((saga, key.clone())).or_insert_with(|| {
                        groups.push((saga, key.clone(), Vec::new(), Vec::new()));
                        groups.len() - 1
                    });
                    groups[group].2.push(Offer {
                        envelope: envelope.clone(),
                        decoded: decoded.take(),
                        waiting: None,
                        fault: fault.clone(),
                    });
                    groups[group].3.push(Source::Came { completes });
                }
                _ => {
                    let unknown = || (HeldReason::Undecodable, "nobody here handles it".to_owned());
                    let (reason, error) = fault.clone().unwrap_or_else(unknown);
                    self.hold(receiver, envelope, Source::Came { completes }, reason, Some(error), None);
                }
            }
        }
        for (saga, key, mut offers, mut sources) in groups {
            let held = self.found.held.iter();
            for row in held.filter(|row| row.receiver == key.saga && row.saga_id.as_deref() == Some(&key.id)) {
                offers.push(Offer {
                    envelope: row.envelope.clone(),
                    decoded: None,
                    waiting: Some(row.reason),
                    fault: None,
                });
                sources.push(Source::Held(row));
            }
            let row = self.instances.get(&key).copied();
            let logic = &self.core.sagas[saga].logic;
            let decided = logic.decide(&key, row, &mut offers, self.found.now_us);
            self.perform(saga, &key, row.map(|row| row.state.clone()), &offers, sources, decided);
        }
    }

    /// Turns a decision into rows.
    fn perform(
        &mut self,
        saga: usize,
        key: &InstanceKey,
        before: Option<String>,
        offers: &[Offer],
        sources: Vec<Source<'a>>,
        decided: Decided,
    ) {
        let mut sources: Vec<Option<Source<'a>>> = sources.into_iter().map(Some).collect();
        let last = decided.instance.as_ref().map(|write| (write.row.entered, write.row.done));
        for (i, settled) in decided.settled {
            let envelope = &offers[i].envelope;
            let Some(source) = sources[i].take() else { continue };
            let mut journal = Journal { saga_id: Some(key.id.clone()), ..Journal::default() };
            let result = match settled {
                Settled::Moved(made) => {
                    journal.effects = Some(self.emit(key, envelope, &made, decided.originator.as_deref(), last));
                    journal.seq = Some(made.seq);
                    journal.from = made.from;
                    journal.to = Some(made.to);
                    InboxResult::Handled
                }
                Settled::Ignored { state } => {
                    journal.from = state;
                    InboxResult::Ignored
                }
                Settled::Stale { state } => {
                    journal.from = state;
                    InboxResult::Stale
                }
                Settled::Held { reason, error } => {
                    self.hold(&key.saga, envelope, source, reason, error, Some(key.id.clone()));
                    continue;
                }
            };
            self.settle(&key.saga, envelope, source, result, journal);
        }
        self.write.instances.extend(decided.instance);
        self.write.timers_out.extend(decided.timers_out);
        if let Some(after) = decided.state.filter(|_| self.core.sagas[saga].projection.is_some()) {
            self.changes.entry(saga).or_default().push(ErasedChange { id: key.id.clone(), before, after });
        }
    }

    /// Rows for what a transition sends; a timer whose state was left again within the batch is not even written.
    fn emit(
        &mut self,
        key: &InstanceKey,
        cause: &Envelope,
        made: &Move,
        originator: Option<&str>,
        last: Option<(i64, bool)>,
    ) -> Vec<Caused> {
        let mut effects = Vec::with_capacity(made.emits.len());
        for emit in &made.emits {
            let emission = of_transition(self.core, cause, key, made, originator, emit, self.found.now_us);
            effects.push(emission.effect);
            let pointless = last.is_some_and(|(entered, done)| match emit.route {
                Route::After(_) => done || entered != made.entered,
                Route::Deadline(_) => done,
                Route::Command { .. } | Route::Event | Route::Reply => false,
            });
            self.outbox.extend(emission.row.filter(|_| !pointless));
        }
        effects
    }

    fn settle(
        &mut self,
        receiver: &str,
        envelope: &Arc<Envelope>,
        source: Source<'_>,
        result: InboxResult,
        journal: Journal,
    ) {
        let (completes, attempts) = match source {
            Source::Came { completes } => (completes, completes.unwrap_or(0).max(envelope.attempt) + 1),
            Source::Held(row) => {
                self.write
                    .held_out
                    .push(HeldKey { receiver: receiver.into(), message_id: envelope.message_id.clone() });
                (Some(row.attempts), row.attempts + 1)
            }
        };
        let row = inbox_row(self.core, receiver, envelope, result, attempts, journal);
        match completes {
            Some(known) => self.write.settles.push((row, known)),
            None => self.write.claims.push(row),
        }
    }

    fn hold(
        &mut self,
        receiver: &str,
        envelope: &Arc<Envelope>,
        source: Source<'_>,
        reason: HeldReason,
        error: Option<String>,
        saga_id: Option<String>,
    ) {
        let runs = i64::from(!reason.releases_itself());
        let (completes, attempts) = match source {
            Source::Came { completes } => (completes, completes.unwrap_or(0).max(envelope.attempt) + runs),
            Source::Held(row) => (Some(row.attempts), row.attempts + runs),
        };
        let journal = Journal { saga_id: saga_id.clone(), ..Journal::default() };
        let row = inbox_row(self.core, receiver, envelope, InboxResult::Held, attempts, journal);
        match completes {
            Some(known) => self.write.settles.push((row, known)),
            None => self.write.claims.push(row),
        }
        let held = held_row(self.core, receiver, envelope, reason, error, attempts, saga_id);
        if !reason.releases_itself() {
            let error = held.error.as_deref().unwrap_or_default();
            tracing::warn!(
                endpoint = self.core.name,
                receiver,
                message = envelope.message_id,
                kind = envelope.type_name,
                error,
                "message held"
            );
        }
        self.write.held_in.push(held);
    }
}

/// What the journal says beside the obvious.
#[derive(Default)]
pub(super) struct Journal {
    pub(super) saga_id: Option<String>,
    pub(super) seq: Option<i64>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) effects: Option<Vec<Caused>>,
    pub(super) note: Option<String>,
}

pub(super) fn inbox_row<Db: Store>(
    core: &Core<Db>,
    receiver: &str,
    envelope: &Arc<Envelope>,
    result: InboxResult,
    attempts: i64,
    journal: Journal,
) -> InboxRow {
    InboxRow {
        endpoint: core.name.clone(),
        receiver: receiver.into(),
        envelope: envelope.clone(),
        result,
        saga_id: journal.saga_id,
        seq: journal.seq,
        from_state: journal.from,
        to_state: journal.to,
        effects: journal.effects,
        handled_by: core.owner.clone(),
        attempts,
        note: journal.note,
    }
}

/// A message under the id of another: held under an id of its own, because the inbox row and the held row belong to the other.
pub(super) fn reused<Db: Store>(core: &Core<Db>, receiver: &str, envelope: &Envelope, text: String) -> HeldRow {
    let own = Envelope { message_id: uuid::Uuid::now_v7().to_string(), ..envelope.clone() };
    held_row(core, receiver, &Arc::new(own), HeldReason::Rejected, Some(text), 0, None)
}

pub(super) fn held_row<Db: Store>(
    core: &Core<Db>,
    receiver: &str,
    envelope: &Arc<Envelope>,
    reason: HeldReason,
    error: Option<String>,
    attempts: i64,
    saga_id: Option<String>,
) -> HeldRow {
    HeldRow {
        endpoint: core.name.clone(),
        receiver: receiver.into(),
        envelope: envelope.clone(),
        arrival: 0,
        reason,
        saga_id,
        error,
        attempts,
        expires: matches!(reason, HeldReason::Early).then_some(core.settings.early),
    }
}
