// The same in the first branch, which also names the saga.
include!("common.rs");

#[states]
enum Process {
    Waiting,
    #[done]
    Done,
}

#[derive(Then)]
enum Branches {
    Again((Waiting, Sends<Pay>)),
    End(Done),
}

#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(_: Placed) -> Waiting { Waiting }
    fn paid(_: Waiting, _: Yes) -> Branches { Branches::End(Done) }
}

fn main() {
    Process::chart();
}
