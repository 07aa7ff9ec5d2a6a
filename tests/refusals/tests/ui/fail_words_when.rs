// States of a function that are none, or have it already.
include!("common.rs");

mod when {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[ignores(Overdue)]
        Paused,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        #[when(Waiting)]
        fn placed(_: Placed) -> Waiting { Waiting }
        #[when(Waiting, Payed)]
        fn paid(self, _: Yes) -> Done { Done }
        #[when(Waiting, Paused, Waiting)]
        fn declined(self, _: No) -> Done { Done }
        #[when]
        fn overdue(self, _: Overdue) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod when_and_of_its_own {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[ignores(No)]
        Paused,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
        #[when(Waiting, Paused)]
        fn paid_late(self, _: Yes) -> Done { Done }
        #[when(Waiting, Paused)]
        fn declined(self, _: No) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

fn main() {
    when::chart();
    when_and_of_its_own::chart();
}
