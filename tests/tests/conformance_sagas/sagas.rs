//! Small sagas and their messages.

use saga_core::{
    After, All, Command, Either, Event, Gather, Message, Outcome, Publishes, Reenter, Replies, Reply, Sends, after,
    hours, publish, reply, saga, send, states,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

macro_rules! events {
    ($($name:ident { $($field:ident: $type:ty),* })*) => {$(
        #[derive(Debug, Clone, Event, Serialize, Deserialize)]
        #[event(from = "service")]
        pub(crate) struct $name { pub(crate) key: u64 $(, pub(crate) $field: $type)* }
    )*};
}

events! {
    Opened {}
    Added { n: u64 }
    Closed {}
    Ended {}
    Started {}
    Answered {}
    Entered {}
    Left {}
    Labelled {}
    Invoiced {}
    Met {}
    Rung { times: u32 }
    Requested { asked: usize, enough: usize }
    Quoted { cents: u64 }
    Cooked { dish: String }
    Driven { courier: u32 }
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "service.Idle")]
pub(crate) struct Idle {}

/// Adds up; the number 13 and the key 13 are more than a broken one can bear.
macro_rules! counter {
    ($module:ident, $broken:literal) => {
        pub(crate) mod $module {
            use super::*;

            #[states]
            pub(crate) enum Counter {
                Open {
                    added: Vec<u64>,
                },
                #[done]
                Shut {
                    added: Vec<u64>,
                    idle: bool,
                },
            }

            #[saga(name = "counter", id = key: u64)]
            impl Counter {
                fn opened(opened: Opened) -> (Open, After<Idle>) {
                    assert!(!$broken || opened.key != 13, "broken by order");
                    (Open { added: Vec::new() }, after(hours(1), Idle {}))
                }

                fn added(mut state: Open, added: Added) -> Open {
                    assert!(!$broken || added.n != 13, "broken by order");
                    state.added.push(added.n);
                    state
                }

                fn closed(state: Open, closed: Closed) -> (Shut, Publishes<Ended>) {
                    (Shut { added: state.added, idle: false }, publish(Ended { key: closed.key }))
                }

                fn idle(state: Open, _: Idle) -> Shut {
                    Shut { added: state.added, idle: true }
                }
            }
        }
    };
}
counter!(sound, false);
counter!(broken, true);

/// An answer and a timer race; other timers come at once or long after.
pub(crate) mod race {
    use super::*;

    #[states]
    pub(crate) enum Race {
        Racing,
        #[done]
        Won,
        #[done]
        Lost,
    }

    #[saga(name = "race", id = key: u64)]
    impl Race {
        fn started(_: Started) -> (Racing, After<Idle>) {
            (Racing, after(hours(1), Idle {}))
        }

        fn answered(_: Racing, _: Answered) -> Won {
            Won
        }

        fn idle(_: Racing, _: Idle) -> Lost {
            Lost
        }

        fn added(state: Racing, added: Added) -> (Racing, After<Idle>, Reenter) {
            (state, after(Duration::from_secs(added.n), Idle {}), Reenter)
        }
    }
}

/// A door through which one goes in and out.
pub(crate) mod door {
    use super::*;

    #[states]
    pub(crate) enum Door {
        Inside { idle: u32 },
        Outside { idle: u32 },
    }

    #[saga(name = "door", id = key: u64)]
    impl Door {
        fn first(_: Entered) -> (Inside, After<Idle>) {
            (Inside { idle: 0 }, after(hours(1), Idle {}))
        }

        fn left(state: Inside, _: Left) -> Outside {
            Outside { idle: state.idle }
        }

        fn entered(state: Outside, _: Entered) -> (Inside, After<Idle>) {
            (Inside { idle: state.idle }, after(hours(1), Idle {}))
        }

        fn idle(state: Inside, _: Idle) -> Inside {
            Inside { idle: state.idle + 1 }
        }
    }
}

/// A parent, and the child that it brings up. The child's answer bears no id.
pub(crate) mod family {
    use super::*;

    #[derive(Command, Serialize, Deserialize)]
    #[command(to = "service", outcome = Upbringing)]
    pub(crate) struct BringUp {
        pub(crate) key: u64,
    }
    #[derive(Outcome)]
    pub(crate) enum Upbringing {
        Done(GrownUp),
    }
    #[derive(Reply, Serialize, Deserialize)]
    #[reply(from = "service")]
    pub(crate) struct GrownUp {}

    #[states]
    pub(crate) enum Parent {
        #[waits]
        Waiting,
        #[done]
        Alone,
    }

    #[saga(name = "parent", id = key: u64, by(GrownUp = echo))]
    impl Parent {
        fn entered(it: Entered) -> (Waiting, Sends<BringUp>) {
            (Waiting, send(BringUp { key: it.key + 100 }))
        }

        fn grown_up(_: Waiting, _: GrownUp) -> Alone {
            Alone
        }
    }

    #[states]
    pub(crate) enum Child {
        #[waits]
        Small { meals: u32 },
        #[done]
        Big { meals: u32 },
    }

    #[saga(name = "child", id = key: u64)]
    impl Child {
        fn brought_up(_: BringUp) -> Small {
            Small { meals: 0 }
        }

        fn fed(it: Small, _: Added) -> Small {
            Small { meals: it.meals + 1 }
        }

