//! What the errors of sqlx mean to an endpoint.

use saga_core::{StoreError, StoreErrorKind as Kind};
use sqlx::{Error, error::DatabaseError, postgres::PgDatabaseError};

/// PostgreSQL: serialization failure, deadlock, lock not available.
const CONFLICT: [&str; 3] = ["40001", "40P01", "55P03"];
/// PostgreSQL: the server goes down or comes up, the database was dropped, is read-only, a page cannot be read.
const UNAVAILABLE: [&str; 7] = ["57P01", "57P02", "57P03", "57P04", "25006", "XX001", "XX002"];
/// PostgreSQL: a time limit of the statement, of the idle transaction, of the transaction, of the idle session.
const TIME_LIMITS: [&str; 4] = ["57014", "25P03", "25P04", "57P05"];
/// PostgreSQL: a prepared statement that another session has, or that this one has not.
const POOLED: [&str; 2] = ["26000", "42P05"];

const TABLES: &str = "start an endpoint that may create tables, or run the SQL that `Postgres::schema()` gives";
const GRANT: &str = "grant it to the role that the URL names";
const OTHER_TABLES: &str = "the tables in schema `sagabus` are not those that this binary needs";
const SQLITE_TABLES: &str = "start an endpoint on this file, or run the SQL that `Sqlite::schema()` gives";
const CREDENTIALS: &str = "check user, password and database in the URL";
const POOLER: &str = "a pooler gives each transaction another session of the server: add \
                      `?statement-cache-capacity=0` to the URL, and `.persistent(false)` to queries of your own pool";
const ABORTED: &str = "the handler caught an error of the database inside its transaction; run a statement that may \
                       fail in a nested transaction (`sqlx::Connection::begin(cx.tx().await?)`)";

/// The transaction that a unit began is no longer open.
const ENDED: &str = "the handler ended the transaction itself (COMMIT or ROLLBACK in a statement of its own): \
                     leave that to Sagabus";

/// An error of a statement of ours.
pub(crate) fn store_error(error: Error) -> StoreError {
    let (kind, text) = meaning(&error);
    StoreError::new(kind, text).with_source(error)
}

