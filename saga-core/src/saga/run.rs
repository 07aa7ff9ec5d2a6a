//! What an instance does with the messages of a batch, by the rules of its chart: a pure decision, which `endpoint/`
//! carries out.

mod way;

use super::{
    AliasChanges, Aliases, Disposition, Emits, FieldChanges, KeptFields, Moment, Progress, Replied, Route, Rules, Saga,
    logic::{Decided, Left, Move, Offer, Offers, Originator, Overrule, Settled},
};
use crate::{
    Encoded, Envelope, HeldReason, InstanceKey, InstanceRow,
    envelope::body_refusal,
    panics::caught,
    port::{InstanceWrite, TimerOut},
};
use std::{any::Any, collections::HashMap};

/// An instance goes on in another unit when so many bytes of data are kept of its steps in this one: the journal has a
/// copy of each.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// A transition that failed: it panicked, led to a state that cannot be stored, or sends what must not leave.
pub(super) struct FailedTransition {
    pub(super) offer: usize,
    pub(super) error: String,
}

/// One pass over the offers of one instance.
pub(super) struct Run<'a, S: Saga> {
    rules: &'a Rules,
    offers: &'a Offers<'a>,
    /// Offers whose transition failed in an earlier pass.
    failed: &'a HashMap<usize, String>,
    /// The state decoded, and what every state knows; taken while a transition runs.
    state: Option<(S, S::Data)>,
    /// Its name; none while there is no instance.
    name: Option<String>,
    /// Its JSON, once a transition was made.
    data: Option<String>,
    /// Why no transition can be made: the stored state cannot be read.
    unreadable: Option<String>,
    seq: i64,
    entered: i64,
    progress: Progress,
    /// The timers that were alive when the row was read.
    alive_before: Vec<i64>,
    /// The aliases that it had when the row was read.
    aliases_before: Aliases,
    /// Those that a transition took.
    aliases_taken: Vec<InstanceKey>,
    /// The fields that it had when the row was read.
    fields_before: KeptFields,
    /// How many commands that may be taken back were sent.
    commands: i64,
    /// Those of them that were taken back at once.
    unsent: Vec<i64>,
    paused_by: Option<String>,
    originator: Option<String>,
    /// Offers that wait, in order of arrival, with the reason.
    waiting: Vec<(usize, HeldReason)>,
    settled: Vec<(usize, Settled)>,
    more: bool,
    /// The rest waits for the next unit: a message was overruled, and the projection may refuse the rest as well; or
    /// messages that came before the rest wait for an alias that the instance has just taken; or what is kept of the
    /// steps would become too large for one unit.
    stops: bool,
    /// Bytes of data that are kept of the steps so far.
    kept_bytes: usize,
    overrule: Option<&'a Overrule>,
}

impl<'a, S: Saga> Run<'a, S> {
    pub(super) fn new(rules: &'a Rules, offers: &'a Offers<'a>, failed: &'a HashMap<usize, String>) -> Self {
        let row = offers.row;
        let mut run = Self {
            rules,
            offers,
            failed,
            state: None,
            data: None,
            unreadable: None,
            name: row.map(|row| rules.name_of(&row.state).to_owned()),
            seq: row.map_or(0, |row| row.seq),
            entered: row.map_or(0, |row| row.entered),
            progress: Progress::default(),
            alive_before: Vec::new(),
            aliases_before: Aliases::default(),
            aliases_taken: Vec::new(),
            fields_before: KeptFields::default(),
            commands: 0,
            unsent: Vec::new(),
            paused_by: row.and_then(|row| row.paused_by.clone()),
            originator: row.and_then(|row| row.originator.clone()),
            waiting: Vec::new(),
            settled: Vec::new(),
            more: false,
            stops: false,
            kept_bytes: 0,
            overrule: offers.overrule,
        };
        if let Some(row) = row.filter(|row| !run.is_newer() && row.state != InstanceRow::CANCELLED) {
            // a user's `Deserialize` or `Upcast` may panic, and concerns this instance alone
            let stored = caught(|| S::__load(&row.state, row.version.unsigned_abs(), &row.data))
                .and_then(|stored| stored.map_err(|error| error.to_string()));
            match stored.and_then(|stored| Ok((stored, Progress::read(row.progress.as_deref())?))) {
                Ok((state, mut progress)) => {
                    progress.visited = rules.present(progress.visited);
                    run.alive_before = progress.timers.iter().map(|timer| timer.number).collect();
                    run.aliases_before.clone_from(&progress.aliases);
                    run.fields_before.clone_from(&progress.fields);
                    (run.state, run.progress) = (Some(state), progress);
                }
                Err(error) => {
                    let (key, ours) = (offers.key, S::VERSION);
                    run.unreadable = Some(format!(
                        "the state of {}/{}, stored by version {}, cannot be read by version {ours}: {error}",
                        key.saga, key.id, row.version
                    ));
                }
            }
        }
        run
    }

