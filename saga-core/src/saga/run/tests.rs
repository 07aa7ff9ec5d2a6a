//! What an instance does with messages: every case by values, without a database.

use super::*;
use crate::{
    saga::{
        KnownAliases,
        logic::{SagaLogic, Typed},
    },
    *,
};
use serde::{Deserialize, Serialize};
use std::{marker::PhantomData, sync::Arc, time::Duration};

macro_rules! events {
    ($($name:ident)*) => {$(
        #[derive(Event, Serialize, Deserialize)]
        struct $name { id: u64 }
    )*};
}
events! { Begin Next Back Tick Again Rest Join Boom Bang Skip Later Refuse Cancel Bye Note }

#[derive(Event, Serialize, Deserialize)]
struct Line {
    id: u64,
    line: u32,
}

#[derive(Message, Serialize, Deserialize)]
struct Timeout {}
#[derive(Message, Serialize, Deserialize)]
struct LineDue {}
#[derive(Message, Serialize, Deserialize)]
struct GiveUp {}

#[states]
enum Walk {
    #[ignores(Skip)]
    #[defers(Later)]
    #[rejects(Refuse)]
    A {
        ticks: u32,
    },
    B {
        later: u32,
    },
    #[done]
    Done,
}

type StartOfA = (A, After<Timeout>);

fn enter_a(ticks: u32) -> StartOfA {
    (A { ticks }, after(seconds(10), Timeout {}))
}

#[saga(name = "walk", id = id: u64)]
impl Walk {
    fn begin(begin: Begin) -> (A, After<Timeout>, Deadline<GiveUp>, Vec<Publishes<Note>>) {
        let notes = (0..2).map(|_| publish(Note { id: begin.id })).collect();
        (A { ticks: 0 }, after(seconds(10), Timeout {}), deadline(hours(1), GiveUp {}), notes)
    }

    fn next(_: A, _: Next) -> B {
        B { later: 0 }
    }

    fn tick(state: A, _: Tick) -> A {
        A { ticks: state.ticks + 1 }
    }

    fn again(state: A, _: Again) -> (A, Reenter) {
        (state, Reenter)
    }

    fn rest(state: A, _: Rest) -> (A, Cancels<Timeout>) {
        (state, cancel())
    }

    fn line(state: A, line: Line) -> (A, After<LineDue>) {
        (state, after(seconds(1), LineDue {}).keyed(line.line))
    }

    fn line_due(state: A, _: LineDue) -> A {
        A { ticks: state.ticks + 100 }
    }

    fn boom(_: A, boom: Boom) -> Done {
        panic!("boom {}", boom.id)
    }

    fn timeout(state: A, _: Timeout) -> StartOfA {
        enter_a(state.ticks)
    }

    fn back(_: B, _: Back) -> Either<StartOfA, Done> {
        Either::A(enter_a(0))
    }

    fn bang(_: B, _: Bang) -> Done {
        panic!("bang")
    }

    fn skip(_: B, _: Skip) -> Done {
        Done
    }

    fn join(_: B, join: Join) -> (Done, Replies<Note>) {
        (Done, reply(Note { id: join.id }))
    }

    fn bye(_: Done, _: Bye) -> (A, After<Timeout>) {
        enter_a(0)
    }

    fn cancel(self, _: Cancel) -> Done {
        Done
    }

    fn tick_anywhere(self, _: Tick) -> Stay<Self> {
        Stay(self)
    }

    fn later(self, _: Later) -> Stay<Self> {
        match self {
            Self::B(b) => Stay(Self::B(B { later: b.later + 1 })),
            other => Stay(other),
        }
    }

