// Attributes that nobody knows, at a state, at a transition, at a handler.
include!("common.rs");

use sagabus::testing::MemoryStore as Memory;

mod at_a_state {
    use super::*;

    #[states]
    enum Process {
        #[ignored(No)]
        Waiting,
        #[finished]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod at_a_transition {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        #[start(reject)]
        fn placed(_: Placed) -> Waiting { Waiting }
        #[anyone]
        fn paid(_: Waiting, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod at_a_handler {
    use super::*;
    pub struct Bank;

    #[handlers]
    impl Bank {
        #[retries(Retries::none())]
        async fn pay(&self, _: Pay, _: &mut Context<'_, Memory>) -> Result<Paid, HandlerError> { todo!() }
    }
}

fn main() {
    at_a_state::chart();
    at_a_transition::chart();
    let _ = |builder: sagabus::endpoint::EndpointBuilder<Memory>| builder.handlers(at_a_handler::Bank);
}
