// Two variants of an outcome with one message.
include!("common.rs");

#[derive(Outcome)]
enum Wrong { Yes(Yes), Again(Yes) }

fn main() {}
