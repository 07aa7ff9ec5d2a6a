// A message that is no serde type.
include!("common.rs");

#[derive(Event)]
struct Bare { id: u64 }

fn main() {}
