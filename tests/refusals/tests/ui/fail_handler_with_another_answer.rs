// Handlers of a block that return what is no outcome of their command.
include!("common.rs");

use sagabus::testing::MemoryStore as Memory;

#[derive(Event, Serialize, Deserialize)]
struct Rang {}
#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank")]
struct Forget {}

mod one_of_the_answers {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&self, pay: Pay, _: &mut Context<'_, Memory>) -> Result<Yes, HandlerError> {
            Ok(Yes { id: pay.id })
        }
    }
}

mod none {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay<Db: Store>(&self, _: Pay, _: &mut Context<'_, Db>) -> Result<(), HandlerError> { Ok(()) }
    }
}

mod an_event_with_an_answer {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn rang(&self, rang: Rang, _: &mut Context<'_, Memory>) -> Result<Rang, HandlerError> { Ok(rang) }
    }
}

mod a_command_without_outcome {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn forget(&self, _: Forget, _: &mut Context<'_, Memory>) -> Result<Paid, HandlerError> { todo!() }
    }
}

mod another_error {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&self, _: Pay, _: &mut Context<'_, Memory>) -> Result<Paid, String> { todo!() }
    }
}

mod later_or_another {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&self, _: Pay, _: &mut Context<'_, Memory>) -> Result<Either<Yes, Later>, HandlerError> { todo!() }
    }
}

mod a_batch {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&self, _: &mut Batch<'_, Pay>, _: &mut BatchContext<'_, Memory>) -> Result<Paid, HandlerError> {
            todo!()
        }
    }
}

fn main() {}
