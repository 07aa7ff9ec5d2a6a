//! What operators read and do. A listing selects one JSON text for each row; an order is one transaction. Each database
//! has its own file of SQL; what both share is here: `listing.rs` says where the rows of a filter are, `look.rs` makes
//! that a statement which stays fast, `status.rs` counts, and `order.rs`, `instance.rs` with `fork.rs`,
//! `outbox_order.rs` and `process_order.rs` act.

mod conversation;
mod field;
mod fork;
mod instance;
mod listing;
mod look;
mod order;
mod outbox_order;
mod postgres;
mod process_order;
mod sqlite;
mod status;

use crate::error::store_error;
use crate::{Postgres, Sqlite};
use async_trait::async_trait;
use saga_core::{Inspect, Listing, Store, StoreError, StoreErrorKind, Wanted};
use std::time::Duration;

/// A database that cannot be opened within this time counts as away.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a statement may take: a status counts rows, and there may be many.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a database works on a statement for a page. The dashboard gives a page up after 10 s and asks again: what
/// it left must not run on beside it.
const PAGE: Duration = Duration::from_secs(15);

/// Opens a database for inspection: `postgres://…` or `sqlite:PATH`. The path is taken literally: it is not
/// percent-decoded, and may contain spaces, `%`, `?` and `#`.
///
/// # Errors
/// When the address is neither, or the file does not exist.
pub async fn open(url: &str) -> Result<Box<dyn Inspect>, StoreError> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        // `sqlite://PATH`, as other tools write it, means the same
        let path = path.strip_prefix("//").unwrap_or(path);
        if !std::path::Path::new(path).is_file() {
            return Err(StoreError::new(StoreErrorKind::Invalid, format!("there is no file {path}")));
        }
        return Ok(Box::new(Sqlite::open(path).await?));
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Box::new(Postgres::new(url)?));
    }
    // the text does not repeat the address: it may contain a password
    let text = "this is not a database: use postgres://user@host/database or sqlite:PATH";
    Err(StoreError::new(StoreErrorKind::Invalid, text))
}

/// How a database reads a listing: the plan of each of its statements, as the database explains it. For tests, and for
/// whoever wonders why a listing is slow.
///
/// # Errors
/// When the address is wrong, or the database refuses.
pub async fn plans(url: &str, listing: &Listing<'_>) -> Result<Vec<String>, StoreError> {
    match url.strip_prefix("sqlite:") {
        Some(path) => Sqlite::open(path).await?.plans(listing).await,
        None => Postgres::new(url)?.plans(listing).await,
    }
}

/// Creates the tables, or brings them up to date, as an endpoint does when it starts: `postgres://…` or `sqlite:PATH`.
///
/// # Errors
/// When the address is neither, or the database refuses.
pub async fn migrate(url: &str) -> Result<(), StoreError> {
    match url.strip_prefix("sqlite:") {
        Some(path) => Sqlite::open(path.strip_prefix("//").unwrap_or(path)).await?.migrate().await,
        None => {
            open(url).await?; // judges the address
            Postgres::new(url)?.migrate().await
        }
    }
}

/// The statements that create the tables, for a person or another tool to run.
pub fn schema_for(url: &str) -> &'static str {
    if url.starts_with("sqlite:") { Sqlite::schema() } else { Postgres::schema() }
}

/// Parameters of a statement. All are texts: the statement casts them.
type Params = Vec<Option<String>>;

/// One transaction. Dropped without a commit, it is rolled back.
#[async_trait]
pub(crate) trait Session: Send {
    /// Runs a statement that is prepared for this one use, so that behind a pooler no statement outlives the
    /// transaction. Returns the rows' only column, a text.
    async fn rows(&mut self, sql: &str, params: &[Option<String>]) -> Result<Vec<String>, StoreError>;

    /// From now on the plan of each statement is kept.
    fn explain(&mut self);

    /// Ends the transaction. Returns the plans that were kept.
    async fn commit(self) -> Result<Vec<String>, StoreError>;
}

/// What differs between the databases.
#[async_trait]
pub(crate) trait Tables: Send + Sync + Sized {
    type Session: Session;

    /// The statements of an order.
    const ORDER: order::Statements;

    /// The statements of an order about an instance.
    const INSTANCE_ORDER: instance::Statements;

    /// The statements of a fork.
    const FORK: fork::Statements;

    /// The statements of an order about outbox rows.
    const OUTBOX_ORDER: outbox_order::Statements;

    /// Asks the process (1) to drain. Returns its endpoint, if there is such a process.
    const DRAIN: &str;

