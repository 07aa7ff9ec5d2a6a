//! What an instance does with the messages of a batch: a pure decision, which one place performs after it.

use super::{Disposition, Emit, Emits, Moment, Rules, Saga};
use crate::{Envelope, HeldReason, InstanceKey, InstanceRow, InstanceWrite, SagaRef, TimersOut};
use serde::{Deserialize, Serialize};
use std::{
    any::Any,
    cell::RefCell,
    collections::HashMap,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Once},
};

/// A message offered to an instance.
pub(crate) struct Offer {
    pub(crate) envelope: Arc<Envelope>,
    /// Decoded when it came; a held message is decoded when its turn comes.
    pub(crate) decoded: Option<Box<dyn Any + Send>>,
    /// Why it waits in `held`, if it does.
    pub(crate) waiting: Option<HeldReason>,
    /// Why it cannot be handled at all.
    pub(crate) fault: Option<(HeldReason, String)>,
}

/// What became of an offered message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Settled {
    Moved(Move),
    Ignored { state: Option<String> },
    Stale { state: Option<String> },
    Held { reason: HeldReason, error: Option<String> },
}

/// A transition that was made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Move {
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    pub(crate) seq: i64,
    pub(crate) entered: i64,
    pub(crate) emits: Vec<Emit>,
}

/// What a batch came to for one instance.
pub(crate) struct Decided {
    /// By index of the offers, in the order in which they were settled; a held message that stays as it was is not among them.
    pub(crate) settled: Vec<(usize, Settled)>,
    pub(crate) instance: Option<InstanceWrite>,
    pub(crate) timers_out: Option<TimersOut>,
    /// The state after, for projections, when a transition was made.
    pub(crate) state: Option<Box<dyn Any + Send>>,
    /// Who started the instance, as stored: it is read when a transition replies.
    pub(crate) originator: Option<String>,
}

/// Who started an instance: where `Replies` go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Originator {
    pub(crate) reply_to: String,
    pub(crate) message_id: String,
    pub(crate) conversation_id: String,
    pub(crate) saga: Option<SagaRef>,
}

/// A saga without its type: what the endpoint keeps of each.
pub(crate) trait SagaLogic: Send + Sync {
    fn name(&self) -> &'static str;
    /// Decodes a message: the key in it, if it carries one, and the message.
    fn read(&self, type_name: &str, body: &[u8]) -> Result<(Option<String>, Box<dyn Any + Send>), String>;
    fn check_id(&self, text: &str) -> Result<(), String>;
    fn decide(&self, key: &InstanceKey, row: Option<&InstanceRow>, offers: &mut [Offer], now_us: i64) -> Decided;
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

    fn read(&self, type_name: &str, body: &[u8]) -> Result<(Option<String>, Box<dyn Any + Send>), String> {
        use super::SagaId;
        let message = S::read(type_name, body).map_err(|error| format!("{error} (saga `{}`)", S::NAME))?;
        let id = S::id(&message).map(|id| id.to_text());
        if id.as_deref() == Some("") {
            return Err(format!("{type_name}: the id of saga `{}` is empty", S::NAME));
        }
        Ok((id, Box::new(message)))
    }

    fn check_id(&self, text: &str) -> Result<(), String> {
        use super::SagaId;
        if text.is_empty() {
            return Err(format!("header saga-id of saga `{}` is empty", S::NAME));
        }
        S::Id::parse(text).map(drop).map_err(|error| format!("header {error} (saga `{}`)", S::NAME))
    }

    fn decide(&self, key: &InstanceKey, row: Option<&InstanceRow>, offers: &mut [Offer], now_us: i64) -> Decided {
        let mut panicked = HashMap::new();
        // A transition consumes the state, so after a panic the good ones before it are run again from the row:
        // they are pure and come to the same. Each round takes one message out, so there is an end to it.
        loop {
            match Run::<S>::new(&self.rules, key, row, now_us, &panicked).all(offers) {
                Ok(decided) => return decided,
                Err(Panicked { offer, error }) => panicked.insert(offer, error),
            };
        }
    }
}

struct Panicked {
    offer: usize,
    error: String,
}

/// One pass over the offers of one instance.
struct Run<'a, S> {
    rules: &'a Rules,
    key: &'a InstanceKey,
    row: Option<&'a InstanceRow>,
    now_us: i64,
    panicked: &'a HashMap<usize, String>,
    /// The state decoded; taken while a transition runs.
    state: Option<S>,
    /// Its name; none while there is no instance.
    name: Option<String>,
    unreadable: Option<String>,
    seq: i64,
    entered: i64,
    paused_by: Option<String>,
    originator: Option<String>,
    /// Offers that wait, in order of arrival, with the reason.
    waiting: Vec<(usize, HeldReason)>,
    settled: Vec<(usize, Settled)>,
    moved: bool,
}

