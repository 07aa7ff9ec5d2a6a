// A transition of the whole enum into a state that misses one of the outcomes.
include!("common.rs");

#[states]
enum Process {
    Waiting,
    #[done]
    Done,
}

#[saga(name = "order", id = id: u64)]
impl Process {
    fn placed(_: Placed) -> Waiting { Waiting }
    fn paid(self, yes: Yes) -> (Waiting, Sends<Pay>) { (Waiting, send(Pay { id: yes.id })) }
}

fn main() {
    Process::chart();
}
