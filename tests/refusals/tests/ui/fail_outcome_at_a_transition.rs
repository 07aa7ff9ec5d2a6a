// A transition into a state that misses one of the outcomes of the commands that go out.
include!("common.rs");

#[states]
enum Process {
    Waiting,
    Asking,
    #[done]
    Done,
}

#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(_: Placed) -> Waiting { Waiting }
    fn paid(_: Waiting, _: Yes) -> (Asking, Vec<Sends<Pay>>) { (Asking, vec![]) }
    fn declined(_: Asking, _: No) -> Waiting { Waiting }
}

fn main() {
    Process::chart();
}
