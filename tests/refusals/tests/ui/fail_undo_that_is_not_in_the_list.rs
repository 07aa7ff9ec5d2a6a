// A command that is not among those of the stack.
include!("common.rs");
use sagabus::saga::Undo;

#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = Paid)]
struct PayBack { id: u64 }

#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank")]
struct Open { id: u64 }

fn main() {
    let mut undo = Undo::<(Pay, Open)>::new();
    undo.push(PayBack { id: 7 });
}
