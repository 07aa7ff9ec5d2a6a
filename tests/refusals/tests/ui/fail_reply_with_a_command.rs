// A command as the answer of a saga.
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
    fn paid(_: Waiting, _: Yes) -> (Done, Replies<Pay>) { (Done, reply(Pay { id: 1 })) }
}

fn main() {}
