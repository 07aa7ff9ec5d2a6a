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
            async fn look(&self, sql: &'static str, values: &[&str]) -> Result<Vec<Vec<String>>, sqlx::Error> {
                let query = values.iter().fold(sqlx::query(sql), |query, value| query.bind(value.to_string()));
                let rows = query.fetch_all(self.pool()).await?;
                rows.iter().map(|row| (0..row.len()).map(|column| row.try_get(column)).collect()).collect()
            }
        }
    )+};
}
books!(Postgres, Sqlite);

const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS seat (booking text PRIMARY KEY, seat text NOT NULL, kept text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS barcode (booking text PRIMARY KEY, barcode text NOT NULL)",
];

/// Creates the tables if they do not exist.
pub(crate) async fn create<Db: Books>(endpoint: &Endpoint<Db>) -> anyhow::Result<()> {
    let mut session = endpoint.session().await?;
    for table in TABLES {
        Db::run(session.tx(), table, &[]).await?;
    }
    Ok(session.commit().await?)
}

/// What is wrong: every passenger has an answer, and seats and barcodes are there for boarding passes alone.
async fn audit<Db: Books>(store: &Db, passengers: u32) -> anyhow::Result<Vec<String>> {
    let count = async |state: &str| {
        store.instances_count(&InstanceFilter { state: Some(state.into()), ..Default::default() }).await
    };
    let (passes, refused) = (count("CheckedIn").await?, count("ToTheCounter").await?);
    let rows = async |query| anyhow::Ok(store.look(query, &[]).await?[0][0].parse::<u64>()?);
    let open = InstanceFilter { open: true, ..Default::default() };
    // but answers to a web process that was killed: nobody waits for them, and after a minute they are dropped
    let rows_left = store.outbox(&OutboxFilter::default(), i64::from(u32::MAX)).await?;
    let under_way = rows_left.iter().filter(|row| !row.destination.ends_with("#requests")).count() as u64;
    let mut wrong = Vec::new();
    for (what, found, expected) in [
        ("check-ins that have ended", passes + refused, u64::from(passengers)),
        ("check-ins that have not", store.instances_count(&open).await?, 0),
        ("seats kept", rows("SELECT CAST(count(*) AS text) FROM seat WHERE kept = 'yes'").await?, passes),
        ("barcodes", rows("SELECT CAST(count(*) AS text) FROM barcode").await?, passes),
        ("messages held", store.held_count(&HeldFilter::default()).await?, 0),
        ("messages under way", under_way, 0),
    ] {
        if found != expected {
            wrong.push(format!("{what}: {expected} expected, {found} found"));
        }
    }
    Ok(wrong)
}

/// Audits until nothing is wrong; gives up when the time is up.
pub(crate) async fn clean<Db: Books>(store: &Db, passengers: u32, patience: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + patience;
    loop {
        let wrong = audit(store, passengers).await?;
        if wrong.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < until, "the books do not add up:\n  {}", wrong.join("\n  "));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
