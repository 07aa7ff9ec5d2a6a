// An undo that nothing confirms.
include!("common.rs");
use sagabus::saga::Undo;

#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank")]
struct PayBack { id: u64 }

fn main() {
    let mut undo = Undo::<(Pay, PayBack)>::new();
    undo.push(PayBack { id: 7 });
}
