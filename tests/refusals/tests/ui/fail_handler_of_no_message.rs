// Handlers whose second parameter is no message.
include!("common.rs");

use sagabus::testing::MemoryStore as Memory;

struct Bank;

#[handlers]
impl Bank {
    async fn count(&self, _: u64, _: &mut Context<'_, Memory>) -> Result<(), HandlerError> { Ok(()) }
    async fn pay(&self, _: Pay, _: &mut Context<'_, Memory>) -> Result<Paid, HandlerError> { todo!() }
}

struct Anywhere;

#[handlers]
impl Anywhere {
    async fn count<Db: Store>(&self, _: u32, _: &mut Context<'_, Db>) -> Result<(), HandlerError> { Ok(()) }
}

fn main() {
    let _ = |builder: sagabus::endpoint::EndpointBuilder<Memory>| builder.handlers(Bank).handlers(Anywhere);
}
