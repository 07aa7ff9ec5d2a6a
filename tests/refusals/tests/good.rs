//! Every word of `#[states]` and `#[saga]`, every kind of function, every result.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Placed {
    order_id: u64,
    line: u32,
    vip: bool,
}
#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Reopened {
    order_id: u64,
    line: u32,
}
#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = PayOutcome)]
struct Pay {
    order_id: u64,
    line: u32,
}
#[derive(Outcome)]
enum PayOutcome {
    Yes(Yes),
    No(No),
}
#[derive(Event, Serialize, Deserialize)]
#[event(from = "bank")]
struct Yes {
    order: Key,
}
#[derive(Reply, Serialize, Deserialize)]
struct No {}
#[derive(Serialize, Deserialize)]
struct Key {
    id: u64,
}
#[derive(Event, Serialize, Deserialize)]
#[event(name = "shop.cancel")]
struct Cancel {
    order_id: u64,
    line: u32,
}
#[derive(Event, Serialize, Deserialize)]
struct Touched {
    order_id: u64,
    line: u32,
}
#[derive(Reply, Serialize, Deserialize)]
struct Answer {}
#[derive(Message, Serialize, Deserialize)]
struct Overdue {}
#[derive(Message, Serialize, Deserialize)]
struct GiveUp {}

/// What every state knows.
#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
    line: u32,
    touched: u32,
}

#[derive(Deserialize)]
struct OrderV1 {
    id: u64,
    line: u32,
}
impl Upcast<1> for Order {
    type Old = OrderV1;
    fn upcast(old: OrderV1) -> Result<Self, String> {
        Ok(Self { id: old.id, line: old.line, touched: 0 })
    }
}

/// A state of its own struct.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Own {
    times: u32,
}
#[derive(Deserialize)]
struct OwnV1 {}
impl Upcast<1> for Own {
    type Old = OwnV1;
    fn upcast(_: OwnV1) -> Result<Self, String> {
        Ok(Self { times: 1 })
    }
}

#[states(data = Order)]
#[derive(Debug)]
pub(crate) enum Process {
    /// The bank is asked.
    #[defers(Touched)]
    Waiting { times: u32 },
    #[was("Shelved", "Parked")]
    #[waits]
    #[ignores(Touched)]
    Resting(Own),
    #[legacy]
    Ancient,
    #[done]
    #[rejects(Yes)]
    #[ignores(No, Cancel)]
    Done {
        #[serde(default)]
        paid: bool,
    },
}

#[allow(dead_code)]
#[derive(Then)]
#[starts]
enum Beginning {
    Vip((Order, Done)),
    Plain((Order, Waiting, Sends<Pay>, After<Overdue>)),
    Either(Either<(Order, Waiting, After<Overdue>), (Order, Done)>),
}

#[derive(Then)]
enum AfterNo {
    Again((Waiting, Sends<Pay>, Reenter, Cancels<Overdue>)),
    Rest(Own),
    End((Done, Option<Publishes<Cancel>>, Vec<Replies<Answer>>)),
    Either(Either<Waiting, (Done, Replies<Answer>)>),
}

#[derive(Then)]
enum AfterTouch {
    Nothing(Stay<Process>),
    Told((Stay<Process>, Publishes<Cancel>)),
}

#[saga(
    name = "order",
    id = order_id: u64,
    version = 2,
    by(Yes = order.id, No = echo),
)]
impl Process {
    #[starts(reject)]
    fn placed(placed: Placed, at: &Moment) -> Beginning {
        let Placed { order_id, line, vip } = placed;
        let order = Order { id: order_id, line, touched: at.seq() as u32 };
        if vip {
            return Beginning::Vip((order, Done { paid: true }));
        }
        let overdue = after(seconds(5), Overdue {}).keyed(line);
        Beginning::Plain((order, Waiting { times: 0 }, send(Pay { order_id, line }), overdue))
    }

