// Results that are no transitions.
include!("common.rs");

#[derive(Serialize, Deserialize)]
pub struct Order {}

mod not_a_state {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> u64 { 1 }
    }

    pub fn chart() { Process::chart(); }
}

mod not_an_effect {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> (Done, u64) { (Done, 1) }
    }

    pub fn chart() { Process::chart(); }
}

mod the_enum {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> Process { Done.into() }
    }

    pub fn chart() { Process::chart(); }
}

mod two_states {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> (Waiting, Done) { (Waiting, Done) }
    }

    pub fn chart() { Process::chart(); }
}

mod stay_in_a_state {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(waiting: Waiting, _: Yes) -> Stay<Waiting> { Stay(waiting) }
    }

    pub fn chart() { Process::chart(); }
}

mod data {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order {}, Waiting) }
        fn paid(_: Waiting, _: Yes) -> (Order, Done) { (Order {}, Done) }
    }

    pub fn chart() { Process::chart(); }
}

fn main() {
    not_a_state::chart();
    not_an_effect::chart();
    the_enum::chart();
    two_states::chart();
    stay_in_a_state::chart();
    data::chart();
}
