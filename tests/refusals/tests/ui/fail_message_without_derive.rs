// A derive is missing: each place that needs it says so, once.
include!("common.rs");

use sagabus::testing::MemoryStore as Memory;

#[derive(Serialize, Deserialize)]
struct Reserve { id: u64 }
#[derive(Serialize, Deserialize)]
struct Late {}

#[states]
enum Process { Waiting, #[done] Done }
#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(it: Placed) -> (Waiting, Sends<Reserve>) { (Waiting, send(Reserve { id: it.id })) }
    fn yes(_: Waiting, _: Yes) -> (Waiting, After<Late>) { (Waiting, after(seconds(1), Late {})) }
    fn late(_: Waiting, _: Late) -> Done { Done }
}

struct Stock;

#[handlers]
impl Stock {
    async fn reserve(&self, _: Reserve, _: &mut Context<'_, Memory>) -> Result<(), HandlerError> { Ok(()) }
}

fn main() {}
