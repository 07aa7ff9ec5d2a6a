// A branch into a state that misses one of the outcomes.
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
    fn paid(_: Waiting, _: Yes) -> Either<(Waiting, Option<Sends<Pay>>), Done> { Either::B(Done) }
}

fn main() {
    Process::chart();
}
