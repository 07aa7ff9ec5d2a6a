// `#[saga]` without `#[states]` above it.
include!("common.rs");

mod none {
    use super::*;

    enum Process {
        Waiting,
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { let _: Option<Process> = None; }
}

fn main() {
    none::chart();
}
