// A command that is published.
include!("common.rs");

async fn wrong<Db: saga_core::Store>(session: &mut saga_core::Session<Db>) {
    session.publish(Pay { id: 1 });
}
fn main() {}
