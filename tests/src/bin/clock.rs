//! A small service for a process whose clock is wrong: `clock BROKER DATABASE`. It has a timer, a handler whose
//! first try of every fourth message fails, and events to publish.

use async_trait::async_trait;
use outbox::Postgres;
use saga_core::{After, Context, Endpoint, Handle, HandlerError, Message, Retries, after, saga, seconds, states};
use serde::{Deserialize, Serialize};
use std::{
    error::Error,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tests::clock::{RETRIED_AFTER, RINGS_AFTER, Set, Tried, Try};
use tokio::signal::unix::{SignalKind, signal};
use transports::RabbitMq;

/// It rings.
#[derive(Message, Serialize, Deserialize)]
#[message(name = "clock.Ring")]
struct Ring {}

#[states]
enum Alarm {
    Armed,
    #[done]
    Rung,
}

#[saga(name = "alarm", id = id: u64)]
impl Alarm {
    fn set(_: Set) -> (Armed, After<Ring>) {
        (Armed, after(seconds(RINGS_AFTER), Ring {}))
    }

    fn ring(_: Armed, _: Ring) -> Rung {
        Rung
    }
}

struct Tries(Postgres);

#[async_trait]
impl Handle<Try, Postgres> for Tries {
    async fn handle(&self, Try { id }: Try, cx: &mut Context<'_, Postgres>) -> Result<(), HandlerError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        // outside the transaction: a try that fails is recorded as well
        let row = sqlx::query("INSERT INTO try (id, process_at) VALUES ($1, to_timestamp($2))");
        row.bind(id as i64).bind(now).execute(self.0.pool()).await?;
        if id % 4 == 0 && cx.runs_before() == 0 {
            return Err(HandlerError::transient("once"));
        }
        cx.publish(Tried { id });
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [broker, database] = arguments.as_slice() else { return Err("clock BROKER DATABASE".into()) };
    let store = Postgres::with_connections(database, 4)?;
    let tries = Tries(store.clone());
    let builder = Endpoint::builder("clock", RabbitMq::new(broker)?, store).settings(|settings| {
        settings.poll = Duration::from_millis(100);
        settings.lease = Duration::from_secs(10);
        settings.early = Duration::from_secs(600);
        settings.retention = Duration::from_secs(1800);
    });
    let builder = builder.retries(Retries::none().delayed([Duration::from_secs(RETRIED_AFTER)]));
    let endpoint = builder.saga::<Alarm>().handle::<Try>(tries).start().await?;
    println!("started");
    signal(SignalKind::terminate())?.recv().await;
    endpoint.stop().await?;
    Ok(())
}
