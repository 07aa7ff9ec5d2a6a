// A handler that returns another outcome.
include!("common.rs");

struct Bank;
#[async_trait]
impl<Db: Store> Handle<Pay, Db> for Bank {
    async fn handle(&self, pay: Pay, _: &mut Context<'_, Db>) -> Result<Yes, HandlerError> {
        Ok(Yes { id: pay.id })
    }
}

fn main() {}
