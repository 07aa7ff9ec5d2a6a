// Lifetimes that no caller can give.
include!("common.rs");

use sagabus::testing::MemoryStore as Memory;

mod one_of_two {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn placed(&self, _: Placed, _: &mut Context<'_, Memory>) -> Result<(), HandlerError> { Ok(()) }
        async fn pay<'a>(&'a self, _: Pay, _: &'a mut Context<'a, Memory>) -> Result<Paid, HandlerError> { todo!() }
    }
}

mod forever {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&self, _: Pay, _: &mut Context<'static, Memory>) -> Result<Paid, HandlerError> { todo!() }
    }
}

mod itself_forever {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay(&'static self, _: Pay, _: &mut Context<'_, Memory>) -> Result<Paid, HandlerError> { todo!() }
    }
}

mod bounds {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn pay<'a: 'b, 'b>(&self, _: Pay, _: &'b mut Context<'a, Memory>) -> Result<Paid, HandlerError> {
            todo!()
        }
    }
}

mod a_batch {
    use super::*;
    struct Bank;

    #[handlers]
    impl Bank {
        async fn y<'a>(&self, _: &'a mut Batch<'a, Yes>, _: &mut BatchContext<'_, Memory>) -> Result<(), HandlerError> {
            todo!()
        }
    }
}

mod two_databases {
    use super::*;
    struct Bank;
    trait Books: sagabus::port::Store {}

    #[handlers]
    impl Bank {
        async fn pay<Db: Books>(&self, _: Pay, _: &mut Context<'_, Db>) -> Result<Paid, HandlerError> { todo!() }
        async fn open<Db: sagabus::port::Store>(&self, _: Placed, _: &mut Context<'_, Db>) -> Result<(), HandlerError> {
            Ok(())
        }
    }
}

fn main() {}
