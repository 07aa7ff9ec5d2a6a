// `#[states]` without a `#[saga]` block.
include!("common.rs");

#[states]
enum Process {
    Waiting,
    #[done]
    Done,
}

fn main() {
    Process::from(Done);
}
