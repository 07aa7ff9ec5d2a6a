//! The life of an instance, from its start to its end: what transitions return, and what each side of them leads to.

use super::*;
use std::time::SystemTime;

/// An instance of any saga between batches, read from its row each time, as after a restart.
pub(super) struct Life<S> {
    pub(super) row: Option<InstanceRow>,
    held: Vec<(Arc<Envelope>, HeldReason)>,
    saga: PhantomData<S>,
}

impl<S: Saga> Life<S> {
    pub(super) fn new() -> Self {
        Self { row: None, held: Vec::new(), saga: PhantomData }
    }

    /// Offers a batch at a time; what became of each message that was settled.
    pub(super) fn offer_at(&mut self, now_us: i64, batch: Vec<Envelope>) -> (Decided, Vec<Settled>) {
        let logic = Typed::<S>::new();
        let key = InstanceKey { saga: S::NAME.into(), id: "7".into() };
        let came = batch.into_iter().map(|envelope| (Arc::new(envelope), None));
        let waiting = self.held.drain(..).map(|(envelope, reason)| (envelope, Some(reason)));
        let offer = |(envelope, waiting)| Offer { envelope, decoded: None, waiting, fault: None };
        let mut offers: Vec<Offer> = came.chain(waiting).map(offer).collect();
        let row = self.row.as_ref();
        let (unread, partial) = (&[][..], false);
        let aliases = &KnownAliases::default();
        let (overrule, body_bytes_max, keeps) = (None, 1000, true);
        let asked = Offers { key: &key, row, now_us, unread, partial, overrule, body_bytes_max, aliases, keeps };
        let mut decided = logic.decide(&asked, &mut offers);
        let settled = std::mem::take(&mut decided.settled);
        // in order of arrival: what waited before came before
        let (waited, came): (Vec<_>, Vec<_>) = offers.iter().enumerate().partition(|(_, it)| it.waiting.is_some());
        for (i, offer) in waited.into_iter().chain(came) {
            let of = settled.iter().find(|(place, _)| *place == i).map(|(_, settled)| settled);
            match (of, offer.waiting) {
                (Some(Settled::Held { reason, .. }), _) => self.held.push((offer.envelope.clone(), *reason)),
                (None, Some(reason)) => self.held.push((offer.envelope.clone(), reason)),
                _ => {}
            }
        }
        if let Some(write) = &decided.instance {
            self.row = Some(write.row.clone());
        }
        (decided, settled.into_iter().map(|(_, settled)| settled).collect())
    }

    pub(super) fn offer(&mut self, batch: Vec<Envelope>) -> Vec<Settled> {
        self.offer_at(0, batch).1
    }

    /// Offers one message, which must lead to a transition.
    pub(super) fn moves(&mut self, envelope: Envelope) -> Move {
        let mut settled = self.offer(vec![envelope]);
        match settled.pop() {
            Some(Settled::Moved(made)) if settled.is_empty() => made,
            other => panic!("one transition was expected: {other:?} after {settled:?}"),
        }
    }

    /// The same row and the same held messages, for another definition of the saga.
    pub(super) fn into_saga<T>(self) -> Life<T> {
        Life { row: self.row, held: self.held, saga: PhantomData }
    }

    pub(super) fn row(&self) -> &InstanceRow {
        self.row.as_ref().expect("the instance was started")
    }

    /// State, stored data and number of transitions.
    pub(super) fn at(&self) -> (&str, &str, i64) {
        (&self.row().state, &self.row().data, self.row().seq)
    }
}

pub(super) fn say<M: Message>(id: &str, message: &M) -> Envelope {
    Envelope::new(id, M::TYPE, message.__encode().expect("it is JSON"))
}

/// As a timer of the instance comes back.
fn timer<S: Saga, M: Message>(number: i64, message: &M) -> Envelope {
    let of = SagaRef { saga: S::NAME.into(), id: "7".into(), entered: None, timer: Some(number) };
    Envelope { saga: Some(of), ..say(&format!("timer-{number}"), message) }
}

#[derive(Event, Serialize, Deserialize)]
struct Label {
    id: u64,
    label: u32,
}
#[derive(Event, Serialize, Deserialize)]
struct Invoice {
    id: u64,
    invoice: u32,
}
#[derive(Event, Serialize, Deserialize)]
struct BothThere {
    id: u64,
}

/// Two halves, either of which may come first.
#[states]
enum Meeting {
    Joining {
        label: Option<u32>,
        invoice: Option<u32>,
    },
    #[done]
    Joined {
        label: u32,
        invoice: u32,
    },
}

type Met = Either<Joining, (Joined, Publishes<BothThere>)>;

