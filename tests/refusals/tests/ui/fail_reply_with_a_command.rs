// A command as the answer of a saga.
include!("common.rs");

fn wrong() -> Replies<Pay> {
    reply(Pay { id: 1 })
}

fn main() {}
