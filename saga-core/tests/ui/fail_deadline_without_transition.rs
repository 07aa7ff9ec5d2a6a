// A deadline that the enum does not handle.
include!("common.rs");

#[derive(Saga)]
#[saga(name = "order", id = id: u64)]
#[starts(Placed)]
enum Process {
    #[on(Yes)]
    #[timer(Overdue)]
    Waiting(Waiting),
    #[done]
    Done(Done),
}
impl Starts<Placed> for Process {
    type Then = (Waiting, Deadline<Overdue>);
    fn start(_: Placed, _: &Moment) -> Self::Then { (Waiting, deadline(seconds(1), Overdue {})) }
}
impl On<Overdue> for Waiting {
    type Then = Done;
    fn on(self, _: Overdue, _: &Moment) -> Done { Done }
}

impl On<Yes> for Waiting {
    type Then = Done;
    fn on(self, _: Yes, _: &Moment) -> Done { Done }
}

fn main() {}
