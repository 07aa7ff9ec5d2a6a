mod handlers;
mod messages;
mod saga;

use handlers::{Payments, Printer};
use messages::OrderPlaced;
use sagabus::{prelude::*, sqlx};
use tokio::sync::mpsc;
use uuid::Uuid;

const CHARGE: &str = "CREATE TABLE IF NOT EXISTS charge (order_id BLOB PRIMARY KEY, cents INTEGER NOT NULL)";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt::init(); // shows what is retried or held, and why
    let (ended, mut endings) = mpsc::unbounded_channel();
    let store = Sqlite::open("{{project-name}}.db").await?;
    sqlx::query(CHARGE).execute(store.writer()).await?;
    let endpoint = Endpoint::builder("{{project-name}}", InProcess::new(), store)
        .saga::<saga::Order>()
        .handlers(Payments)
        .handlers(Printer(ended))
        .start()
        .await?;

    // a web request, say: rows and messages of a session commit together
    let mut session = endpoint.session().await?;
    session.publish(OrderPlaced { order_id: Uuid::now_v7(), cents: 4_200 });
    session.publish(OrderPlaced { order_id: Uuid::now_v7(), cents: 420_000 });
    session.commit().await?;

    endings.recv().await;
    endings.recv().await;
    endpoint.stop().await?; // finishes what it holds, loses nothing
    Ok(())
}