fn meet(id: u64, label: Option<u32>, invoice: Option<u32>) -> Met {
    match (label, invoice) {
        (Some(label), Some(invoice)) => Either::B((Joined { label, invoice }, publish(BothThere { id }))),
        (label, invoice) => Either::A(Joining { label, invoice }),
    }
}

#[saga(name = "meeting", id = id: u64)]
impl Meeting {
    fn label_first(it: Label) -> Joining {
        Joining { label: Some(it.label), invoice: None }
    }

    fn invoice_first(it: Invoice) -> Joining {
        Joining { label: None, invoice: Some(it.invoice) }
    }

    fn label(state: Joining, it: Label) -> Met {
        meet(it.id, Some(it.label), state.invoice)
    }

    fn invoice(state: Joining, it: Invoice) -> Met {
        meet(it.id, state.label, Some(it.invoice))
    }
}

fn label(n: u32) -> Envelope {
    say(&format!("label-{n}"), &Label { id: 7, label: n })
}

fn invoice(n: u32) -> Envelope {
    say(&format!("invoice-{n}"), &Invoice { id: 7, invoice: n })
}

#[test]
fn s_003_a_start_message_that_comes_again_takes_the_states_own_transition() {
    let mut life = Life::<Meeting>::new();
    life.moves(label(1));
    let made = life.moves(label(2));
    assert_eq!((made.from.as_deref(), made.to.as_str(), made.seq), (Some("Joining"), "Joining", 2));
    assert_eq!(life.at(), ("Joining", r#"{"label":2,"invoice":null}"#, 2));
}

#[test]
fn s_004_s_032_two_starts_in_either_order_join_once_and_end_alike() {
    let ends = [[label(1), invoice(2)], [invoice(2), label(1)]].map(|[first, second]| {
        let mut life = Life::<Meeting>::new();
        let first = life.moves(first);
        assert_eq!((first.from, first.to.as_str(), first.emits.len()), (None, "Joining", 0));
        let second = life.moves(second);
        assert_eq!((second.from.as_deref(), second.to.as_str()), (Some("Joining"), "Joined"));
        let sent: Vec<_> = second.emits.iter().map(|emit| emit.message.type_name).collect();
        assert_eq!(sent, ["BothThere"]);
        let row = life.row();
        (row.state.clone(), row.data.clone(), row.seq, row.done)
    });
    assert_eq!(ends[0], ("Joined".into(), r#"{"label":1,"invoice":2}"#.into(), 2, true));
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn s_033_a_second_half_of_the_same_kind_does_not_join() {
    let mut life = Life::<Meeting>::new();
    life.moves(label(1));
    let again = life.moves(label(2));
    assert_eq!((again.to.as_str(), again.emits.len()), ("Joining", 0));
    let joined = life.moves(invoice(3));
    assert_eq!((joined.to.as_str(), joined.emits.len()), ("Joined", 1));
    let late = life.offer(vec![label(4), invoice(5)]);
    assert!(late.iter().all(|settled| matches!(settled, Settled::Ignored { .. })), "{late:?}");
    assert_eq!(life.at(), ("Joined", r#"{"label":2,"invoice":3}"#, 3));
}

#[test]
fn s_026_the_enums_transition_runs_in_each_state_that_is_not_done() {
    for way in [&["Begin"][..], &["Begin", "Next"]] {
        let mut instance = Instance::at(way);
        let cancel = instance.message("Cancel", None);
        let (decided, words) = instance.decide(vec![cancel]);
        assert_eq!(words, [("Cancel".into(), format!("Done {}", way.len() + 1))]);
        assert_eq!(decided.timers, [] as [i64; 0], "its timers go");
        assert_eq!(instance.batch(&["Cancel"]), ["Cancel: ignored"], "it is done");
    }
    let mut none = Instance::default();
    assert_eq!(none.batch(&["Cancel"]), ["Cancel: held early"]);
    assert!(none.row.is_none());
}

/// How an instance may go on from `Choosing`.
#[derive(Then)]
enum Chosen {
    Wait(Choosing),
    Tell((Choosing, Publishes<Note>)),
    Ask((Deciding, After<Tired>)),
    End((Chose, Publishes<BothThere>, Publishes<Note>)),
}

#[derive(Message, Serialize, Deserialize)]
struct Tired {}
#[derive(Message, Serialize, Deserialize)]
struct Impatient {}
#[derive(Event, Serialize, Deserialize)]
struct Choose {
    id: u64,
    way: u8,
}
#[derive(Event, Serialize, Deserialize)]
struct Decide {
    id: u64,
    yes: bool,
}

#[states]
enum Choice {
    Choosing {
        times: u32,
    },
    Deciding,
    #[done]
    Chose,
    #[done]
    Slept,
}

#[saga(name = "choice", id = id: u64)]
impl Choice {
    fn begin(_: Begin) -> (Choosing, After<Impatient>) {
        (Choosing { times: 0 }, after(seconds(5), Impatient {}))
    }

    fn choose(state: Choosing, it: Choose) -> Chosen {
        let Choose { id, way } = it;
        let state = Choosing { times: state.times + 1 };
        match way {
            0 => Chosen::Wait(state),
            1 => Chosen::Tell((state, publish(Note { id }))),
            2 => Chosen::Ask((Deciding, after(seconds(10), Tired {}))),
            _ => Chosen::End((Chose, publish(BothThere { id }), publish(Note { id }))),
        }
    }

    fn impatient(state: Choosing, _: Impatient) -> Choosing {
        state
    }

    fn decide(_: Deciding, it: Decide) -> Either<(Chose, Publishes<Note>), (Choosing, Publishes<BothThere>)> {
        match it.yes {
            true => Either::A((Chose, publish(Note { id: it.id }))),
            false => Either::B((Choosing { times: 0 }, publish(BothThere { id: it.id }))),
        }
    }

    fn tired(_: Deciding, _: Tired) -> Slept {
        Slept
    }
}

fn begin() -> Envelope {
    say("begin", &Begin { id: 7 })
}

fn choose(way: u8) -> Envelope {
    say(&format!("choose-{way}"), &Choose { id: 7, way })
}

#[test]
fn s_025_each_branch_brings_its_own_state_and_effects_and_the_chart_shows_them_all() {
    let of = |before: &[Envelope], message: Envelope| {
        let mut life = Life::<Choice>::new();
        before.iter().for_each(|envelope| drop(life.moves(envelope.clone())));
        let made = life.moves(message);
        let sent: Vec<_> = made.emits.iter().map(|emit| emit.message.type_name).collect();
        (made.to, sent)
    };
    assert_eq!(of(&[begin()], choose(0)), ("Choosing".into(), vec![]));
    assert_eq!(of(&[begin()], choose(1)), ("Choosing".into(), vec!["Note"]));
    assert_eq!(of(&[begin()], choose(2)), ("Deciding".into(), vec!["Tired"]));
    assert_eq!(of(&[begin()], choose(3)), ("Chose".into(), vec!["BothThere", "Note"]));
    let decide = |yes| of(&[begin(), choose(2)], say("decide", &Decide { id: 7, yes }));
    assert_eq!(decide(true), ("Chose".into(), vec!["Note"]));
    assert_eq!(decide(false), ("Choosing".into(), vec!["BothThere"]));

    let chart = Choice::chart();
    let edges = |on: &str| {
        let edges = chart.edges.iter().filter(|edge| edge.on == on);
        let effects = |edge: &ChartEdge| edge.effects.iter().map(|it| it.type_name.clone()).collect::<Vec<_>>();
        edges.map(|edge| (edge.branch.clone(), edge.to.clone(), effects(edge).join(" "))).collect::<Vec<_>>()
    };
    let edge = |branch: &str, to: &str, effects: &str| (branch.to_owned(), to.to_owned(), effects.to_owned());
    let chosen = [
        edge("Wait", "Choosing", ""),
        edge("Tell", "Choosing", "Note"),
        edge("Ask", "Deciding", "Tired"),
        edge("End", "Chose", "BothThere Note"),
    ];
    assert_eq!(edges("Choose"), chosen);
    assert_eq!(edges("Decide"), [edge("", "Chose", "Note"), edge("", "Choosing", "BothThere")]);
}

#[test]
fn s_031_the_messages_of_a_finished_instance_lead_to_the_same_once_more() {
    let mut life = Life::<Choice>::new();
    let messages = [begin(), choose(0), choose(1), choose(2), say("decide", &Decide { id: 7, yes: true })];
    let mut journal = Vec::new();
    for (n, message) in messages.into_iter().enumerate() {
        let now_us = 1_000_000 * n as i64;
        let (decided, settled) = life.offer_at(now_us, vec![message.clone()]);
        let [Settled::Moved(made)] = &settled[..] else { panic!("a transition was expected: {settled:?}") };
        let data = decided.instance.expect("it moved").row.data;
        journal.push((message, now_us, made.seq, made.entered, made.clone(), data));
    }
    assert!(life.row().done);
    // by hand, through the functions that the transitions became
    let (mut state, mut entered) = (None, 0);
    for (message, now_us, seq, entry, made, data) in journal {
        let (mut out, input) =
            (Emits::default(), Choice::__read(&message.type_name, &message.body).expect("it is read"));
        let envelope = Some(Arc::new(message));
        let at = Moment { now_us, saga_id: "7".into(), seq: seq - 1, entered, envelope };
        let next: Choice = match state {
            None => Choice::__start(input, &at, &mut out).map_err(drop).expect("it starts").0,
            Some(state) => Choice::__step(state, &mut (), input, &at, &mut out).map_err(drop).expect("it moves"),
        };
        assert_eq!((next.state_name(), next.__store(&()), out.emits), (made.to.as_str(), data, made.emits));
        (state, entered) = (Some(next), entry);
    }
}

/// Two timers in one state.
#[states]
enum Pair {
    Waiting,
    Moved,
    #[done]
    Gone,
}

#[saga(name = "pair", id = id: u64)]
impl Pair {
    fn begin(_: Begin) -> (Waiting, After<Impatient>, After<Tired>) {
        (Waiting, after(seconds(5), Impatient {}), after(seconds(10), Tired {}))
    }

    fn impatient(_: Waiting, _: Impatient) -> Moved {
        Moved
    }

    fn tired(_: Waiting, _: Tired) -> Gone {
        Gone
    }

    fn next(_: Moved, _: Next) -> Gone {
        Gone
    }
}

#[test]
fn s_052_of_two_timers_the_one_that_leads_out_takes_the_other_with_it() {
    let mut life = Life::<Pair>::new();
    assert_eq!(life.moves(begin()).numbers, [Some(1000), Some(1001)]);
    let (decided, settled) = life.offer_at(0, vec![timer::<Pair, _>(1000, &Impatient {})]);
    assert!(matches!(&settled[..], [Settled::Moved(made)] if made.to == "Moved"), "{settled:?}");
    assert_eq!(timers(&decided), (vec![1000, 1001], vec![]), "the second's row goes with that commit");

    let mut both = Life::<Pair>::new();
    both.moves(begin());
    let queue = vec![timer::<Pair, _>(1000, &Impatient {}), timer::<Pair, _>(1001, &Tired {})];
    let settled = both.offer(queue);
    let stale = Settled::Stale { state: Some("Moved".into()) };
    assert!(matches!(&settled[0], Settled::Moved(made) if made.to == "Moved"), "{settled:?}");
    assert_eq!((&settled[1], both.at().0, both.at().2), (&stale, "Moved", 2));
}

/// Writes down what a transition is told of its surroundings.
#[states]
enum Watch {
    Ready,
    Looking {
        seen: Vec<String>,
    },
    #[done]
    Blind,
}

#[saga(name = "watch", id = id: u64)]
impl Watch {
    fn begin(_: Begin) -> Ready {
        Ready
    }

    fn next(_: Ready, _: Next, at: &Moment) -> Looking {
        Looking { seen: vec![notes(at)] }
    }

    fn tick(mut state: Looking, _: Tick, at: &Moment) -> Looking {
        state.seen.push(notes(at));
        state
    }

    fn rest(_: Looking, _: Rest) -> Blind {
        Blind
    }
}

fn notes(at: &Moment) -> String {
    let us = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
    assert_eq!(at.now(), at.now(), "now is one value within a transition");
    let (now, sent, tenant) = (us(at.now()), at.sent_at().map(us).unwrap_or_default(), at.header("tenant"));
    let tenant = tenant.and_then(|tenant| tenant.as_str()).unwrap_or("-");
    format!("{} sent {sent} now {now} of {} after {} {tenant}", at.message_id(), at.saga_id(), at.seq())
}

#[test]
fn s_030_a_moment_is_that_of_the_message_being_handled() {
    let from = |tenant: &str, sent_at_us, mut envelope: Envelope| {
        envelope.headers.insert("tenant".into(), tenant.into());
        Envelope { sent_at_us: Some(sent_at_us), ..envelope }
    };
    let mut life = Life::<Watch>::new();
    life.offer_at(1, vec![begin()]);
    life.offer_at(2, vec![from("a", 11, say("tick-1", &Tick { id: 7 }))]);
    life.offer_at(3, vec![from("b", 12, say("tick-2", &Tick { id: 7 }))]);
    let (_, settled) = life.offer_at(9, vec![from("c", 13, say("next", &Next { id: 7 }))]);
    assert_eq!(settled.len(), 3, "two early ones are released behind it: {settled:?}");
    let data: serde_json::Value = serde_json::from_str(&life.row().data).expect("it is JSON");
    let expected = [
        "next sent 13 now 9 of 7 after 1 c",
        "tick-1 sent 11 now 9 of 7 after 2 a",
        "tick-2 sent 12 now 9 of 7 after 3 b",
    ];
    assert_eq!(data["seen"], serde_json::json!(expected));
}
