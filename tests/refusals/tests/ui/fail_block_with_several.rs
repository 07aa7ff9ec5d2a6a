// Blocks with several mistakes: each is told.
include!("common.rs");

use sagabus::testing::MemoryStore as Memory;

mod functions {
    use super::*;

    #[states]
    enum Process {
        Waiting,
        #[done]
        Done,
    }

    #[saga(id = id: u64, versoin = 2)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        async fn paid(_: Waiting, _: Yes) -> Done { Done }
        fn declined(_: &Waiting, _: No) -> Done { Done }
        #[on(everyone)]
        fn overdue(_: Waiting, _: Overdue) { panic!() }
    }

    pub fn chart() { Process::chart(); }
}

mod lists {
    use super::*;

    #[states]
    enum Process {
        #[ignores(No)]
        #[defers(No)]
        Waiting,
        #[done]
        #[ignores(Yes)]
        Done,
    }

    #[saga(name = "order", id = id: u64, by(Overdue = echo, Yes = (id, id)))]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn placed_again(_: Placed) -> Waiting { Waiting }
        fn paid(_: Waiting, _: Yes) -> Done { Done }
        fn paid_late(_: Done, _: Yes) -> Done { Done }
    }

    pub fn chart() { Process::chart(); }
}

mod states {
    use super::*;

    #[states(date = Order)]
    enum Process {
        Waiting(u64, String),
        #[done(always)]
        #[ignore(Yes)]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting(1, String::new()) }
    }

    pub fn chart() { Process::chart(); }
}

mod handlers {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        fn pay(&self, _: Pay, _: &mut Context<'_, Memory>) -> Result<Paid, HandlerError> { todo!() }
        async fn placed(&self, _: &Placed, _: &mut Context<'_, Memory>) -> Result<(), HandlerError> { Ok(()) }
        #[handler(retry = Retries::none())]
        async fn paid(&self, _: Yes) {}
        async fn paid_too(&self, _: Yes, _: &mut Context<'_, Memory>) -> Result<(), HandlerError> { Ok(()) }
        async fn paid_as_well(&self, _: Yes, _: &mut Context<'_, Memory>) -> Result<(), HandlerError> { Ok(()) }
    }

    pub fn add(builder: sagabus::endpoint::EndpointBuilder<Memory>) {
        let _ = builder.handlers(Bank);
    }
}

fn main() {
    functions::chart();
    lists::chart();
    states::chart();
}
