// A timer that nobody handles.
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
    type Then = (Waiting, After<Overdue>);
    fn start(_: Placed, _: &Moment) -> Self::Then { (Waiting, after(seconds(1), Overdue {})) }
}

impl On<Yes> for Waiting {
    type Then = Done;
    fn on(self, _: Yes, _: &Moment) -> Done { Done }
}

fn main() {}
