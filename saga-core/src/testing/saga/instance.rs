//! One instance of a saga without a store and without a broker: its row, what is held for it, its timers, and what it
//! has sent.

use super::story::{Caused, Happened, What};
use crate::{
    Chart, Encoded, Envelope, HeldReason, InstanceKey, InstanceRow, Message, Outcome, Saga, SagaId, SagaRef, Settings,
    saga::{
        KnownAliases, Progress, Route, alias_key,
        logic::{Decided, Move, Named, Offer, Offers, SagaLogic, Settled, Typed},
    },
};
use serde_json::Value;
use std::{collections::HashMap, sync::Arc, time::Duration};
use uuid::Uuid;

/// A message that the saga sent.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sent {
    /// The logical name.
    pub type_name: &'static str,
    /// The body.
    pub body: Value,
    /// Where it goes.
    pub(super) route: Route,
    /// The number of the transition that sent it, from 1.
    pub seq: i64,
    /// State entries at that time.
    pub(super) entered: i64,
    id: Uuid,
    /// An answer came.
    answered: bool,
    /// It was taken back: it may have been handled, or not.
    pub(super) taken_back: bool,
}

/// A timer that is alive.
#[derive(Debug, Clone)]
pub(super) struct Timer {
    pub(super) number: i64,
    pub(super) due_us: i64,
    pub(super) message: Encoded,
}

pub(super) struct Instance<S> {
    logic: Arc<Typed<S>>,
    /// What each command that it sends may be answered with.
    outcomes: Arc<HashMap<String, Vec<String>>>,
    pub(super) key: InstanceKey,
    pub(super) row: Option<InstanceRow>,
    pub(super) held: Vec<(Arc<Envelope>, HeldReason, String)>,
    pub(super) timers: Vec<Timer>,
    pub(super) sent: Vec<Sent>,
    /// What became of each message that was offered.
    pub(super) story: Vec<Arc<Happened>>,
    pub(super) now_us: i64,
    messages: u64,
}

// not derived: that would ask for a saga that can be cloned
impl<S> Clone for Instance<S> {
    fn clone(&self) -> Self {
        Self {
            logic: self.logic.clone(),
            outcomes: self.outcomes.clone(),
            key: self.key.clone(),
            row: self.row.clone(),
            held: self.held.clone(),
            timers: self.timers.clone(),
            sent: self.sent.clone(),
            story: self.story.clone(),
            now_us: self.now_us,
            messages: self.messages,
        }
    }
}

impl<S: Saga> Instance<S> {
    pub(super) fn new(id: &S::Id) -> Self {
        Self {
            logic: Arc::new(Typed::new()),
            outcomes: Arc::new(outcomes(&S::chart())),
            key: InstanceKey { saga: S::NAME.into(), id: id.to_text() },
            row: None,
            held: Vec::new(),
            timers: Vec::new(),
            sent: Vec::new(),
            story: Vec::new(),
            now_us: 0,
            messages: 0,
        }
    }

    /// The message as it comes to the instance, in answer to what it sent at that entry of its state.
    pub(super) fn envelope(&mut self, message: &Encoded, entered: Option<i64>) -> Envelope {
        self.messages += 1;
        let mut envelope = Envelope::new(format!("message-{}", self.messages), message.type_name, message.body.clone());
        envelope.reply_to = Some("asker".into());
        let (saga, id) = (self.key.saga.clone(), self.key.id.clone());
        envelope.saga = entered.map(|entered| SagaRef { saga, id, entered: Some(entered), timer: None });
        envelope
    }

    pub(super) fn give(&mut self, message: &Encoded, entered: Option<i64>) {
        let envelope = self.envelope(message, entered);
        self.offer(envelope);
    }

    /// Gives it the answer to one of the messages that it has sent, at that entry of its state.
    pub(super) fn answer(&mut self, answer: &Encoded, sent: usize, entered: i64) {
        self.sent[sent].answered = true;
        let id = self.sent[sent].id;
        let mut envelope = self.envelope(answer, Some(entered));
        envelope.causation_id = Some(id.to_string());
        self.offer(envelope);
    }

