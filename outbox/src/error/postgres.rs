//! What PostgreSQL's SQLSTATEs mean.

use saga_core::{ErrorCode, StoreErrorKind as Kind};
use sqlx::postgres::PgDatabaseError;

/// PostgreSQL: serialization failure, deadlock, lock not available.
const CONFLICT: [&str; 3] = ["40001", "40P01", "55P03"];
/// PostgreSQL: the server stops or starts, the database was dropped or is read-only. So are the classes 53 (disk full,
/// out of memory, too many connections) and 58 (I/O).
const UNABLE: [&str; 5] = ["57P01", "57P02", "57P03", "57P04", "25006"];
/// PostgreSQL: a page cannot be read.
const CORRUPT: [&str; 2] = ["XX001", "XX002"];
/// PostgreSQL: a file that the statement names, a limit on what a statement may use, and SQL that is none.
const STATEMENTS_OWN: [&str; 4] = ["58P01", "58P02", "53400", "42601"];
/// PostgreSQL: a time limit of the statement, of the idle transaction, of the transaction, of the idle session.
const TIME_LIMITS: [&str; 4] = ["57014", "25P03", "25P04", "57P05"];
/// PostgreSQL: a prepared statement that exists in another session but not in this one, or exists already.
const POOLED: [&str; 2] = ["26000", "42P05"];

const TABLES: &str = "start an endpoint that may create tables, or run the SQL that `Postgres::schema()` gives";
const GRANT: &str = "grant it to the role that the URL names";
const OTHER_TABLES: &str = "the tables in schema `sagabus` are not those that this binary needs";
const CREDENTIALS: &str = "check user, password and database in the URL";
const CERTIFICATE: &str = "name a certificate of ours in the URL, by an authority that the server trusts: \
                           `sslcert=/path/to/cert.pem&sslkey=/path/to/key.pem`";
const ENCRYPTION: &str = "the server wants TLS: `sslmode=verify-full&sslrootcert=/path/to/ca.pem`";
const POOLER: &str = "a pooler gives each transaction another session of the server: add \
                      `?statement-cache-capacity=0` to the URL, and `.persistent(false)` to queries of your own pool";
const ABORTED: &str = "the handler caught an error of the database inside its transaction; run a statement that may \
                       fail in a nested transaction (`sqlx::Connection::begin(cx.tx().await?)`)";

/// What an error means, and what to do about it.
pub(super) fn judge(error: &PgDatabaseError) -> (Kind, &'static str) {
    let code = error.code();
    let class = |classes: &[&str]| classes.iter().any(|class| code.starts_with(class));
    if CONFLICT.contains(&code) {
        (Kind::Conflict, "")
    } else if code == "0A000" && (error.routine() == Some("RevalidateCachedQuery") || error.message().contains("plan"))
    {
        (Kind::StalePlan, "the statement is prepared anew")
    } else if POOLED.contains(&code) {
        (Kind::Invalid, POOLER)
    } else if UNABLE.contains(&code) || class(&["53", "58"]) {
        (Kind::Unable, "")
    } else if CORRUPT.contains(&code) || TIME_LIMITS.contains(&code) || class(&["08"]) {
        (Kind::Unavailable, "")
    } else if code == "3D000" {
        (Kind::Invalid, "create it, or name another one in the URL")
    } else if code == "28000" && error.message().contains("certificate") {
        (Kind::Invalid, CERTIFICATE)
    } else if code == "28000" && error.message().contains("no encryption") {
        (Kind::Invalid, ENCRYPTION)
    } else if class(&["28"]) {
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

/// The code of a cause that the kind of the error does not tell.
pub(super) fn code_of(error: &PgDatabaseError) -> Option<ErrorCode> {
    match error.code() {
        code if POOLED.contains(&code) => Some(ErrorCode::Pooler),
        "25P02" => Some(ErrorCode::TransactionEnded),
        "28000" if error.message().contains("certificate") || error.message().contains("no encryption") => {
            Some(ErrorCode::DatabaseTls)
        }
        _ => None,
    }
}

/// Whether the error, if a user's statement met it, is that statement's own: it ran into a time limit or waited too
/// long for a lock, it is no SQL, it read a page or a file that cannot be read, or a server that it connected to
/// (`dblink`, a foreign table) is away. Were it the unit's own connection, there would be no answer.
pub(super) fn is_statements_own(error: &PgDatabaseError) -> bool {
    let code = error.code();
    code == "55P03"
        || TIME_LIMITS.contains(&code)
        || CORRUPT.contains(&code)
        || STATEMENTS_OWN.contains(&code)
        || code.starts_with("08")
}
