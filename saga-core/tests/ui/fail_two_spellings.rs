// One message type under two spellings.
include!("common.rs");

mod messages { pub(crate) use super::Yes; }

#[derive(Serialize, Deserialize)]
struct Other;
#[derive(Saga)]
#[saga(name = "order", id = id: u64)]
#[starts(Placed)]
enum Process {
    #[on(Yes)]
    Waiting(Waiting),
    #[on(messages::Yes)]
    Other(Other),
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

impl On<Yes> for Other {
    type Then = Done;
    fn on(self, _: Yes, _: &Moment) -> Done { Done }
}

fn main() {}
