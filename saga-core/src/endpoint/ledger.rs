//! The ledger of a unit of work: what its decisions become, gathered until the unit's one write. These are rows of the
//! inbox, of the outbox, of `held` and of the instances.

mod settling;

pub(crate) use settling::{Origin, Settling};

use super::{
    emission::{Emission, again, of_outcome, of_take_back, of_transition, retry},
    judge::REUSED,
    shared::Shared,
    take_back::{Chance, TakeBack},
};
use crate::{
    Encoded, Envelope, ErrorCode, HeldReason, InboxResult, InstanceKey, Later, Store, ambient, hash_of,
    message::unquoted_body,
    port::{
        Backoff, Caused, Destination, HeldIn, HeldKey, InboxRow, KeptStep, KeptTimer, OutboxKind, OutboxRow, Write,
    },
    saga::{
        Route,
        logic::{Decided, Move, Offer, Settled},
    },
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tracing::Span;
use uuid::Uuid;

/// How long a message waits for a process that knows its type or version before it waits for a person.
const VERSION_WAIT: Duration = Duration::from_secs(86_400);

/// Pauses of a message that comes again until a newer process takes it.
const NEWER_PAUSE_MIN: Duration = Duration::from_secs(10);
const NEWER_PAUSE_MAX: Duration = Duration::from_secs(300);
/// So often such a message comes when it has no inbox row: for a day, about.
const NEWER_TIMES_MAX: i64 = 300;

/// Optional remarks for the journal.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) seq: Option<i64>,
    pub(crate) from_state: Option<String>,
    pub(crate) to_state: Option<String>,
    pub(crate) effects: Option<Vec<Caused>>,
    pub(crate) note: Option<String>,
    /// The instance as the transition left it, if that is kept.
    pub(crate) kept: Option<KeptStep>,
}

pub(crate) struct Ledger<'a, Db: Store> {
    shared: &'a Shared<Db>,
    pub(crate) write: Write,
    /// Commands that were taken back before the broker had them: nothing needs to go after them.
    pub(crate) never_left: HashSet<Uuid>,
    /// Spans of the messages that the unit settles.
    pub(crate) spans: Vec<Span>,
}

/// What an instance was offered, each with where it comes from. Held messages come last, and have no span yet.
pub(crate) struct Offered<'a> {
    pub(crate) offers: &'a [Offer],
    pub(crate) origins: &'a [Origin<'a>],
    pub(crate) spans: &'a [Span],
}

impl<'a, Db: Store> Ledger<'a, Db> {
    pub(crate) fn new(shared: &'a Shared<Db>) -> Self {
        let write = Write {
            endpoint: shared.name.clone(),
            owner: shared.owner().into(),
            lease: shared.settings.lease,
            ..Write::default()
        };
        Self { shared, write, never_left: HashSet::new(), spans: Vec::new() }
    }

