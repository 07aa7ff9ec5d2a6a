// A timer that only the state before takes.
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
    fn paid(_: Waiting, _: Yes) -> (Done, After<Overdue>) { (Done, after(seconds(1), Overdue {})) }
    fn overdue(_: Waiting, _: Overdue) -> Done { Done }
}

fn main() {
    Process::chart();
}
