//! The services' own rows, on PostgreSQL and SQLite, and the audit of them.

use sagabus::{Postgres, Sqlite, async_trait, port::Store, sqlx};
use uuid::Uuid;

type Done = Result<(), sqlx::Error>;

/// What the services write. Each row stands for something that must happen once: a second one breaks its key, and what
/// is given back twice shows in the audit.
#[async_trait]
pub(crate) trait Tables: Store {
    /// Creates the tables, unless an earlier run has.
    async fn create(&self) -> Done;
    /// One of the statements below, about a booking.
    async fn run(tx: &mut Self::Tx, statement: &'static str, booking_id: Uuid, values: [i64; 2]) -> Done;
    /// A number about a booking, within a transaction.
    async fn number_of(
        tx: &mut Self::Tx,
        query: &'static str,
        booking_id: Uuid,
        value: i64,
    ) -> Result<i64, sqlx::Error>;
    /// A number.
    async fn number(&self, query: &'static str) -> Result<i64, sqlx::Error>;

    /// Makes a booking, unless an earlier run has; says whether.
    async fn book(tx: &mut Self::Tx, booking_id: Uuid, cents: i64) -> Result<bool, sqlx::Error> {
        let known = Self::number_of(tx, "SELECT count(*) FROM stay WHERE booking_id = $1 AND $2 = 0", booking_id, 0);
        if known.await? > 0 {
            return Ok(false);
        }
        let insert = "INSERT INTO stay (booking_id, cents, ended) VALUES ($1, $2, $3)";
        Self::run(tx, insert, booking_id, [cents, 0]).await?;
        Ok(true)
    }
    /// How a booking has ended: 1, paid; 2, cancelled. A booking that ends twice shows in the audit.
    async fn ended(tx: &mut Self::Tx, booking_id: Uuid, how: i64) -> Done {
        let update = "UPDATE stay SET ended = ended + $2 + $3 WHERE booking_id = $1";
        Self::run(tx, update, booking_id, [how, 0]).await
    }
    async fn take_credits(tx: &mut Self::Tx, booking_id: Uuid, cents: i64) -> Done {
        let insert = "INSERT INTO credit (booking_id, cents, returned) VALUES ($1, $2, $3)";
        Self::run(tx, insert, booking_id, [cents, 0]).await
    }
    async fn return_credits(tx: &mut Self::Tx, booking_id: Uuid) -> Done {
        let update = "UPDATE credit SET returned = returned + $2 + $3 WHERE booking_id = $1";
        Self::run(tx, update, booking_id, [1, 0]).await
    }
    /// Enters a charge, unless it is known; one of nothing is void.
    async fn charge(tx: &mut Self::Tx, booking_id: Uuid, attempt: u32, cents: i64) -> Done {
        let insert = "INSERT INTO charge (booking_id, attempt, cents) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        Self::run(tx, insert, booking_id, [attempt.into(), cents]).await
    }
    /// The cents of a charge.
    async fn charged(tx: &mut Self::Tx, booking_id: Uuid, attempt: u32) -> Result<i64, sqlx::Error> {
        let query = "SELECT cents FROM charge WHERE booking_id = $1 AND attempt = $2";
        Self::number_of(tx, query, booking_id, attempt.into()).await
    }
    /// Counts a question; returns how many there were.
    async fn asked(tx: &mut Self::Tx, booking_id: Uuid) -> Result<i64, sqlx::Error> {
        let insert = "INSERT INTO question (booking_id, n) VALUES ($1, $2 + $3)";
        Self::run(tx, insert, booking_id, [1, 0]).await?;
        Self::number_of(tx, "SELECT count(*) FROM question WHERE booking_id = $1 AND $2 = 0", booking_id, 0).await
    }

    /// The books: each booking ended once; who is paid has paid the price, who is not has paid nothing.
    async fn audit(&self, bookings: i64) -> Result<Vec<String>, sqlx::Error> {
        let price = "SELECT count(*) FROM stay WHERE (CASE WHEN ended = 1 THEN cents ELSE 0 END) <>
            (SELECT coalesce(sum(cents), 0) FROM charge WHERE charge.booking_id = stay.booking_id) +
            (SELECT coalesce(sum(cents), 0) FROM credit WHERE credit.booking_id = stay.booking_id AND returned = 0)";
        let checks = [
            ("bookings", "SELECT count(*) FROM stay", bookings),
            ("bookings that have not ended once", "SELECT count(*) FROM stay WHERE ended NOT IN (1, 2)", 0),
            ("bookings that have paid too little or too much", price, 0),
            ("credits that were returned twice", "SELECT count(*) FROM credit WHERE returned > 1", 0),
        ];
        let mut wrong = Vec::new();
        for (what, query, expected) in checks {
            let found = self.number(query).await?;
            if found != expected {
                wrong.push(format!("{what}: {expected} expected, {found} found"));
            }
        }
        Ok(wrong)
    }
}

const TABLES: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS stay (booking_id {uuid} PRIMARY KEY, cents bigint NOT NULL, ended bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS credit (booking_id {uuid} PRIMARY KEY, cents bigint NOT NULL,
     returned bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS charge (booking_id {uuid}, attempt bigint, cents bigint NOT NULL,
     PRIMARY KEY (booking_id, attempt))",
    "CREATE TABLE IF NOT EXISTS question (booking_id {uuid} NOT NULL, n bigint NOT NULL)",
];

macro_rules! tables {
    ($store:ty, $uuid:literal, $writer:ident) => {
        #[async_trait]
        impl Tables for $store {
            async fn create(&self) -> Done {
                for table in TABLES {
                    sqlx::query(&table.replace("{uuid}", $uuid)).execute(self.$writer()).await?;
                }
                Ok(())
            }
            async fn run(tx: &mut Self::Tx, statement: &'static str, booking_id: Uuid, [a, b]: [i64; 2]) -> Done {
                sqlx::query(statement).bind(booking_id).bind(a).bind(b).execute(tx).await.map(drop)
            }
            async fn number_of(
                tx: &mut Self::Tx,
                query: &'static str,
                booking_id: Uuid,
                value: i64,
            ) -> Result<i64, sqlx::Error> {
                sqlx::query_scalar(query).bind(booking_id).bind(value).fetch_one(tx).await
            }
            async fn number(&self, query: &'static str) -> Result<i64, sqlx::Error> {
                sqlx::query_scalar(query).fetch_one(self.pool()).await
            }
        }
    };
}
tables!(Sqlite, "BLOB", writer);
tables!(Postgres, "uuid", pool);
