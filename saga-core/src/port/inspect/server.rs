//! What a database says of itself, and what is wrong with that.

use crate::ErrorCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A clock that is further away than this from the database's is told.
const SKEW_US: u64 = 2_000_000;
/// A transaction that is open for longer keeps rows that are gone from being removed.
const TRANSACTION_MS: i64 = 600_000;
/// So many rows that are gone, and more than are there, slow every look at the table.
const DEAD_ROWS: i64 = 100_000;
/// PostgreSQL's own default leaves room for this many locks of units; a batch takes up to a hundred.
const LOCKS_MIN: i64 = 256;
/// So many processes can fill the lock table that PostgreSQL's default leaves.
const PROCESSES_MANY: usize = 4;

/// A database server. Times are microseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct ServerView {
    /// What it is, with its version.
    pub server: String,
    /// Its clock.
    pub now_us: i64,
    /// Settings that matter here, as the server has them.
    pub settings: BTreeMap<String, String>,
    /// Its extensions.
    pub extensions: Vec<String>,
    /// Our tables; none where they have not been created, or where the database does not count them.
    pub tables: Vec<TableView>,
    /// How long the oldest transaction of this database has been open: milliseconds.
    pub oldest_transaction_ms: Option<i64>,
}

/// A table, as the server counts it: roughly.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct TableView {
    /// Its name.
    pub table: String,
    /// Bytes on disk, with its indexes.
    pub bytes: i64,
    /// Rows.
    pub rows: i64,
    /// Rows that are gone and not yet removed.
    pub dead: i64,
}

/// What our tables say of their state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct UpkeepView {
    /// The version of the tables.
    pub schema_version: i64,
    /// Rows of the outbox whose lease ran out more than a minute ago: nobody takes them over.
    pub dead_leases: i64,
    /// Processes that said within the last minutes that they are alive.
    pub processes: usize,
}

/// That an endpoint subscribes to an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct SubscriptionView {
    /// The endpoint.
    pub endpoint: String,
    /// The event, by logical name.
    pub event: String,
}

impl ServerView {
    /// What may do harm, a line each. `here_us` is the caller's clock, read when this was asked for.
    pub fn advice(&self, upkeep: &UpkeepView, here_us: i64) -> Vec<String> {
        let mut all = Vec::new();
        let skew = here_us.abs_diff(self.now_us);
        if skew > SKEW_US {
            let s = skew / 1_000_000;
            all.push(ErrorCode::Clock.told(format_args!(
                "clock: this machine and the database differ by {s} s; leases and timers go by the database's, but \
                 times in messages and logs will mislead"
            )));
        }
        let setting = |name: &str| self.settings.get(name).map(String::as_str);
        if setting("fsync") == Some("off") {
            all.push(ErrorCode::NotDurable.told("fsync is off: a crash of the machine can destroy the database"));
        }
        if setting("synchronous_commit") == Some("off") {
            all.push(ErrorCode::NotDurable.told(
                "synchronous_commit is off: a crash of the server can undo what was committed, and sent, a moment ago",
            ));
        }
        if setting("autovacuum") == Some("off") {
            all.push(ErrorCode::NotVacuumed.told("autovacuum is off: the outbox grows and slows down"));
        }
        let locks = setting("max_locks_per_transaction").and_then(|n| n.parse::<i64>().ok());
        if let Some(locks) = locks.filter(|locks| *locks < LOCKS_MIN && upkeep.processes >= PROCESSES_MANY) {
            all.push(ErrorCode::LocksFew.told(format_args!(
                "max_locks_per_transaction is {locks}, and {} processes run: set it to {LOCKS_MIN}, or the lock table \
                 can become full under load",
                upkeep.processes
            )));
        }
        if let Some(ms) = self.oldest_transaction_ms.filter(|ms| *ms > TRANSACTION_MS) {
            all.push(ErrorCode::NotVacuumed.told(format_args!(
                "a transaction has been open for {} min: until it ends, rows that are gone are not removed (see \
                 pg_stat_activity)",
                ms / 60_000
            )));
        }
        for table in self.tables.iter().filter(|it| it.dead > DEAD_ROWS && it.dead > it.rows) {
            all.push(ErrorCode::NotVacuumed.told(format_args!(
                "table {} has {} rows that are gone and {} that are there: let it be vacuumed",
                table.table, table.dead, table.rows
            )));
        }
        if upkeep.dead_leases > 0 {
            all.push(ErrorCode::LeasesDead.told(format_args!(
                "{} outbox rows have a lease that ran out and are not taken over: no process of their endpoint runs",
                upkeep.dead_leases
            )));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_do_harm_is_told_and_nothing_else() {
        let mut server = ServerView { now_us: 1_000_000_000, ..ServerView::default() };
        let mut upkeep = UpkeepView { schema_version: 1, ..UpkeepView::default() };
        server.settings.insert("max_locks_per_transaction".into(), "64".into());
        server.settings.insert("fsync".into(), "on".into());
        server.tables.push(TableView { table: "outbox".into(), rows: 10, dead: 99_999, ..TableView::default() });
        assert_eq!(server.advice(&upkeep, server.now_us - 1_900_000), [""; 0]);
        upkeep.processes = 4;
        upkeep.dead_leases = 2;
        server.settings.insert("fsync".into(), "off".into());
        server.settings.insert("synchronous_commit".into(), "off".into());
        server.settings.insert("autovacuum".into(), "off".into());
        server.oldest_transaction_ms = Some(3_600_000);
        server.tables[0].dead = 100_001;
        let advice = server.advice(&upkeep, server.now_us + 3_000_000);
        let begins: Vec<&str> = advice.iter().map(|text| text.split_whitespace().next().unwrap()).collect();
        let expected =
            ["clock:", "fsync", "synchronous_commit", "autovacuum", "max_locks_per_transaction", "a", "table", "2"];
        assert_eq!(begins, expected, "{advice:#?}");
    }
}
