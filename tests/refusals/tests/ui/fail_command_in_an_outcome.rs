// An outcome that holds a command.
include!("common.rs");

#[derive(Outcome)]
enum Wrong { Pay(Pay), No(No) }

fn main() {}
