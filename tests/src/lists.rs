//! The service whose history is checked: lists in a table, which a handler appends to, and lists in sagas. Its process
//! is `src/bin/lists.rs`.

use async_trait::async_trait;
use outbox::Postgres;
use saga_core::{
    Command, Context, Crashes, Endpoint, EndpointBuilder, Event, Handle, HandlerError, Outcome, Reply, saga, states,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::time::Duration;
use transports::RabbitMq;

/// The endpoint.
pub const LISTS: &str = "lists";

/// Appends to a list in the table, and wants to know what is in it then.
#[derive(Debug, Command, Serialize, Deserialize)]
#[command(to = "lists", outcome = AppendOutcome)]
pub struct Append {
    /// The list.
    pub key: u32,
    /// What is appended.
    pub number: u32,
}

/// What becomes of an [`Append`].
#[derive(Debug, Outcome)]
pub enum AppendOutcome {
    /// It is done.
    Appended(Appended),
}

/// The list after it.
#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "lists")]
pub struct Appended {
    /// All that is in it.
    pub numbers: Vec<u32>,
}

/// Appends to the list of a saga.
#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "client")]
pub struct Noted {
    /// The list.
    pub key: u32,
    /// What is appended.
    pub number: u32,
}

/// A list in a saga.
#[states]
pub enum Notes {
    /// It grows for ever.
    Growing {
        /// All that is in it.
        numbers: Vec<u32>,
    },
}

#[saga(name = "notes", id = key: u32)]
impl Notes {
    fn begun(it: Noted) -> Growing {
        Growing { numbers: vec![it.number] }
    }

    fn noted(mut notes: Growing, it: Noted) -> Growing {
        notes.numbers.push(it.number);
        notes
    }
}

/// Appends in the transaction of the message.
#[derive(Debug)]
struct Lists;

#[async_trait]
impl Handle<Append, Postgres> for Lists {
    async fn handle(&self, it: Append, cx: &mut Context<'_, Postgres>) -> Result<AppendOutcome, HandlerError> {
        let append = "INSERT INTO list (key, numbers) VALUES ($1, ARRAY[$2])
            ON CONFLICT (key) DO UPDATE SET numbers = list.numbers || excluded.numbers RETURNING numbers";
        let append = sqlx::query_scalar(append).bind(i64::from(it.key)).bind(i64::from(it.number));
        let numbers: Vec<i64> = append.fetch_one(cx.tx().await?).await?;
        Ok(AppendOutcome::Appended(Appended { numbers: numbers.into_iter().map(|number| number as u32).collect() }))
    }
}

/// Creates the table.
///
/// # Errors
/// When the database does not let us.
pub async fn create(database: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("CREATE TABLE list (key bigint PRIMARY KEY, numbers bigint[] NOT NULL)").execute(database).await?;
    Ok(())
}

/// What is in the list of this key, in the table or of its saga. A list that does not exist is empty.
///
/// # Errors
/// When the database does not answer.
pub async fn read(database: &mut PgConnection, of_saga: bool, key: u32) -> Result<Vec<u32>, sqlx::Error> {
    let sql = if of_saga {
        "SELECT ARRAY(SELECT json_array_elements_text(data -> 'numbers')::bigint) FROM sagabus.saga
         WHERE saga = 'notes' AND id = $1"
    } else {
        "SELECT numbers FROM list WHERE key = $1::bigint"
    };
    let found: Option<Vec<i64>> = sqlx::query_scalar(sql).bind(key.to_string()).fetch_optional(database).await?;
    Ok(found.unwrap_or_default().into_iter().map(|number| number as u32).collect())
}

/// A process of the service, not yet started.
pub fn service(broker: RabbitMq, database: Postgres, crashes: Crashes) -> EndpointBuilder<Postgres> {
    Endpoint::builder(LISTS, broker, database)
        .handle::<Append>(Lists)
        .saga::<Notes>()
        .settings(|settings| (settings.poll, settings.lease) = (Duration::from_millis(100), Duration::from_secs(3)))
        .crashes(crashes)
}
