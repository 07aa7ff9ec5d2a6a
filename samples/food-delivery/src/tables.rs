//! The services' own rows, on PostgreSQL and SQLite, and the audit of them.

use sagabus::{
    Postgres, Sqlite, async_trait,
    port::{HeldFilter, Inspect, OutboxFilter, Store},
    sqlx,
};
use uuid::Uuid;

type Done = Result<(), sqlx::Error>;

/// What the services write. Each row stands for something that must happen once: a second one breaks its key.
#[async_trait]
pub(crate) trait Tables: Store + Inspect {
    /// Creates the tables if they do not exist.
    async fn create(&self) -> Done;
    /// One of the statements below, about an order.
    async fn run(tx: &mut Self::Tx, statement: &'static str, order_id: Uuid, value: i64) -> Done;
    /// A number.
    async fn number(&self, query: &'static str) -> Result<i64, sqlx::Error>;
    /// A number about an order, within a transaction.
    async fn number_of(tx: &mut Self::Tx, query: &'static str, order_id: Uuid) -> Result<i64, sqlx::Error>;

    /// Counts a question to the restaurant; returns how many there were.
    async fn ask(tx: &mut Self::Tx, order_id: Uuid) -> Result<i64, sqlx::Error> {
        Self::run(tx, "INSERT INTO question (order_id, n) VALUES ($1, $2)", order_id, 0).await?;
        Self::number_of(tx, "SELECT count(*) FROM question WHERE order_id = $1", order_id).await
    }
    async fn charge(tx: &mut Self::Tx, order_id: Uuid, cents: i64) -> Done {
        Self::run(tx, "INSERT INTO charge (order_id, cents, refunded) VALUES ($1, $2, 0)", order_id, cents).await
    }
    async fn refund(tx: &mut Self::Tx, order_id: Uuid) -> Done {
        Self::run(tx, "UPDATE charge SET refunded = refunded + $2 WHERE order_id = $1", order_id, 1).await
    }
    async fn assign(tx: &mut Self::Tx, order_id: Uuid) -> Done {
        Self::run(tx, "INSERT INTO ride (order_id, state) VALUES ($1, $2)", order_id, 0).await
    }
    async fn free(tx: &mut Self::Tx, order_id: Uuid) -> Done {
        Self::run(tx, "UPDATE ride SET state = state + $2 WHERE order_id = $1", order_id, 10).await
    }
    async fn deliver(tx: &mut Self::Tx, order_id: Uuid) -> Done {
        Self::run(tx, "UPDATE ride SET state = state + $2 WHERE order_id = $1", order_id, 1).await
    }

    /// The books: each order has ended, money and couriers are where they belong, and no message is left.
    async fn audit(&self, orders: i64, delivered: i64, cancelled: i64) -> anyhow::Result<Vec<String>> {
        let rides = "SELECT count(*) FROM ride WHERE state = 1";
        let mut checks = vec![
            ("orders that have ended", delivered + cancelled, orders),
            ("messages held", self.held_count(&HeldFilter::default()).await?.try_into()?, 0),
            ("messages under way", self.outbox_count(&OutboxFilter::default()).await?.try_into()?, 0),
        ];
        for (what, query, expected) in [
            ("charges that were neither kept nor refunded once", "SELECT count(*) FROM charge WHERE refunded > 1", 0),
            ("charges kept", "SELECT count(*) FROM charge WHERE refunded = 0", delivered),
            ("deliveries", rides, delivered),
            ("couriers who wait for nothing", "SELECT count(*) FROM ride WHERE state NOT IN (1, 10)", 0),
            ("orders that the restaurant was asked about", "SELECT count(DISTINCT order_id) FROM question", orders),
        ] {
            checks.push((what, self.number(query).await?, expected));
        }
        let wrong = checks.into_iter().filter(|(_, found, expected)| found != expected);
        Ok(wrong.map(|(what, found, expected)| format!("{what}: {expected} expected, {found} found")).collect())
    }
}

const TABLES: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS question (order_id {uuid} NOT NULL, n bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS charge (order_id {uuid} PRIMARY KEY, cents bigint NOT NULL, refunded bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS ride (order_id {uuid} PRIMARY KEY, state bigint NOT NULL)",
];

#[async_trait]
impl Tables for Sqlite {
    async fn create(&self) -> Done {
        for table in TABLES {
            sqlx::query(&table.replace("{uuid}", "BLOB")).execute(self.writer()).await?;
        }
        Ok(())
    }
    async fn run(tx: &mut Self::Tx, statement: &'static str, order_id: Uuid, value: i64) -> Done {
        sqlx::query(statement).bind(order_id).bind(value).execute(tx).await.map(drop)
    }
    async fn number(&self, query: &'static str) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(query).fetch_one(self.pool()).await
    }
    async fn number_of(tx: &mut Self::Tx, query: &'static str, order_id: Uuid) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(query).bind(order_id).fetch_one(tx).await
    }
}

#[async_trait]
impl Tables for Postgres {
    async fn create(&self) -> Done {
        for table in TABLES {
            sqlx::query(&table.replace("{uuid}", "uuid")).execute(self.pool()).await?;
        }
        Ok(())
    }
    async fn run(tx: &mut Self::Tx, statement: &'static str, order_id: Uuid, value: i64) -> Done {
        sqlx::query(statement).bind(order_id).bind(value).execute(tx).await.map(drop)
    }
    async fn number(&self, query: &'static str) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(query).fetch_one(self.pool()).await
    }
    async fn number_of(tx: &mut Self::Tx, query: &'static str, order_id: Uuid) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(query).bind(order_id).fetch_one(tx).await
    }
}