    fn reopened(reopened: Reopened) -> Either<(Order, Waiting, Deadline<GiveUp>), (Order, Own)> {
        let order = Order { id: reopened.order_id, line: reopened.line, touched: 0 };
        match reopened.line {
            0 => Either::A((order, Waiting { times: 0 }, deadline(days(2), GiveUp {}).keyed("only"))),
            _ => Either::B((order, Own { times: 0 })),
        }
    }

    #[on(anyone)]
    fn paid(_: Waiting, _: Yes) -> (Done, Option<Replies<Answer>>) {
        (Done { paid: true }, Some(reply(Answer {})))
    }

    fn declined(at: &Moment, waiting: Waiting, order: &Order, _: No) -> AfterNo {
        match waiting.times {
            0 if at.answers_this_entry() => {
                let pay = send(Pay { order_id: order.id, line: order.line });
                AfterNo::Again((Waiting { times: 1 }, pay, Reenter, cancel().keyed(order.line)))
            }
            0 => AfterNo::Either(Either::A(waiting)),
            1 => AfterNo::Rest(Own { times: 1 }),
            _ => AfterNo::End((Done { paid: false }, None, vec![reply(Answer {})])),
        }
    }

    #[when(Own, Ancient)]
    fn paid_after_all(self, _: Yes) -> Done {
        Done { paid: self.state_name() == "Resting" }
    }

    fn woken(_: Ancient, _: Cancel) -> Done {
        Done { paid: false }
    }

    fn overdue(_: Waiting, _: Overdue) -> Either<Done, (Waiting, After<Overdue>)> {
        Either::A(Done { paid: false })
    }

    fn touched(self, touched: Touched, order: &mut Order) -> AfterTouch {
        order.touched += 1;
        match touched.line {
            0 => AfterTouch::Nothing(Stay(self)),
            line => AfterTouch::Told((Stay(self), publish(Cancel { order_id: touched.order_id, line }))),
        }
    }

    fn cancel(self, _: Cancel) -> (Stay<Self>, Publishes<Touched>) {
        (Stay(self), publish(Touched { order_id: 1, line: 1 }))
    }

    fn gave_up(self, _: GiveUp, _: &Moment, _: &Order) -> Done {
        Done { paid: false }
    }
}

// other functions stand in an `impl` of their own
impl Process {
    fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

#[test]
fn every_word_means_what_the_reference_says() {
    let chart = Process::chart();
    assert_eq!(chart.verify(), [] as [String; 0]);
    assert_eq!((chart.version, Yes::TYPE, Cancel::TYPE, Pay::TYPE), (2, "bank.Yes", "shop.cancel", "bank.Pay"));
    assert!(chart.is_answer("No"));
    for branch in ["Vip", "Plain", "Again", "Rest", "End", "Nothing", "Told"] {
        assert!(chart.edges.iter().any(|edge| edge.branch == branch), "{branch}: {chart:#?}");
    }

    let at = Moment::at(std::time::SystemTime::UNIX_EPOCH);
    let mut order = Order { id: 7, line: 0, touched: 0 };
    let touched = Touched { order_id: 7, line: 0 };
    let AfterTouch::Nothing(Stay(stays)) = Process::from(Waiting { times: 3 }).touched(touched, &mut order) else {
        panic!("no line");
    };
    assert!(!stays.is_done());
    assert_eq!((stays.state_name(), order.touched), ("Waiting", 1));
    let AfterNo::Rest(own) = Process::declined(&at, Waiting { times: 1 }, &order, No {}) else { panic!("once") };
    assert_eq!(Process::from(own).paid_after_all(Yes { order: Key { id: 7 } }), Done { paid: true });
    let paid = |from: &str| chart.edges.iter().any(|edge| edge.from == from && edge.on == Yes::TYPE);
    let of = ["Waiting", "Resting", "Ancient", "Done"].map(paid);
    assert_eq!(of, [true, true, true, false], "the states that `#[when]` names, and the one of its own: {chart:#?}");
}
