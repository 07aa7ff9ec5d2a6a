// What is wrong with the attribute of a message is told there: who uses the message adds nothing.
include!("common.rs");

use sagabus::testing::MemoryStore as Memory;

#[derive(Event, Serialize, Deserialize)]
#[event(from = ordering)]
struct Ended { id: u64 }
#[derive(Message, Serialize, Deserialize)]
#[message(name = order.Late)]
struct Late {}
#[derive(Command, Serialize, Deserialize)]
#[command(to = stock, outcom = Stocked, priority = "low")]
struct Reserve { id: u64 }
#[derive(Outcome)]
enum Stocked { Reserved { it: Reserved }, Short(Short) }
#[derive(Reply, Serialize, Deserialize)]
#[reply(form = "stock")]
struct Reserved { id: u64 }
#[derive(Reply, Serialize, Deserialize)]
struct Short { id: u64 }

#[states]
enum Process { Waiting, #[done] Done }
#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(it: Placed) -> (Waiting, Sends<Reserve>, After<Late>, Publishes<Ended>) {
        let id = it.id;
        (Waiting, send(Reserve { id }), after(seconds(1), Late {}), publish(Ended { id }))
    }
    fn reserved(_: Waiting, _: Reserved) -> Done { Done }
    fn short(_: Waiting, _: Short) -> (Done, Publishes<Ended>) { (Done, publish(Ended { id: 1 })) }
    fn late(_: Waiting, _: Late) -> Done { Done }
}

struct Stock;

#[handlers]
impl Stock {
    async fn reserve(&self, it: Reserve, cx: &mut Context<'_, Memory>) -> Result<Stocked, HandlerError> {
        cx.publish(Ended { id: it.id });
        Ok(Reserved { id: it.id }.into())
    }
}

fn used(endpoint: sagabus::endpoint::EndpointBuilder<Memory>) -> sagabus::endpoint::EndpointBuilder<Memory> {
    endpoint.saga::<Process>().handlers(Stock)
}

mod saga_without_quotes {
    use super::*;

    #[states]
    enum Other { Waiting, #[done] Done }
    #[saga(name = order, id = id: u64)]
    impl Other {
        fn placed(_: Placed) -> Waiting { Waiting }
    }
}

mod saga_with_a_misspelt_word {
    use super::*;

    #[states]
    enum Third { Waiting, #[done] Done }
    #[saga(nme = "order", id = id: u64)]
    impl Third {
        fn placed(_: Placed) -> Waiting { Waiting }
    }
}

fn main() {}