impl<'a, S: Saga> Run<'a, S> {
    fn new(
        rules: &'a Rules,
        key: &'a InstanceKey,
        row: Option<&'a InstanceRow>,
        now_us: i64,
        panicked: &'a HashMap<usize, String>,
    ) -> Self {
        let loaded = row.map(|row| S::load(&row.state, &row.data));
        let (state, unreadable) = match loaded {
            None => (None, None),
            Some(Ok(state)) => (Some(state), None),
            Some(Err(error)) => {
                (None, Some(format!("the stored state of {}/{} cannot be read: {error}", key.saga, key.id)))
            }
        };
        Self {
            rules,
            key,
            row,
            now_us,
            panicked,
            state,
            unreadable,
            name: row.map(|row| row.state.clone()),
            seq: row.map_or(0, |row| row.seq),
            entered: row.map_or(0, |row| row.entered),
            paused_by: row.and_then(|row| row.paused_by.clone()),
            originator: row.and_then(|row| row.originator.clone()),
            waiting: Vec::new(),
            settled: Vec::new(),
            moved: false,
        }
    }

    fn all(mut self, offers: &mut [Offer]) -> Result<Decided, Panicked> {
        let held = offers.iter().enumerate().filter_map(|(i, offer)| Some((i, offer.waiting?)));
        self.waiting = held.collect();
        self.release(offers)?; // what waits and fits goes first: it came before
        for i in 0..offers.len() {
            if offers[i].waiting.is_none() {
                self.offer(i, offers)?;
                self.release(offers)?;
            }
        }
        Ok(self.finish())
    }

    /// Offers what waits, in order of arrival, as long as something fits the state that the one before has left behind.
    fn release(&mut self, offers: &mut [Offer]) -> Result<(), Panicked> {
        while let Some(position) = self.waiting.iter().position(|&(i, reason)| self.fits(&offers[i].envelope, reason)) {
            let (i, _) = self.waiting.remove(position);
            self.offer(i, offers)?;
        }
        Ok(())
    }

    fn fits(&self, envelope: &Envelope, reason: HeldReason) -> bool {
        let Some(state) = &self.name else { return false };
        let settles = |d: Disposition| !matches!(d, Disposition::Early | Disposition::Defer);
        self.paused_by.is_none()
            && match reason {
                HeldReason::Paused => true,
                HeldReason::Early | HeldReason::Deferred => settles(self.rules.disposition(state, &envelope.type_name)),
                _ => false,
            }
    }

    fn offer(&mut self, i: usize, offers: &mut [Offer]) -> Result<(), Panicked> {
        if self.paused_by.as_deref() == Some(&offers[i].envelope.message_id) {
            self.paused_by = None; // its turn has come; if it fails again, it pauses again
        }
        let settled = self.settle(i, &mut offers[i])?;
        if let Settled::Held { reason, .. } = &settled
            && reason.releases_itself()
        {
            self.waiting.push((i, *reason));
        }
        self.settled.retain(|(known, _)| *known != i); // it waited earlier in this batch
        self.settled.push((i, settled));
        Ok(())
    }

    fn settle(&mut self, i: usize, offer: &mut Offer) -> Result<Settled, Panicked> {
        let envelope = offer.envelope.clone();
        let type_name = envelope.type_name.as_str();
        if let Some(by) = &self.paused_by
            && *by != envelope.message_id
        {
            return Ok(Settled::Held { reason: HeldReason::Paused, error: Some(format!("waits behind message {by}")) });
        }
        let broken = (offer.fault.clone())
            .or_else(|| self.panicked.get(&i).map(|text| (HeldReason::Failed, text.clone())))
            .or_else(|| self.unreadable.clone().map(|text| (HeldReason::Failed, text)));
        if let Some((reason, error)) = broken {
            return Ok(self.pause(&envelope, reason, error));
        }
        let Some(state) = self.name.clone() else {
            return if self.rules.starts(type_name) {
                self.transition(i, offer, None)
            } else if self.rules.is_timer(type_name) {
                Ok(Settled::Stale { state: None })
            } else {
                let error = format!("no instance {}/{} yet", self.key.saga, self.key.id);
                Ok(Settled::Held { reason: HeldReason::Early, error: Some(error) })
            };
        };
        let timer = self.rules.is_timer(type_name);
        if timer && envelope.saga.as_ref().and_then(|saga| saga.entered).is_some_and(|entered| entered != self.entered)
        {
            return Ok(Settled::Stale { state: Some(state) });
        }
        match self.rules.disposition(&state, type_name) {
            Disposition::Transition => self.transition(i, offer, Some(state)),
            Disposition::Early | Disposition::Late if timer => Ok(Settled::Stale { state: Some(state) }),
            Disposition::Ignore | Disposition::Late => Ok(Settled::Ignored { state: Some(state) }),
            Disposition::Early => {
                let error = format!("state `{state}` has no transition for it yet");
                Ok(Settled::Held { reason: HeldReason::Early, error: Some(error) })
            }
            Disposition::Defer => {
                let error = format!("state `{state}` defers it");
                Ok(Settled::Held { reason: HeldReason::Deferred, error: Some(error) })
            }
            Disposition::Reject => {
                let error = format!("state `{state}` rejects {type_name}");
                Ok(Settled::Held { reason: HeldReason::Rejected, error: Some(error) })
            }
        }
    }

