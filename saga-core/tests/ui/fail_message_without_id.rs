// A message without the id field.
include!("common.rs");

#[derive(Event, Serialize, Deserialize)]
struct Anonymous { name: String }

#[derive(Saga)]
#[saga(name = "order", id = id: u64)]
#[starts(Placed)]
enum Process {
    #[on(Yes, Anonymous)]
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

impl On<Anonymous> for Waiting {
    type Then = Done;
    fn on(self, _: Anonymous, _: &Moment) -> Done { Done }
}

fn main() {}
