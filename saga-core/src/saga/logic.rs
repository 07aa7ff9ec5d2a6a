//! A saga without its type, as the endpoint keeps it: what is offered to an instance, and what the instance decides.

use super::{
    AliasChanges, Emit, FieldChanges, KnownAliases, Progress, Replied, Route, Rules, Saga, SagaId, SentCommand,
    alias::value_fault, alias_key, alias_name, run::Run,
};
use crate::{
    Encoded, Envelope, HeldReason, InstanceKey, InstanceRow, SagaRef, UnreadableKind,
    panics::caught,
    port::{InstanceWrite, TimerOut},
};
use serde::{Deserialize, Serialize};
use std::{any::Any, collections::HashMap, marker::PhantomData, sync::Arc, time::Duration};
use uuid::Uuid;

/// A message offered to an instance.
pub(crate) struct Offer {
    pub(crate) envelope: Arc<Envelope>,
    /// The decoded message; a held message is decoded when its turn comes.
    pub(crate) decoded: Option<Box<dyn Any + Send>>,
    /// Why it waits in `held`, if it does.
    pub(crate) waiting: Option<HeldReason>,
    /// Why it cannot be handled at all.
    pub(crate) fault: Option<(HeldReason, String)>,
}

/// Everything an instance needs to decide.
pub(crate) struct Offers<'a> {
    pub(crate) key: &'a InstanceKey,
    pub(crate) row: Option<&'a InstanceRow>,
    pub(crate) now_us: i64,
    /// Held messages that were not read, by type and reason: when one of them fits, the instance goes no further in
    /// this unit.
    pub(crate) unread: &'a [(String, HeldReason)],
    /// Not all that fit were read: messages that came now wait for the rest.
    pub(crate) partial: bool,
    /// What happens to the message of the first transition instead, because a projection refused that transition.
    pub(crate) overrule: Option<&'a Overrule>,
    /// A transition that sends a larger body fails.
    pub(crate) body_bytes_max: usize,
    /// What is known of aliases; a transition that takes one which another instance has fails.
    pub(crate) aliases: &'a KnownAliases,
    /// The journal keeps the instance as each transition leaves it.
    pub(crate) keeps: bool,
}

/// What happens to a message whose transition is not run.
#[derive(Debug, Clone)]
pub(crate) enum Overrule {
    /// It is held for a person.
    Hold(String),
    /// It is put off; later messages wait behind it.
    PutOff(Duration, String),
    /// It is given up.
    Discard(String),
}

/// What became of an offered message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Settled {
    Moved(Move),
    Ignored {
        state: Option<String>,
    },
    /// A repeated start: its sender gets the reply that was given, again.
    Returned {
        state: String,
        reply: Replied,
    },
    Stale {
        state: Option<String>,
    },
    /// A command that the state rejects, and that says what its sender gets then.
    GivenUp {
        state: String,
        error: String,
        answer: Encoded,
    },
    Held {
        reason: HeldReason,
        error: Option<String>,
    },
    PutOff {
        delay: Duration,
        error: String,
    },
    /// It comes again, uncounted, until a process of a newer version takes it.
    LeftToNewer {
        error: String,
    },
    Discarded {
        note: String,
    },
}

/// A transition that was made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Move {
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    pub(crate) seq: i64,
    pub(crate) entered: i64,
    pub(crate) emits: Vec<Emit>,
    /// The number of each emit that is a timer, or a command that may be taken back.
    pub(crate) numbers: Vec<Option<i64>>,
    /// Commands of earlier units that it takes back.
    pub(crate) cancels: Vec<SentCommand>,
    /// The instance as it left it, if that is to be kept.
    pub(crate) after: Option<Box<Left>>,
}

/// What a transition left, beside its state: the instance can stand there again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Left {
    pub(crate) data: String,
    /// Commands of the unit have no ids yet.
    pub(crate) progress: Progress,
    pub(crate) version: i32,
    pub(crate) done: bool,
}

