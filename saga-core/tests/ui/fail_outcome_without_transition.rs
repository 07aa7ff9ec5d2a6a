// A saga that sends a command and waits in a state that misses one of the outcomes.
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
    type Then = (Waiting, Sends<Pay>);
    fn start(placed: Placed, _: &Moment) -> Self::Then { (Waiting, send(Pay { id: placed.id })) }
}

impl On<Yes> for Waiting {
    type Then = Done;
    fn on(self, _: Yes, _: &Moment) -> Done { Done }
}

fn main() {}