    /// The command that this message answers: the first without an answer, of this entry of its state if there is one.
    pub(super) fn asked(&self, answer: &Encoded, entered: i64) -> Option<usize> {
        let may = |sent: &&Sent| {
            let outcome = self.outcomes.get(sent.type_name);
            !sent.answered && outcome.is_some_and(|types| types.iter().any(|name| name == answer.type_name))
        };
        let first = self.sent.iter().position(|sent| may(&sent) && sent.entered == entered);
        first.or_else(|| self.sent.iter().position(|sent| may(&sent)))
    }

    /// Lets a timer come that is alive.
    pub(super) fn fire(&mut self, number: i64) {
        let Some(place) = self.timers.iter().position(|timer| timer.number == number) else { return };
        let timer = self.timers.remove(place);
        let mut envelope = self.envelope(&timer.message, None);
        let (saga, id) = (self.key.saga.clone(), self.key.id.clone());
        envelope.saga = Some(SagaRef { saga, id, entered: None, timer: Some(number) });
        self.offer(envelope);
    }

    pub(super) fn offer(&mut self, envelope: Envelope) {
        let envelope = Arc::new(envelope);
        match self.misses(&envelope) {
            Some(alias) => {
                let error = format!("{} `{}`: the instance does not have it yet", alias.saga, alias.id);
                let what = What::Held { reason: HeldReason::Early, error: error.clone() };
                let (message_id, type_name) = (envelope.message_id.clone(), envelope.type_name.clone());
                self.story.push(Arc::new(Happened { message_id, type_name, is_timer: false, what }));
                self.held.push((envelope, HeldReason::Early, error));
            }
            None => self.decide(Some(envelope)),
        }
    }

    /// The alias by which a message seeks an instance, if this one does not have it.
    fn misses(&self, envelope: &Envelope) -> Option<InstanceKey> {
        if S::__ALIASES.is_empty() || S::chart().is_answer(&envelope.type_name) {
            return None;
        }
        let Ok((Some(Named::ByAlias(alias)), _)) = self.logic.read(&envelope.type_name, &envelope.body) else {
            return None;
        };
        let progress = Progress::read(self.row.as_ref().and_then(|row| row.progress.as_deref())).unwrap_or_default();
        let mut has = progress.aliases.into_iter().map(|(name, value)| alias_key(S::NAME, &name, value));
        (!has.any(|own| own == alias)).then_some(alias)
    }

    fn decide(&mut self, came: Option<Arc<Envelope>>) {
        // in order of arrival, at an endpoint as here: what comes now stands behind all that is held
        let held = std::mem::take(&mut self.held).into_iter().enumerate();
        let (unfound, waiting): (Vec<_>, Vec<_>) =
            held.partition(|(_, (envelope, ..))| self.misses(envelope).is_some());
        let places: Vec<usize> = waiting.iter().map(|(place, _)| *place).chain([usize::MAX]).collect();
        let waiting = waiting.into_iter().map(|(_, (envelope, reason, _))| (envelope, Some(reason)));
        let offer = |(envelope, waiting)| Offer { envelope, decoded: None, waiting, fault: None };
        let came = came.map(|envelope| (envelope, None));
        let mut offers: Vec<Offer> = waiting.chain(came).map(offer).collect();
        let asked = Offers {
            key: &self.key,
            row: self.row.as_ref(),
            now_us: self.now_us,
            unread: &[],
            partial: false,
            overrule: None,
            body_bytes_max: Settings::BODY_BYTES_MAX,
            aliases: &KnownAliases::default(),
            keeps: false,
        };
        let mut decided = self.logic.decide(&asked, &mut offers);
        let mut ids = HashMap::new();
        let mut still: Vec<Option<(HeldReason, String)>> =
            offers.iter().map(|offer| offer.waiting.map(|reason| (reason, String::new()))).collect();
        for (i, settled) in std::mem::take(&mut decided.settled) {
            let envelope = offers[i].envelope.clone();
            still[i] = None;
            let what = match settled {
                Settled::Moved(made) => self.moved(made, &decided, &mut ids),
                Settled::Ignored { state } => What::Ignored { state: state.unwrap_or_default() },
                Settled::Returned { state, reply } => What::Returned { state, reply: reply.type_name },
                Settled::Stale { .. } => What::Stale,
                Settled::GivenUp { error, answer, .. } => What::GivenUp { error, answer: answer.type_name },
                Settled::Held { reason, error } => {
                    let error = error.unwrap_or_default();
                    still[i] = Some((reason, error.clone()));
                    What::Held { reason, error }
                }
                Settled::PutOff { error, .. } | Settled::LeftToNewer { error } => What::PutOff { error },
                Settled::Discarded { note } => What::Discarded { note },
            };
            let is_timer = envelope.saga.as_ref().is_some_and(|saga| saga.timer.is_some());
            let (message_id, type_name) = (envelope.message_id.clone(), envelope.type_name.clone());
            self.story.push(Arc::new(Happened { message_id, type_name, is_timer, what }));
        }
        decided.name_commands(&ids);
        if let Some(write) = decided.instance {
            self.row = Some(write.row);
            self.timers.retain(|timer| decided.timers.contains(&timer.number));
        }
        let found = unfound.iter().any(|(_, (envelope, ..))| self.misses(envelope).is_none());
        let held = offers.iter().zip(still).zip(places);
        let held = held.filter_map(|((offer, held), place)| {
            held.map(|(why, error)| (place, (offer.envelope.clone(), why, error)))
        });
        let mut held: Vec<_> = held.chain(unfound).collect();
        held.sort_by_key(|(place, _)| *place);
        self.held = held.into_iter().map(|(_, held)| held).collect();
        if found {
            self.decide(None); // it has taken the alias by which they seek it
        }
    }