/// What an instance decided about a batch.
pub(crate) struct Decided {
    /// By index of the offers, in the order in which they were settled. A held message that stays held is not among
    /// them, nor is a message that was left for the next unit.
    pub(crate) settled: Vec<(usize, Settled)>,
    /// A held message that was not read fits now: the instance must be asked again.
    pub(crate) more: bool,
    pub(crate) instance: Option<InstanceWrite>,
    /// The numbers of the timers that are alive after all.
    pub(crate) timers: Vec<i64>,
    /// Timers to delete.
    pub(crate) timers_out: Vec<TimerOut>,
    /// The numbers of commands that were sent and taken back in this batch: they do not leave.
    pub(crate) unsent: Vec<i64>,
    /// As in the row, where commands have no ids yet.
    pub(super) progress: Progress,
    /// The state after and its data, for projections, when a transition was made.
    pub(crate) state: Option<Box<dyn Any + Send>>,
    /// Who started the instance, as stored; only read when a transition replies.
    pub(crate) originator: Option<String>,
    pub(crate) aliases: AliasChanges,
    pub(crate) fields: FieldChanges,
}

/// How a message names its instance.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Named {
    ById(String),
    /// By the key of an alias.
    ByAlias(InstanceKey),
}

impl Decided {
    /// Whether a timer or a command, by its number, leaves after all that the batch has done.
    pub(crate) fn leaves(&self, emit: &Emit, number: i64) -> bool {
        match emit.route {
            Route::Timer { .. } => self.timers.contains(&number),
            _ => !self.unsent.contains(&number),
        }
    }

    /// The ids under which commands leave, by number: the row will know them.
    pub(crate) fn name_commands(&mut self, ids: &HashMap<i64, Uuid>) {
        let nameless = self.progress.sent.iter_mut().filter(|command| command.id.is_none());
        let named = nameless.map(|command| command.id = ids.get(&command.number).copied()).count();
        if let Some(write) = self.instance.as_mut().filter(|_| named > 0) {
            write.row.progress = self.progress.json();
        }
    }
}

/// Who started an instance: where `Replies` go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Originator {
    pub(crate) reply_to: String,
    pub(crate) message_id: String,
    pub(crate) conversation_id: String,
    pub(crate) saga: Option<SagaRef>,
}

impl Originator {
    /// The sender of the message that starts an instance, as it is stored; `None` when no answer was asked for.
    pub(crate) fn of(envelope: &Envelope) -> Option<String> {
        let originator = Self {
            reply_to: envelope.reply_to.clone()?,
            message_id: envelope.message_id.clone(),
            conversation_id: envelope.conversation_id.clone(),
            saga: envelope.saga.clone(),
        };
        serde_json::to_string(&originator).ok()
    }
}

/// A saga without its type.
pub(crate) trait SagaLogic: Send + Sync {
    fn name(&self) -> &'static str;
    fn version(&self) -> i32;
    /// Decodes a message. Returns how it names its instance, if it does, and the message.
    fn read(&self, type_name: &str, body: &[u8]) -> Result<(Option<Named>, Box<dyn Any + Send>), String>;
    /// The full names of its aliases.
    fn alias_names(&self) -> Vec<String>;
    /// An id in its canonical spelling, which the tables use.
    fn canonical_id(&self, text: &str) -> Result<String, String>;
    /// Whether a held message could go on in the instance as it is stored.
    fn fits(&self, row: &InstanceRow, type_name: &str, reason: HeldReason) -> bool;
    fn decide(&self, offers: &Offers<'_>, messages: &mut [Offer]) -> Decided;
    /// Whether this program can work with the instance as it is stored; else why not.
    fn check(&self, row: &InstanceRow) -> Result<(), (UnreadableKind, String)>;
}

pub(crate) struct Typed<S> {
    rules: Rules,
    saga: PhantomData<fn() -> S>,
}

impl<S: Saga> Typed<S> {
    pub(crate) fn new() -> Self {
        Self { rules: Rules::of(&S::chart()), saga: PhantomData }
    }
}

impl<S: Saga> SagaLogic for Typed<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn version(&self) -> i32 {
        S::VERSION as i32
    }

