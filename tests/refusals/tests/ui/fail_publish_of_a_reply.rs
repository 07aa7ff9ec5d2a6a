// A reply that is published: only whoever asked gets it.
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
    fn paid(_: Waiting, _: Yes) -> (Done, Publishes<No>) { (Done, publish(No { id: 1 })) }
}

fn main() {}