/// What an error that user code handed on means. The user's own statement raised it, or ran into a time limit: that is
/// the handler's failure, and its policy decides. Trouble of the connection is nobody's.
pub(crate) fn recognise(error: &(dyn std::error::Error + 'static)) -> Option<StoreError> {
    let error = error.downcast_ref::<Error>()?;
    let (kind, text) = match error.as_database_error() {
        Some(database) => {
            let code = database.code().unwrap_or_default();
            let (kind, advice) = judge(database);
            let limit = TIME_LIMITS.contains(&&*code) || code == "55P03";
            let advice = if kind == Kind::Schema { "" } else { advice };
            (if limit { Kind::Rejected } else { kind }, text(database, advice))
        }
        None => meaning(error),
    };
    Some(StoreError::new(kind, text))
}

/// The handler ended the transaction that the unit began.
pub(crate) fn ended() -> StoreError {
    StoreError::new(Kind::Rejected, ENDED)
}

/// The tables are those of another version.
pub(crate) fn wrong_version(found: i32, expected: i32) -> StoreError {
    let text = format!("the tables have version {found}, this binary expects {expected}");
    StoreError::new(Kind::Schema, format!("{text}: deploy a binary that knows version {found}"))
}

/// A word in a table that a newer binary wrote.
pub(crate) fn unknown_word(column: &str, word: &str) -> StoreError {
    let text = format!("{column} is `{word}`, which this binary does not know: deploy one that does");
    StoreError::new(Kind::Schema, text)
}

fn meaning(error: &Error) -> (Kind, String) {
    match error {
        Error::Database(database) if database.code().as_deref() == Some("25P01") => (Kind::Rejected, ENDED.into()),
        Error::Database(database) => {
            let (kind, advice) = judge(&**database);
            (kind, text(&**database, advice))
        }
        // sqlx refuses the arguments before anything is sent
        Error::Protocol(text) if text.contains("too many") || text.contains("out of range for protocol") => {
            (Kind::Rejected, text.clone())
        }
        Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed
        | Error::BeginFailed
        | Error::InvalidSavePointStatement => (Kind::Unavailable, error.to_string()),
        Error::Configuration(_) => (Kind::Invalid, error.to_string()),
        Error::ColumnDecode { .. } | Error::ColumnNotFound(_) | Error::ColumnIndexOutOfBounds { .. } => {
            (Kind::Schema, format!("{error}: the tables are not those that this binary needs"))
        }
        _ => (Kind::Rejected, error.to_string()),
    }
}

fn text(error: &dyn DatabaseError, advice: &str) -> String {
    let code = error.code().unwrap_or_default();
    let advice = if advice.is_empty() { String::new() } else { format!(": {advice}") };
    format!("{} (code {code}){advice}", error.message())
}

fn judge(error: &dyn DatabaseError) -> (Kind, &'static str) {
    match error.try_downcast_ref::<PgDatabaseError>() {
        Some(error) => of_postgres(error),
        None => of_sqlite(error),
    }
}

fn of_postgres(error: &PgDatabaseError) -> (Kind, &'static str) {
    let code = error.code();
    let class = |classes: &[&str]| classes.iter().any(|class| code.starts_with(class));
    if CONFLICT.contains(&code) {
        (Kind::Conflict, "")
    } else if code == "0A000" && (error.routine() == Some("RevalidateCachedQuery") || error.message().contains("plan"))
    {
        (Kind::StalePlan, "the statement is prepared anew")
    } else if POOLED.contains(&code) {
        (Kind::Invalid, POOLER)
    } else if UNAVAILABLE.contains(&code) || TIME_LIMITS.contains(&code) || class(&["08", "53", "58"]) {
        (Kind::Unavailable, "")
    } else if class(&["28"]) || code == "3D000" {
        (Kind::Invalid, CREDENTIALS)
    } else if code == "42501" {
        (Kind::Schema, GRANT)
    } else if ["42P01", "42703", "42883", "3F000"].contains(&code) {
        (Kind::Schema, TABLES)
    } else if class(&["42", "0A"]) {
        (Kind::Schema, OTHER_TABLES)
    } else if code == "25P02" {
        (Kind::Rejected, ABORTED)
    } else {
        (Kind::Rejected, "")
    }
}

/// SQLite's extended codes hold the plain one in their last byte.
fn of_sqlite(error: &dyn DatabaseError) -> (Kind, &'static str) {
    let code = error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default() & 0xff;
    match code {
        // busy, locked
        5 | 6 => (Kind::Conflict, ""),
        // out of memory, read-only, interrupted, I/O error, full, cannot open, lock protocol
        7 | 8 | 9 | 10 | 13 | 14 | 15 => (Kind::Unavailable, ""),
        // the schema changed
        17 => (Kind::StalePlan, ""),
        // corrupt, no database
        11 | 26 => (Kind::Schema, "restore the file"),
        1 if ["no such table", "no such column", "has no column"].iter().any(|what| error.message().contains(what)) => {
            (Kind::Schema, SQLITE_TABLES)
        }
        _ => (Kind::Rejected, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b4_arguments_that_sqlx_refuses_are_not_an_outage() {
        let many = Error::Protocol("PgConnection::run(): too many arguments for query: 65536".into());
        assert_eq!(store_error(many).kind(), Kind::Rejected);
        let broken = Error::Protocol("unknown message type: '\\u{1}'".into());
        assert_eq!(store_error(broken).kind(), Kind::Unavailable);
    }

    #[test]
    fn an_error_keeps_its_cause() {
        let error = store_error(Error::PoolTimedOut);
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Error>());
        assert!(matches!(source, Some(Error::PoolTimedOut)), "{source:?}");
    }
}
