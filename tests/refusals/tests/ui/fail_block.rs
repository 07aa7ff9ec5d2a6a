// Blocks that are not those of an enum's transitions.
include!("common.rs");

mod of_a_trait {
    use super::*;

    #[states]
    enum Process { Waiting }

    #[saga(name = "order", id = id: u64)]
    impl Clone for Process {
        fn clone(&self) -> Self { panic!() }
    }
}

mod with_a_path {
    use super::*;

    #[states]
    enum Process { Waiting }

    #[saga(name = "order", id = id: u64)]
    impl self::Process {
        fn placed(_: Placed) -> Waiting { Waiting }
    }
}

mod at_the_enum {
    use super::*;

    #[saga(name = "order", id = id: u64)]
    enum Process { Waiting }
}

mod states_at_the_block {
    use super::*;

    enum Process { Waiting }

    #[states]
    impl Process {
        fn placed(_: Placed) -> Process { Process::Waiting }
    }
}

mod states_of_a_struct {
    use super::*;

    #[states]
    struct Process;

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Process { Process }
    }
}

fn main() {}
