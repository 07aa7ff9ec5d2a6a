// A saga that begins with a command and waits in a state that misses one of the outcomes.
include!("common.rs");

#[states]
enum Process {
    Waiting,
    #[done]
    Done,
}

#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(placed: Placed) -> (Waiting, Sends<Pay>) { (Waiting, send(Pay { id: placed.id })) }
    fn paid(_: Waiting, _: Yes) -> Done { Done }
}

fn main() {
    Process::chart();
}