    fn give_up(self, _: GiveUp) -> Done {
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
    fn message(&mut self, type_name: &str, timer: Option<i64>) -> Arc<Envelope> {
        self.messages += 1;
        let mut envelope = Envelope::new(format!("{type_name}-{}", self.messages), type_name, "{\"id\":7}");
        envelope.reply_to = Some("asker".into());
        let of = |timer| SagaRef { saga: "walk".into(), id: "7".into(), entered: None, timer: Some(timer) };
        envelope.saga = timer.map(of);
        Arc::new(envelope)
    }

    /// Offers a batch of messages; what became of each that was settled, as `name: word`.
    fn batch(&mut self, types: &[&str]) -> Vec<String> {
        let messages = types.iter().map(|name| self.message(name, None)).collect();
        self.offer(messages)
    }

    fn timer(&mut self, name: &str, number: i64) -> Vec<String> {
        let message = self.message(name, Some(number));
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
        let asked = Offers {
            key: &key,
            row,
            now_us: 0,
            unread,
            partial: false,
            overrule,
            body_bytes_max: 100,
            aliases: &KnownAliases::default(),
            keeps: false,
        };
        let decided = logic.decide(&asked, &mut offers);
        let mut words = Vec::new();
        let mut settled: HashMap<usize, Option<HeldReason>> = HashMap::new();
        for (i, outcome) in &decided.settled {
            let (word, held) = match outcome {
                Settled::Moved(made) => (format!("{} {}", made.to, made.seq), None),
                Settled::Ignored { .. } => ("ignored".into(), None),
                Settled::Returned { reply, .. } => (format!("returned {}", reply.type_name), None),
                Settled::Stale { .. } => ("stale".into(), None),
                Settled::GivenUp { answer, .. } => (format!("given up {}", answer.type_name), None),
                Settled::Held { reason, .. } => (format!("held {}", reason.as_str()), Some(*reason)),
                Settled::PutOff { delay, .. } => (format!("put off {delay:?}"), None),
                Settled::LeftToNewer { .. } => ("left to a newer version".into(), None),
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
    let timer = |seconds, deadline| Route::Timer { delay: Duration::from_secs(seconds), key: String::new(), deadline };
    let (timeout, give_up) = (timer(10, false), timer(3600, true));
    assert_eq!(made.numbers, [Some(1000), Some(1001), None, None], "the timers of the first transition");
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
fn a_batch_in_any_order_comes_to_the_same() {
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

/// The numbers of the timers that a batch deletes, and of those alive after it.
fn timers(decided: &Decided) -> (Vec<i64>, Vec<i64>) {
    (decided.timers_out.iter().map(|timer| timer.number).collect(), decided.timers.clone())
}

#[test]
fn s_028_a_transition_into_the_same_state_enters_it_anew_only_by_order() {
    let mut instance = Instance::at(&["Begin"]);
    let again = instance.message("Again", None);
    let (decided, _) = instance.decide(vec![again]);
    assert_eq!((instance.row().seq, instance.row().entered), (2, 2));
    assert_eq!(timers(&decided), (vec![1000], vec![1001]), "the state's timer goes, the deadline stays");
}

#[test]
fn s_029_f7_a_transition_into_the_same_state_keeps_the_timers_that_it_does_not_set() {
    let mut instance = Instance::at(&["Begin"]);
    for seq in 2..4 {
        let tick = instance.message("Tick", None);
        let (decided, _) = instance.decide(vec![tick]);
        assert_eq!(timers(&decided), (vec![], vec![1000, 1001]));
        assert_eq!((instance.row().seq, instance.row().entered), (seq, 1));
    }
}

#[test]
fn s_053_a_timer_that_is_set_again_replaces_the_one_before() {
    let mut instance = Instance::at(&["Begin"]);
    for number in 1..6 {
        let timeout = instance.message("Timeout", Some(number * 1000));
        let (decided, words) = instance.decide(vec![timeout]);
        let next = (number + 1) * 1000;
        assert_eq!(words, [("Timeout".into(), format!("A {}", number + 1))]);
        assert_eq!(timers(&decided), (vec![number * 1000], vec![1001, next]), "one timer is alive at any moment");
    }
    assert_eq!(instance.timer("Timeout", 5000), ["Timeout: stale"], "one that was on its way when it was replaced");
    assert_eq!(instance.row().entered, 1, "it stayed in its state");
}

#[test]
fn a_timer_that_is_taken_back_is_stale() {
    let mut instance = Instance::at(&["Begin"]);
    let rest = instance.message("Rest", None);
    let (decided, _) = instance.decide(vec![rest]);
    assert_eq!(timers(&decided), (vec![1000], vec![1001]));
    assert_eq!(instance.timer("Timeout", 1000), ["Timeout: stale"]);
}

#[test]
fn timers_of_one_type_live_side_by_side_under_their_keys() {
    let mut instance = Instance::at(&["Begin"]);
    let line = |instance: &mut Instance, line: u32| {
        let message = instance.message("Line", None);
        let body = format!("{{\"id\":7,\"line\":{line}}}");
        instance.offer(vec![Arc::new(Envelope { body: body.into(), ..(*message).clone() })])
    };
    for n in [1, 2, 1] {
        line(&mut instance, n);
    }
    assert_eq!(instance.timer("LineDue", 2000), ["LineDue: stale"], "line 1 was set again");
    assert_eq!(instance.timer("LineDue", 3000), ["LineDue: A 5"], "line 2");
    assert_eq!(instance.timer("LineDue", 3000), ["LineDue: stale"], "it has come once");
    assert_eq!(instance.timer("LineDue", 4000), ["LineDue: A 6"], "line 1");
    assert_eq!(instance.timer("Timeout", 1000), ["Timeout: A 7"], "timers of another type are untouched");
}

#[test]
fn more_timers_than_an_instance_may_have_fail_the_transition() {
    let mut instance = Instance::at(&["Begin"]);
    let lines = (0..1000).map(|line| {
        let body = format!("{{\"id\":7,\"line\":{line}}}");
        Arc::new(Envelope { body: body.into(), ..(*instance.message("Line", None)).clone() })
    });
    let lines = lines.collect();
    let words = instance.offer(lines);
    assert_eq!(words.iter().position(|word| word.contains("held failed")), Some(998), "two timers were alive before");
}

#[test]
fn s_008_when_the_saga_is_done_all_timers_go() {
    let mut instance = Instance::at(&["Begin"]);
    let cancel = instance.message("Cancel", None);
    let (decided, _) = instance.decide(vec![cancel]);
    assert_eq!(timers(&decided), (vec![1000, 1001], vec![]));
    assert_eq!(instance.row().progress, None, "nothing is left of them in the row");
}

#[test]
fn s_050_s_051_s_056_a_timer_that_is_on_its_way_counts_if_it_is_alive() {
    let mut instance = Instance::at(&["Begin", "Tick"]);
    assert_eq!(instance.timer("Timeout", 1000), ["Timeout: A 3"], "`Tick` kept it");
    assert_eq!(instance.timer("Timeout", 1000), ["Timeout: stale"], "it has come, and another one was set");
    instance.batch(&["Next"]);
    assert_eq!(instance.timer("Timeout", 3000), ["Timeout: stale"], "the state was left");
    instance.batch(&["Back"]);
    assert_eq!(
        instance.timer("Timeout", 3000),
        ["Timeout: stale"],
        "the state was entered again, with a timer of its own"
    );
    assert_eq!(instance.timer("Timeout", 5000), ["Timeout: A 6"]);
    assert_eq!(Instance::default().timer("Timeout", 1000), ["Timeout: stale"]);
}

#[test]
fn s_055_a_deadline_fires_into_whatever_state() {
    let mut instance = Instance::at(&["Begin", "Next"]);
    assert_eq!(instance.timer("GiveUp", 1001), ["GiveUp: Done 3"]);
}

#[test]
fn s_036_s_037_early_messages_are_offered_in_order_each_to_the_state_before_it_left() {
    let mut instance = Instance::at(&["Begin"]);
    assert_eq!(instance.batch(&["Join", "Bye"]), ["Join: held early", "Bye: held early"]);
    assert_eq!(instance.batch(&["Next"]), ["Next: B 2", "Join: Done 3", "Bye: A 4"]);
    assert!(instance.held.is_empty());
}

#[test]
fn a_state_that_was_visited_had_its_chance_the_double_click() {
    let mut instance = Instance::at(&["Begin", "Next"]);
    assert_eq!(instance.batch(&["Next"]), ["Next: ignored"], "A took the first one");
    let mut instance = Instance::at(&["Begin"]);
    assert_eq!(instance.batch(&["Join"]), ["Join: held early"], "B was not visited yet");
    let mut instance = Instance::at(&["Begin", "Next", "Back"]);
    assert_eq!(instance.batch(&["Join"]), ["Join: ignored"], "B was visited");
    let mut instance = Instance::at(&["Begin"]);
    instance.batch(&["Back", "Join"]);
    let words = instance.batch(&["Next"]);
    assert_eq!(words, ["Next: B 2", "Back: A 3", "Join: ignored"], "B was left before it was the turn of `Join`");
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

mod cancels;
mod failing;
mod forms;
mod fuzz;
mod life;
mod model;
mod odd;
mod versions;