    fn moved(&mut self, made: Move, decided: &Decided, ids: &mut HashMap<i64, Uuid>) -> What {
        let effects = made.emits.iter().map(|emit| Caused::new(emit.message.type_name, &emit.route)).collect();
        for sent in &mut self.sent {
            sent.taken_back |= made.cancels.iter().any(|command| command.id == Some(sent.id));
        }
        for (emit, number) in made.emits.into_iter().zip(made.numbers) {
            let id = Uuid::from_u128(self.sent.len() as u128 + 1);
            if let (Route::Command { .. }, Some(number)) = (&emit.route, number) {
                ids.insert(number, id);
            }
            let leaves = number.is_none_or(|number| decided.leaves(&emit, number));
            match (&emit.route, number) {
                (Route::Timer { delay, .. }, Some(number)) => self.timers.push(Timer {
                    number,
                    due_us: self.now_us.saturating_add(us(*delay)),
                    message: emit.message,
                }),
                _ => self.sent.push(Sent {
                    type_name: emit.message.type_name,
                    body: serde_json::from_slice(&emit.message.body).unwrap_or_default(),
                    route: emit.route,
                    seq: made.seq,
                    entered: made.entered,
                    id,
                    answered: false,
                    taken_back: !leaves,
                }),
            }
        }
        What::Moved { from: made.from, to: made.to, effects }
    }

    pub(super) fn state(&self) -> Option<&str> {
        self.row.as_ref().map(|row| row.state.as_str())
    }

    /// What happened, for the text of a failed expectation.
    pub(super) fn told(&self) -> String {
        let lines = self.story.iter().map(|line| format!("\n  {line}"));
        format!("what happened:{}", lines.collect::<String>())
    }
}

fn outcomes(chart: &Chart) -> HashMap<String, Vec<String>> {
    let sent = chart.edges.iter().flat_map(|edge| &edge.effects).filter(|effect| effect.kind == "send");
    sent.map(|effect| (effect.type_name.clone(), effect.outcome.clone())).collect()
}

/// The id that a message names.
pub(super) fn id_of<S: Saga>(message: &Encoded) -> S::Id {
    let read = S::__read(message.type_name, &message.body).unwrap_or_else(|error| panic!("{error}"));
    S::__id(&read).unwrap_or_else(|| panic!("`{}` does not name the instance that it begins", message.type_name))
}

/// Each message of an outcome, encoded.
pub(super) fn encoded<M: Message>(outcomes: Vec<M::Outcome>) -> Vec<Encoded> {
    outcomes.into_iter().filter_map(Outcome::encode).collect()
}

pub(super) fn us(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
