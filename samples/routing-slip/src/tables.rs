//! The services' own rows, on PostgreSQL and SQLite, and the audit of them.

use sagabus::{Postgres, Sqlite, async_trait, port::Store, sqlx};
use uuid::Uuid;

type Done = Result<(), sqlx::Error>;

/// What is reserved.
pub(crate) const ROOM: i64 = 1;
pub(crate) const CAR: i64 = 2;
pub(crate) const TICKET: i64 = 3;

/// What the services write. Each row stands for something that must happen once: a second one breaks its key, and what
/// is given back twice shows in the audit.
#[async_trait]
pub(crate) trait Tables: Store {
    /// Creates the tables, unless an earlier run has.
    async fn create(&self) -> Done;
    /// One of the statements below, about a trip.
    async fn run(tx: &mut Self::Tx, statement: &'static str, trip_id: Uuid, value: i64) -> Done;
    /// A number.
    async fn number(&self, query: &'static str) -> Result<i64, sqlx::Error>;
    /// Whether the trip was asked for before.
    async fn is_known(&self, trip_id: Uuid) -> Result<bool, sqlx::Error>;

    async fn wanted(tx: &mut Self::Tx, trip_id: Uuid, with_car: bool) -> Done {
        let statement = "INSERT INTO trip (trip_id, with_car, booked, cancelled, room) VALUES ($1, $2, 0, 0, 0)";
        Self::run(tx, statement, trip_id, with_car.into()).await
    }
    async fn booked(tx: &mut Self::Tx, trip_id: Uuid, room: i64) -> Done {
        Self::run(tx, "UPDATE trip SET booked = booked + 1, room = $2 WHERE trip_id = $1", trip_id, room).await
    }
    async fn cancelled(tx: &mut Self::Tx, trip_id: Uuid) -> Done {
        Self::run(tx, "UPDATE trip SET cancelled = cancelled + $2 WHERE trip_id = $1", trip_id, 1).await
    }
    async fn reserve(tx: &mut Self::Tx, trip_id: Uuid, what: i64) -> Done {
        Self::run(tx, "INSERT INTO reservation (trip_id, what, given_back) VALUES ($1, $2, 0)", trip_id, what).await
    }
    async fn give_back(tx: &mut Self::Tx, trip_id: Uuid, what: i64) -> Done {
        let statement = "UPDATE reservation SET given_back = given_back + 1 WHERE trip_id = $1 AND what = $2";
        Self::run(tx, statement, trip_id, what).await
    }

    /// The books: each trip ended once; who travels has all that was wanted, who does not has nothing.
    async fn audit(&self, trips: i64) -> Result<Vec<String>, sqlx::Error> {
        let wrong = "SELECT count(*) FROM trip LEFT JOIN (SELECT trip_id,
            sum(CASE WHEN what = 1 AND given_back = 0 THEN 1 ELSE 0 END) AS rooms,
            sum(CASE WHEN what = 2 AND given_back = 0 THEN 1 ELSE 0 END) AS cars,
            sum(CASE WHEN what = 3 AND given_back = 0 THEN 1 ELSE 0 END) AS tickets
            FROM reservation GROUP BY trip_id) kept ON kept.trip_id = trip.trip_id
            WHERE coalesce(rooms, 0) <> booked OR coalesce(tickets, 0) <> booked
            OR coalesce(cars, 0) <> booked * with_car";
        let checks = [
            ("trips", "SELECT count(*) FROM trip", trips),
            ("trips that have not ended once", "SELECT count(*) FROM trip WHERE booked + cancelled <> 1", 0),
            ("trips with too little or too much", wrong, 0),
            ("what was given back twice", "SELECT count(*) FROM reservation WHERE given_back > 1", 0),
            ("booked trips without a room number", "SELECT count(*) FROM trip WHERE booked = 1 AND room < 100", 0),
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

const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS trip (trip_id {uuid} PRIMARY KEY, with_car bigint NOT NULL, booked bigint NOT NULL,
     cancelled bigint NOT NULL, room bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS reservation (trip_id {uuid}, what bigint, given_back bigint NOT NULL,
     PRIMARY KEY (trip_id, what))",
];
const KNOWN: &str = "SELECT count(*) FROM trip WHERE trip_id = $1";

#[async_trait]
impl Tables for Sqlite {
    async fn create(&self) -> Done {
        for table in TABLES {
            sqlx::query(&table.replace("{uuid}", "BLOB")).execute(self.writer()).await?;
        }
        Ok(())
    }
    async fn run(tx: &mut Self::Tx, statement: &'static str, trip_id: Uuid, value: i64) -> Done {
        sqlx::query(statement).bind(trip_id).bind(value).execute(tx).await.map(drop)
    }
    async fn number(&self, query: &'static str) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(query).fetch_one(self.pool()).await
    }
    async fn is_known(&self, trip_id: Uuid) -> Result<bool, sqlx::Error> {
        Ok(sqlx::query_scalar::<_, i64>(KNOWN).bind(trip_id).fetch_one(self.pool()).await? > 0)
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
    async fn run(tx: &mut Self::Tx, statement: &'static str, trip_id: Uuid, value: i64) -> Done {
        sqlx::query(statement).bind(trip_id).bind(value).execute(tx).await.map(drop)
    }
    async fn number(&self, query: &'static str) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(query).fetch_one(self.pool()).await
    }
    async fn is_known(&self, trip_id: Uuid) -> Result<bool, sqlx::Error> {
        Ok(sqlx::query_scalar::<_, i64>(KNOWN).bind(trip_id).fetch_one(self.pool()).await? > 0)
    }
}