    /// A newer version of the definition wrote the row: this process would lose the fields that it does not know.
    fn is_newer(&self) -> bool {
        self.offers.row.is_some_and(|row| row.version > S::VERSION as i32 && row.state != InstanceRow::CANCELLED)
    }

    pub(super) fn all(mut self, messages: &mut [Offer]) -> Result<Decided, FailedTransition> {
        let held = messages.iter().enumerate().filter_map(|(i, offer)| Some((i, offer.waiting?)));
        self.waiting = held.collect();
        self.release(messages)?; // what waits and fits goes first: it came before
        self.more |= self.offers.partial;
        for i in 0..messages.len() {
            if self.more {
                break; // what was not read came before the rest
            }
            if messages[i].waiting.is_none() {
                self.offer(i, messages)?;
                self.release(messages)?;
            }
        }
        Ok(self.finish())
    }

    /// Offers waiting messages, in order of arrival, as long as one fits the state that the one before it left behind.
    fn release(&mut self, messages: &mut [Offer]) -> Result<(), FailedTransition> {
        loop {
            let fitting = |&(i, reason): &(usize, HeldReason)| self.fits(&messages[i].envelope.type_name, reason);
            let position = self.waiting.iter().position(fitting);
            self.more = self.stops || self.offers.unread.iter().any(|(name, reason)| self.fits(name, *reason));
            match position {
                Some(position) if !self.more => {
                    let (i, _) = self.waiting.remove(position);
                    self.offer(i, messages)?;
                }
                _ => return Ok(()),
            }
        }
    }

    fn fits(&self, type_name: &str, reason: HeldReason) -> bool {
        let Some(state) = &self.name else { return false };
        self.paused_by.is_none()
            && !self.is_newer()
            && self.rules.releases(state, type_name, reason, &self.progress.visited)
    }

    fn offer(&mut self, i: usize, messages: &mut [Offer]) -> Result<(), FailedTransition> {
        if self.paused_by.as_deref() == Some(&messages[i].envelope.message_id) && !self.is_newer() {
            self.paused_by = None; // its turn has come; if it fails again, it pauses again
        }
        let settled = self.settle(i, &mut messages[i])?;
        if let Settled::Held { reason, .. } = &settled
            && reason.releases_itself()
        {
            self.waiting.push((i, *reason));
        }
        self.settled.retain(|(known, _)| *known != i); // it waited earlier in this batch
        self.settled.push((i, settled));
        Ok(())
    }

    fn settle(&mut self, i: usize, offer: &mut Offer) -> Result<Settled, FailedTransition> {
        let envelope = offer.envelope.clone();
        let type_name = &envelope.type_name;
        if self.is_newer() {
            let version = self.offers.row.map_or(0, |row| row.version);
            let error = format!("version {version} of the saga wrote the instance; this process knows {}", S::VERSION);
            // nothing wakes an instance that is paused: held, its own turn would wait behind itself
            let is_its_turn = self.paused_by.as_deref() == Some(&envelope.message_id);
            return Ok(if is_its_turn { Settled::LeftToNewer { error } } else { held(HeldReason::Version, error) });
        }
        if let Some(by) = &self.paused_by {
            return Ok(held(HeldReason::Paused, format!("waits behind message {by}")));
        }
        let broken = (offer.fault.clone()).or_else(|| self.unreadable.clone().map(|text| (HeldReason::Failed, text)));
        if let Some((reason, error)) = broken {
            return Ok(self.pause(&envelope, reason, error));
        }
        let Some(state) = self.name.clone() else {
            return if self.rules.starts(type_name) {
                self.transition(i, offer, None)
            } else if self.rules.is_timer(type_name) {
                Ok(Settled::Stale { state: None })
            } else {
                let key = self.offers.key;
                Ok(held(HeldReason::Early, format!("no instance {}/{} yet", key.saga, key.id)))
            };
        };
        let timer = self.rules.is_timer(type_name);
        if timer && !self.number_of(&envelope).is_some_and(|number| self.progress.is_alive(number)) {
            return Ok(Settled::Stale { state: Some(state) });
        }
        match self.rules.disposition(&state, type_name, &self.progress.visited) {
            Disposition::Transition => self.transition(i, offer, Some(state)),
            Disposition::Early | Disposition::Late if timer => Ok(Settled::Stale { state: Some(state) }),
            Disposition::Return => Ok(match self.progress.replied.clone() {
                Some(reply) => Settled::Returned { state, reply },
                None => Settled::Ignored { state: Some(state) },
            }),
            Disposition::Ignore | Disposition::Late => Ok(Settled::Ignored { state: Some(state) }),
            Disposition::Early => Ok(held(HeldReason::Early, format!("state `{state}` has no transition for it yet"))),
            Disposition::Defer => Ok(held(HeldReason::Deferred, format!("state `{state}` defers it"))),
            Disposition::Reject => Ok(rejected::<S>(state, &envelope)),
        }
    }

