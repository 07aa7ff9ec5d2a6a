// An event that is cancelled like a timer.
include!("common.rs");

#[states]
enum Process {
    Waiting,
    #[done]
    Done,
}

#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(_: Placed) -> Waiting { Waiting }
    fn paid(_: Waiting, _: Yes) -> (Done, Cancels<Yes>) { (Done, cancel()) }
}

fn main() {
    Process::chart();
}
