// A timer that nobody takes.
include!("common.rs");

#[states]
enum Process {
    Waiting,
    #[done]
    Done,
}

#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(_: Placed) -> (Waiting, After<Overdue>) { (Waiting, after(seconds(1), Overdue {})) }
    fn paid(_: Waiting, _: Yes) -> Done { Done }
}

fn main() {
    Process::chart();
}