    /// Holds a message that later ones of the instance must wait behind. Where there is no instance, nobody waits.
    fn pause(&mut self, envelope: &Envelope, reason: HeldReason, error: String) -> Settled {
        if self.name.is_some() {
            self.paused_by = Some(envelope.message_id.clone());
        }
        Settled::Held { reason, error: Some(error) }
    }

    fn transition(&mut self, i: usize, offer: &mut Offer, from: Option<String>) -> Result<Settled, Panicked> {
        let envelope = &offer.envelope;
        let decoded = offer.decoded.take().and_then(|message| message.downcast::<S::In>().ok());
        let message = match decoded {
            Some(message) => *message,
            None => match S::read(&envelope.type_name, &envelope.body) {
                Ok(message) => message,
                Err(error) => return Ok(self.pause(&envelope.clone(), HeldReason::Undecodable, error.to_string())),
            },
        };
        let at = Moment {
            now_us: self.now_us,
            saga_id: self.key.id.clone(),
            seq: self.seq,
            entered: self.entered,
            envelope: Some(envelope.clone()),
        };
        let mut out = Emits::default();
        let state = self.state.take();
        let next = caught(|| match state {
            None => S::start(message, &at, &mut out).map_err(|_| None),
            Some(state) => state.step(message, &at, &mut out).map_err(|(state, _)| Some(state)),
        })
        .map_err(|error| Panicked { offer: i, error })?;
        match next {
            Err(state) => {
                self.state = state;
                return Ok(Settled::Ignored { state: from });
            }
            Ok(state) => self.state = Some(state),
        }
        if from.is_none() {
            let originator = envelope.reply_to.clone().map(|reply_to| Originator {
                reply_to,
                message_id: envelope.message_id.clone(),
                conversation_id: envelope.conversation_id.clone(),
                saga: envelope.saga.clone(),
            });
            self.originator = originator.and_then(|originator| serde_json::to_string(&originator).ok());
        }
        self.moved = true;
        self.seq += 1;
        if !out.keep || from.is_none() {
            self.entered += 1;
        }
        let to = self.state.as_ref().map(S::state_name).unwrap_or_default().to_owned();
        self.name = Some(to.clone());
        Ok(Settled::Moved(Move { from, to, seq: self.seq, entered: self.entered, emits: out.emits }))
    }

    fn finish(mut self) -> Decided {
        let paused = self.row.and_then(|row| row.paused_by.as_ref()) != self.paused_by.as_ref();
        let done = self.name.as_deref().is_some_and(|name| self.rules.is_done(name));
        let row = match (&self.state, self.row) {
            (Some(state), _) if self.moved => Some((state.state_name().to_owned(), state.store(), S::VERSION as i32)),
            (_, Some(row)) if paused => Some((row.state.clone(), row.data.clone(), row.version)),
            _ => None,
        };
        let base_seq = self.row.map_or(0, |row| row.seq);
        let instance = row.map(|(state, data, version)| InstanceWrite {
            base_seq,
            row: InstanceRow {
                key: self.key.clone(),
                state,
                data,
                seq: self.seq,
                entered: self.entered,
                version,
                originator: self.originator.clone(),
                paused_by: self.paused_by.clone(),
                done,
            },
        });
        let left = self.row.is_some_and(|row| row.entered != self.entered);
        let timers_out = (self.rules.sets_timers() && left)
            .then(|| TimersOut { key: self.key.clone(), keep_entered: (!done).then_some(self.entered) });
        let state = self.state.take().filter(|_| self.moved).map(|state| Box::new(state) as Box<dyn Any + Send>);
        Decided { settled: self.settled, instance, timers_out, state, originator: self.originator }
    }
}

thread_local! {
    static PANIC_PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `f`; a panic in it becomes its text and place, and is not printed.
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
            let quiet = PANIC_PLACE.with(|slot| match &mut *slot.borrow_mut() {
                Some(slot) => {
                    *slot = place;
                    true
                }
                None => false,
            });
            if !quiet {
                default(info);
            }
        }));
    });
    PANIC_PLACE.with(|slot| *slot.borrow_mut() = Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(f));
    let place = PANIC_PLACE.with(|slot| slot.borrow_mut().take()).unwrap_or_default();
    result.map_err(|payload| format!("panicked at {place}: {}", panic_text(&*payload)))
}

/// The text of a panic.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

#[cfg(test)]
mod tests;
