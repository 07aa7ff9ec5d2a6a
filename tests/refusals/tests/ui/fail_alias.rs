// `alias(..)` that finds no instance.
include!("common.rs");

#[derive(Event, Serialize, Deserialize)]
struct Settled { reference: String, n: u64 }
#[derive(Message, Serialize, Deserialize)]
struct Late { reference: String }
#[derive(Event, Serialize, Deserialize)]
struct A { n: u64 }
#[derive(Event, Serialize, Deserialize)]
struct B { n: u64 }
#[derive(Event, Serialize, Deserialize)]
struct C { n: u64 }

#[derive(Event, Serialize, Deserialize)]
struct D { n: u64 }

#[derive(Serialize, Deserialize)]
struct Plain { n: u64 }

#[derive(Default, Serialize, Deserialize)]
struct Order { reference: Option<String>, number: u64, a: u64, b: u64, c: u64, weight: f64, weights: Option<Vec<u8>> }

mod no_data {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference = Settled.reference))]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Settled) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod no_such_field_of_the_data {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(referense = Settled.reference))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod no_such_field_of_the_message {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference = Settled.card.reference))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod another_type {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference = Settled.n))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod no_message {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference = Yes.id))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod a_start {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference = Placed.id))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod two_ways {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, by(Settled = n), alias(reference = Settled.reference))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod twice {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference = Settled.reference, number = Settled.n))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod without_a_field {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference = Settled))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod without_a_message {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod a_timer {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference = Late.reference))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn late(_: Waiting, _: Late) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod too_many {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference = Settled.reference, number = A.n, a = B.n, b = C.n, c = D.n))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled) -> Done { Done }
        fn a(_: Waiting, _: A) -> Done { Done }
        fn b(_: Waiting, _: B) -> Done { Done }
        fn c(_: Waiting, _: C) -> Done { Done }
        fn d(_: Waiting, _: D) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod several {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference = Yes.id, number = Settled.n, a = Placed.id, b = Settled.n))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod several_without {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference, number = Settled, a = A.n b, b = B.n))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod of_no_message {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(number = Plain.n))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Plain, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod of_no_key {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(weight = Settled.n))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod of_an_option_of_no_key {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(weights = Settled.n))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod masked_in_the_data {
    use super::*;

    #[states(data = Order, masked(reference))]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference = Settled.reference))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Settled, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod masked_in_the_message {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub struct Charged { #[masked] card_number: String }

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference = Charged.card_number))]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order::default(), Waiting) }
        fn paid(_: Waiting, _: Charged, _: &mut Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod masked_id {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    pub struct Charged { #[masked] id: u64 }

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Charged) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

fn main() {
    no_data::chart();
    no_such_field_of_the_data::chart();
    no_such_field_of_the_message::chart();
    another_type::chart();
    no_message::chart();
    a_start::chart();
    two_ways::chart();
    twice::chart();
    without_a_field::chart();
    without_a_message::chart();
    a_timer::chart();
    too_many::chart();
    several::chart();
    several_without::chart();
    of_no_message::chart();
    of_no_key::chart();
    of_an_option_of_no_key::chart();
    masked_in_the_data::chart();
    masked_in_the_message::chart();
    masked_id::chart();
}
