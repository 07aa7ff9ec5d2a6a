// An event as a timer.
include!("common.rs");

#[states]
enum Process {
    Waiting,
    #[done]
    Done,
}

#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(placed: Placed) -> (Waiting, After<Yes>) { (Waiting, after(seconds(1), Yes { id: placed.id })) }
    fn paid(_: Waiting, _: Yes) -> Done { Done }
}

fn main() {
    Process::chart();
}
