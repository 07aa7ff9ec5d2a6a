// Names that cannot travel.
include!("common.rs");

#[derive(Event, Serialize, Deserialize)]
#[event(name = "")]
struct Nameless { id: u64 }

#[derive(Command, Serialize, Deserialize)]
#[command(to = "")]
struct ToNobody { id: u64 }

#[derive(Event, Serialize, Deserialize)]
#[event(from = "two\nlines")]
struct Lines { id: u64 }

#[derive(Event, Serialize, Deserialize)]
struct Generic<T> { id: T }

fn main() {}
