// An attribute of states at the enum.
include!("common.rs");

#[derive(Saga)]
#[saga(name = "order", id = id: u64)]
#[starts(Placed)]
#[ignores(Yes)]
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
    type Then = Done;
    fn on(self, _: Yes, _: &Moment) -> Done { Done }
}

fn main() {}
