// A handler that returns another outcome.
include!("common.rs");

struct Bank;
#[saga_core::async_trait]
impl<Db: saga_core::Store> saga_core::Handle<Pay, Db> for Bank {
    async fn handle(&self, pay: Pay, _: &mut saga_core::Context<'_, Db>) -> Result<Yes, saga_core::HandlerError> {
        Ok(Yes { id: pay.id })
    }
}
fn main() {}
