//! Commands that are taken back: what an instance remembers of them, and what it does about them.

use super::life::{Life, say};
use super::*;
use crate::saga::SentCommand;
use uuid::Uuid;

#[derive(Event, Serialize, Deserialize)]
struct Asked {
    id: u64,
    /// How many quotes to ask for.
    quotes: u64,
}
#[derive(Event, Serialize, Deserialize)]
struct Enough {
    id: u64,
}
#[derive(Command, Serialize, Deserialize)]
#[command(to = "sellers", outcome = QuoteOutcome)]
struct MakeQuote {
    n: u64,
}
#[derive(Outcome)]
enum QuoteOutcome {
    Made(QuoteMade),
}
#[derive(Reply, Serialize, Deserialize)]
struct QuoteMade {
    n: u64,
}
#[derive(Command, Serialize, Deserialize)]
#[command(to = "mail")]
struct SendMail {
    n: u64,
}

#[states]
enum Quotes {
    #[waits]
    Asking,
    #[done]
    Over,
}

type More = (Asking, Vec<Sends<MakeQuote>>, Sends<SendMail>);

fn ask(asked: &Asked) -> More {
    (Asking, (0..asked.quotes).map(|n| send(MakeQuote { n })).collect(), send(SendMail { n: 1 }))
}

#[saga(name = "quotes", id = id: u64, by(QuoteMade = echo))]
impl Quotes {
    fn begin(asked: Asked) -> More {
        ask(&asked)
    }
    fn anew(_: Asking, asked: Asked) -> (Asking, Vec<Sends<MakeQuote>>, Cancels<MakeQuote>) {
        let (state, quotes, _) = ask(&asked);
        (state, quotes, cancel())
    }
    fn made(_: Asking, _: QuoteMade) -> Asking {
        Asking
    }
    fn enough(_: Asking, _: Enough) -> Over {
        Over
    }
    fn enough_is_enough(_: Over, _: Enough) -> (Over, Cancels<MakeQuote>) {
        (Over, cancel())
    }
    fn made_late(_: Over, _: QuoteMade) -> Over {
        Over
    }
}

/// An instance, and the ids under which its unit of work sends commands: the number that the run gave each.
struct Sender {
    life: Life<Quotes>,
    units: u128,
}

impl Sender {
    fn new() -> Self {
        Self { life: Life::new(), units: 0 }
    }

    /// Offers a batch, and names what it sends as the endpoint does. Returns the transitions, and what never leaves.
    fn offer(&mut self, batch: Vec<Envelope>) -> (Vec<Move>, Vec<i64>) {
        self.units += 1;
        let (mut decided, settled) = self.life.offer_at(0, batch);
        let moves = settled.into_iter().map(|settled| match settled {
            Settled::Moved(made) => made,
            other => panic!("a transition was expected: {other:?}"),
        });
        let moves: Vec<Move> = moves.collect();
        let numbers = moves.iter().flat_map(|made| made.numbers.iter().flatten());
        let ids = numbers.map(|number| (*number, self.id(*number as u128))).collect();
        decided.name_commands(&ids);
        self.life.row = decided.instance.map(|write| write.row);
        (moves, decided.unsent)
    }

    /// The id that a command of the latest unit has.
    fn id(&self, number: u128) -> Uuid {
        Uuid::from_u128(self.units << 64 | number)
    }

    fn sent(&self) -> Vec<SentCommand> {
        Progress::read(self.life.row().progress.as_deref()).expect("it can be read").sent
    }

    fn ids(&self) -> Vec<Uuid> {
        self.sent().iter().map(|command| command.id.expect("it has an id")).collect()
    }
}

fn asked(n: u32, quotes: u64) -> Envelope {
    say(&format!("asked-{n}"), &Asked { id: 7, quotes })
}

fn enough(n: u32) -> Envelope {
    say(&format!("enough-{n}"), &Enough { id: 7 })
}

/// An answer to a command: an outcome names no instance by its body.
fn made(command: Uuid) -> Envelope {
    let saga = SagaRef { saga: "quotes".into(), id: "7".into(), entered: None, timer: None };
    let causation_id = Some(command.to_string());
    Envelope { saga: Some(saga), causation_id, ..say(&format!("made-{command}"), &QuoteMade { n: 0 }) }
}

