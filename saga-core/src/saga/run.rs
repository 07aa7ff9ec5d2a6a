//! What an instance does with the messages of a batch, by the rules of its chart: a pure decision, which `endpoint/`
//! carries out.

use super::{
    Chart, ChartMessage, ChartState, Emits, Moment, Saga,
    logic::{Decided, Move, Offer, Offers, Originator, Overrule, Settled},
};
use crate::{
    Envelope, HeldReason, InstanceRow, MessageKind,
    envelope::body_refusal,
    panics::caught,
    port::{InstanceWrite, TimersOut},
};
use std::{
    any::Any,
    collections::{HashMap, HashSet},
};

/// What a state does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It has a transition, of its own or the enum's.
    Transition,
    /// `#[ignores(..)]`: journaled as ignored.
    Ignore,
    /// `#[defers(..)]`: waits for another state.
    Defer,
    /// `#[rejects(..)]`: held for a person.
    Reject,
    /// A state that can still be reached has a transition: the message waits for it.
    Early,
    /// No state that can be reached has a transition: journaled as ignored.
    Late,
}

/// What each state does with each message: the chart as a table, made once when an endpoint starts.
#[derive(Debug)]
pub struct Rules {
    by_state: HashMap<String, HashMap<String, Disposition>>,
    done: HashSet<String>,
    starts: HashSet<String>,
    timers: HashSet<String>,
    deadlines: HashSet<String>,
    sets_timers: bool,
}

impl Rules {
    /// Works the table out.
    pub fn of(chart: &Chart) -> Self {
        let types = |pick: &dyn Fn(&&ChartMessage) -> bool| -> HashSet<String> {
            chart.messages.iter().filter(|m| pick(m)).map(|m| m.type_name.clone()).collect()
        };
        let starts = types(&|m| m.starts);
        let has =
            |state: &str, type_name: &str| chart.edges.iter().any(|edge| edge.from == state && edge.on == type_name);
        let judge = |state: &ChartState, type_name: &String| {
            if state.ignore.contains(type_name) {
                Disposition::Ignore
            } else if state.defer.contains(type_name) {
                Disposition::Defer
            } else if state.reject.contains(type_name) {
                Disposition::Reject
            } else if has(&state.name, type_name) {
                Disposition::Transition
            } else if !state.done
                && !starts.contains(type_name)
                && chart.reachable_from(&state.name).into_iter().any(|next| has(next, type_name))
            {
                Disposition::Early
            } else {
                Disposition::Late
            }
        };
        let by_state = chart.states.iter().map(|state| {
            let row = chart.messages.iter().map(|m| (m.type_name.clone(), judge(state, &m.type_name)));
            (state.name.clone(), row.collect())
        });
        Self {
            by_state: by_state.collect(),
            done: chart.states.iter().filter(|s| s.done).map(|s| s.name.clone()).collect(),
            timers: types(&|m| m.kind == MessageKind::Timer),
            deadlines: (chart.edges.iter().flat_map(|edge| &edge.effects))
                .filter(|effect| effect.kind == "deadline")
                .map(|effect| effect.type_name.clone())
                .collect(),
            sets_timers: chart
                .edges
                .iter()
                .flat_map(|edge| &edge.effects)
                .any(|effect| effect.kind == "after" || effect.kind == "deadline"),
            starts,
        }
    }

    /// What `state` does with a message of this type.
    pub fn disposition(&self, state: &str, type_name: &str) -> Disposition {
        let row = self.by_state.get(state);
        row.and_then(|row| row.get(type_name)).copied().unwrap_or(Disposition::Late)
    }

    /// Whether a message that is held for this reason goes on in `state`, of an instance that is not paused.
    pub(crate) fn releases(&self, state: &str, type_name: &str, reason: HeldReason) -> bool {
        match reason {
            HeldReason::Paused | HeldReason::Version => true,
            HeldReason::Early | HeldReason::Deferred => {
                !matches!(self.disposition(state, type_name), Disposition::Early | Disposition::Defer)
            }
            _ => false,
        }
    }

    /// Whether the process is over in `state`.
    pub fn is_done(&self, state: &str) -> bool {
        self.done.contains(state)
    }

    /// Whether the message creates an instance.
    pub fn starts(&self, type_name: &str) -> bool {
        self.starts.contains(type_name)
    }

    /// Whether the message is a timer.
    pub fn is_timer(&self, type_name: &str) -> bool {
        self.timers.contains(type_name)
    }

    /// Whether some transition sets it as a deadline, which fires whatever the entry.
    pub fn is_deadline(&self, type_name: &str) -> bool {
        self.deadlines.contains(type_name)
    }

    /// Whether any transition sets a timer: if none does, there is none to delete.
    pub fn sets_timers(&self) -> bool {
        self.sets_timers
    }
}

/// A transition that failed: it panicked, led to a state that cannot be stored, or sends what must not leave.
pub(super) struct FailedTransition {
    pub(super) offer: usize,
    pub(super) error: String,
}

