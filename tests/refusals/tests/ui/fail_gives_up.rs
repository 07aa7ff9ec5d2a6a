// Commands that are given up.
include!("common.rs");

#[derive(Command, Serialize, Deserialize)]
#[command(to = "labels", outcome = Paid, gives_up = BarcodeFailed)]
struct MakeBarcode { id: u64 }
#[derive(Reply, Serialize, Deserialize)]
struct BarcodeFailed { id: u64 }

impl GiveUp<MakeBarcode> for BarcodeFailed {
    fn give_up(command: MakeBarcode, _: &str) -> Self { Self { id: command.id } }
}

mod nobody_takes_it {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(it: Placed) -> (Waiting, Sends<MakeBarcode>) { (Waiting, send(MakeBarcode { id: it.id })) }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
        fn declined(_: Waiting, _: No) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod it_is_not_said_how {
    use super::*;

    #[derive(Command, Serialize, Deserialize)]
    #[command(to = "labels", gives_up = No)]
    struct MakeLabel { id: u64 }
}

mod it_is_given_twice {
    use super::*;

    #[derive(Command, Serialize, Deserialize)]
    #[command(to = "labels", gives_up = BarcodeFailed, gives_up = BarcodeFailed)]
    struct MakeLabel { id: u64 }
}

mod a_request_without_an_outcome {
    use super::*;

    #[derive(Command, Serialize, Deserialize)]
    #[command(to = "labels")]
    struct Forget { id: u64 }

    pub fn forget<Db: Store>(endpoint: &Endpoint<Db>) {
        let _ = endpoint.request(Forget { id: 1 });
    }
}

fn main() {
    nobody_takes_it::chart();
}
