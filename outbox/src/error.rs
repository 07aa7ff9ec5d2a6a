//! What errors of sqlx mean to an endpoint.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use saga_core::{StoreError, StoreErrorKind as Kind};
use sqlx::{Error, error::DatabaseError};

/// The transaction that a unit began is no longer open.
const ENDED: &str = "the handler ended the transaction itself (COMMIT or ROLLBACK in a statement of its own): \
                     leave that to Sagabus";

/// An error of one of our own statements.
pub(crate) fn store_error(error: Error) -> StoreError {
    let (kind, text) = meaning(&error);
    StoreError::new(kind, text).with_source(error)
}

/// What an error from user code means. When the user's own statement raised it or ran into a time limit, the handler
/// failed, and its policy decides. When the connection broke, nobody is to blame.
pub(crate) fn recognise(error: &(dyn std::error::Error + 'static)) -> Option<StoreError> {
    let error = error.downcast_ref::<Error>()?;
    let (kind, text) = match error.as_database_error() {
        Some(database) => {
            let (kind, advice) = judge(database);
            #[cfg(feature = "postgres")]
            let limit = postgres::is_limit(&database.code().unwrap_or_default());
            #[cfg(not(feature = "postgres"))]
            let limit = false;
            let advice = if kind == Kind::Schema { "" } else { advice };
            (if limit { Kind::Rejected } else { kind }, text(database, advice))
        }
        None => meaning(error),
    };
    Some(StoreError::new(kind, text))
}

/// The handler ended the transaction that the unit began.
#[cfg(feature = "sqlite")]
pub(crate) fn ended() -> StoreError {
    StoreError::new(Kind::Rejected, ENDED)
}

/// The tables belong to another version.
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
    #[cfg(feature = "postgres")]
    if let Some(error) = error.try_downcast_ref() {
        return postgres::judge(error);
    }
    #[cfg(feature = "sqlite")]
    return sqlite::judge(error);
    #[cfg(not(feature = "sqlite"))]
    (Kind::Rejected, "")
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
