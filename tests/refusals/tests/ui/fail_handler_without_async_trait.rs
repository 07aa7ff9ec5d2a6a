// A handler without `#[async_trait]`.
include!("common.rs");

struct Bank;
impl<Db: Store> Handle<Pay, Db> for Bank {
    async fn handle(&self, pay: Pay, _: &mut Context<'_, Db>) -> Result<Paid, HandlerError> {
        Ok(Yes { id: pay.id }.into())
    }
}

fn main() {}
