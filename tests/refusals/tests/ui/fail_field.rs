// Fields by which operators find instances, written wrong.
include!("common.rs");

#[derive(Event, Serialize, Deserialize)]
struct Settled { reference: String }

#[derive(Serialize, Deserialize)]
struct Card { number: String }

#[derive(Serialize, Deserialize)]
struct Order { id: u64, customer: String, weight: f64, card: Card, reference: Option<String> }

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Own { parcel: u64 }

fn order(placed: Placed) -> Order {
    let card = Card { number: String::new() };
    Order { id: placed.id, customer: String::new(), weight: 0.0, card, reference: None }
}

mod masked {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting { #[field] #[masked] card: u64 },
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(placed: Placed) -> (Order, Waiting) { (order(placed), Waiting { card: 1 }) }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod masked_in_the_data {
    use super::*;

    #[states(data = Order, masked(customer), fields(customer))]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(placed: Placed) -> (Order, Waiting) { (order(placed), Waiting) }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod a_part_of_what_is_masked {
    use super::*;

    #[states(data = Order, masked(card), fields(card.number))]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(placed: Placed) -> (Order, Waiting) { (order(placed), Waiting) }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod masked_in_another_state {
    use super::*;

    #[states(data = Order, fields(customer))]
    enum Process {
        Waiting { #[masked] customer: u64 },
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(placed: Placed) -> (Order, Waiting) { (order(placed), Waiting { customer: 1 }) }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod of_no_type_for_it {
    use super::*;

    #[states(data = Order, fields(weight))]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(placed: Placed) -> (Order, Waiting) { (order(placed), Waiting) }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod of_a_state_with_no_type_for_it {
    use super::*;

    #[states]
    enum Process {
        Waiting { #[field] weights: Vec<u8> },
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting { weights: Vec::new() } }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod no_such_field {
    use super::*;

    #[states(data = Order, fields(custmer))]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(placed: Placed) -> (Order, Waiting) { (order(placed), Waiting) }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod with_an_argument {
    use super::*;

    #[states]
    enum Process {
        Waiting { #[field(unique)] parcel: u64 },
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting { parcel: 1 } }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod of_a_struct_of_ones_own {
    use super::*;

    #[states]
    enum Process {
        Waiting(#[field] Own),
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Own { Own { parcel: 1 } }
        fn paid(_: Own, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod twice {
    use super::*;

    #[states(data = Order, fields(customer))]
    enum Process {
        Waiting { #[field] customer: u64 },
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(placed: Placed) -> (Order, Waiting) { (order(placed), Waiting { customer: 1 }) }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod an_alias {
    use super::*;

    #[states(data = Order, fields(reference))]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64, alias(reference = Settled.reference))]
    impl Process {
        fn placed(placed: Placed) -> (Order, Waiting) { (order(placed), Waiting) }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
        fn settled(_: Waiting, _: Settled) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod before_the_data {
    use super::*;

    #[states(fields(customer), data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(placed: Placed) -> (Order, Waiting) { (order(placed), Waiting) }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod masked_by_its_name_in_json {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub struct Card { card_number: String }

    #[states(data = Card, masked("cardNumber"), fields(card_number))]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> (Card, Waiting) { (Card { card_number: String::new() }, Waiting) }
        fn paid(_: Waiting, _: Yes, _: &mut Card) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod too_many {
    use super::*;

    #[states]
    enum Process {
        Waiting { #[field] a: u64, #[field] b: u64, #[field] c: u64, #[field] d: u64, #[field] e: u64, #[field] f: u64,
            #[field] g: u64, #[field] h: u64, #[field] i: u64 },
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting { a: 1, b: 1, c: 1, d: 1, e: 1, f: 1, g: 1, h: 1, i: 1 } }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

fn main() {
    masked::chart();
    masked_in_the_data::chart();
    a_part_of_what_is_masked::chart();
    masked_in_another_state::chart();
    of_no_type_for_it::chart();
    of_a_state_with_no_type_for_it::chart();
    no_such_field::chart();
    with_an_argument::chart();
    of_a_struct_of_ones_own::chart();
    twice::chart();
    an_alias::chart();
    before_the_data::chart();
    too_many::chart();
    masked_by_its_name_in_json::chart();
}