/// One pass over the offers of one instance.
pub(super) struct Run<'a, S> {
    rules: &'a Rules,
    offers: &'a Offers<'a>,
    /// Offers whose transition failed in an earlier pass.
    failed: &'a HashMap<usize, String>,
    /// The state decoded; taken while a transition runs.
    state: Option<S>,
    /// Its name; none while there is no instance.
    name: Option<String>,
    /// Its JSON, once a transition was made.
    data: Option<String>,
    /// Why no transition can be made: the stored state cannot be read.
    unreadable: Option<String>,
    seq: i64,
    entered: i64,
    paused_by: Option<String>,
    originator: Option<String>,
    /// Offers that wait, in order of arrival, with the reason.
    waiting: Vec<(usize, HeldReason)>,
    settled: Vec<(usize, Settled)>,
    more: bool,
    /// A message was overruled: the rest waits for the next unit, because the projection may refuse the rest as well.
    overruled: bool,
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
            name: row.map(|row| row.state.clone()),
            seq: row.map_or(0, |row| row.seq),
            entered: row.map_or(0, |row| row.entered),
            paused_by: row.and_then(|row| row.paused_by.clone()),
            originator: row.and_then(|row| row.originator.clone()),
            waiting: Vec::new(),
            settled: Vec::new(),
            more: false,
            overruled: false,
            overrule: offers.overrule,
        };
        if let Some(row) = row.filter(|_| !run.is_newer()) {
            match S::__load(&row.state, &row.data) {
                Ok(state) => run.state = Some(state),
                Err(error) => {
                    let key = offers.key;
                    run.unreadable =
                        Some(format!("the stored state of {}/{} cannot be read: {error}", key.saga, key.id));
                }
            }
        }
        run
    }

    /// A newer version of the definition wrote the row: this process would lose the fields that it does not know.
    fn is_newer(&self) -> bool {
        self.offers.row.is_some_and(|row| row.version > S::VERSION as i32)
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
            self.more = self.overruled || self.offers.unread.iter().any(|(name, reason)| self.fits(name, *reason));
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
        self.paused_by.is_none() && !self.is_newer() && self.rules.releases(state, type_name, reason)
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
            return Ok(held(HeldReason::Version, error));
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
        if timer && self.is_of_an_earlier_entry(&envelope) {
            return Ok(Settled::Stale { state: Some(state) });
        }
        match self.rules.disposition(&state, type_name) {
            Disposition::Transition => self.transition(i, offer, Some(state)),
            Disposition::Early | Disposition::Late if timer => Ok(Settled::Stale { state: Some(state) }),
            Disposition::Ignore | Disposition::Late => Ok(Settled::Ignored { state: Some(state) }),
            Disposition::Early => Ok(held(HeldReason::Early, format!("state `{state}` has no transition for it yet"))),
            Disposition::Defer => Ok(held(HeldReason::Deferred, format!("state `{state}` defers it"))),
            Disposition::Reject => Ok(held(HeldReason::Rejected, format!("state `{state}` rejects {type_name}"))),
        }
    }

    /// A timer belongs to an earlier entry unless its headers name this one. A deadline names an instance but no entry.
    fn is_of_an_earlier_entry(&self, timer: &Envelope) -> bool {
        match timer.saga.as_ref().and_then(|saga| saga.entered) {
            Some(entered) => entered != self.entered,
            None => !self.rules.is_deadline(&timer.type_name),
        }
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
            None => match S::__read(&envelope.type_name, &envelope.body) {
                Ok(message) => message,
                Err(error) => return Ok(self.pause(&envelope, HeldReason::Undecodable, error.to_string())),
            },
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
            Some(state) => state.__step(message, &at, &mut out).map_err(|(state, _)| Some(state)),
        })
        .map_err(|error| FailedTransition { offer: i, error })?;
        let state = match next {
            Err(state) => {
                self.state = state;
                return Ok(Settled::Ignored { state: from });
            }
            Ok(state) => state,
        };
        let to = state.state_name().to_owned();
        if out.keep && from.as_ref().is_some_and(|from| *from != to) {
            let from = from.unwrap_or_default();
            let error =
                format!("the transition keeps the timers of `{from}` and enters `{to}`: `Keep` and `Stay` stay");
            return Err(FailedTransition { offer: i, error });
        }
        let max = self.offers.body_bytes_max;
        let refused = out.emits.iter().find_map(|emit| body_refusal(emit.message.type_name, &emit.message.body, max));
        if let Some(error) = refused {
            return Err(FailedTransition { offer: i, error });
        }
        self.data = Some(stored(&state, &to).map_err(|error| FailedTransition { offer: i, error })?);
        self.state = Some(state);
        if from.is_none() {
            self.originator = Originator::of(&envelope);
        }
        self.seq += 1;
        if !out.keep || from.is_none() {
            self.entered += 1;
        }
        self.name = Some(to.clone());
        Ok(Settled::Moved(Move { from, to, seq: self.seq, entered: self.entered, emits: out.emits }))
    }

    fn overruled(&mut self, envelope: &Envelope, overrule: Overrule) -> Settled {
        match overrule {
            Overrule::Hold(error) => self.pause(envelope, HeldReason::Failed, error),
            Overrule::Discard(note) => {
                self.overruled = true;
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
                originator: self.originator.clone(),
                paused_by: self.paused_by.clone(),
                done,
            },
        });
        let left = old.is_some_and(|row| row.entered != self.entered);
        let timers_out = (self.rules.sets_timers() && left)
            .then(|| TimersOut { key: self.offers.key.clone(), keep_entered: (!done).then_some(self.entered) });
        let state = self.state.take().filter(|_| moved).map(|state| Box::new(state) as Box<dyn Any + Send>);
        Decided { settled: self.settled, more: self.more, instance, timers_out, state, originator: self.originator }
    }
}

fn held(reason: HeldReason, error: String) -> Settled {
    Settled::Held { reason, error: Some(error) }
}

/// The state's JSON, read back: what cannot be read (NaN becomes `null`) would stop the instance at its next message.
fn stored<S: Saga>(state: &S, name: &str) -> Result<String, String> {
    let data = caught(|| state.__store())?;
    match caught(|| S::__load(name, &data))? {
        Ok(_) => Ok(data),
        Err(error) => Err(format!("the next state cannot be read back: {error}; does it hold NaN or an infinity?")),
    }
}

#[cfg(test)]
mod tests;
