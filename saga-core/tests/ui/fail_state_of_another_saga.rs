// A transition into a state of another saga.
include!("common.rs");

#[derive(Serialize, Deserialize)]
struct Elsewhere;

#[derive(Saga)]
#[saga(name = "order", id = id: u64)]
#[starts(Placed)]
enum Other {
    #[done]
    Elsewhere(Elsewhere),
}

impl Starts<Placed> for Other {
    type Then = Elsewhere;
    fn start(_: Placed, _: &Moment) -> Elsewhere { Elsewhere }
}

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
    type Then = Elsewhere;
    fn on(self, _: Yes, _: &Moment) -> Elsewhere { Elsewhere }
}

fn main() {}
