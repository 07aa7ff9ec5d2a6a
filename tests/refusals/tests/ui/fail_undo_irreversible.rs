// A step that cannot be undone is added as one.
include!("common.rs");

use sagabus::testing::MemoryStore as Memory;

use sagabus::handler::{Activity, Irreversible, Stamp};

impl Activity for Pay {
    type Undo = Irreversible;
    fn stamp(_: &Paid) -> Stamp<Irreversible> { Stamp::Final }
    fn undone(_: &()) -> Result<(), String> { Ok(()) }
}

struct Bank;

#[handlers]
impl Bank {
    async fn pay(&self, pay: Pay, _: &mut Context<'_, Memory>) -> Result<Paid, HandlerError> {
        Ok(Yes { id: pay.id }.into())
    }
}

fn built(endpoint: sagabus::endpoint::EndpointBuilder<Memory>) -> sagabus::endpoint::EndpointBuilder<Memory> {
    endpoint.activity::<Pay>(Bank)
}

fn main() {}
