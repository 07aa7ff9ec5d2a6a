// Functions that are no transitions.
include!("common.rs");

#[derive(Serialize, Deserialize)]
pub struct Order {}
pub struct Nothing;

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
        fn wrong(_: Nothing, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod swapped {
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
        fn wrong(_: Yes, _: Waiting) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod without_a_message {
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
        fn wrong(_: Waiting) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod self_alone {
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
        fn wrong(self) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod borrowed_self {
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
        fn wrong(&self, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod borrowed_state {
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
        fn wrong(_: &Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod two_messages {
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
        fn wrong(_: Waiting, _: Yes, _: No) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod asynchronous {
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
        async fn wrong(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod generic {
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
        fn wrong<T>(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod generic_in_its_message {
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
        fn wrong(_: Waiting, _: impl Event) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod returns_nothing {
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
        fn wrong(_: Waiting, _: Yes) {}
    }

    pub fn chart() { Process::chart(); }
}

mod helper {
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
        fn wrong() -> u64 { 1 }
    }

    pub fn chart() { Process::chart(); }
}

mod moment_to_change {
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
        fn wrong(_: Waiting, _: Yes, _: &mut Moment) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod no_data {
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
        fn wrong(_: Waiting, _: Yes, _: &Order) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod other_data {
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
        fn wrong(_: Waiting, _: Yes, _: &Nothing) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod data_at_a_start {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed, _: &Order) -> (Order, Waiting) { (Order {}, Waiting) }
    }

    pub fn chart() { Process::chart(); }
}

fn main() {
    not_a_state::chart();
    swapped::chart();
    without_a_message::chart();
    self_alone::chart();
    borrowed_self::chart();
    borrowed_state::chart();
    two_messages::chart();
    asynchronous::chart();
    generic::chart();
    generic_in_its_message::chart();
    returns_nothing::chart();
    helper::chart();
    moment_to_change::chart();
    no_data::chart();
    other_data::chart();
    data_at_a_start::chart();
}
