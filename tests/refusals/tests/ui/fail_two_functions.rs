// Two functions for one message.
include!("common.rs");

mod of_a_state {
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
        fn paid(_: Waiting, _: Yes) -> Done { Done }
        fn again(_: Waiting, _: Yes) -> Waiting { Waiting }
    }

    pub fn chart() { Process::chart(); }
}

mod of_the_enum {
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
        fn paid(self, _: Yes) -> Done { Done }
        fn again(self, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod at_the_start {
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
        fn again(_: Placed) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

fn main() {
    of_a_state::chart();
    of_the_enum::chart();
    at_the_start::chart();
}
