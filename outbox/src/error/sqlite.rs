//! What SQLite's result codes mean.

use saga_core::StoreErrorKind as Kind;
use sqlx::error::DatabaseError;

const SQLITE_TABLES: &str = "start an endpoint on this file, or run the SQL that `Sqlite::schema()` gives";

/// SQLite's extended codes have the primary code in their last byte.
pub(super) fn judge(error: &dyn DatabaseError) -> (Kind, &'static str) {
    let code = error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default() & 0xff;
    match code {
        // busy, locked
        5 | 6 => (Kind::Conflict, ""),
        // out of memory, read-only, interrupted, I/O error, full, cannot open, lock protocol
        7 | 8 | 9 | 10 | 13 | 14 | 15 => (Kind::Unable, ""),
        // the schema changed
        17 => (Kind::StalePlan, ""),
        // corrupt, not a database
        11 | 26 => (Kind::Schema, "restore the file"),
        1 if ["no such table", "no such column", "has no column"].iter().any(|what| error.message().contains(what)) => {
            (Kind::Schema, SQLITE_TABLES)
        }
        _ => (Kind::Rejected, ""),
    }
}
