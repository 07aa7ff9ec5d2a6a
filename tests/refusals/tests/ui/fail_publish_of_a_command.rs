// A command that is published.
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
    fn paid(_: Waiting, _: Yes) -> (Done, Publishes<Pay>) { (Done, publish(Pay { id: 1 })) }
}

fn main() {}
