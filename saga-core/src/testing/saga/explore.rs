//! Every story of one instance, up to a bound.

use super::{
    explored::{Breach, Explored},
    instance::{Instance, Sent, encoded, id_of},
    story::{Happened, diagram, lines},
};
use crate::{
    Command, Encoded, HeldReason, Message, Saga,
    message::{GivesUp, decode},
    saga::{Progress, Route},
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

/// A walk through every state that an instance can come to, with every order of outcomes, timers and events.
///
/// The outcomes of each command come from a function of yours; each of them is tried, early and late. Timers that are
/// alive may come at any time. Events may come once each, at any time. With [`duplicates`](Self::duplicates) each
/// message may come once more. No time passes: `Moment::now()` is the same in every story. What is checked always:
///
/// - no transition panics, and none sends or stores what cannot be read;
/// - from everywhere a done state can be reached;
/// - when nothing can come any more, nothing is held.
///
/// ```
/// # use sagabus::{prelude::*, testing::Explore};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # struct Placed { order_id: u64 }
/// # #[derive(Command, Serialize, Deserialize)]
/// # #[command(to = "bank", outcome = PaymentOutcome)]
/// # struct Pay { order_id: u64 }
/// # #[derive(Outcome)]
/// # enum PaymentOutcome { Paid(Paid), Declined(Declined) }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct Paid { order_id: u64 }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct Declined { order_id: u64 }
/// # #[derive(Message, Serialize, Deserialize)]
/// # struct Overdue {}
/// # #[states]
/// # enum Order { Waiting, #[done] Shipped, #[done] #[rejects(Paid)] #[ignores(Declined)] Cancelled }
/// # #[saga(name = "order", id = order_id: u64)]
/// # impl Order {
/// #     fn placed(placed: Placed) -> (Waiting, Sends<Pay>, After<Overdue>) {
/// #         (Waiting, send(Pay { order_id: placed.order_id }), after(minutes(1), Overdue {}))
/// #     }
/// #     fn paid(_: Waiting, _: Paid) -> Shipped { Shipped }
/// #     fn declined(_: Waiting, _: Declined) -> Cancelled { Cancelled }
/// #     fn overdue(_: Waiting, _: Overdue) -> Cancelled { Cancelled }
/// # }
/// # fn main() {
/// let explored = Explore::<Order>::from(Placed { order_id: 7 })
///     .answers(|pay: Pay| vec![Paid { order_id: pay.order_id }.into(), Declined { order_id: pay.order_id }.into()])
///     .at_most_once::<Pay>()
///     .run();
/// explored.expect_no_breach();
/// assert_eq!(explored.states_reached(), ["Cancelled", "Shipped", "Waiting"]);
/// # }
/// ```
pub struct Explore<S> {
    start: Instance<S>,
    answers: HashMap<&'static str, Answers>,
    events: Vec<Encoded>,
    begins: Repeated,
    /// What has come may come once more.
    duplicates: bool,
    checks: Vec<(String, Check)>,
    endings: Vec<(String, AtEnd)>,
    situations_max: usize,
}

/// A message that has come and may come once more.
#[derive(Clone)]
struct Repeated {
    message: Encoded,
    /// The command that it answers, by its place among what was sent, and the entry of the state that sent it.
    answers: Option<(usize, i64)>,
}

/// A moment at which nothing can come any more.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Ending<'a> {
    /// The state's name.
    pub state: &'a str,
    /// Everything that was sent, in order.
    pub sent: &'a [Sent],
    /// The logical names of everything that came, in order.
    pub came: &'a [&'static str],
}

impl Ending<'_> {
    /// How many messages of this type were sent.
    pub fn sent<M: Message>(&self) -> usize {
        self.sent.iter().filter(|sent| sent.type_name == M::TYPE).count()
    }

    /// How many messages of this type came.
    pub fn came<M: Message>(&self) -> usize {
        self.came.iter().filter(|came| **came == M::TYPE).count()
    }
}

