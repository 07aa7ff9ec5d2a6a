//! The ledger on SQLite.

use super::{Effects, Ledger, Service};
use crate::messages::OrderPlaced;
use async_trait::async_trait;
use outbox::Sqlite;
use sqlx::{Error, Executor, Row, SqliteConnection, sqlite::SqliteRow};
use std::collections::HashMap;
use uuid::Uuid;

#[async_trait]
impl Ledger for Sqlite {
    async fn create_tables(&self, service: Service) -> Result<(), Error> {
        let sql = match service {
            Service::Ordering => {
                "CREATE TABLE IF NOT EXISTS orders (order_id TEXT PRIMARY KEY, customer TEXT NOT NULL, address TEXT NOT NULL,
                    amount_cents INTEGER NOT NULL, status TEXT NOT NULL, placed_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"
            }
            Service::Payment => {
                "CREATE TABLE IF NOT EXISTS charge (order_id TEXT NOT NULL, payment_id TEXT NOT NULL, amount_cents INTEGER NOT NULL,
                    at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
                 CREATE TABLE IF NOT EXISTS refund (order_id TEXT NOT NULL, payment_id TEXT NOT NULL, amount_cents INTEGER NOT NULL,
                    at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"
            }
            Service::Warehouse => {
                "CREATE TABLE IF NOT EXISTS label (order_id TEXT NOT NULL, label_id TEXT NOT NULL, address TEXT NOT NULL,
                    at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"
            }
        };
        self.writer().execute(sql).await.map(drop)
    }

    async fn place(tx: &mut SqliteConnection, order: &OrderPlaced) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO orders (order_id, customer, address, amount_cents, status) VALUES ($1, $2, $3, $4, 'placed') ON CONFLICT DO NOTHING",
        )
        .bind(order.order_id.to_string())
        .bind(&order.customer)
        .bind(&order.address)
        .bind(order.amount_cents)
        .execute(tx)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn set_statuses(tx: &mut SqliteConnection, statuses: &[(&str, &str)]) -> Result<(), Error> {
        let rows = serde_json::to_string(statuses).unwrap_or_default();
        let sql = "UPDATE orders SET status = r.value ->> 1 FROM json_each($1) r WHERE order_id = r.value ->> 0";
        sqlx::query(sql).bind(rows).execute(tx).await.map(drop)
    }

    async fn charge(
        tx: &mut SqliteConnection,
        order_id: Uuid,
        payment_id: Uuid,
        amount_cents: i64,
    ) -> Result<(), Error> {
        let sql = "INSERT INTO charge (order_id, payment_id, amount_cents) VALUES ($1, $2, $3)";
        let query = sqlx::query(sql).bind(order_id.to_string()).bind(payment_id.to_string());
        query.bind(amount_cents).execute(tx).await.map(drop)
    }

    async fn refund(
        tx: &mut SqliteConnection,
        order_id: Uuid,
        payment_id: Uuid,
        amount_cents: i64,
    ) -> Result<(), Error> {
        let sql = "INSERT INTO refund (order_id, payment_id, amount_cents) VALUES ($1, $2, $3)";
        let query = sqlx::query(sql).bind(order_id.to_string()).bind(payment_id.to_string());
        query.bind(amount_cents).execute(tx).await.map(drop)
    }

    async fn label(tx: &mut SqliteConnection, order_id: Uuid, label_id: Uuid, address: &str) -> Result<(), Error> {
        let sql = "INSERT INTO label (order_id, label_id, address) VALUES ($1, $2, $3)";
        sqlx::query(sql).bind(order_id.to_string()).bind(label_id.to_string()).bind(address).execute(tx).await.map(drop)
    }

    async fn status_of(&self, order_id: Uuid) -> Result<Option<String>, Error> {
        let sql = "SELECT status FROM orders WHERE order_id = $1";
        sqlx::query_scalar(sql).bind(order_id.to_string()).fetch_optional(self.pool()).await
    }

    async fn orders(&self) -> Result<HashMap<Uuid, String>, Error> {
        let rows = sqlx::query("SELECT order_id, status FROM orders").fetch_all(self.pool()).await?;
        rows.iter().map(|row| Ok((id(row)?, row.get(1)))).collect()
    }

    async fn effects(&self, table: Effects) -> Result<HashMap<Uuid, (i64, i64)>, Error> {
        let rows = sqlx::query(table.sql()).fetch_all(self.pool()).await?;
        rows.iter().map(|row| Ok((id(row)?, (row.get(1), row.get(2))))).collect()
    }
}

fn id(row: &SqliteRow) -> Result<Uuid, Error> {
    row.get::<&str, _>(0).parse().map_err(|error| Error::Decode(Box::new(error)))
}
