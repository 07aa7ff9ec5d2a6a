// Words at functions that mean nothing.
include!("common.rs");

mod on {
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
        #[on(everyone)]
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod on_empty {
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
        #[on]
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod starts {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        #[starts(refuse)]
        fn placed(_: Placed) -> Waiting { Waiting }
    }

    pub fn chart() { Process::chart(); }
}

mod starts_at_a_transition {
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
        #[starts(reject)]
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod starts_with_both {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        #[starts(reject)]
        #[starts(return)]
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

fn main() {
    starts_with_both::chart();
    on::chart();
    on_empty::chart();
    starts::chart();
    starts_at_a_transition::chart();
}
