//! What an instance does with messages: every case by values, without a database.

use super::*;
use crate::{
    saga::logic::{SagaLogic, Typed},
    *,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

macro_rules! events {
    ($($name:ident)*) => {$(
        #[derive(Event, Serialize, Deserialize)]
        struct $name { id: u64 }
    )*};
}
events! { Begin Next Back Tick Join Boom Skip Later Refuse Cancel Bye Note }

#[derive(Message, Serialize, Deserialize)]
struct Timeout {}
#[derive(Message, Serialize, Deserialize)]
struct GiveUp {}

#[derive(Saga)]
#[saga(name = "walk", id = id: u64)]
#[starts(Begin)]
#[on(Cancel, Tick, Later)]
#[timer(GiveUp)]
enum Walk {
    #[on(Next, Tick, Boom)]
    #[timer(Timeout)]
    #[ignores(Skip)]
    #[defers(Later)]
    #[rejects(Refuse)]
    A(A),
    #[on(Back, Skip, Join)]
    B(B),
    #[done]
    #[on(Bye)]
    Done(Done),
}

#[derive(Serialize, Deserialize)]
struct A {
    ticks: u32,
}
#[derive(Serialize, Deserialize)]
struct B {
    later: u32,
}
#[derive(Serialize, Deserialize)]
struct Done;

type StartOfA = (A, After<Timeout>);

fn enter_a(ticks: u32) -> StartOfA {
    (A { ticks }, after(seconds(10), Timeout {}))
}

impl Starts<Begin> for Walk {
    type Then = (A, After<Timeout>, Deadline<GiveUp>, Vec<Publishes<Note>>);
    fn start(begin: Begin, _: &Moment) -> Self::Then {
        let notes = (0..2).map(|_| publish(Note { id: begin.id })).collect();
        (A { ticks: 0 }, after(seconds(10), Timeout {}), deadline(hours(1), GiveUp {}), notes)
    }
}
impl On<Next> for A {
    type Then = B;
    fn on(self, _: Next, _: &Moment) -> B {
        B { later: 0 }
    }
}
impl On<Tick> for A {
    type Then = (A, Keep);
    fn on(self, _: Tick, _: &Moment) -> Self::Then {
        (A { ticks: self.ticks + 1 }, Keep)
    }
}
impl On<Boom> for A {
    type Then = Done;
    fn on(self, boom: Boom, _: &Moment) -> Done {
        panic!("boom {}", boom.id)
    }
}
impl On<Timeout> for A {
    type Then = StartOfA;
    fn on(self, _: Timeout, _: &Moment) -> StartOfA {
        enter_a(self.ticks)
    }
}
impl On<Back> for B {
    type Then = Either<StartOfA, Done>;
    fn on(self, _: Back, _: &Moment) -> Self::Then {
        Either::A(enter_a(0))
    }
}
impl On<Skip> for B {
    type Then = Done;
    fn on(self, _: Skip, _: &Moment) -> Done {
        Done
    }
}
impl On<Join> for B {
    type Then = (Done, Replies<Note>);
    fn on(self, join: Join, _: &Moment) -> Self::Then {
        (Done, reply(Note { id: join.id }))
    }
}
impl On<Bye> for Done {
    type Then = (A, After<Timeout>);
    fn on(self, _: Bye, _: &Moment) -> Self::Then {
        enter_a(0)
    }
}
impl On<Cancel> for Walk {
    type Then = Done;
    fn on(self, _: Cancel, _: &Moment) -> Done {
        Done
    }
}
impl On<Tick> for Walk {
    type Then = Stay<Self>;
    fn on(self, _: Tick, _: &Moment) -> Stay<Self> {
        Stay(self)
    }
}
impl On<Later> for Walk {
    type Then = Stay<Self>;
    fn on(self, _: Later, _: &Moment) -> Stay<Self> {
        match self {
            Self::B(b) => Stay(Self::B(B { later: b.later + 1 })),
            other => Stay(other),
        }
    }
}
impl On<GiveUp> for Walk {
    type Then = Done;
    fn on(self, _: GiveUp, _: &Moment) -> Done {
        Done
    }
}

/// An instance between batches, with what is held for it.
#[derive(Default)]
struct Instance {
    row: Option<InstanceRow>,
    held: Vec<(Arc<Envelope>, HeldReason)>,
    messages: u32,
}

impl Instance {
    fn message(&mut self, type_name: &str, entered: Option<i64>) -> Arc<Envelope> {
        self.messages += 1;
        let mut envelope = Envelope::new(format!("{type_name}-{}", self.messages), type_name, "{\"id\":7}");
        envelope.reply_to = Some("asker".into());
        envelope.saga = entered.map(|entered| SagaRef { saga: "walk".into(), id: "7".into(), entered: Some(entered) });
        Arc::new(envelope)
    }

    /// Offers a batch of messages; what became of each that was settled, as `name: word`.
    fn batch(&mut self, types: &[&str]) -> Vec<String> {
        let messages = types.iter().map(|name| self.message(name, None)).collect();
        self.offer(messages)
    }

    fn timer(&mut self, name: &str, entered: i64) -> Vec<String> {
        let message = self.message(name, Some(entered));
        self.offer(vec![message])
    }

    fn offer(&mut self, messages: Vec<Arc<Envelope>>) -> Vec<String> {
        let decided = self.decide(messages).1;
        decided.into_iter().map(|(name, word)| format!("{name}: {word}")).collect()
    }

    fn decide(&mut self, messages: Vec<Arc<Envelope>>) -> (Decided, Vec<(String, String)>) {
        self.decide_with(messages, &[], None)
    }

    fn decide_with(
        &mut self,
        messages: Vec<Arc<Envelope>>,
        unread: &[(String, HeldReason)],
        overrule: Option<&Overrule>,
    ) -> (Decided, Vec<(String, String)>) {
        let logic = Typed::<Walk>::new();
        let key = InstanceKey { saga: "walk".into(), id: "7".into() };
        let came = messages.into_iter().map(|envelope| (envelope, None));
        let waiting = self.held.drain(..).map(|(envelope, reason)| (envelope, Some(reason)));
        let mut offers: Vec<Offer> = came
            .chain(waiting)
            .map(|(envelope, waiting)| Offer { envelope, decoded: None, waiting, fault: None })
            .collect();
        let row = self.row.as_ref();
        let asked = Offers { key: &key, row, now_us: 0, unread, partial: false, overrule, body_bytes_max: 100 };
        let decided = logic.decide(&asked, &mut offers);
        let mut words = Vec::new();
        let mut settled: HashMap<usize, Option<HeldReason>> = HashMap::new();
        for (i, outcome) in &decided.settled {
            let (word, held) = match outcome {
                Settled::Moved(made) => (format!("{} {}", made.to, made.seq), None),
                Settled::Ignored { .. } => ("ignored".into(), None),
                Settled::Stale { .. } => ("stale".into(), None),
                Settled::Held { reason, .. } => (format!("held {}", reason.as_str()), Some(*reason)),
                Settled::PutOff { delay, .. } => (format!("put off {delay:?}"), None),
                Settled::Discarded { .. } => ("discarded".into(), None),
            };
            words.push((offers[*i].envelope.type_name.clone(), word));
            settled.insert(*i, held);
        }
        for (i, offer) in offers.iter().enumerate() {
            if let Some(reason) = settled.get(&i).copied().unwrap_or(offer.waiting) {
                self.held.push((offer.envelope.clone(), reason));
            }
        }
        if let Some(write) = &decided.instance {
            assert_eq!(write.base_seq, self.row.as_ref().map_or(0, |row| row.seq));
            self.row = Some(write.row.clone());
        }
        (decided, words)
    }

    fn at(messages: &[&str]) -> Self {
        let mut instance = Self::default();
        instance.batch(messages);
        instance
    }

    fn row(&self) -> &InstanceRow {
        self.row.as_ref().expect("the instance was started")
    }
}

#[test]
fn s_001_s_024_a_start_creates_and_its_effects_keep_their_order() {
    let mut instance = Instance::default();
    let begin = instance.message("Begin", None);
    let (decided, words) = instance.decide(vec![begin]);
    assert_eq!(words, [("Begin".into(), "A 1".into())]);
    let Settled::Moved(made) = &decided.settled[0].1 else { panic!("a transition was expected") };
    let routes: Vec<_> = made.emits.iter().map(|emit| (emit.message.type_name, emit.route.clone())).collect();
    let (timeout, give_up) = (Route::After(Duration::from_secs(10)), Route::Deadline(Duration::from_secs(3600)));
    assert_eq!(routes, [("Timeout", timeout), ("GiveUp", give_up), ("Note", Route::Event), ("Note", Route::Event)]);
    let originator: Originator = serde_json::from_str(decided.originator.as_deref().unwrap()).unwrap();
    assert_eq!((originator.reply_to.as_str(), &instance.row().originator), ("asker", &decided.originator));
}

#[test]
fn s_002_s_006_a_repeated_start_is_late_wherever_the_instance_is() {
    let mut instance = Instance::at(&["Begin"]);
    assert_eq!(instance.batch(&["Begin"]), ["Begin: ignored"]);
    let mut done = Instance::at(&["Begin", "Cancel"]);
    assert_eq!(done.batch(&["Begin", "Next", "Cancel"]), ["Begin: ignored", "Next: ignored", "Cancel: ignored"]);
    assert!(done.row().done);
    assert_eq!(done.batch(&["Bye"]), ["Bye: A 3"], "a transition that the done state lists runs");
    assert!(!done.row().done);
}

#[test]
fn s_020_s_021_a_batch_in_any_order_comes_to_the_same() {
    for batch in
        [["Begin", "Next", "Join"], ["Next", "Begin", "Join"], ["Join", "Next", "Begin"], ["Next", "Join", "Begin"]]
    {
        let mut instance = Instance::default();
        instance.batch(&batch);
        assert_eq!((instance.row().state.as_str(), instance.row().seq), ("Done", 3), "{batch:?}");
        assert!(instance.held.is_empty(), "{batch:?} left something held");
    }
}

#[test]
fn s_026_s_027_the_enums_transition_runs_where_the_state_has_none_of_its_own() {
    let mut a = Instance::at(&["Begin"]);
    assert_eq!(a.batch(&["Tick"]), ["Tick: A 2"]);
    assert!(a.row().data.contains("\"ticks\":1"), "the state's own was expected: {}", a.row().data);
    let mut b = Instance::at(&["Begin", "Next"]);
    assert_eq!(b.batch(&["Tick"]), ["Tick: B 3"], "the enum's own");
    assert_eq!(b.batch(&["Cancel"]), ["Cancel: Done 4"]);
    assert_eq!(Instance::default().batch(&["Cancel"]), ["Cancel: held early"]);
}

#[test]
fn s_028_s_029_keep_is_no_new_entry_and_a_transition_without_it_is() {
    let mut instance = Instance::at(&["Begin"]);
    let tick = instance.message("Tick", None);
    let (kept, _) = instance.decide(vec![tick]);
    assert!(kept.timers_out.is_none(), "the timers are kept");
    assert_eq!((instance.row().seq, instance.row().entered), (2, 1));
    let timeout = instance.message("Timeout", Some(1));
    let (entered, _) = instance.decide(vec![timeout]);
    assert_eq!((instance.row().seq, instance.row().entered), (3, 2));
    assert_eq!(entered.timers_out.and_then(|timers| timers.keep_entered), Some(2), "those of the entry before go");
}

#[test]
fn s_008_when_the_saga_is_done_all_timers_go() {
    let mut instance = Instance::at(&["Begin"]);
    let cancel = instance.message("Cancel", None);
    let (decided, _) = instance.decide(vec![cancel]);
    assert_eq!(decided.timers_out.map(|timers| timers.keep_entered), Some(None));
}

#[test]
fn s_050_s_056_a_timer_counts_only_for_the_entry_that_set_it() {
    let mut instance = Instance::at(&["Begin", "Tick"]);
    assert_eq!(instance.timer("Timeout", 1), ["Timeout: A 3"], "`Tick` kept the entry");
    assert_eq!(instance.timer("Timeout", 1), ["Timeout: stale"], "a new entry since");
    instance.batch(&["Next"]);
    assert_eq!(instance.timer("Timeout", 2), ["Timeout: stale"], "the state was left");
    assert_eq!(Instance::default().timer("Timeout", 1), ["Timeout: stale"]);
}

#[test]
fn s_055_a_deadline_fires_into_whatever_state() {
    let mut instance = Instance::at(&["Begin", "Next"]);
    let give_up = instance.message("GiveUp", None);
    assert_eq!(instance.offer(vec![give_up]), ["GiveUp: Done 3"]);
}

#[test]
fn s_036_s_037_early_messages_are_offered_in_order_each_to_the_state_before_it_left() {
    let mut instance = Instance::at(&["Begin"]);
    assert_eq!(instance.batch(&["Back", "Join"]), ["Back: held early", "Join: held early"]);
    // `Back` leads from B to A again, where `Join` is still early
    assert_eq!(instance.batch(&["Next"]), ["Next: B 2", "Back: A 3"]);
    assert_eq!(instance.batch(&["Next"]), ["Next: B 4", "Join: Done 5"]);
    assert!(instance.held.is_empty());
}

#[test]
fn s_038_an_early_message_that_nobody_can_take_any_more_is_ignored() {
    let mut instance = Instance::at(&["Begin"]);
    instance.batch(&["Join"]);
    assert_eq!(instance.batch(&["Cancel"]), ["Cancel: Done 2", "Join: ignored"]);
}

#[test]
fn s_043_s_044_s_045_by_order_of_the_definition() {
    let mut instance = Instance::at(&["Begin"]);
    let words = instance.batch(&["Skip", "Later", "Refuse"]);
    assert_eq!(words, ["Skip: ignored", "Later: held deferred", "Refuse: held rejected"]);
    assert_eq!(instance.row().paused_by, None, "a rejected message pauses nobody");
    assert_eq!(instance.batch(&["Next"]), ["Next: B 2", "Later: B 3"]);
    assert!(instance.row().data.contains("\"later\":1"));
}

mod failing;
mod model;
mod odd;
