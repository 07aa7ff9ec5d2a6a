//! The database side of Sagabus: inbox, outbox, saga instances and held messages beside your own tables, in
//! [`Postgres`] or [`Sqlite`]. The tables are documented in `postgres/schema.sql`, for operators to read.

mod error;
mod inspect;
mod postgres;
mod rows;
mod sqlite;

pub use inspect::open;
pub use postgres::Postgres;
pub use sqlite::Sqlite;
