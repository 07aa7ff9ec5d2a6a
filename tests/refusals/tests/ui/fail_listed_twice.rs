// A message of which a state says two things.
include!("common.rs");

mod ignored_and_taken {
    use super::*;

    #[states]
    enum Process {
        #[ignores(Yes)]
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod ignored_and_deferred {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        #[ignores(Yes)]
        #[defers(Yes)]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

fn main() {
    ignored_and_taken::chart();
    ignored_and_deferred::chart();
}
