// States that are written wrong.
include!("common.rs");

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Own;

mod unknown_word {
    use super::*;

    #[states(date = Order)]
    enum Process {
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

mod two_fields {
    use super::*;

    #[states]
    enum Process {
        Waiting(u64, String),
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod one_struct {
    use super::*;

    #[states]
    enum Process {
        StillWaiting(Own),
        #[done]
        Done,
        Waiting(Own),
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Own { Own }
        fn paid(_: Own, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod ignore {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        #[ignore(Yes)]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod on {
    use super::*;

    #[states]
    enum Process {
        #[on(Yes)]
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

mod at_the_enum {
    use super::*;

    #[states]
    #[ignores(Yes)]
    enum Process {
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

mod done_with_words {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done(always)]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod ignores_nothing {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        #[ignores]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod generic {
    use super::*;

    #[states]
    enum Process<T> {
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

mod none {
    use super::*;

    #[states]
    enum Process {}

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Process { panic!() }
    }

    pub fn chart() { Process::chart(); }
}

mod former_names {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[was("Waiting", "Old")]
        Paid,
        #[was("Old")]
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> Paid { Paid }
        fn sent(_: Paid, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod cfg {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[cfg(unix)]
        Paid,
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

mod cfg_at_a_function {
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
        #[cfg(unix)]
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod masked_below_transparent {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct Settled { #[masked] card: u64 }
}

fn main() {
    unknown_word::chart();
    two_fields::chart();
    one_struct::chart();
    ignore::chart();
    on::chart();
    at_the_enum::chart();
    done_with_words::chart();
    ignores_nothing::chart();
    generic::chart();
    none::chart();
    former_names::chart();
    cfg::chart();
    cfg_at_a_function::chart();
}
