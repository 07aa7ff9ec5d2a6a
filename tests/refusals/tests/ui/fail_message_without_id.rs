// Messages that do not say which instance is meant.
include!("common.rs");

#[derive(Event, Serialize, Deserialize)]
pub struct Anonymous { name: String }
#[derive(Event, Serialize, Deserialize)]
pub struct Text { id: String }
#[derive(Event, Serialize, Deserialize)]
pub struct Twofold { id: u64, line: u32 }

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

mod at_a_start_of_another_type {
    use super::*;

    #[states]
    enum Process {
        #[waits]
        Waiting,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Text) -> Waiting { Waiting }
    }

    pub fn chart() { Process::chart(); }
}

mod one_of_two_parts {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = (id: u64, line: u32))]
    impl Process {
        fn placed(_: Twofold) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod a_start_by_echo {
    use super::*;

    #[states]
    enum Process {
        #[waits]
        Waiting,
    }

    #[saga(name = "order", id = id: u64, by(Placed = echo))]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
    }

    pub fn chart() { Process::chart(); }
}

fn main() {
    at_a_start_of_another_type::chart();
    one_of_two_parts::chart();
    a_start_by_echo::chart();
    no_field::chart();
    of_another_type::chart();
    of_the_enum::chart();
    at_a_start::chart();
    ignored::chart();
}
