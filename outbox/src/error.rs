//! What the errors of sqlx mean to an endpoint: wait, run again, or give up on the message.

use saga_core::StoreError;
use sqlx::Error;

/// PostgreSQL: serialization failure, deadlock, lock not available. SQLite: busy, locked.
const CONFLICT: [&str; 5] = ["40001", "40P01", "55P03", "5", "6"];
/// PostgreSQL: a time limit, the server goes down or comes up, is read-only. SQLite: read-only, I/O error, full, cannot open.
const UNAVAILABLE: [&str; 11] = ["57014", "57P01", "57P02", "57P03", "57P05", "25P03", "25006", "8", "10", "13", "14"];

pub(crate) fn store_error(error: Error) -> StoreError {
    meaning(&error)
}

pub(crate) fn meaning(error: &Error) -> StoreError {
    match error {
        Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            // SQLite's extended codes hold the plain one in their last byte; PostgreSQL's have five letters
            let plain = code.parse::<u32>().ok().filter(|_| code.len() < 5).map(|code| (code & 0xff).to_string());
            let code = plain.map_or(code, Into::into);
            let text = || format!("{database} (code {code})");
            if CONFLICT.contains(&&*code) {
                StoreError::Conflict
            } else if UNAVAILABLE.contains(&&*code) || ["08", "53", "58"].iter().any(|class| code.starts_with(class)) {
                StoreError::Unavailable(text())
            } else if code.starts_with("28") || code == "3D000" {
                StoreError::Invalid(format!("{}: check user, password and database in the URL", text()))
            } else if code == "42P01" || code == "3F000" {
                StoreError::Schema(format!(
                    "{}: run `sagabus migrate`, or start an endpoint that may create tables",
                    text()
                ))
            } else {
                StoreError::Rejected(text())
            }
        }
        Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed
        | Error::BeginFailed => StoreError::Unavailable(error.to_string()),
        Error::Configuration(_) => StoreError::Invalid(error.to_string()),
        _ => StoreError::Rejected(error.to_string()),
    }
}

/// What an error that user code handed on means.
pub(crate) fn recognise(error: &(dyn std::error::Error + 'static)) -> Option<StoreError> {
    error.downcast_ref::<Error>().map(meaning)
}

/// The tables are those of another version.
pub(crate) fn wrong_version(found: i32, expected: i32) -> StoreError {
    StoreError::Schema(format!(
        "the tables have version {found}, this binary expects {expected}: deploy a binary that knows version {found}"
    ))
}
