//! The database side of Sagabus: inbox, outbox, saga instances and held messages beside your own tables, in
//! [`Postgres`] or [`Sqlite`]. The tables are documented in `postgres/schema.sql`, for operators to read.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod error;
#[cfg(all(feature = "postgres", feature = "sqlite"))] // for operators: it opens either
mod inspect;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod rows;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(all(feature = "postgres", feature = "sqlite"))]
pub use inspect::migrate;
#[cfg(all(feature = "postgres", feature = "sqlite"))]
pub use inspect::open;
#[cfg(all(feature = "postgres", feature = "sqlite"))]
pub use inspect::plans;
#[cfg(all(feature = "postgres", feature = "sqlite"))]
pub use inspect::schema_for;
#[cfg(feature = "postgres")]
pub use postgres::Postgres;
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;
