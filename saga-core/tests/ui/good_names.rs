// The derive takes no name from the user's module, and warns of nothing.
#![deny(warnings)]
include!("common.rs");

#[derive(Saga)]
#[saga(name = "order", id = id: u64)]
#[starts(Placed)]
#[on(Yes from anyone)]
#[timer(Overdue)]
enum Process {
    #[on(Pay, No by id)]
    Waiting(Waiting),
    #[done]
    Done(Done),
}

#[allow(dead_code)]
enum ProcessIn { Mine }
mod derived {}

impl Process {
    fn is_done(&self) -> bool { matches!(self, Self::Done(_)) }
    fn step(&self) -> u8 { 1 }
    fn load() -> u8 { 2 }
    fn store(&self) -> u8 { 3 }
    fn read() -> u8 { 4 }
    fn id(&self) -> u8 { 5 }
}

impl Starts<Placed> for Process {
    type Then = Waiting;
    fn start(_: Placed, _: &Moment) -> Waiting { Waiting }
}
impl On<Pay> for Waiting {
    type Then = (Waiting, Sends<Pay>, After<Overdue>, Keeps, Keep);
    fn on(self, _: Pay, _: &Moment) -> Self::Then {
        (Waiting, send(Pay { id: 1 }), after(seconds(1), Overdue {}), None, Keep)
    }
}
type Keeps = Option<Replies<No>>;

impl On<No> for Waiting {
    type Then = Done;
    fn on(self, _: No, _: &Moment) -> Done { Done }
}

impl On<Yes> for Process {
    type Then = Done;
    fn on(self, _: Yes, _: &Moment) -> Done { Done }
}

impl On<Overdue> for Process {
    type Then = Done;
    fn on(self, _: Overdue, _: &Moment) -> Done { Done }
}

// a saga whose only state takes nothing, and one of whose messages every one is taken
#[derive(Serialize, Deserialize)]
struct Finished;
#[derive(Saga)]
#[saga(name = "short", id = id: u64)]
#[starts(Placed)]
enum Short {
    #[done]
    Finished(Finished),
}
impl Starts<Placed> for Short {
    type Then = Finished;
    fn start(_: Placed, _: &Moment) -> Finished { Finished }
}

#[derive(Serialize, Deserialize)]
struct Counting(u32);
#[derive(Saga)]
#[saga(name = "full", id = id: u64)]
#[starts(Placed)]
#[on(Placed)]
enum Full { Counting(Counting) }
impl Starts<Placed> for Full {
    type Then = Counting;
    fn start(_: Placed, _: &Moment) -> Counting { Counting(0) }
}
impl On<Placed> for Full {
    type Then = Counting;
    fn on(self, _: Placed, _: &Moment) -> Counting { let Self::Counting(Counting(n)) = self; Counting(n + 1) }
}

// names that are keywords
#[derive(Event, Serialize, Deserialize)]
#[allow(non_camel_case_types)]
struct r#match { r#type: u64 }
#[derive(Serialize, Deserialize)]
struct Playing;
#[derive(Saga)]
#[saga(name = "match", id = r#type: u64)]
#[starts(r#match)]
#[allow(non_camel_case_types)]
enum Match {
    #[done]
    r#try(Playing),
}
impl Starts<r#match> for Match {
    type Then = Playing;
    fn start(_: r#match, _: &Moment) -> Playing { Playing }
}

fn main() {
    let chart = Match::chart();
    assert_eq!((chart.states[0].name.as_str(), chart.subscribes()), ("try", vec!["match"]));
    let at = Moment::at(std::time::SystemTime::UNIX_EPOCH);
    let Waiting = Process::start(Placed { id: 1 }, &at);
    let process = Process::from(Waiting);
    assert!(!process.is_done());
    assert_eq!([process.step(), Process::load(), process.store(), Process::read(), process.id()], [1, 2, 3, 4, 5]);
    assert_eq!(Process::chart().subscribes(), ["Placed", "Yes"]);
    let Counting(n) = Full::from(Full::start(Placed { id: 1 }, &at)).on(Placed { id: 1 }, &at);
    assert_eq!(n, 1);
    assert_eq!(Short::chart().verify(), [] as [String; 0]);
}
