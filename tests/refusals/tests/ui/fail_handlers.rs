// Blocks of handlers whose functions are none.
include!("common.rs");

use sagabus::testing::MemoryStore as Memory;

#[derive(Event, Serialize, Deserialize)]
struct Rang {}

mod without_async {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        fn pay(&self, pay: Pay, cx: &mut Context<'_, Memory>) -> Result<Paid, HandlerError> { todo!() }
    }
}

mod without_self {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(pay: Pay, cx: &mut Context<'_, Memory>) -> Result<Paid, HandlerError> { todo!() }
    }
}

mod without_surroundings {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&self, pay: Pay) -> Result<Paid, HandlerError> { todo!() }
    }
}

mod a_parameter_too_many {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&self, pay: Pay, n: u64, cx: &mut Context<'_, Memory>) -> Result<Paid, HandlerError> { todo!() }
    }
}

mod surroundings_by_value {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&self, pay: Pay, cx: Context<'_, Memory>) -> Result<Paid, HandlerError> { todo!() }
    }
}

mod the_message_by_reference {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&self, pay: &Pay, cx: &mut Context<'_, Memory>) -> Result<Paid, HandlerError> { todo!() }
    }
}

mod no_result {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn rang(&self, rang: Rang, cx: &mut Context<'_, Memory>) {}
    }
}

mod another_outcome {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&self, pay: Pay, cx: &mut Context<'_, Memory>) -> Result<(), HandlerError> { Ok(()) }
    }
}

mod an_event_with_an_answer {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn rang(&self, rang: Rang, cx: &mut Context<'_, Memory>) -> Result<Rang, HandlerError> { Ok(rang) }
    }
}

mod two_of_one_command {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&self, pay: Pay, cx: &mut Context<'_, Memory>) -> Result<Paid, HandlerError> { todo!() }
        async fn pay_later(&self, pay: Pay, cx: &mut Context<'_, Memory>) -> Result<Paid, HandlerError> { todo!() }
    }
}

mod an_empty_block {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {}
}

fn main() {}
