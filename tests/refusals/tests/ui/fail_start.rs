// Sagas that do not begin as they must.
include!("common.rs");

#[derive(Serialize, Deserialize)]
pub struct Order {}

mod none {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod without_the_data {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
    }

    pub fn chart() { Process::chart(); }
}

mod with_the_data_in_the_wrong_place {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> (Waiting, Order) { (Waiting, Order {}) }
    }

    pub fn chart() { Process::chart(); }
}

mod with_other_data {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> (u64, Waiting) { (1, Waiting) }
    }

    pub fn chart() { Process::chart(); }
}

mod with_data_that_the_states_do_not_share {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> (Order, Waiting) { (Order {}, Waiting) }
    }

    pub fn chart() { Process::chart(); }
}

mod with_branches_without_the_data {
    use super::*;

    #[states(data = Order)]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[derive(Then)]
    pub enum Branches { Wait(Waiting), End(Done) }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Branches { Branches::End(Done) }
    }

    pub fn chart() { Process::chart(); }
}

fn main() {
    none::chart();
    without_the_data::chart();
    with_the_data_in_the_wrong_place::chart();
    with_other_data::chart();
    with_data_that_the_states_do_not_share::chart();
    with_branches_without_the_data::chart();
}
