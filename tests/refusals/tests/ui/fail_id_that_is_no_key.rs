// An id of a type that cannot be a key.
include!("common.rs");

#[derive(Event, Serialize, Deserialize)]
struct Weighed { id: f64 }

#[states]
enum Process {
    Waiting,
    #[done]
    Done,
}

#[saga(name = "order", id = id: f64)]
impl Process {
    fn placed(_: Weighed) -> Waiting { Waiting }
    fn weighed(_: Waiting, _: Weighed) -> Done { Done }
}

fn main() {
    Process::chart();
}
