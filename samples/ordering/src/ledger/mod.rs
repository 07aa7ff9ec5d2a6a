//! The services' own tables, one file of SQL for each database.

mod postgres;
mod sqlite;

use crate::messages::OrderPlaced;
use async_trait::async_trait;
use saga_core::{Inspect, Store};
use std::collections::HashMap;
use uuid::Uuid;

/// A service: each has a database of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Service {
    Ordering,
    Payment,
    Warehouse,
}

impl Service {
    pub(crate) const ALL: [Self; 3] = [Self::Ordering, Self::Payment, Self::Warehouse];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ordering => "ordering",
            Self::Payment => "payment",
            Self::Warehouse => "warehouse",
        }
    }
}

/// A database that keeps the ledger. `charge`, `refund` and `label` have no unique constraint on the order: a double effect would show.
#[async_trait]
pub(crate) trait Ledger: Store + Inspect {
    /// Creates the service's tables if they are not there.
    async fn create_tables(&self, service: Service) -> Result<(), sqlx::Error>;
    /// Stores an order; `false` if it is there already.
    async fn place(tx: &mut Self::Tx, order: &OrderPlaced) -> Result<bool, sqlx::Error>;
    /// Writes the status of orders, given by id.
    async fn set_statuses(tx: &mut Self::Tx, statuses: &[(&str, &str)]) -> Result<(), sqlx::Error>;
    async fn charge(tx: &mut Self::Tx, order_id: Uuid, payment_id: Uuid, amount_cents: i64) -> Result<(), sqlx::Error>;
    async fn refund(tx: &mut Self::Tx, order_id: Uuid, payment_id: Uuid, amount_cents: i64) -> Result<(), sqlx::Error>;
    async fn label(tx: &mut Self::Tx, order_id: Uuid, label_id: Uuid, address: &str) -> Result<(), sqlx::Error>;

    /// An order's status.
    async fn status_of(&self, order_id: Uuid) -> Result<Option<String>, sqlx::Error>;
    /// All orders with their status.
    async fn orders(&self) -> Result<HashMap<Uuid, String>, sqlx::Error>;
    /// How many rows, and how many cents, each order has in a table of effects.
    async fn effects(&self, table: Effects) -> Result<HashMap<Uuid, (i64, i64)>, sqlx::Error>;
}

/// A table of effects.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Effects {
    Charge,
    Refund,
    Label,
}

impl Effects {
    /// Counts rows and cents per order.
    fn sql(self) -> &'static str {
        match self {
            Self::Charge => {
                "SELECT order_id, count(*), CAST(sum(amount_cents) AS bigint) FROM charge GROUP BY order_id"
            }
            Self::Refund => {
                "SELECT order_id, count(*), CAST(sum(amount_cents) AS bigint) FROM refund GROUP BY order_id"
            }
            Self::Label => "SELECT order_id, count(*), CAST(0 AS bigint) FROM label GROUP BY order_id",
        }
    }
}
