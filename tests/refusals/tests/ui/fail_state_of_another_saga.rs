// A transition into a state of another saga.
include!("common.rs");

#[states]
enum Other {
    Elsewhere,
}

#[saga(name = "other", id = id: u64)]
impl Other {
    fn placed(_: Placed) -> Elsewhere { Elsewhere }
}

#[states]
enum Process {
    Waiting,
    #[done]
    Done,
}

#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(_: Placed) -> Waiting { Waiting }
    fn paid(_: Waiting, _: Yes) -> Elsewhere { Elsewhere }
}

fn main() {
    Process::chart();
}
