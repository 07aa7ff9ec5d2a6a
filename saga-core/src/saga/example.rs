// What the examples of `Then` and of the effects have in common; each adds `impl On<Scanned> for Travelling`.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct ParcelPacked { id: u64 }
#[derive(Event, Serialize, Deserialize)]
#[event(from = "carrier")]
struct Scanned { id: u64, place: String, fees: Vec<i64> }

#[derive(Command, Serialize, Deserialize)]
#[command(to = "customs")]
struct PayFee { id: u64, cents: i64 }
#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct ParcelMoved { id: u64, place: String }
#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "shop")]
struct ParcelArrived { id: u64 }

#[derive(Message, Serialize, Deserialize)]
struct Silent {}
#[derive(Message, Serialize, Deserialize)]
struct Lost {}

#[derive(Serialize, Deserialize)]
struct Travelling { id: u64, scans: u32 }
#[derive(Serialize, Deserialize)]
struct Arrived;

#[derive(Saga)]
#[saga(name = "parcel", id = id: u64)]
#[starts(ParcelPacked)]
#[timer(Lost)]
enum Parcel {
    #[on(Scanned)]
    #[timer(Silent)]
    Travelling(Travelling),
    #[done]
    Arrived(Arrived),
}

impl Starts<ParcelPacked> for Parcel {
    type Then = Travelling;
    fn start(packed: ParcelPacked, _: &Moment) -> Travelling { Travelling { id: packed.id, scans: 0 } }
}
impl On<Silent> for Travelling {
    type Then = Arrived;
    fn on(self, _: Silent, _: &Moment) -> Arrived { Arrived }
}
impl On<Lost> for Parcel {
    type Then = Arrived;
    fn on(self, _: Lost, _: &Moment) -> Arrived { Arrived }
}
