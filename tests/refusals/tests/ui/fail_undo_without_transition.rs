// An undo whose outcome the state that undoes does not take.
include!("common.rs");
use sagabus::saga::{SendsAny, Undo};

#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = Returned)]
struct PayBack { id: u64 }
#[derive(Outcome)]
enum Returned { Back(Back), Kept(Kept) }
#[derive(Reply, Serialize, Deserialize)]
struct Back { id: u64 }
#[derive(Reply, Serialize, Deserialize)]
struct Kept { id: u64 }

#[derive(Serialize, Deserialize)]
struct Order { undo: Undo<(PayBack,)> }

#[states(data = Order)]
enum Process {
    Paying,
    Undoing,
    #[done]
    Done,
}

#[saga(name = "order", id = id: u64)]
impl Process {
    fn new(it: Placed) -> (Order, Paying, Sends<Pay>) { (Order { undo: Undo::new() }, Paying, send(Pay { id: it.id })) }
    fn yes(it: Paying, yes: Yes, order: &mut Order) -> Paying {
        order.undo.push(PayBack { id: yes.id });
        it
    }
    fn no(_: Paying, _: No, order: &mut Order) -> Either<(Undoing, SendsAny<(PayBack,)>), Done> {
        match order.undo.undo_all() {
            Either::A(undo) => Either::A((Undoing, undo)),
            Either::B(()) => Either::B(Done),
        }
    }
    fn back(_: Undoing, _: Back) -> Done { Done }
}

fn main() {
    Process::chart();
}
