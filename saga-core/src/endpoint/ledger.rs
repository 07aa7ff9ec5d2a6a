//! The ledger of a unit of work: everything that its decisions write, gathered until the unit's one write.

use super::{
    emission::{self, Emission},
    judge::{Before, REUSED},
    shared::Shared,
};
use crate::{
    Envelope, HeldReason, InboxResult, Store, hash_of,
    port::{Caused, HeldIn, HeldKey, HeldRow, InboxRow, OutboxRow, Write},
};
use std::{sync::Arc, time::Duration};

/// How long a message waits for a process that knows its type or version before it waits for a person.
const VERSION_WAIT: Duration = Duration::from_secs(86_400);

/// A message that is being settled: its receiver, and where the message comes from.
#[derive(Clone, Copy)]
pub(crate) struct Settling<'a> {
    pub(crate) receiver: &'a str,
    pub(crate) envelope: &'a Arc<Envelope>,
    pub(crate) saga_id: Option<&'a str>,
    pub(crate) origin: Origin<'a>,
}

/// Where a message that is being settled comes from.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// From the broker.
    Broker(Before),
    /// It was held.
    Held(&'a HeldRow),
}

/// Optional remarks for the journal.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) seq: Option<i64>,
    pub(crate) from_state: Option<String>,
    pub(crate) to_state: Option<String>,
    pub(crate) effects: Option<Vec<Caused>>,
    pub(crate) note: Option<String>,
}

pub(crate) struct Ledger<'a, Db: Store> {
    shared: &'a Shared<Db>,
    pub(crate) write: Write,
}

impl<'a, Db: Store> Ledger<'a, Db> {
    pub(crate) fn new(shared: &'a Shared<Db>) -> Self {
        let write = Write {
            endpoint: shared.name.clone(),
            owner: shared.owner().into(),
            lease: shared.settings.lease,
            ..Write::default()
        };
        Self { shared, write }
    }

    /// Rows for what a message causes; what the journal says of them.
    pub(crate) fn emit(&mut self, emissions: impl IntoIterator<Item = Emission>) -> Vec<Caused> {
        let mut effects = Vec::new();
        for Emission { rows, effect } in emissions {
            effects.push(effect);
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
        if !reason.releases_itself() {
            tracing::warn!(
                endpoint = self.shared.name,
                receiver = settling.receiver,
                message_id = settling.envelope.message_id,
                kind = settling.envelope.type_name,
                reason = reason.as_str(),
                error = error.as_deref().unwrap_or_default(),
                "message held"
            );
        }
        let row = HeldIn {
            receiver: settling.receiver.into(),
            envelope: settling.envelope.clone(),
            reason,
            saga_id: settling.saga_id.map(Into::into),
            error: error.map(storable),
            attempts: settling.attempts() + runs,
            expires: match reason {
                HeldReason::Early => Some(self.shared.settings.early),
                HeldReason::Version => Some(VERSION_WAIT),
                _ => None,
            },
        };
        self.write.held_in.push(row);
        self.inbox(settling, InboxResult::Held, runs, settling.round(), Journal::default());
    }

    /// The message comes again later, for this receiver alone. If no run was counted, the retry does not count as a
    /// round either.
    pub(crate) fn put_off(&mut self, settling: Settling<'_>, delay: Duration, error: String, runs: i64) {
        let attempts = settling.attempts() + runs;
        let retry = emission::retry(&self.shared.name, settling.envelope, settling.receiver, attempts, delay);
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
        let own = Arc::new(Envelope { message_id, attempt: 0, ..envelope.clone() });
        tracing::warn!(
            endpoint = self.shared.name,
            receiver,
            message_id = envelope.message_id,
            held_as = own.message_id,
            "message held: its id was used before for another message"
        );
        self.write.held_in.push(HeldIn {
            receiver: receiver.into(),
            envelope: own,
            reason: REUSED,
            saga_id: None,
            error: Some(text),
            attempts: 0,
            expires: None,
        });
    }

    fn held_out(&mut self, settling: Settling<'_>) {
        if let Origin::Held(row) = settling.origin {
            let key = HeldKey { receiver: row.receiver.clone(), message_id: row.envelope.message_id.clone() };
            self.write.held_out.push(key);
        }
    }

    fn inbox(&mut self, settling: Settling<'_>, result: InboxResult, runs: i64, round: u32, journal: Journal) {
        let row = InboxRow {
            receiver: settling.receiver.into(),
            envelope: settling.envelope.clone(),
            result,
            saga_id: settling.saga_id.map(Into::into),
            seq: journal.seq,
            from_state: journal.from_state,
            to_state: journal.to_state,
            effects: journal.effects,
            attempts: settling.attempts() + runs,
            round,
            note: journal.note.map(storable),
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

impl Settling<'_> {
    fn completes(&self) -> Option<i64> {
        match self.origin {
            Origin::Broker(before) => before.completes,
            Origin::Held(row) => Some(row.attempts),
        }
    }

    /// Runs that were counted before.
    pub(crate) fn attempts(&self) -> i64 {
        self.completes().unwrap_or(0)
    }

    fn round(&self) -> u32 {
        match self.origin {
            Origin::Broker(before) => before.round,
            Origin::Held(_) => 0,
        }
    }
}
