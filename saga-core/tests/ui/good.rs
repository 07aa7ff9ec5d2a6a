use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Placed { id: u64 }
#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = Paid)]
struct Pay { id: u64 }
#[derive(Outcome)]
enum Paid { Yes(Yes), No(No) }
#[derive(Event, Serialize, Deserialize)]
struct Yes {}
#[derive(Event, Serialize, Deserialize)]
struct No { order: Order }
#[derive(Serialize, Deserialize)]
struct Order { id: u64 }
#[derive(Event, Serialize, Deserialize)]
#[event(name = "shop.cancel")]
struct Cancel { id: u64 }
#[derive(Message, Serialize, Deserialize)]
struct Overdue {}
#[derive(Message, Serialize, Deserialize)]
struct GiveUp {}

#[derive(Saga)]
#[saga(name = "order", id = id: u64, version = 2)]
#[starts(Placed)]
#[on(Cancel)]
#[timer(GiveUp)]
enum Process {
    #[on(Yes by echo, No by order.id)]
    #[timer(Overdue)]
    Waiting(Waiting),
    #[done]
    #[ignores(Yes by echo)]
    Done(Done),
}
#[derive(Serialize, Deserialize)]
struct Waiting;
#[derive(Serialize, Deserialize)]
struct Done;

#[derive(Then)]
enum Branches { Again((Waiting, Keep)), End((Done, Option<Publishes<Cancel>>, Vec<Replies<Yes>>)) }

impl Starts<Placed> for Process {
    type Then = (Waiting, Sends<Pay>, After<Overdue>, Deadline<GiveUp>);
    fn start(placed: Placed, _: &Moment) -> Self::Then {
        (Waiting, send(Pay { id: placed.id }), after(seconds(5), Overdue {}), deadline(days(2), GiveUp {}))
    }
}
impl On<Yes> for Waiting {
    type Then = Branches;
    fn on(self, _: Yes, _: &Moment) -> Branches {
        Branches::End((Done, Some(publish(Cancel { id: 1 })), vec![reply(Yes {})]))
    }
}
impl On<No> for Waiting {
    type Then = Either<Done, Branches>;
    fn on(self, _: No, _: &Moment) -> Self::Then { Either::B(Branches::Again((self, Keep))) }
}
impl On<Overdue> for Waiting {
    type Then = Done;
    fn on(self, _: Overdue, _: &Moment) -> Done { Done }
}
impl On<Cancel> for Process {
    type Then = Stay<Self>;
    fn on(self, _: Cancel, _: &Moment) -> Stay<Self> { Stay(self) }
}
impl On<GiveUp> for Process {
    type Then = Done;
    fn on(self, _: GiveUp, _: &Moment) -> Done { Done }
}

fn main() {
    let chart = Process::chart();
    assert_eq!(chart.verify(), [] as [String; 0]);
    assert_eq!((chart.version, Yes::TYPE, Cancel::TYPE, Pay::TYPE), (2, "Yes", "shop.cancel", "bank.Pay"));
    assert!(chart.edges.iter().any(|edge| edge.branch == "Again" && edge.on == "No"), "{chart:#?}");
}
