// What the cases have in common.
#[allow(unused_imports)]
use saga_core::{Command, Event, Message, Moment, On, Outcome, Saga, Sends, Starts, send};
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
#[derive(Event, Serialize, Deserialize)]
struct No { id: u64 }
#[derive(Message, Serialize, Deserialize)]
struct Overdue {}
#[derive(Serialize, Deserialize)]
struct Waiting;
#[derive(Serialize, Deserialize)]
struct Done;
