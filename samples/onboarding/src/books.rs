//! The services' own rows, on PostgreSQL and SQLite, and the audit of them.

use sagabus::{
    Endpoint, Postgres, Sqlite, async_trait,
    port::{HeldFilter, Inspect, InstanceFilter, OutboxFilter, Store},
    sqlx::{self, Row},
};
use std::time::{Duration, Instant};

/// A database for the services' rows. All columns are texts here, so that the SQL is the same on both.
#[async_trait]
pub(crate) trait Books: Store + Inspect {
    /// Runs a statement; the number of rows it touched.
    async fn run(tx: &mut Self::Tx, sql: &'static str, values: &[&str]) -> Result<u64, sqlx::Error>;
    /// Reads rows within a transaction.
    async fn find(tx: &mut Self::Tx, sql: &'static str, values: &[&str]) -> Result<Vec<Vec<String>>, sqlx::Error>;
    /// Reads rows.
    async fn look(&self, sql: &'static str, values: &[&str]) -> Result<Vec<Vec<String>>, sqlx::Error>;
}

macro_rules! books {
    ($($store:ty),+) => {$(
        #[async_trait]
        impl Books for $store {
            async fn run(tx: &mut Self::Tx, sql: &'static str, values: &[&str]) -> Result<u64, sqlx::Error> {
                let query = values.iter().fold(sqlx::query(sql), |query, value| query.bind(value.to_string()));
                Ok(query.execute(tx).await?.rows_affected())
            }
            async fn find(
                tx: &mut Self::Tx,
                sql: &'static str,
                values: &[&str],
            ) -> Result<Vec<Vec<String>>, sqlx::Error> {
                let query = values.iter().fold(sqlx::query(sql), |query, value| query.bind(value.to_string()));
                let rows = query.fetch_all(tx).await?;
                rows.iter().map(|row| (0..row.len()).map(|column| row.try_get(column)).collect()).collect()
            }
            async fn look(&self, sql: &'static str, values: &[&str]) -> Result<Vec<Vec<String>>, sqlx::Error> {
                let query = values.iter().fold(sqlx::query(sql), |query, value| query.bind(value.to_string()));
                let rows = query.fetch_all(self.pool()).await?;
                rows.iter().map(|row| (0..row.len()).map(|column| row.try_get(column)).collect()).collect()
            }
        }
    )+};
}
books!(Postgres, Sqlite);

const TABLES: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS applicant (customer text PRIMARY KEY, name text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS task (customer text PRIMARY KEY, name text NOT NULL, score text NOT NULL,
        role text NOT NULL, later text NOT NULL, verdict text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS crm (customer text PRIMARY KEY, name text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS mail (customer text PRIMARY KEY, text text NOT NULL)",
];

/// Creates the tables if they do not exist.
pub(crate) async fn create<Db: Books>(endpoint: &Endpoint<Db>) -> anyhow::Result<()> {
    let mut session = endpoint.session().await?;
    for table in TABLES {
        Db::run(session.tx(), table, &[]).await?;
    }
    Ok(session.commit().await?)
}

/// How many instances are in a state.
pub(crate) async fn count<Db: Books>(store: &Db, state: &str) -> anyhow::Result<u64> {
    Ok(store.instances_count(&InstanceFilter { state: Some(state.into()), ..Default::default() }).await?)
}

/// What is wrong: nobody is forgotten, everybody has one mail, and the CRM knows those who were approved.
async fn audit<Db: Books>(store: &Db, applicants: u32) -> anyhow::Result<Vec<String>> {
    let (welcomed, refused) = (count(store, "Welcomed").await?, count(store, "Refused").await?);
    let checks = [
        ("applicants", "SELECT CAST(count(*) AS text) FROM applicant", u64::from(applicants)),
        ("mails", "SELECT CAST(count(*) AS text) FROM mail", welcomed + refused),
        ("welcomes", "SELECT CAST(count(*) AS text) FROM mail WHERE text LIKE '%welcome%'", welcomed),
        ("customers in the CRM", "SELECT CAST(count(*) AS text) FROM crm", welcomed),
        (
            "customers whom nobody approved",
            "SELECT CAST(count(*) AS text) FROM crm JOIN task ON task.customer = crm.customer
             WHERE verdict <> 'approved'",
            0,
        ),
        (
            "approved, and not in the CRM",
            "SELECT CAST(count(*) AS text) FROM task
             WHERE verdict = 'approved' AND customer NOT IN (SELECT customer FROM crm)",
            0,
        ),
        ("tasks that nobody needs", "SELECT CAST(count(*) AS text) FROM task WHERE verdict = 'open'", 0),
    ];
    let mut wrong = Vec::new();
    for (what, query, expected) in checks {
        let found = &store.look(query, &[]).await?[0][0];
        if *found != expected.to_string() {
            wrong.push(format!("{what}: {expected} expected, {found} found"));
        }
    }
    let open = InstanceFilter { open: true, ..Default::default() };
    for (what, found, expected) in [
        ("processes that have ended", welcomed + refused, u64::from(applicants)),
        ("processes that have not", store.instances_count(&open).await?, 0),
        ("messages held", store.held_count(&HeldFilter::default()).await?, 0),
        ("messages under way", store.outbox_count(&OutboxFilter::default()).await?, 0),
    ] {
        if found != expected {
            wrong.push(format!("{what}: {expected} expected, {found} found"));
        }
    }
    Ok(wrong)
}

/// Audits until nothing is wrong; gives up when the time is up.
pub(crate) async fn clean<Db: Books>(store: &Db, applicants: u32, patience: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + patience;
    loop {
        let wrong = audit(store, applicants).await?;
        if wrong.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < until, "the books do not add up:\n  {}", wrong.join("\n  "));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