    /// Which of the instance's timers it is; `None` for what is no timer, whatever its headers say.
    fn number_of(&self, envelope: &Envelope) -> Option<i64> {
        envelope.saga.as_ref()?.timer.filter(|_| self.rules.is_timer(&envelope.type_name))
    }

    /// Holds a message that later ones of the instance must wait behind. Where there is no instance, nobody waits.
    fn pause(&mut self, envelope: &Envelope, reason: HeldReason, error: String) -> Settled {
        if self.name.is_some() {
            self.paused_by = Some(envelope.message_id.clone());
        }
        held(reason, error)
    }

    fn transition(&mut self, i: usize, offer: &mut Offer, from: Option<String>) -> Result<Settled, FailedTransition> {
        let envelope = offer.envelope.clone();
        if let Some(overrule) = self.overrule.take() {
            return Ok(self.overruled(&envelope, overrule.clone()));
        }
        // judged here and not earlier: a message that waited until now fails now
        if let Some(error) = self.failed.get(&i) {
            return Ok(self.pause(&envelope, HeldReason::Failed, error.clone()));
        }
        let decoded = offer.decoded.take().and_then(|message| message.downcast::<S::In>().ok());
        let message = match decoded {
            Some(message) => *message,
            None => {
                let read = caught(|| S::__read(&envelope.type_name, &envelope.body));
                match read.and_then(|read| read.map_err(|error| error.to_string())) {
                    Ok(message) => message,
                    Err(error) => return Ok(self.pause(&envelope, HeldReason::Undecodable, error)),
                }
            }
        };
        let at = Moment {
            now_us: self.offers.now_us,
            saga_id: self.offers.key.id.clone(),
            seq: self.seq,
            entered: self.entered,
            envelope: Some(envelope.clone()),
        };
        let mut out = Emits::default();
        let state = self.state.take();
        let next = caught(|| match state {
            None => S::__start(message, &at, &mut out).map_err(|_| None),
            Some((state, mut data)) => match state.__step(&mut data, message, &at, &mut out) {
                Ok(state) => Ok((state, data)),
                Err((state, _)) => Err(Some((state, data))),
            },
        })
        .map_err(|error| FailedTransition { offer: i, error })?;
        let state = match next {
            Err(state) => {
                self.state = state;
                return Ok(Settled::Ignored { state: from });
            }
            Ok(state) => state,
        };
        let to = state.0.state_name().to_owned();
        if let Some(from) = from.as_ref().filter(|from| out.stays && **from != to) {
            let error = format!("the transition says `Stay` in `{from}`, and enters `{to}`: return `{to}` instead");
            return Err(FailedTransition { offer: i, error });
        }
        let max = self.offers.body_bytes_max;
        let refused = out.emits.iter().find_map(|emit| body_refusal(emit.message.type_name, &emit.message.body, max));
        if let Some(error) = refused {
            return Err(FailedTransition { offer: i, error });
        }
        self.data = Some(stored(&state, &to).map_err(|error| FailedTransition { offer: i, error })?);
        self.take_aliases(&state.1).map_err(|error| FailedTransition { offer: i, error })?;
        self.keep_fields(&state.0, &state.1);
        self.state = Some(state);
        if from.is_none() {
            self.originator = Originator::of(&envelope);
        }
        self.seq += 1;
        if let Some(cause) = &envelope.causation_id {
            self.progress.answered(cause);
        }
        if let Some(timer) = self.number_of(&envelope) {
            self.progress.timers.retain(|known| known.number != timer); // it has come
        }
        if from.as_ref() != Some(&to) || out.anew {
            self.enter(from.as_ref());
        }
        let cancels = self.cancel(&out);
        let numbers = self.number(&to, &out).map_err(|error| FailedTransition { offer: i, error })?;
        if let Some(reply) = out.emits.iter().rfind(|emit| emit.route == Route::Reply && self.rules.returns()) {
            let Encoded { type_name, body, masked, .. } = &reply.message;
            let body = String::from_utf8_lossy(body).into_owned();
            let masked = masked.iter().map(|field| (*field).to_owned()).collect();
            self.progress.replied = Some(Replied { type_name: (*type_name).into(), body, masked });
        }
        self.name = Some(to.clone());
        let after = self.offers.keeps.then(|| {
            let (data, progress) = (self.data.clone().unwrap_or_default(), self.progress.clone());
            self.kept_bytes += data.len();
            self.stops |= self.kept_bytes > KEPT_BYTES_MAX;
            Box::new(Left { data, progress, version: S::VERSION as i32, done: self.rules.is_done(&to) })
        });
        let (seq, entered) = (self.seq, self.entered);
        Ok(Settled::Moved(Move { from, to, seq, entered, emits: out.emits, numbers, cancels, after }))
    }