#[test]
fn only_commands_that_the_saga_takes_back_are_remembered_until_they_are_answered() {
    let mut sender = Sender::new();
    let (moves, _) = sender.offer(vec![asked(1, 2)]);
    assert_eq!(moves[0].numbers, [Some(1), Some(2), None], "nobody takes back a mail");
    let sent = sender.sent();
    assert_eq!(sender.ids(), [sender.id(1), sender.id(2)]);
    let envelope = Envelope::new("m", "sellers.MakeQuote", moves[0].emits[0].message.body.clone());
    assert_eq!(
        (&*sent[0].type_name, &*sent[0].to, sent[0].hash),
        ("sellers.MakeQuote", "sellers", envelope.body_hash())
    );
    let (answered, open) = (sender.id(1), sender.id(2));
    sender.offer(vec![made(answered)]);
    assert_eq!(sender.ids(), [open]);
    sender.offer(vec![made(open)]);
    assert_eq!(sender.life.row().progress, None, "a row without open commands has nothing of them");
    assert_eq!(Instance::at(&["Begin", "Cancel"]).row().progress, None, "nor has one of another saga");
}

#[test]
fn what_is_taken_back_is_named_once_and_what_the_same_transition_sends_stays() {
    let mut sender = Sender::new();
    sender.offer(vec![asked(1, 2)]);
    let before = sender.ids();
    let (moves, unsent) = sender.offer(vec![asked(2, 1)]);
    let back: Vec<_> = moves[0].cancels.iter().map(|command| command.id.expect("it was sent")).collect();
    assert_eq!((back, unsent), (before, vec![]));
    assert_eq!(sender.ids(), [sender.id(1)], "the new one replaces them");
    let (moves, _) = sender.offer(vec![enough(1)]);
    assert!(moves[0].cancels.is_empty() && sender.life.row().done);
    let (moves, _) = sender.offer(vec![enough(2)]);
    assert_eq!(moves[0].cancels.len(), 1, "a transition of the done state still finds it");
    let (moves, _) = sender.offer(vec![enough(3)]);
    assert!(moves[0].cancels.is_empty(), "once");
}

/// As for timers: what a batch leads to does not depend on how messages fall into batches.
#[test]
fn what_is_sent_and_taken_back_in_one_batch_does_not_leave() {
    let mut sender = Sender::new();
    let (moves, unsent) = sender.offer(vec![asked(1, 2), asked(2, 1)]);
    assert_eq!((moves[0].numbers.clone(), unsent), (vec![Some(1), Some(2), None], vec![1, 2]));
    assert!(moves[1].cancels.is_empty(), "nothing needs to go after them");
    assert_eq!((moves[1].numbers.clone(), sender.ids()), (vec![Some(3)], vec![sender.id(3)]));
}

#[test]
fn of_too_many_commands_the_oldest_are_forgotten_and_all_of_them_leave() {
    let mut sender = Sender::new();
    let (moves, unsent) = sender.offer(vec![asked(1, 203)]);
    assert_eq!((moves[0].emits.len(), unsent), (204, vec![]));
    assert_eq!((sender.ids().len(), sender.ids()[0]), (200, sender.id(4)));
    let (moves, _) = sender.offer(vec![asked(2, 0)]);
    assert_eq!(moves[0].cancels.len(), 200);
}

#[test]
fn a_failed_transition_takes_nothing_back() {
    let mut sender = Sender::new();
    sender.offer(vec![asked(1, 1)]);
    let before = sender.ids();
    let broken = Envelope { body: "{".into(), ..asked(2, 1) };
    let settled = sender.life.offer(vec![broken]);
    assert!(matches!(settled[..], [Settled::Held { .. }]), "{settled:?}");
    assert_eq!(sender.ids(), before);
}

#[test]
fn the_chart_shows_what_is_taken_back() {
    let chart = Quotes::chart();
    let effects = chart.edges.iter().flat_map(|edge| &edge.effects);
    let cancels: Vec<_> = effects.filter(|effect| effect.kind == "cancel").collect();
    assert_eq!(cancels.len(), 2);
    assert!(cancels.iter().all(|effect| effect.type_name == "sellers.MakeQuote" && effect.to.is_none()));
    assert_eq!(chart.errors(), [] as [String; 0]);
}

#[test]
fn each_step_of_a_batch_keeps_the_instance_as_it_left_it() {
    let batch = vec![say("1", &Asked { id: 7, quotes: 2 }), say("2", &Asked { id: 7, quotes: 1 })];
    let (moves, _) = Sender::new().offer([batch, vec![say("3", &Enough { id: 7 })]].concat());
    let left = moves.iter().map(|made| made.after.as_deref().expect("it is kept"));
    let left: Vec<_> = left.map(|left| (left.progress.sent.len(), left.version, left.done)).collect();
    assert_eq!(left, [(2, 1, false), (1, 1, false), (1, 1, true)]);
}
