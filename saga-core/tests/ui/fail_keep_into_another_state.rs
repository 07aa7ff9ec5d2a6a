// `Keep` on the way into another state, in a branch.
include!("common.rs");

#[derive(Saga)]
#[saga(name = "order", id = id: u64)]
#[starts(Placed)]
enum Process {
    #[on(Yes)]
    Waiting(Waiting),
    #[done]
    Done(Done),
}

impl Starts<Placed> for Process {
    type Then = Waiting;
    fn start(_: Placed, _: &Moment) -> Waiting { Waiting }
}

impl On<Yes> for Waiting {
    type Then = Either<(Waiting, Keep), (Done, Option<Keep>)>;
    fn on(self, _: Yes, _: &Moment) -> Self::Then { Either::A((self, Keep)) }
}

fn main() {}
