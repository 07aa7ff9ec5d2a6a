// What is wrong with a signature is told once: the body adds nothing.
include!("common.rs");

use sagabus::testing::MemoryStore as Memory;

async fn other() {}

mod without_async {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        fn pay(&self, pay: Pay, cx: &mut Context<'_, Memory>) -> Result<Paid, HandlerError> {
            other().await;
            cx.publish(Placed { id: pay.id });
            Ok(Yes { id: pay.id }.into())
        }
    }
}

mod surroundings_by_value {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&self, pay: Pay, cx: Context<'_, Memory>) -> Result<Paid, HandlerError> {
            cx.publish(Placed { id: pay.id });
            Ok(Yes { id: pay.id }.into())
        }
    }
}

mod surroundings_not_to_be_changed {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&self, pay: Pay, cx: &Context<'_, Memory>) -> Result<Paid, HandlerError> {
            cx.publish(Placed { id: pay.id });
            Ok(Yes { id: pay.id }.into())
        }
    }
}

mod without_result {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&self, pay: Pay, cx: &mut Context<'_, Memory>) {
            cx.publish(Placed { id: pay.id });
            Ok(Yes { id: pay.id }.into())
        }
    }
}

fn main() {}
