//! Handlers whose lifetimes have names, each of its own.
#![deny(warnings)]
#![allow(clippy::needless_lifetimes, reason = "they are what is tested")]
include!("ui/common.rs");

use sagabus::testing::MemoryStore as Memory;

struct Bank;

#[handlers]
impl Bank {
    async fn pay<'a, 'b>(&'a self, it: Pay, cx: &'a mut Context<'b, Memory>) -> Result<Paid, HandlerError> {
        cx.publish(Placed { id: it.id });
        Ok(Yes { id: it.id }.into())
    }
    async fn placed(&self, _: Placed, _: &mut Context<'_, Memory>) -> Result<(), HandlerError> {
        Ok(())
    }
    async fn yes<'a>(
        &self,
        batch: &'a mut Batch<'_, Yes>,
        _: &'a mut BatchContext<'_, Memory>,
    ) -> Result<(), HandlerError> {
        let _ = batch;
        Ok(())
    }
}

// one block for several databases
struct Any;

#[handlers]
impl Any {
    async fn pay<'a, Db: sagabus::port::Store>(
        &'a self,
        it: Pay,
        _: &mut Context<'_, Db>,
    ) -> Result<Paid, HandlerError> {
        Ok(No { id: it.id }.into())
    }
    async fn placed<Db: sagabus::port::Store>(&self, _: Placed, _: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        Ok(())
    }
}

fn handles<M: Message>(_: &impl Handle<M, Memory>) {}

#[test]
fn a_handler_may_name_its_lifetimes() {
    handles::<Pay>(&Bank);
    handles::<Placed>(&Bank);
    handles::<Pay>(&Any);
    handles::<Placed>(&Any);
}