    /// What an instance decided about the messages that it was offered. `runs` is how many runs count for a message
    /// whose transition failed.
    pub(crate) fn decided(
        &mut self,
        key: &InstanceKey,
        offered: &Offered<'_>,
        mut decided: Decided,
        runs: i64,
        now_us: i64,
    ) {
        let mut ids = HashMap::new();
        for (i, settled) in std::mem::take(&mut decided.settled) {
            let (envelope, origin) = (&offered.offers[i].envelope, offered.origins[i]);
            let settling = Settling { receiver: &key.saga, envelope, saga_id: Some(&key.id), origin };
            let trace = &self.shared.trace;
            let span = offered.spans.get(i).cloned();
            let span = span.unwrap_or_else(|| trace.process(&self.shared.name, &key.saga, envelope));
            let mut journal = Journal::default();
            match settled {
                Settled::Moved(mut made) => {
                    let within = trace.transition(&span, key, made.from.as_deref(), &made.to);
                    let mut timers = Vec::new();
                    let to = (&mut ids, &mut timers);
                    let effects = within.in_scope(|| self.moved(key, envelope, &made, &decided, to, now_us));
                    journal.effects = Some(effects);
                    let after = made.after.take();
                    journal.kept = after.and_then(|after| KeptStep::of(*after, made.entered, &ids, timers));
                    journal.seq = Some(made.seq);
                    journal.from_state = made.from;
                    journal.to_state = Some(made.to);
                    self.settle(settling, InboxResult::Handled, 1, journal);
                }
                Settled::Ignored { state } => {
                    journal.from_state = state;
                    self.settle(settling, InboxResult::Ignored, 1, journal);
                }
                Settled::Returned { state, reply } => {
                    journal.effects = Some(span.in_scope(|| self.emit([again(&self.shared.name, envelope, &reply)])));
                    journal.from_state = Some(state);
                    journal.note = Some("answered again: the instance has replied before".into());
                    self.settle(settling, InboxResult::Handled, 1, journal);
                }
                Settled::Stale { state } => {
                    journal.from_state = state;
                    self.settle(settling, InboxResult::Stale, 1, journal);
                }
                Settled::GivenUp { state, error, answer } => {
                    match of_outcome(self.shared, envelope, &answer, ambient::fresh_id()) {
                        Ok(answer) => {
                            journal.effects = Some(span.in_scope(|| self.emit([answer])));
                            (journal.from_state, journal.note) = (Some(state), Some(error));
                            self.settle(settling, InboxResult::Discarded, 1, journal);
                        }
                        Err(refused) => {
                            let error = format!("{error}, and its answer cannot leave: {refused}");
                            self.hold(settling, HeldReason::Rejected, Some(error), 0);
                        }
                    }
                }
                Settled::Held { reason, error } => {
                    let runs = if reason.had_a_run() { runs } else { 0 };
                    self.hold(settling, reason, error, runs);
                }
                Settled::PutOff { delay, error } => self.put_off(settling, delay, error, runs),
                Settled::LeftToNewer { error } => {
                    let delay = (settling.elapsed() / 4).clamp(NEWER_PAUSE_MIN, NEWER_PAUSE_MAX);
                    self.put_off(settling, delay, error, 0);
                }
                Settled::Discarded { note } => {
                    journal.note = Some(note);
                    self.settle(settling, InboxResult::Discarded, 1, journal);
                }
            }
            self.spans.push(span);
        }
        decided.name_commands(&ids);
        self.write.instances.extend(decided.instance);
        self.write.timers_out.extend(decided.timers_out);
    }

    /// Rows for what a transition sends, the ids of its commands that may be taken back, and its timers as they are
    /// kept. A timer that is not alive any more after the batch is not written at all, nor is a command that was taken
    /// back.
    fn moved(
        &mut self,
        key: &InstanceKey,
        cause: &Envelope,
        made: &Move,
        decided: &Decided,
        (ids, timers): (&mut HashMap<i64, Uuid>, &mut Vec<KeptTimer>),
        now_us: i64,
    ) -> Vec<Caused> {
        let (endpoint, originator) = (&self.shared.name, decided.originator.as_deref());
        let cancels = made.cancels.iter().filter_map(|command| {
            let never_left = self.never_left.contains(&command.id?);
            Some(of_take_back(endpoint, cause, key, made, command, never_left, now_us))
        });
        let mut emissions: Vec<Emission> = cancels.collect();
        for (emit, number) in made.emits.iter().zip(&made.numbers) {
            let mut emission = of_transition(endpoint, cause, key, made, originator, (emit, *number), now_us);
            if made.after.is_some() {
                // kept even if it does not leave: whoever lets the instance stand here again sets it again
                timers.extend(emission.rows.iter().filter_map(|row| KeptTimer::of(row, now_us)));
            }
            match *number {
                Some(number) if !decided.leaves(emit, number) => emission.withdraw(emit),
                Some(number) if matches!(emit.route, Route::Command { .. }) => {
                    ids.extend(emission.rows.first().map(|row| (number, row.id)));
                }
                _ => {}
            }
            emissions.push(emission);
        }
        self.emit(emissions)
    }

    /// Rows for what a message causes, below the current span; what the journal says of them.
    pub(crate) fn emit(&mut self, emissions: impl IntoIterator<Item = Emission>) -> Vec<Caused> {
        let mut effects = Vec::new();
        for Emission { mut rows, effect } in emissions {
            effects.push(effect);
            rows.iter_mut().for_each(|row| self.shared.trace.send(row));
            self.write.outbox.extend(rows);
        }
        effects
    }

    /// The message is settled for good after `runs` runs.
    pub(crate) fn settle(&mut self, settling: Settling<'_>, result: InboxResult, runs: i64, journal: Journal) {
        debug_assert!(result.is_final(), "{result:?} is not final");
        self.held_out(settling);
        self.inbox(settling, result, runs, settling.round(), journal);
    }

