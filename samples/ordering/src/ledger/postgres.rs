//! The ledger on PostgreSQL.

use super::{Effects, Ledger, Service};
use crate::messages::OrderPlaced;
use async_trait::async_trait;
use outbox::Postgres;
use sqlx::{Error, Executor, PgConnection, Row};
use std::collections::HashMap;
use uuid::Uuid;

#[async_trait]
impl Ledger for Postgres {
    async fn create_tables(&self, service: Service) -> Result<(), Error> {
        let mut tx = self.pool().begin().await?;
        // `IF NOT EXISTS` alone does not save two processes that start at once from each other
        tx.execute("SELECT pg_advisory_xact_lock(20261121)").await?;
        tx.execute(match service {
            Service::Ordering => {
                "CREATE TABLE IF NOT EXISTS orders (order_id uuid PRIMARY KEY, customer text NOT NULL, address text NOT NULL,
                    amount_cents bigint NOT NULL, status text NOT NULL, placed_at timestamptz NOT NULL DEFAULT clock_timestamp())"
            }
            Service::Payment => {
                "CREATE TABLE IF NOT EXISTS charge (order_id uuid NOT NULL, payment_id uuid NOT NULL, amount_cents bigint NOT NULL,
                    at timestamptz NOT NULL DEFAULT clock_timestamp());
                 CREATE TABLE IF NOT EXISTS refund (order_id uuid NOT NULL, payment_id uuid NOT NULL, amount_cents bigint NOT NULL,
                    at timestamptz NOT NULL DEFAULT clock_timestamp())"
            }
            Service::Warehouse => {
                "CREATE TABLE IF NOT EXISTS label (order_id uuid NOT NULL, label_id uuid NOT NULL, address text NOT NULL,
                    at timestamptz NOT NULL DEFAULT clock_timestamp())"
            }
        })
        .await?;
        tx.commit().await
    }

    async fn place(tx: &mut PgConnection, order: &OrderPlaced) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO orders (order_id, customer, address, amount_cents, status) VALUES ($1, $2, $3, $4, 'placed') ON CONFLICT DO NOTHING",
        )
        .bind(order.order_id)
        .bind(&order.customer)
        .bind(&order.address)
        .bind(order.amount_cents)
        .execute(tx)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn set_statuses(tx: &mut PgConnection, statuses: &[(&str, &str)]) -> Result<(), Error> {
        let (ids, statuses): (Vec<Uuid>, Vec<&str>) =
            statuses.iter().filter_map(|(id, status)| Some((id.parse::<Uuid>().ok()?, *status))).unzip();
        sqlx::query(
            "UPDATE orders o SET status = r.status FROM unnest($1::uuid[], $2::text[]) AS r(order_id, status)
             WHERE o.order_id = r.order_id AND o.order_id = ANY($1)",
        )
        .bind(ids)
        .bind(statuses)
        .execute(tx)
        .await
        .map(drop)
    }

    async fn charge(tx: &mut PgConnection, order_id: Uuid, payment_id: Uuid, amount_cents: i64) -> Result<(), Error> {
        let sql = "INSERT INTO charge (order_id, payment_id, amount_cents) VALUES ($1, $2, $3)";
        sqlx::query(sql).bind(order_id).bind(payment_id).bind(amount_cents).execute(tx).await.map(drop)
    }

    async fn refund(tx: &mut PgConnection, order_id: Uuid, payment_id: Uuid, amount_cents: i64) -> Result<(), Error> {
        let sql = "INSERT INTO refund (order_id, payment_id, amount_cents) VALUES ($1, $2, $3)";
        sqlx::query(sql).bind(order_id).bind(payment_id).bind(amount_cents).execute(tx).await.map(drop)
    }

    async fn label(tx: &mut PgConnection, order_id: Uuid, label_id: Uuid, address: &str) -> Result<(), Error> {
        let sql = "INSERT INTO label (order_id, label_id, address) VALUES ($1, $2, $3)";
        sqlx::query(sql).bind(order_id).bind(label_id).bind(address).execute(tx).await.map(drop)
    }

    async fn status_of(&self, order_id: Uuid) -> Result<Option<String>, Error> {
        sqlx::query_scalar("SELECT status FROM orders WHERE order_id = $1")
            .bind(order_id)
            .fetch_optional(self.pool())
            .await
    }

    async fn orders(&self) -> Result<HashMap<Uuid, String>, Error> {
        let rows = sqlx::query("SELECT order_id, status FROM orders").fetch_all(self.pool()).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn effects(&self, table: Effects) -> Result<HashMap<Uuid, (i64, i64)>, Error> {
        let rows = sqlx::query(table.sql()).fetch_all(self.pool()).await?;
        Ok(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
    }
}