    fn read(&self, type_name: &str, body: &[u8]) -> Result<(Option<Named>, Box<dyn Any + Send>), String> {
        let field = S::__id_field(type_name);
        let message = S::__read(type_name, body).map_err(|error| match field {
            "" => format!("{error} (saga `{}`)", S::NAME),
            field => format!("{error} (saga `{}`, id in `{field}`)", S::NAME),
        })?;
        if let Some((alias, value)) = S::__alias(&message) {
            let value = value.unwrap_or_default();
            if let Some(fault) = value_fault(&value) {
                let saga = S::NAME;
                return Err(format!("{type_name}: `{field}`, the alias `{alias}` of saga `{saga}`, {fault}"));
            }
            return Ok((Some(Named::ByAlias(alias_key(S::NAME, alias, value))), Box::new(message)));
        }
        let id = S::__id(&message);
        let incomplete = id.as_ref().is_some_and(SagaId::__is_incomplete);
        let id = id.map(|id| id.to_text());
        let fault = match id.as_deref() {
            Some("") => "is empty",
            Some(_) if incomplete => "has an empty part",
            _ => return Ok((id.map(Named::ById), Box::new(message))),
        };
        Err(format!("{type_name}: `{field}`, the id of saga `{}`, {fault}", S::NAME))
    }

    fn alias_names(&self) -> Vec<String> {
        S::__ALIASES.iter().map(|alias| alias_name(S::NAME, alias)).collect()
    }

    fn canonical_id(&self, text: &str) -> Result<String, String> {
        S::Id::canonical(text).map_err(|error| format!("header {error} (saga `{}`)", S::NAME))
    }

    fn fits(&self, row: &InstanceRow, type_name: &str, reason: HeldReason) -> bool {
        row.paused_by.is_none() && row.version <= self.version() && {
            // the run says what is wrong with one that cannot be read
            let visited = Progress::read(row.progress.as_deref()).unwrap_or_default().visited;
            let visited = self.rules.present(visited);
            self.rules.releases(self.rules.name_of(&row.state), type_name, reason, &visited)
        }
    }

    fn decide(&self, offers: &Offers<'_>, messages: &mut [Offer]) -> Decided {
        let mut failed = HashMap::new();
        // A transition consumes the state, so after a failed one the good ones before it are run again from the row:
        // they are pure, so the result is the same. Each round removes one message, so the loop terminates.
        loop {
            match Run::<S>::new(&self.rules, offers, &failed).all(messages) {
                Ok(decided) => return decided,
                Err(transition) => failed.insert(transition.offer, transition.error),
            };
        }
    }

    fn check(&self, row: &InstanceRow) -> Result<(), (UnreadableKind, String)> {
        if row.state == InstanceRow::CANCELLED {
            return Ok(()); // nobody reads its data any more
        }
        if row.version > self.version() {
            let ours = self.version();
            let text =
                format!("a newer program wrote it; this program has version {ours}: it leaves the instance alone");
            return Err((UnreadableKind::Newer, text));
        }
        let state = self.rules.name_of(&row.state);
        if !self.rules.has_state(state) {
            let text = format!(
                "this program has no such state: if it was renamed, say `#[was(\"{state}\")]`; else keep it, with \
                 `#[legacy]`, until no instance is in it"
            );
            return Err((UnreadableKind::State, text));
        }
        let data = |error: String| (UnreadableKind::Data, format!("it cannot be read: {error}"));
        // messages name an instance by its id in the canonical spelling, and by no other
        let id = &row.key.id;
        let canonical = S::Id::canonical(id).map_err(|error| data(error.to_string()))?;
        if canonical != *id {
            let text = format!("messages of this program name an instance `{canonical}`, and never `{id}`");
            return Err((UnreadableKind::Data, text));
        }
        let read = caught(|| S::__load(&row.state, row.version.unsigned_abs(), &row.data));
        read.map_err(data)?.map_err(|error| data(error.to_string()))?;
        let progress = Progress::read(row.progress.as_deref()).map_err(data)?;
        match progress.timers.iter().find(|timer| !self.rules.is_timer(&timer.type_name)) {
            Some(timer) => Err((
                UnreadableKind::Timer,
                format!(
                    "it has set the timer `{}`, which the saga no longer takes: keep the function",
                    timer.type_name
                ),
            )),
            None => Ok(()),
        }
    }
}
