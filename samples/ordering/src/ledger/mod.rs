//! The services' own tables, one file of SQL for each database.

mod postgres;
mod sqlite;

pub(crate) use postgres::{create_database, may_pass};

use crate::messages::OrderPlaced;
use sagabus::{
    async_trait,
    port::{Inspect, Store},
    sqlx,
};
use std::collections::HashMap;
use uuid::Uuid;

/// A service: each has its own database.
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

/// An order as it was placed, and where it is now.
#[derive(Debug, PartialEq)]
pub(crate) struct Order {
    pub(crate) customer: String,
    pub(crate) address: String,
    pub(crate) amount_cents: i64,
    pub(crate) status: String,
}

impl Order {
    /// The field in which another order under the same id differs from this one.
    pub(crate) fn differs_from(&self, other: &OrderPlaced) -> Option<&'static str> {
        [
            ("customer", self.customer != other.customer),
            ("address", self.address != other.address),
            ("amount_cents", self.amount_cents != other.amount_cents),
        ]
        .into_iter()
        .find_map(|(field, differs)| differs.then_some(field))
    }
}

/// A charge, as the books have it.
#[derive(Debug, PartialEq)]
pub(crate) struct Charge {
    pub(crate) payment_id: Uuid,
    pub(crate) amount_cents: i64,
}

/// A database that keeps the ledger.
///
/// Each effect has a key: a command that is sent twice, under two message ids, has one effect and two equal answers.
/// But the keys must not hide a message that was handled twice. So each row counts how often the command that made it
/// was handled, and the audit reports a count above one. `by` is the id of that command's message.
#[async_trait]
pub(crate) trait Ledger: Store + Inspect {
    /// Creates the service's tables if they do not exist.
    async fn create_tables(&self, service: Service) -> Result<(), sqlx::Error>;

    /// Stores an order; `false` if there is one under its id.
    async fn place(tx: &mut Self::Tx, order: &OrderPlaced) -> Result<bool, sqlx::Error>;
    /// The order under an id, as the transaction sees it.
    async fn placed(tx: &mut Self::Tx, order_id: Uuid) -> Result<Option<Order>, sqlx::Error>;
    /// Writes the status of orders, given by id.
    async fn set_statuses(tx: &mut Self::Tx, statuses: &[(&str, &str)]) -> Result<(), sqlx::Error>;
    /// Charges an order, or returns how it was charged before.
    async fn charge(tx: &mut Self::Tx, by: &str, order_id: Uuid, charge: &Charge) -> Result<Charge, sqlx::Error>;
    /// Pays a charge back, once.
    async fn refund(tx: &mut Self::Tx, by: &str, order_id: Uuid, charge: &Charge) -> Result<(), sqlx::Error>;
    /// Prints a label, or returns the one printed before.
    async fn label(
        tx: &mut Self::Tx,
        by: &str,
        order_id: Uuid,
        label_id: Uuid,
        address: &str,
    ) -> Result<Uuid, sqlx::Error>;

    /// The order under an id.
    async fn order_by_id(&self, order_id: Uuid) -> Result<Option<Order>, sqlx::Error>;
    /// Those of the orders that have reached an end state.
    async fn ended(&self, order_ids: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error>;
    /// All orders with their status.
    async fn orders(&self) -> Result<HashMap<Uuid, String>, sqlx::Error>;
    /// How often, and with how many cents, an effect happened for each order.
    async fn effects(&self, table: Effects) -> Result<HashMap<Uuid, (i64, i64)>, sqlx::Error>;
}

const PLACE: &str = "INSERT INTO orders (order_id, customer, address, amount_cents, status)
    VALUES ($1, $2, $3, $4, 'placed') ON CONFLICT DO NOTHING";

const ORDER: &str = "SELECT customer, address, amount_cents, status FROM orders WHERE order_id = $1";

const CHARGE: &str = "INSERT INTO charge (order_id, payment_id, amount_cents, command_id) VALUES ($1, $2, $3, $4)
    ON CONFLICT (order_id) DO UPDATE
    SET runs = charge.runs + CASE WHEN charge.command_id = excluded.command_id THEN 1 ELSE 0 END
    RETURNING payment_id, amount_cents";

const REFUND: &str = "INSERT INTO refund (order_id, payment_id, amount_cents, command_id) VALUES ($1, $2, $3, $4)
    ON CONFLICT (payment_id) DO UPDATE
    SET runs = refund.runs + CASE WHEN refund.command_id = excluded.command_id THEN 1 ELSE 0 END";

const LABEL: &str = "INSERT INTO label (order_id, label_id, address, command_id) VALUES ($1, $2, $3, $4)
    ON CONFLICT (order_id) DO UPDATE
    SET runs = label.runs + CASE WHEN label.command_id = excluded.command_id THEN 1 ELSE 0 END
    RETURNING label_id";

/// A table of effects.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Effects {
    Charge,
    Refund,
    Label,
}

