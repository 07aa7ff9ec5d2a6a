// A reply that is published: only whoever asked gets it.
include!("common.rs");

fn wrong() -> Publishes<No> {
    publish(No { id: 1 })
}

fn main() {}