    /// The message waits in `held`.
    pub(crate) fn hold(&mut self, settling: Settling<'_>, reason: HeldReason, error: Option<String>, runs: i64) {
        if !reason.releases_itself()
            && let Some(unsaid) = self.shared.held_log.held(settling.receiver, reason)
        {
            tracing::warn!(
                endpoint = self.shared.name,
                receiver = settling.receiver,
                message_id = settling.envelope.message_id,
                kind = settling.envelope.type_name,
                reason = reason.as_str(),
                code = reason.code().as_str(),
                // what is wrong with a body may quote it
                error = error.as_deref().filter(|_| reason != HeldReason::Undecodable),
                unsaid,
                "message held"
            );
        }
        let envelope = self.masked(settling.envelope);
        // what is wrong with a body may quote it
        let quotes = reason == HeldReason::Undecodable && !envelope.masked().is_empty();
        let error = error.map(|error| if quotes { unquoted_body(&error) } else { error });
        let row = HeldIn {
            receiver: settling.receiver.into(),
            envelope,
            reason,
            saga_id: settling.saga_id.map(Into::into),
            error: error.map(storable),
            attempts: settling.attempts() + runs,
            expires: match reason {
                HeldReason::Early => Some(self.shared.settings.early),
                HeldReason::Version => Some(VERSION_WAIT),
                _ => None,
            },
            alias: None,
        };
        self.write.held_in.push(row);
        self.inbox(settling, InboxResult::Held, runs, settling.round(), Journal::default());
    }

    /// The envelope with what its receivers here mask: its sender may know nothing of that.
    fn masked(&self, envelope: &Arc<Envelope>) -> Arc<Envelope> {
        let mut fields = self.shared.masked(&envelope.type_name).peekable();
        if fields.peek().is_none() {
            return envelope.clone();
        }
        let mut marked = Envelope::clone(envelope);
        marked.mask(fields);
        Arc::new(marked)
    }

    /// The message waits for an instance with this alias.
    pub(crate) fn await_alias(&mut self, settling: Settling<'_>, alias: &InstanceKey) {
        self.hold(
            settling,
            HeldReason::Early,
            Some(format!("{} `{}`: no instance has it yet", alias.saga, alias.id)),
            0,
        );
        let held = self.write.held_in.last_mut();
        let held = held.expect("`hold` has held it");
        (held.saga_id, held.alias) = (Some(alias.id.clone()), Some(alias.saga.clone()));
    }

    /// The message comes again later, for this receiver alone. If no run was counted, the retry does not count as a
    /// round either.
    pub(crate) fn put_off(&mut self, settling: Settling<'_>, delay: Duration, error: String, runs: i64) {
        let attempts = settling.attempts() + runs;
        let queue = self.shared.queue_of(&settling.envelope.type_name);
        let retry = retry(&queue, &self.masked(settling.envelope), settling.receiver, attempts, delay);
        self.write.outbox.push(OutboxRow { last_error: Some(storable(error.clone())), ..retry });
        self.held_out(settling);
        let journal = Journal { note: Some(error), ..Journal::default() };
        let round = settling.round().saturating_add(u32::from(runs > 0));
        self.inbox(settling, InboxResult::Retrying, runs, round, journal);
    }

    /// A message under the id of another message: it is held under a new id, because the inbox row and the held row
    /// belong to the other. The new id is always the same for the same message.
    pub(crate) fn reused(&mut self, receiver: &str, envelope: &Envelope, text: String) {
        let start: String = envelope.message_id.chars().take(200).collect();
        let message_id = format!("{start}#{:016x}", hash_of([envelope.type_name.as_bytes(), &envelope.body]));
        let is_it = |row: &HeldIn| row.receiver == receiver && row.envelope.message_id == message_id;
        if self.write.held_in.iter().any(is_it) {
            return; // it came twice in this batch, and no statement writes a row twice
        }
        let own = self.masked(&Arc::new(Envelope { message_id, attempt: 0, ..envelope.clone() }));
        if let Some(unsaid) = self.shared.held_log.held(receiver, REUSED) {
            tracing::warn!(
                endpoint = self.shared.name,
                receiver,
                message_id = envelope.message_id,
                held_as = own.message_id,
                code = ErrorCode::IdUsedBefore.as_str(),
                unsaid,
                "message held: its id was used before for another message"
            );
        }
        self.write.held_in.push(HeldIn {
            receiver: receiver.into(),
            envelope: own,
            reason: REUSED,
            saga_id: None,
            error: Some(ErrorCode::IdUsedBefore.told(text)),
            attempts: 0,
            expires: None,
            alias: None,
        });
    }