    fn overruled(&mut self, envelope: &Envelope, overrule: Overrule) -> Settled {
        match overrule {
            Overrule::Hold(error) => self.pause(envelope, HeldReason::Failed, error),
            Overrule::Discard(note) => {
                self.stops = true;
                Settled::Discarded { note }
            }
            Overrule::PutOff(delay, error) => {
                self.pause(envelope, HeldReason::Failed, String::new());
                Settled::PutOff { delay, error }
            }
        }
    }

    fn finish(mut self) -> Decided {
        let old = self.offers.row;
        let paused = old.and_then(|row| row.paused_by.as_ref()) != self.paused_by.as_ref();
        let done = self.name.as_deref().is_some_and(|name| self.rules.is_done(name));
        let data = self.data.take();
        let row = match (&self.name, data, old) {
            (Some(name), Some(data), _) => Some((name.clone(), data, S::VERSION as i32)),
            (_, None, Some(row)) if paused => Some((row.state.clone(), row.data.clone(), row.version)),
            _ => None,
        };
        let base_seq = old.map_or(0, |row| row.seq);
        let moved = self.seq != base_seq;
        let instance = row.map(|(state, data, version)| InstanceWrite {
            base_seq,
            row: InstanceRow {
                key: self.offers.key.clone(),
                state,
                data,
                seq: self.seq,
                entered: self.entered,
                version,
                // what could not be read stays as it is
                progress: if moved { self.progress.json() } else { old.and_then(|row| row.progress.clone()) },
                originator: self.originator.clone(),
                paused_by: self.paused_by.clone(),
                done,
            },
        });
        let gone = self.alive_before.iter().copied().filter(|number| !self.progress.is_alive(*number));
        let timers_out = gone.map(|number| TimerOut { key: self.offers.key.clone(), number }).collect();
        let timers = self.progress.timers.iter().map(|timer| timer.number).collect();
        let aliases = match moved {
            true => AliasChanges::of(S::NAME, &self.aliases_before, &self.progress.aliases, self.aliases_taken),
            false => AliasChanges::default(),
        };
        let fields = match moved {
            true => FieldChanges::of(S::NAME, &self.fields_before, &self.progress.fields, base_seq == 0),
            false => FieldChanges::default(),
        };
        let state = self.state.take().filter(|_| moved).map(|state| Box::new(state) as Box<dyn Any + Send>);
        Decided {
            settled: self.settled,
            more: self.more,
            instance,
            timers,
            timers_out,
            unsent: self.unsent,
            progress: self.progress,
            state,
            originator: self.originator,
            aliases,
            fields,
        }
    }
}

/// The saga that sent a command is answered, if the command says with what it is given up; all else waits for a person.
fn rejected<S: Saga>(state: String, envelope: &Envelope) -> Settled {
    let error = format!("state `{state}` rejects {}", envelope.type_name);
    let asker = envelope.reply_to.as_ref().and(envelope.saga.as_ref());
    let Some(gives_up) = asker.and_then(|_| S::__gives_up(&envelope.type_name)) else {
        return held(HeldReason::Rejected, error);
    };
    match caught(|| (gives_up.make)(&envelope.body, &error)).and_then(|made| made) {
        Ok(answer) => Settled::GivenUp { state, error, answer },
        Err(why) => held(HeldReason::Rejected, format!("{error}, and its answer cannot be made: {why}")),
    }
}

fn held(reason: HeldReason, error: String) -> Settled {
    Settled::Held { reason, error: Some(error) }
}

/// The state's JSON, read back: what cannot be read (NaN becomes `null`) would stop the instance at its next message.
fn stored<S: Saga>((state, data): &(S, S::Data), name: &str) -> Result<String, String> {
    let data = caught(|| state.__store(data))?;
    match caught(|| S::__load(name, S::VERSION, &data))? {
        Ok(_) => Ok(data),
        Err(error) => Err(format!(
            "the next state cannot be read back: {error}; does it hold NaN or an infinity, or an `Undo` or `Itinerary` \
             below `#[serde(flatten)]`, `tag` or `untagged`?"
        )),
    }
}

#[cfg(test)]
mod tests;