type Answers = Box<dyn Fn(&Sent) -> Vec<Encoded>>;
/// Whether what is looked at is allowed: the state's name, and everything sent.
type Check = Box<dyn Fn(&str, &[Sent]) -> bool>;
type AtEnd = Box<dyn Fn(&Ending<'_>) -> bool>;

/// An instance and what may still come to it.
struct Situation<S> {
    instance: Instance<S>,
    /// Commands without an answer: what each may be answered with, and its place among what was sent.
    open: Vec<(Vec<Encoded>, usize)>,
    /// Events that have not come.
    events: Vec<usize>,
    /// What has come once and may come again.
    again: Vec<Repeated>,
    /// Messages that it has sent and that were looked at.
    seen: usize,
    /// What came, by logical name.
    came: Vec<&'static str>,
}

/// What comes next.
enum Step {
    Answer(usize, usize),
    /// A command that was taken back does not run: nothing comes.
    NoAnswer(usize),
    Event(usize),
    Again(usize),
    Timer(i64),
}

impl<S: Saga> Explore<S> {
    /// A walk that begins with this message.
    ///
    /// # Panics
    /// When no function of the saga begins with it.
    #[track_caller]
    pub fn from<M: Message>(message: M) -> Self {
        let message = Encoded::of(&message);
        let mut start = Instance::new(&id_of::<S>(&message));
        start.give(&message, None);
        assert!(start.row.is_some(), "`{}` does not begin an instance; {}", M::TYPE, start.told());
        Self {
            start,
            answers: HashMap::new(),
            events: Vec::new(),
            begins: Repeated { message, answers: None },
            duplicates: false,
            checks: Vec::new(),
            endings: Vec::new(),
            situations_max: 100_000,
        }
    }

    /// What may come back for a command: each outcome is tried, and that it is [given up](crate::GiveUp) if it says
    /// with what. A command without this is never answered.
    pub fn answers<C: Command>(mut self, answers: impl Fn(C) -> Vec<C::Outcome> + 'static) -> Self {
        let answers = move |sent: &Sent| {
            let command = decode::<C>(sent.body.to_string().as_bytes());
            let mut all = encoded::<C>(answers(command.unwrap_or_else(|error| panic!("{error}"))));
            let give_up = |it: GivesUp| (it.make)(sent.body.to_string().as_bytes(), "given up");
            all.extend(C::GIVES_UP.map(|it| give_up(it).unwrap_or_else(|error| panic!("{error}"))));
            all
        };
        self.answers.insert(C::TYPE, Box::new(answers));
        self
    }

    /// A message that may come once, at any time: an event, or the starting message once more.
    pub fn event<M: Message>(mut self, message: M) -> Self {
        self.events.push(Encoded::of(&message));
        self
    }

    /// Each answer and each event, the message that begins among them, may come once more, under a new id: its sender
    /// has said it again. Then the saga's own table decides. (Under its old id the inbox knows it, and the saga never
    /// sees it.)
    pub fn duplicates(mut self) -> Self {
        self.duplicates = true;
        self
    }

    /// No story sends this message twice.
    pub fn at_most_once<M: Message>(self) -> Self {
        let once = |_: &str, sent: &[Sent]| sent.iter().filter(|sent| sent.type_name == M::TYPE).count() <= 1;
        self.always(&format!("`{}` is sent at most once", M::TYPE), once)
    }

    /// This holds at every moment: of the state's name and of everything sent so far.
    pub fn always(mut self, what: &str, holds: impl Fn(&str, &[Sent]) -> bool + 'static) -> Self {
        self.checks.push((what.into(), Box::new(holds)));
        self
    }

    /// This is so at no moment.
    pub fn never(self, what: &str, is_so: impl Fn(&str, &[Sent]) -> bool + 'static) -> Self {
        self.always(&format!("never: {what}"), move |state, sent| !is_so(state, sent))
    }

    /// When nothing can come any more, this is so: what was taken was used or given back, for example.
    pub fn in_the_end(mut self, what: &str, is_so: impl Fn(&Ending<'_>) -> bool + 'static) -> Self {
        self.endings.push((what.into(), Box::new(is_so)));
        self
    }

    /// The most situations that the walk looks at, 100,000 unless said otherwise.
    pub fn situations_max(mut self, max: usize) -> Self {
        self.situations_max = max;
        self
    }

    /// Walks. The shortest way to each kind of breach is kept.
    pub fn run(self) -> Explored {
        let events = (0..self.events.len()).collect();
        let mut first = Situation {
            instance: self.start.clone(),
            open: Vec::new(),
            events,
            again: Vec::new(),
            seen: 0,
            came: Vec::new(),
        };
        first.may_come_again(&self, self.begins.clone());
        let mut walk = Walk::default();
        walk.enter(&self, first, None);
        while walk.known.len() <= self.situations_max
            && let Some((n, situation)) = walk.queue.pop_front()
        {
            for step in situation.steps() {
                let next = situation.after(&self, &step);
                walk.enter(&self, next, Some(n));
            }
        }
        walk.finish()
    }
}

struct Walk<S> {
    known: HashMap<String, usize>,
    queue: VecDeque<(usize, Situation<S>)>,
    /// The path to each situation, and whether it is done.
    nodes: Vec<(Vec<Arc<Happened>>, bool)>,
    /// Which situations lead to which.
    back: Vec<Vec<usize>>,
    reached: HashSet<String>,
    breaches: Vec<Breach>,
}

impl<S> Default for Walk<S> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            queue: VecDeque::new(),
            nodes: Vec::new(),
            back: Vec::new(),
            reached: HashSet::new(),
            breaches: Vec::new(),
        }
    }
}

