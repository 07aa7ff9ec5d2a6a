//! What errors of sqlx mean to an endpoint.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "postgres")]
mod tls;

use saga_core::{ErrorCode, StoreError, StoreErrorKind as Kind};
use sqlx::{Error, error::DatabaseError};

/// The transaction that a unit began is no longer open.
const ENDED: &str = "the handler ended the transaction itself (COMMIT or ROLLBACK in a statement of its own): \
                     leave that to Sagabus";

/// An error of one of our own statements.
pub(crate) fn store_error(error: Error) -> StoreError {
    meaning(&error).with_source(error)
}

/// What an error from user code means. What the user's own statement caused (a time limit that it exceeded, say) is the
/// handler's failure, and its policy decides. A conflict with another transaction is nobody's, nor is a full disk.
pub(crate) fn recognise(error: &(dyn std::error::Error + 'static)) -> Option<StoreError> {
    Some(match error.downcast_ref::<Error>() {
        Some(Error::Database(database)) => of_user(&**database),
        Some(error) => meaning(error),
        None => of_user(bare(error)?),
    })
}

/// The database's own error, as the cause of an error whose type hides that it is sqlx's: `anyhow` and `std::io` do
/// that.
fn bare<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a dyn DatabaseError> {
    if let Some(boxed) = error.downcast_ref::<Box<dyn DatabaseError>>() {
        return Some(&**boxed);
    }
    #[cfg(feature = "postgres")]
    if let Some(error) = error.downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        return Some(error);
    }
    #[cfg(feature = "sqlite")]
    if let Some(error) = error.downcast_ref::<sqlx::sqlite::SqliteError>() {
        return Some(error);
    }
    None
}

fn of_user(error: &dyn DatabaseError) -> StoreError {
    let (kind, advice) = judge(error);
    let advice = if kind == Kind::Schema { "" } else { advice };
    #[cfg(feature = "postgres")]
    if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some_and(postgres::is_statements_own) {
        return StoreError::new(Kind::Rejected, text(error, advice));
    }
    of_database(error, kind, advice)
}

/// The handler ended the transaction that the unit began.
#[cfg(feature = "sqlite")]
pub(crate) fn ended() -> StoreError {
    StoreError::new(Kind::Rejected, ENDED).with_code(ErrorCode::TransactionEnded)
}

/// The version of the tables, if it is the one that this binary expects.
pub(crate) fn fitting(found: Option<i32>, expected: i32) -> Result<i32, StoreError> {
    match found {
        Some(found) if found == expected => Ok(found),
        Some(found) => Err(wrong_version(found, expected)),
        None => Err(StoreError::new(Kind::Schema, "the tables are not there: run `sagabus migrate`")
            .with_code(ErrorCode::Tables)),
    }
}

fn wrong_version(found: i32, expected: i32) -> StoreError {
    let text = format!("the tables have version {found}, this binary expects {expected}");
    let text = format!("{text}: deploy a binary that knows version {found}");
    StoreError::new(Kind::Schema, text).with_code(ErrorCode::OtherVersion)
}

/// A word in a table that a newer binary wrote.
pub(crate) fn unknown_word(column: &str, word: &str) -> StoreError {
    let text = format!("{column} is `{word}`, which this binary does not know: deploy one that does");
    StoreError::new(Kind::Schema, text).with_code(ErrorCode::OtherVersion)
}

fn meaning(error: &Error) -> StoreError {
    #[cfg(feature = "postgres")]
    if let Some(advice) = tls::advice(error) {
        return StoreError::new(Kind::Invalid, format!("{error}; {advice}")).with_code(ErrorCode::DatabaseTls);
    } else if let Some(advice) = tls::missing(error) {
        return StoreError::new(Kind::Unavailable, format!("{error}; {advice}"));
    }
    let (kind, text) = match error {
        Error::Database(database) if database.code().as_deref() == Some("25P01") => {
            return StoreError::new(Kind::Rejected, ENDED).with_code(ErrorCode::TransactionEnded);
        }
        Error::Database(database) => {
            let (kind, advice) = judge(&**database);
            return of_database(&**database, kind, advice);
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
    };
    StoreError::new(kind, text)
}

fn of_database(error: &dyn DatabaseError, kind: Kind, advice: &str) -> StoreError {
    let meant = StoreError::new(kind, text(error, advice));
    #[cfg(feature = "postgres")]
    if let Some(code) = error.try_downcast_ref().and_then(postgres::code_of) {
        return meant.with_code(code);
    }
    meant
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

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn an_error_is_known_inside_others() {
        #[derive(Debug)]
        struct Hidden(Error);
        impl std::fmt::Display for Hidden {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
        impl std::error::Error for Hidden {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                std::error::Error::source(&self.0)
            }
        }
        let error = sqlx::query("SELECT * FROM nowhere");
        let pool = sqlx::SqlitePool::connect("sqlite::memory:").await.expect("memory is there");
        let error = Hidden(error.execute(&pool).await.expect_err("there is no table"));
        assert!(recognise(&error).is_none(), "its type is not known");
        let cause = std::error::Error::source(&error).expect("it has a cause");
        assert_eq!(recognise(cause).map(|known| known.kind()), Some(Kind::Schema));
    }
}
