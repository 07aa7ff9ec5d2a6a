// A function that takes a type that is no message.
include!("common.rs");

struct Nothing { id: u64 }

#[states]
enum Process {
    Waiting,
    #[done]
    Done,
}

#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(_: Placed) -> Waiting { Waiting }
    fn wrong(_: Waiting, _: Nothing) -> Done { Done }
}

fn main() {
    Process::chart();
}
