// A message that is no serde type, where it is used.
include!("common.rs");

use sagabus::testing::MemoryStore as Memory;

#[derive(Event)]
struct Bare { id: u64 }
#[derive(Command)]
#[command(to = "bank", outcome = Asked)]
struct Ask { id: u64 }
#[derive(Outcome)]
enum Asked { Bare(Bare) }
#[derive(Message)]
struct Late {}

#[states]
enum Process {
    Waiting,
    #[done]
    Done,
}

#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(_: Placed) -> (Waiting, Sends<Ask>, After<Late>) {
        (Waiting, send(Ask { id: 1 }), after(seconds(1), Late {}))
    }
    fn bare(_: Waiting, bare: Bare) -> (Done, Publishes<Bare>) { (Done, publish(bare)) }
    fn late(_: Waiting, _: Late) -> Done { Done }
}

struct Bank;

#[handlers]
impl Bank {
    async fn ask(&self, ask: Ask, _: &mut Context<'_, Memory>) -> Result<Asked, HandlerError> {
        Ok(Bare { id: ask.id }.into())
    }
    async fn bare(&self, _: Bare, _: &mut Context<'_, Memory>) -> Result<(), HandlerError> { Ok(()) }
}

fn main() {
    let _ = |builder: sagabus::endpoint::EndpointBuilder<Memory>| builder.saga::<Process>().handlers(Bank);
}
