// A command that is published.
include!("common.rs");

fn wrong() -> Publishes<Pay> {
    publish(Pay { id: 1 })
}

fn main() {}