    /// What stands before the name of a table.
    const PREFIX: &str;
    /// The function that finds a text in another one.
    const FIND: &str;
    /// The function that makes a JSON array.
    const ARRAY: &str;
    /// The function that makes a JSON object.
    const OBJECT: &str;
    /// The clock, which stands still during a statement.
    const NOW: &str;
    /// A row of the outbox as JSON.
    const OUTBOX: &str;
    /// An instance as JSON.
    const INSTANCE: &str;
    /// A held message, `h`, as JSON.
    const HELD: &str;
    /// An operation as JSON.
    const OPERATION: &str;
    /// The items of an operation as rows, and one of them.
    const ITEMS: (&str, &str);
    /// The parts of a status that do not count rows.
    const STATUS: &str;

    /// The time so many microseconds ago.
    fn ago(us: i64) -> String;

    /// A time in microseconds since 1970.
    fn us(time: &str) -> String;

    /// The milliseconds since a time.
    fn ms_since(time: &str) -> String;

    /// An integer out of JSON. On SQLite it is one, and a cast would keep the index from being used.
    fn integer(value: &str) -> String;

    /// A text as the outbox has ids.
    fn uuid(text: &str) -> String;

    /// What an instance sent, by its journal: texts called `id`.
    fn sent_by(saga: &str, id: &str) -> String;

    /// The statement of a listing without a filter.
    fn select(listing: &Listing<'_>) -> Result<String, StoreError>;

    /// Held rows as listed, by a JSON array of their names, in order of arrival; `locked`: with row locks.
    fn held_by_name(locked: bool) -> String;

    /// Outbox rows by a JSON array of their ids; `locked`: with row locks.
    fn outbox_by_id(locked: bool) -> String;

    /// Opens a transaction to read. A server ends each of its statements after this time.
    async fn read(&self, limit: Duration) -> Result<Self::Session, StoreError>;

    /// Opens a transaction to write.
    async fn write(&self) -> Result<Self::Session, StoreError>;

    /// Takes the locks of instances, in this order, as units of work do.
    async fn lock(session: &mut Self::Session, locks: &[i64]) -> Result<(), StoreError>;

    /// Reads a listing.
    async fn list(&self, listing: &Listing<'_>) -> Result<Vec<String>, StoreError> {
        let mut session = self.read(limit(listing)).await?;
        let rows = Self::rows(&mut session, listing).await?;
        session.commit().await?;
        Ok(rows)
    }

    /// How a listing is read.
    async fn plans(&self, listing: &Listing<'_>) -> Result<Vec<String>, StoreError> {
        let mut session = self.read(limit(listing)).await?;
        session.explain();
        Self::rows(&mut session, listing).await?;
        session.commit().await
    }

    /// Reads a listing.
    async fn rows(session: &mut Self::Session, listing: &Listing<'_>) -> Result<Vec<String>, StoreError> {
        match listing {
            Listing::Status => status::status::<Self>(session).await,
            Listing::Forms => status::forms::<Self>(session).await,
            Listing::FieldNames => field::names::<Self>(session).await,
            Listing::Held(filter, wanted) => {
                let look = listing::held::<Self>(session, filter).await?;
                look.read::<Self>(session, *wanted).await
            }
            Listing::Instances(filter, wanted) => {
                let look = listing::instances::<Self>(session, filter).await?;
                look.read::<Self>(session, *wanted).await
            }
            Listing::Outbox(filter, wanted) => {
                let look = listing::outbox::<Self>(session, filter).await?;
                look.read::<Self>(session, *wanted).await
            }
            Listing::Operations(filter, wanted) => {
                listing::operations::<Self>(filter).read::<Self>(session, *wanted).await
            }
            Listing::Conversation(id, wanted) => conversation::conversation::<Self>(session, id, *wanted).await,
            Listing::HeldGroups(filter) => {
                listing::held::<Self>(session, filter).await?.held_groups::<Self>(session).await
            }
            _ => session.rows(&Self::select(listing)?, &listing::params(listing)).await,
        }
    }
}

/// How long a database works on a statement of a listing. Who wants all rows wants to wait for them.
fn limit(listing: &Listing<'_>) -> Duration {
    let (Listing::Outbox(_, wanted) | Listing::Instances(_, wanted) | Listing::Held(_, wanted)) = listing else {
        return PAGE;
    };
    match wanted {
        Wanted::Rows(rows_max) if *rows_max <= look::PAGE_ROWS_MAX => PAGE,
        Wanted::CountUpTo(_) => PAGE,
        _ => ANSWER,
    }
}

async fn answer<T>(work: impl Future<Output = Result<T, sqlx::Error>>, limit: Duration) -> Result<T, StoreError> {
    let late = || StoreError::new(StoreErrorKind::Unavailable, format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, work).await.map_err(|_| late())?.map_err(store_error)
}
