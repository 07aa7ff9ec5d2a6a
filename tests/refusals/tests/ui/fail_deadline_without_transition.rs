// A deadline that the enum does not take.
include!("common.rs");

#[states]
enum Process {
    Waiting,
    #[done]
    Done,
}

#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(_: Placed) -> (Waiting, Deadline<Overdue>) { (Waiting, deadline(seconds(1), Overdue {})) }
    fn overdue(_: Waiting, _: Overdue) -> Done { Done }
}

fn main() {
    Process::chart();
}