impl<S: Saga> Walk<S> {
    fn enter(&mut self, explore: &Explore<S>, mut situation: Situation<S>, from: Option<usize>) {
        situation.look_at_what_was_sent(explore);
        let key = situation.key(explore);
        let n = *self.known.entry(key).or_insert(self.nodes.len());
        if let Some(from) = from {
            if n == self.back.len() {
                self.back.push(Vec::new());
            }
            self.back[n].push(from);
        } else {
            self.back.push(Vec::new());
        }
        if n < self.nodes.len() {
            return;
        }
        let instance = &situation.instance;
        let state = instance.state().unwrap_or_default().to_owned();
        let done = instance.row.as_ref().is_some_and(|row| row.done);
        self.nodes.push((instance.story.clone(), done));
        for what in situation.wrong(explore) {
            self.breach(what, &instance.story);
        }
        self.reached.insert(state);
        self.queue.push_back((n, situation));
    }

    fn breach(&mut self, what: String, story: &[Arc<Happened>]) {
        if self.breaches.iter().all(|known| known.what != what) {
            self.breaches.push(Breach { what, path: lines(story), diagram: diagram(S::NAME, story) });
        }
    }

    fn finish(mut self) -> Explored {
        let complete = self.queue.is_empty();
        if complete {
            // backwards from the done situations; what is not found cannot come to an end
            let mut open: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].1).collect();
            let mut ends: HashSet<usize> = open.iter().copied().collect();
            while let Some(n) = open.pop() {
                open.extend(self.back[n].iter().copied().filter(|before| ends.insert(*before)));
            }
            if let Some(n) = (0..self.nodes.len()).find(|n| !ends.contains(n)) {
                let path = self.nodes[n].0.clone();
                self.breach("no done state can be reached from here".into(), &path);
            }
        }
        let mut reached: Vec<String> = self.reached.into_iter().collect();
        reached.sort_unstable();
        Explored { situations: self.nodes.len(), complete, reached, breaches: self.breaches }
    }
}

impl<S: Saga> Situation<S> {
    fn look_at_what_was_sent(&mut self, explore: &Explore<S>) {
        for (place, sent) in self.instance.sent.iter().enumerate().skip(self.seen) {
            if let (Route::Command { .. }, Some(answers)) = (&sent.route, explore.answers.get(sent.type_name)) {
                let answers = answers(sent);
                if !answers.is_empty() {
                    self.open.push((answers, place));
                }
            }
        }
        self.seen = self.instance.sent.len();
    }

    fn steps(&self) -> Vec<Step> {
        let answers = self.open.iter().enumerate();
        let answers =
            answers.flat_map(|(n, (answers, _))| (0..answers.len()).map(move |answer| Step::Answer(n, answer)));
        let back = |&(_, (_, sent)): &(usize, &(Vec<Encoded>, usize))| self.instance.sent[*sent].taken_back;
        let none = self.open.iter().enumerate().filter(back).map(|(n, _)| Step::NoAnswer(n));
        let timers = self.instance.timers.iter().map(|timer| Step::Timer(timer.number)).chain(none);
        let again = (0..self.again.len()).map(Step::Again);
        answers.chain((0..self.events.len()).map(Step::Event)).chain(timers).chain(again).collect()
    }

    fn may_come_again(&mut self, explore: &Explore<S>, message: Repeated) {
        if explore.duplicates {
            self.again.push(message);
        }
    }

