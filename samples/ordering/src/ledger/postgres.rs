//! The ledger on PostgreSQL.
//!
//! It works through a pooler that may give each transaction another session, such as PgBouncer in transaction mode:
//! no statement is prepared by name, and each runs in a transaction. That costs a round trip per statement. You can
//! leave out `persistent(false)` without such a pooler, or with PgBouncer 1.21 or newer and
//! `max_prepared_statements`.

use super::{CHARGE, Charge, Effects, LABEL, Ledger, ORDER, Order, PLACE, REFUND, Service};
use crate::messages::OrderPlaced;
use sagabus::{
    Postgres, async_trait,
    sqlx::{
        self, ConnectOptions, Connection, Error, Executor, PgConnection, Row,
        postgres::{PgArguments, PgConnectOptions, PgRow},
        query::Query,
    },
};
use std::collections::HashMap;
use uuid::Uuid;

/// A statement that leaves nothing behind in the session.
fn query(sql: &str) -> Query<'_, sqlx::Postgres, PgArguments> {
    sqlx::query(sql).persistent(false)
}

/// Creates the database that the URL names, unless it is there.
pub(crate) async fn create_database(url: &str) -> Result<(), Error> {
    let database: PgConnectOptions = url.parse()?;
    let name = database.get_database().unwrap_or_default().to_owned();
    let mut server = database.database("postgres").connect().await?;
    let known = query("SELECT FROM pg_database WHERE datname = $1").bind(&name).fetch_optional(&mut server).await?;
    if known.is_none() {
        let create = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
        match server.execute(&*create).await {
            Err(error) if !is(&error, &SOMEBODY_DID) => return Err(error),
            _ => {}
        }
    }
    server.close().await
}

/// Another process created it just now: duplicate database, or a unique violation when both did at once.
const SOMEBODY_DID: [&str; 2] = ["42P04", "23505"];
/// The server starts, stops, or has no room for one more connection.
const BUSY: [&str; 4] = ["57P03", "57P01", "57P02", "53300"];

fn is(error: &Error, codes: &[&str]) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| codes.contains(&&*code))
}

/// Whether the server may answer later: it cannot be reached, or is busy.
pub(crate) fn may_pass(error: &Error) -> bool {
    matches!(error, Error::Io(_)) || is(error, &BUSY)
}

fn order(row: &PgRow) -> Order {
    Order { customer: row.get(0), address: row.get(1), amount_cents: row.get(2), status: row.get(3) }
}

#[async_trait]
impl Ledger for Postgres {
    async fn create_tables(&self, service: Service) -> Result<(), Error> {
        let mut tx = self.pool().begin().await?;
        // `IF NOT EXISTS` alone is not safe when two processes start at once; an existing table needs no notice in the
        // log
        tx.execute("SET LOCAL client_min_messages = warning; SELECT pg_advisory_xact_lock(20261121)").await?;
        // the last statement fails where an older version of this sample has left its tables
        tx.execute(match service {
            Service::Ordering => {
                "CREATE TABLE IF NOT EXISTS orders (order_id uuid PRIMARY KEY, customer text NOT NULL,
                    address text NOT NULL, amount_cents bigint NOT NULL, status text NOT NULL,
                    placed_at timestamptz NOT NULL DEFAULT clock_timestamp())"
            }
            Service::Payment => {
                "CREATE TABLE IF NOT EXISTS charge (order_id uuid PRIMARY KEY, payment_id uuid NOT NULL,
                    amount_cents bigint NOT NULL, command_id text NOT NULL, runs bigint NOT NULL DEFAULT 1,
                    at timestamptz NOT NULL DEFAULT clock_timestamp());
                 CREATE TABLE IF NOT EXISTS refund (payment_id uuid PRIMARY KEY, order_id uuid NOT NULL,
                    amount_cents bigint NOT NULL, command_id text NOT NULL, runs bigint NOT NULL DEFAULT 1,
                    at timestamptz NOT NULL DEFAULT clock_timestamp());
                 SELECT c.runs, r.runs FROM charge c, refund r LIMIT 0"
            }
            Service::Warehouse => {
                "CREATE TABLE IF NOT EXISTS label (order_id uuid PRIMARY KEY, label_id uuid NOT NULL,
                    address text NOT NULL, command_id text NOT NULL, runs bigint NOT NULL DEFAULT 1,
                    at timestamptz NOT NULL DEFAULT clock_timestamp());
                 SELECT runs FROM label LIMIT 0"
            }
        })
        .await?;
        tx.commit().await
    }

    async fn place(tx: &mut PgConnection, order: &OrderPlaced) -> Result<bool, Error> {
        let place = query(PLACE).bind(order.order_id).bind(&order.customer).bind(&order.address);
        Ok(place.bind(order.amount_cents).execute(tx).await?.rows_affected() == 1)
    }

    async fn placed(tx: &mut PgConnection, order_id: Uuid) -> Result<Option<Order>, Error> {
        Ok(query(ORDER).bind(order_id).fetch_optional(tx).await?.as_ref().map(order))
    }

    async fn set_statuses(tx: &mut PgConnection, statuses: &[(&str, &str)]) -> Result<(), Error> {
        let (ids, statuses): (Vec<Uuid>, Vec<&str>) =
            statuses.iter().filter_map(|(id, status)| Some((id.parse::<Uuid>().ok()?, *status))).unzip();
        query(
            "UPDATE orders o SET status = r.status FROM unnest($1::uuid[], $2::text[]) AS r(order_id, status)
             WHERE o.order_id = r.order_id AND o.order_id = ANY($1)",
        )
        .bind(ids)
        .bind(statuses)
        .execute(tx)
        .await
        .map(drop)
    }

    async fn charge(tx: &mut PgConnection, by: &str, order_id: Uuid, charge: &Charge) -> Result<Charge, Error> {
        let charged = query(CHARGE).bind(order_id).bind(charge.payment_id).bind(charge.amount_cents).bind(by);
        let row = charged.fetch_one(tx).await?;
        Ok(Charge { payment_id: row.get(0), amount_cents: row.get(1) })
    }

    async fn refund(tx: &mut PgConnection, by: &str, order_id: Uuid, charge: &Charge) -> Result<(), Error> {
        let refund = query(REFUND).bind(order_id).bind(charge.payment_id).bind(charge.amount_cents).bind(by);
        refund.execute(tx).await.map(drop)
    }

    async fn label(
        tx: &mut PgConnection,
        by: &str,
        order_id: Uuid,
        label_id: Uuid,
        address: &str,
    ) -> Result<Uuid, Error> {
        Ok(query(LABEL).bind(order_id).bind(label_id).bind(address).bind(by).fetch_one(tx).await?.get(0))
    }

    async fn order_by_id(&self, order_id: Uuid) -> Result<Option<Order>, Error> {
        Self::placed(&mut *self.pool().begin().await?, order_id).await
    }

    async fn ended(&self, order_ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        let sql = "SELECT order_id FROM orders WHERE order_id = ANY($1) AND status IN ('shipped', 'cancelled')";
        let rows = query(sql).bind(order_ids).fetch_all(&mut *self.pool().begin().await?).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    async fn orders(&self) -> Result<HashMap<Uuid, String>, Error> {
        let rows = query("SELECT order_id, status FROM orders").fetch_all(&mut *self.pool().begin().await?).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn effects(&self, table: Effects) -> Result<HashMap<Uuid, (i64, i64)>, Error> {
        let rows = query(table.sql()).fetch_all(&mut *self.pool().begin().await?).await?;
        Ok(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
    }
}
