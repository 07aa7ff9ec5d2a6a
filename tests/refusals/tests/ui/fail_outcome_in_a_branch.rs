// A named branch into a state that misses one of the outcomes.
include!("common.rs");

#[states]
enum Process {
    Waiting,
    #[done]
    Done,
}

#[derive(Then)]
enum Branches {
    End(Done),
    Again((Waiting, Sends<Pay>)),
}

#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(_: Placed) -> Waiting { Waiting }
    fn paid(_: Waiting, _: Yes) -> Branches { Branches::End(Done) }
}

fn main() {
    Process::chart();
}
