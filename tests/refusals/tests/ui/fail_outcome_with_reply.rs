// The attribute that `derive(Reply)` has replaced.
include!("common.rs");

#[derive(Outcome)]
#[outcome(reply)]
enum Wrong { No(No) }

fn main() {}