        fn left(it: Small, _: Left) -> (Big, Replies<GrownUp>) {
            (Big { meals: it.meals }, reply(GrownUp {}))
        }
    }
}

/// Says of three messages what becomes of them, until it has left its first state.
pub(crate) mod picky {
    use super::*;

    #[states]
    pub(crate) enum Picky {
        #[ignores(Added)]
        #[defers(Labelled)]
        #[rejects(Invoiced)]
        First {
            labels: u32,
        },
        Second {
            labels: u32,
        },
        #[done]
        Done {
            labels: u32,
        },
    }

    #[saga(name = "picky", id = key: u64)]
    impl Picky {
        fn opened(_: Opened) -> (First, After<Idle>) {
            (First { labels: 0 }, after(hours(1), Idle {}))
        }

        fn left(it: First, _: Left) -> Second {
            Second { labels: it.labels }
        }

        fn idle(it: First, _: Idle) -> Done {
            Done { labels: it.labels }
        }

        fn added(it: Second, _: Added) -> Second {
            it
        }

        fn labelled(it: Second, _: Labelled) -> Second {
            Second { labels: it.labels + 1 }
        }

        fn invoiced(it: Second, _: Invoiced) -> Second {
            it
        }

        fn closed(it: Second, _: Closed) -> Done {
            Done { labels: it.labels }
        }

        fn ended(it: First, _: Ended) -> Done {
            Done { labels: it.labels }
        }
    }
}

/// Asks for quotes, and waits for enough of them or for an hour.
pub(crate) mod quotes {
    use super::*;

    #[states]
    pub(crate) enum Quotes {
        Gathering {
            quotes: Gather<u64>,
        },
        #[done]
        Chosen {
            cents: Vec<u64>,
        },
    }

    #[saga(name = "quotes", id = key: u64)]
    impl Quotes {
        fn requested(it: Requested) -> Either<(Gathering, After<Idle>), Chosen> {
            match Gather::asked(it.asked, it.enough) {
                Either::A(quotes) => Either::A((Gathering { quotes }, after(hours(1), Idle {}))),
                Either::B(cents) => Either::B(Chosen { cents }),
            }
        }

        fn quoted(it: Gathering, quoted: Quoted) -> Either<Gathering, Chosen> {
            match it.quotes.got(quoted.cents) {
                Either::A(quotes) => Either::A(Gathering { quotes }),
                Either::B(cents) => Either::B(Chosen { cents }),
            }
        }

        fn stragglers(it: Gathering, _: Idle) -> Chosen {
            Chosen { cents: it.quotes.so_far().to_vec() }
        }
    }
}

/// Waits for a dish and a courier, either of which may come first.
pub(crate) mod meal {
    use super::*;

    #[states]
    pub(crate) enum Meal {
        Preparing {
            both: Both,
        },
        #[done]
        Served {
            dish: String,
            courier: u32,
        },
    }

    type Both = All<(String, u32)>;
    type Join = Either<Preparing, Served>;

    #[saga(name = "meal", id = key: u64)]
    impl Meal {
        fn first_cooked(it: Cooked) -> Join {
            join(Both::none().first(it.dish))
        }

        fn first_driven(it: Driven) -> Join {
            join(Both::none().second(it.courier))
        }

        fn cooked(meal: Preparing, it: Cooked) -> Join {
            join(meal.both.first(it.dish))
        }

        fn driven(meal: Preparing, it: Driven) -> Join {
            join(meal.both.second(it.courier))
        }
    }

    fn join(both: Either<Both, (String, u32)>) -> Join {
        match both {
            Either::A(both) => Either::A(Preparing { both }),
            Either::B((dish, courier)) => Either::B(Served { dish, courier }),
        }
    }
}

/// Two halves, either of which may come first.
pub(crate) mod meeting {
    use super::*;

    #[states]
    pub(crate) enum Meeting {
        Half {
            label: bool,
        },
        #[done]
        Whole,
    }

    type Next = Either<Half, (Whole, Publishes<Met>)>;

    #[saga(name = "meeting", id = key: u64)]
    impl Meeting {
        fn label_first(_: Labelled) -> Half {
            Half { label: true }
        }

        fn invoice_first(_: Invoiced) -> Half {
            Half { label: false }
        }

        fn label(state: Half, it: Labelled) -> Next {
            if state.label { Either::A(state) } else { Either::B((Whole, publish(Met { key: it.key }))) }
        }

        fn invoice(state: Half, it: Invoiced) -> Next {
            if state.label { Either::B((Whole, publish(Met { key: it.key }))) } else { Either::A(state) }
        }
    }
}

/// Hears itself, three times.
pub(crate) mod bell {
    use super::*;

    #[states]
    pub(crate) enum Bell {
        Ringing,
        #[done]
        Silent,
    }

    #[saga(name = "bell", id = key: u64)]
    impl Bell {
        fn entered(entered: Entered) -> (Ringing, Publishes<Rung>) {
            (Ringing, publish(Rung { key: entered.key, times: 1 }))
        }

        fn rung(state: Ringing, rung: Rung) -> Either<(Ringing, Publishes<Rung>), Silent> {
            match rung.times {
                3 => Either::B(Silent),
                times => Either::A((state, publish(Rung { key: rung.key, times: times + 1 }))),
            }
        }
    }
}
