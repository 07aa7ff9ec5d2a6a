// What the examples of `Then` and of the effects have in common; each adds the `#[saga]` block of `Parcel`.
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

#[states]
enum Parcel {
    Travelling { id: u64, scans: u32 },
    #[done]
    Arrived,
}