    /// A command is taken back, if there is a chance; the message that asks for it is settled.
    pub(crate) fn take_back(&mut self, settling: Settling<'_>, command: &TakeBack, chance: Chance<'_>) {
        let receiver = settling.receiver;
        let note = match chance {
            Chance::BeforeItCame => {
                self.write.claims.push(command.row(receiver, settling.envelope, None));
                "taken back before it came"
            }
            Chance::WhileItWaits(row) => {
                self.write.completes.push((command.row(receiver, settling.envelope, Some(row)), row.attempts));
                if row.result == InboxResult::Held {
                    self.write.held_out.push(HeldKey::new(receiver, command.id.clone()));
                }
                "taken back while it waited"
            }
            Chance::None(why) => why,
        };
        let note = Some(format!("{} {}: {note}", command.type_name, command.id));
        self.settle(settling, InboxResult::Handled, 1, Journal { note, ..Journal::default() });
    }

    /// The answer to a command that was handled before. The inbox remembers it, so that there is one.
    pub(crate) fn answer_later(&mut self, later: &Later, message: &Encoded) -> Result<(), String> {
        let command = Arc::new(later.envelope());
        let emission = of_outcome(self.shared, &command, message, later.answer_id())?;
        let effects = Some(self.emit([emission]));
        let row = InboxRow { effects, ..InboxRow::new(later.receiver(), command, InboxResult::Handled) };
        self.write.claims.push(row);
        Ok(())
    }

    /// A message of ours that leaves no inbox row, and that only a newer process has a use for, comes again later. Its
    /// `attempt` counts how often it did. Returns whether it comes: not for ever.
    pub(crate) fn comes_again(&mut self, envelope: &Envelope, why: &str) -> bool {
        let times = envelope.attempt.clamp(0, NEWER_TIMES_MAX);
        if times == NEWER_TIMES_MAX {
            let (endpoint, kind, saga) = (&self.shared.name, &envelope.type_name, &envelope.saga);
            tracing::warn!(endpoint, kind, ?saga, why, "given up: no process of a newer version took it for a day");
            return false;
        }
        let delay = Backoff::after(NEWER_PAUSE_MIN, NEWER_PAUSE_MAX, times as u32);
        let again = Arc::new(Envelope { attempt: times + 1, ..envelope.clone() });
        let to = Destination::Endpoint(self.shared.name.clone());
        let row = OutboxRow::new(ambient::fresh_id(), OutboxKind::Retry, to, again);
        self.write.outbox.push(OutboxRow { delay: Some(delay), last_error: Some(why.into()), ..row });
        true
    }

    fn held_out(&mut self, settling: Settling<'_>) {
        if let Origin::Held(row) = settling.origin {
            let key = HeldKey { receiver: row.receiver.clone(), message_id: row.envelope.message_id.clone() };
            self.write.held_out.push(key);
        }
    }

    /// The message itself, and what it led to, if it is for an instance and the endpoint keeps those.
    fn kept(&self, settling: &Settling<'_>, step: Option<&KeptStep>) -> Option<String> {
        settling.saga_id.filter(|_| self.shared.settings.keep_messages)?;
        KeptStep::column(Some(settling.envelope), step)
    }

    fn inbox(&mut self, settling: Settling<'_>, result: InboxResult, runs: i64, round: u32, journal: Journal) {
        let row = InboxRow {
            receiver: settling.receiver.into(),
            envelope: settling.envelope.clone(),
            body_hash: settling.envelope.body_hash(),
            result,
            saga_id: settling.saga_id.map(Into::into),
            seq: journal.seq,
            from_state: journal.from_state,
            to_state: journal.to_state,
            effects: journal.effects,
            attempts: settling.attempts() + runs,
            round,
            note: journal.note.map(storable),
            message: if result.is_final() { self.kept(&settling, journal.kept.as_ref()) } else { None },
        };
        match settling.completes() {
            Some(attempts) => self.write.completes.push((row, attempts)),
            None => self.write.claims.push(row),
        }
    }
}

/// A text from user code, in a form that every database can store.
fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}
