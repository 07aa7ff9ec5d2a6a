//! The ledger on SQLite.

use super::{CHARGE, Charge, Effects, LABEL, Ledger, ORDER, Order, PLACE, REFUND, Service};
use crate::messages::OrderPlaced;
use sagabus::{
    Sqlite, async_trait,
    sqlx::{Error, Executor, Row, SqliteConnection, query, sqlite::SqliteRow},
};
use std::collections::HashMap;
use uuid::Uuid;

fn order(row: &SqliteRow) -> Order {
    Order { customer: row.get(0), address: row.get(1), amount_cents: row.get(2), status: row.get(3) }
}

fn id(row: &SqliteRow) -> Result<Uuid, Error> {
    row.get::<&str, _>(0).parse().map_err(|error| Error::Decode(Box::new(error)))
}

#[async_trait]
impl Ledger for Sqlite {
    async fn create_tables(&self, service: Service) -> Result<(), Error> {
        // the last statement fails where an older version of this sample has left its tables
        let sql = match service {
            Service::Ordering => {
                "CREATE TABLE IF NOT EXISTS orders (order_id TEXT PRIMARY KEY, customer TEXT NOT NULL,
                    address TEXT NOT NULL, amount_cents INTEGER NOT NULL, status TEXT NOT NULL,
                    placed_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"
            }
            Service::Payment => {
                "CREATE TABLE IF NOT EXISTS charge (order_id TEXT PRIMARY KEY, payment_id TEXT NOT NULL,
                    amount_cents INTEGER NOT NULL, command_id TEXT NOT NULL, runs INTEGER NOT NULL DEFAULT 1,
                    at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
                 CREATE TABLE IF NOT EXISTS refund (payment_id TEXT PRIMARY KEY, order_id TEXT NOT NULL,
                    amount_cents INTEGER NOT NULL, command_id TEXT NOT NULL, runs INTEGER NOT NULL DEFAULT 1,
                    at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
                 SELECT c.runs, r.runs FROM charge c, refund r LIMIT 0"
            }
            Service::Warehouse => {
                "CREATE TABLE IF NOT EXISTS label (order_id TEXT PRIMARY KEY, label_id TEXT NOT NULL,
                    address TEXT NOT NULL, command_id TEXT NOT NULL, runs INTEGER NOT NULL DEFAULT 1,
                    at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
                 SELECT runs FROM label LIMIT 0"
            }
        };
        self.writer().execute(sql).await.map(drop)
    }

    async fn place(tx: &mut SqliteConnection, order: &OrderPlaced) -> Result<bool, Error> {
        let place = query(PLACE).bind(order.order_id.to_string()).bind(&order.customer).bind(&order.address);
        Ok(place.bind(order.amount_cents).execute(tx).await?.rows_affected() == 1)
    }

    async fn placed(tx: &mut SqliteConnection, order_id: Uuid) -> Result<Option<Order>, Error> {
        Ok(query(ORDER).bind(order_id.to_string()).fetch_optional(tx).await?.as_ref().map(order))
    }

    async fn set_statuses(tx: &mut SqliteConnection, statuses: &[(&str, &str)]) -> Result<(), Error> {
        let rows = serde_json::to_string(statuses).unwrap_or_default();
        let sql = "UPDATE orders SET status = r.value ->> 1 FROM json_each($1) r WHERE order_id = r.value ->> 0";
        query(sql).bind(rows).execute(tx).await.map(drop)
    }

    async fn charge(tx: &mut SqliteConnection, by: &str, order_id: Uuid, charge: &Charge) -> Result<Charge, Error> {
        let charged = query(CHARGE).bind(order_id.to_string()).bind(charge.payment_id.to_string());
        let row = charged.bind(charge.amount_cents).bind(by).fetch_one(tx).await?;
        Ok(Charge { payment_id: id(&row)?, amount_cents: row.get(1) })
    }

    async fn refund(tx: &mut SqliteConnection, by: &str, order_id: Uuid, charge: &Charge) -> Result<(), Error> {
        let refund = query(REFUND).bind(order_id.to_string()).bind(charge.payment_id.to_string());
        refund.bind(charge.amount_cents).bind(by).execute(tx).await.map(drop)
    }

    async fn label(
        tx: &mut SqliteConnection,
        by: &str,
        order_id: Uuid,
        label_id: Uuid,
        address: &str,
    ) -> Result<Uuid, Error> {
        let label = query(LABEL).bind(order_id.to_string()).bind(label_id.to_string());
        id(&label.bind(address).bind(by).fetch_one(tx).await?)
    }

    async fn order_by_id(&self, order_id: Uuid) -> Result<Option<Order>, Error> {
        Self::placed(&mut *self.pool().acquire().await?, order_id).await
    }

    async fn ended(&self, order_ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        let sql = "SELECT order_id FROM orders WHERE order_id IN (SELECT value FROM json_each($1))
                   AND status IN ('shipped', 'cancelled')";
        let order_ids = serde_json::to_string(order_ids).unwrap_or_default();
        query(sql).bind(order_ids).fetch_all(self.pool()).await?.iter().map(id).collect()
    }

    async fn orders(&self) -> Result<HashMap<Uuid, String>, Error> {
        let rows = query("SELECT order_id, status FROM orders").fetch_all(self.pool()).await?;
        rows.iter().map(|row| Ok((id(row)?, row.get(1)))).collect()
    }

    async fn effects(&self, table: Effects) -> Result<HashMap<Uuid, (i64, i64)>, Error> {
        let rows = query(table.sql()).fetch_all(self.pool()).await?;
        rows.iter().map(|row| Ok((id(row)?, (row.get(1), row.get(2))))).collect()
    }
}
