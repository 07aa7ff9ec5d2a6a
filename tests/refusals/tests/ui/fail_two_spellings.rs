// One message type under two spellings.
include!("common.rs");

mod messages { pub(crate) use super::Yes; }

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
    fn again(_: Done, _: messages::Yes) -> Done { Done }
}

fn main() {
    Process::chart();
}
