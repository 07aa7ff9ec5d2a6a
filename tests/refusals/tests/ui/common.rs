// What the cases have in common.
#[allow(unused_imports)]
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct Placed { id: u64 }
#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = Paid)]
struct Pay { id: u64 }
#[derive(Outcome)]
enum Paid { Yes(Yes), No(No) }
#[derive(Event, Serialize, Deserialize)]
struct Yes { id: u64 }
#[derive(Reply, Serialize, Deserialize)]
struct No { id: u64 }
#[derive(Message, Serialize, Deserialize)]
struct Overdue {}