impl Effects {
    /// Counts effects and cents per order.
    fn sql(self) -> &'static str {
        match self {
            Self::Charge => {
                "SELECT order_id, CAST(sum(runs) AS bigint), CAST(sum(runs * amount_cents) AS bigint)
                 FROM charge GROUP BY order_id"
            }
            Self::Refund => {
                "SELECT order_id, CAST(sum(runs) AS bigint), CAST(sum(runs * amount_cents) AS bigint)
                 FROM refund GROUP BY order_id"
            }
            Self::Label => "SELECT order_id, CAST(sum(runs) AS bigint), CAST(0 AS bigint) FROM label GROUP BY order_id",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus::{Sqlite, port::Unit};
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A database in its own folder, with the tables of a service.
    async fn store(service: Service) -> (std::path::PathBuf, Sqlite) {
        let folder = std::env::temp_dir().join(format!("ordering-{}", Uuid::now_v7()));
        std::fs::create_dir_all(&folder).expect("the folder for temporary files can be written");
        let store = Sqlite::open(folder.join("ledger.db")).await.expect("a new file opens");
        store.create_tables(service).await.expect("the tables are created");
        (folder, store)
    }

    #[tokio::test]
    async fn a_second_command_for_an_order_is_answered_as_the_first_and_charges_nothing() {
        let (folder, store) = store(Service::Payment).await;
        let order_id = Uuid::now_v7();
        let charge = |amount_cents| Charge { payment_id: Uuid::now_v7(), amount_cents };
        let mut unit = store.begin(&[], LIMIT).await.unwrap();
        let first = charge(100);
        assert_eq!(Sqlite::charge(unit.tx(), "a", order_id, &first).await.unwrap(), first);
        assert_eq!(Sqlite::charge(unit.tx(), "b", order_id, &charge(999)).await.unwrap(), first);
        Sqlite::refund(unit.tx(), "c", order_id, &first).await.unwrap();
        Sqlite::refund(unit.tx(), "d", order_id, &first).await.unwrap();
        unit.commit().await.unwrap();
        for table in [Effects::Charge, Effects::Refund] {
            assert_eq!(store.effects(table).await.unwrap()[&order_id], (1, 100), "{table:?}");
        }
        let _ = std::fs::remove_dir_all(folder);
    }

    #[tokio::test]
    async fn one_command_that_has_its_effect_twice_shows_in_the_books() {
        let (folder, store) = store(Service::Warehouse).await;
        let order_id = Uuid::now_v7();
        let mut unit = store.begin(&[], LIMIT).await.unwrap();
        let first = Sqlite::label(unit.tx(), "a", order_id, Uuid::now_v7(), "here").await.unwrap();
        assert_eq!(Sqlite::label(unit.tx(), "b", order_id, Uuid::now_v7(), "here").await.unwrap(), first);
        assert_eq!(Sqlite::label(unit.tx(), "a", order_id, Uuid::now_v7(), "here").await.unwrap(), first);
        unit.commit().await.unwrap();
        assert_eq!(store.effects(Effects::Label).await.unwrap()[&order_id], (2, 0));
        let _ = std::fs::remove_dir_all(folder);
    }
}