    fn after(&self, explore: &Explore<S>, step: &Step) -> Self {
        let Self { instance, open, events, again, seen, came } = self;
        let mut next = Self {
            instance: instance.clone(),
            open: open.clone(),
            events: events.clone(),
            again: again.clone(),
            seen: *seen,
            came: came.clone(),
        };
        match *step {
            Step::Answer(n, answer) => {
                let (mut answers, sent) = next.open.remove(n);
                let answer = answers.swap_remove(answer);
                next.came.push(answer.type_name);
                let entered = next.instance.sent[sent].entered;
                next.instance.answer(&answer, sent, entered);
                next.may_come_again(explore, Repeated { message: answer, answers: Some((sent, entered)) });
            }
            Step::NoAnswer(n) => drop(next.open.remove(n)),
            Step::Event(n) => {
                let event = next.events.remove(n);
                next.came.push(explore.events[event].type_name);
                next.instance.give(&explore.events[event], None);
                next.may_come_again(explore, Repeated { message: explore.events[event].clone(), answers: None });
            }
            Step::Again(n) => {
                let Repeated { message, answers } = next.again.remove(n); // what came twice came: `came` counts one
                match answers {
                    Some((sent, entered)) => next.instance.answer(&message, sent, entered),
                    None => next.instance.give(&message, None),
                }
            }
            Step::Timer(number) => next.instance.fire(number),
        }
        next
    }

    /// Two situations with the same key go on in the same way. What was sent belongs to it only if a check looks at it:
    /// else a saga that asks again and again would never come back to where it was.
    fn key(&self, explore: &Explore<S>) -> String {
        let Instance { row, held, timers, sent, .. } = &self.instance;
        let now = row.as_ref().map_or(0, |row| row.entered);
        let progress = Progress::read(row.as_ref().and_then(|row| row.progress.as_deref())).unwrap_or_default();
        let Progress { mut visited, replied, sent: may_be_taken_back, .. } = progress;
        visited.sort_unstable(); // where it has been decides what comes early and what comes late
        let way = (visited, replied, may_be_taken_back.into_iter().map(|it| it.type_name).collect::<Vec<_>>());
        let row = row.as_ref().map(|row| (&row.state, &row.data, row.paused_by.is_some()));
        let timers: Vec<_> = timers.iter().map(|timer| (timer.message.type_name, &timer.message.body)).collect();
        let held: Vec<_> =
            held.iter().map(|(envelope, reason, _)| (&envelope.type_name, &envelope.body, reason)).collect();
        let looked_at = if explore.checks.is_empty() && explore.endings.is_empty() { &[][..] } else { &sent[..] };
        let came = if explore.endings.is_empty() { &[][..] } else { &self.came[..] };
        let sent: Vec<_> = looked_at.iter().map(|sent| (sent.type_name, &sent.body)).collect();
        let open = self.open.iter().map(|(answers, place)| (answers, &self.instance.sent[*place]));
        let open: Vec<_> = open.map(|(answers, sent)| (answers, now - sent.entered, sent.taken_back)).collect();
        let again = self.again.iter().map(|it| (&it.message, it.answers.map(|(_, entered)| now - entered)));
        let again: Vec<_> = again.collect();
        format!("{row:?} {way:?} {timers:?} {held:?} {sent:?} {open:?} {came:?} {:?} {again:?}", self.events)
    }

    fn wrong(&self, explore: &Explore<S>) -> Vec<String> {
        let Instance { held, sent, timers, .. } = &self.instance;
        let state = self.instance.state().unwrap_or_default();
        let broken = explore.checks.iter().filter(|(_, holds)| !holds(state, sent)).map(|(what, _)| what.clone());
        let failed =
            held.iter().filter(|(_, reason, _)| *reason == HeldReason::Failed || *reason == HeldReason::Undecodable);
        let failed = failed.map(|(envelope, _, error)| format!("`{}` fails in {state}: {error}", envelope.type_name));
        // what may come once more need not come
        let quiet = self.open.is_empty() && self.events.is_empty() && timers.is_empty();
        let stuck = held.iter().filter(|(_, reason, _)| quiet && reason.releases_itself());
        let stuck =
            stuck.map(|(envelope, ..)| format!("`{}` is held in {state}, and nobody can free it", envelope.type_name));
        let ending = Ending { state, sent, came: &self.came };
        let ends = explore.endings.iter().filter(|(_, is_so)| quiet && !is_so(&ending)).map(|(what, _)| what.clone());
        broken.chain(failed).chain(stuck).chain(ends).collect()
    }
}
