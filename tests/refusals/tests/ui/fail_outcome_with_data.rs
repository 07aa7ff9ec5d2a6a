// The same where the states share data.
include!("common.rs");

#[derive(Serialize, Deserialize)]
struct Order {}

#[states(data = Order)]
enum Process {
    Waiting,
    #[done]
    Done,
}

#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(placed: Placed) -> (Order, Waiting, Sends<Pay>) { (Order {}, Waiting, send(Pay { id: placed.id })) }
    fn paid(_: Waiting, _: Yes) -> Done { Done }
}

fn main() {
    Process::chart();
}
