// Messages that do not say which instance is meant.
include!("common.rs");

#[derive(Event, Serialize, Deserialize)]
pub struct Anonymous { name: String }
#[derive(Event, Serialize, Deserialize)]
pub struct Text { id: String }
pub struct Nothing { id: u64 }

mod no_field {
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
        fn wrong(_: Waiting, _: Anonymous) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod of_another_type {
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
        fn wrong(_: Waiting, _: Text) -> Done { Done }
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
        fn wrong(self, _: Anonymous) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod at_a_start {
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
        fn wrong(_: Anonymous) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod ignored {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        #[ignores(Anonymous)]
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
    no_field::chart();
    of_another_type::chart();
    of_the_enum::chart();
    at_a_start::chart();
    ignored::chart();
}
