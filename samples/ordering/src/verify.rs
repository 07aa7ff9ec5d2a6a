//! The ledger, audited: money and goods must add up, and nothing may be left over.

use crate::{
    figures::counted,
    ledger::{Effects, Ledger},
};
use anyhow::Result;
use sagabus::port::{HeldFilter, InstanceFilter, OutboxFilter};
use serde::Serialize;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// The databases of the three services.
pub(crate) struct Books<Db> {
    pub(crate) ordering: Db,
    pub(crate) payment: Db,
    pub(crate) warehouse: Db,
}

/// What the books say.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Audit {
    pub(crate) orders: usize,
    pub(crate) shipped: usize,
    pub(crate) cancelled: usize,
    pub(crate) charges: i64,
    pub(crate) refunds: i64,
    pub(crate) labels: i64,
    pub(crate) violations: Vec<String>,
}

/// The most violations that are listed; the rest is only counted.
const LISTED: usize = 50;

impl<Db: Ledger> Books<Db> {
    /// Audits until there is no violation or the time is up: work may still be under way.
    pub(crate) async fn audit_within(&self, expected: Option<usize>, wait: Duration) -> Result<Audit> {
        let until = Instant::now() + wait;
        loop {
            let audit = self.audit(expected).await;
            match audit {
                Ok(audit) if audit.violations.is_empty() || Instant::now() >= until => return Ok(audit),
                Err(error) if Instant::now() >= until => return Err(error),
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn audit(&self, expected: Option<usize>) -> Result<Audit> {
        let orders = self.ordering.orders().await?;
        let charges = self.payment.effects(Effects::Charge).await?;
        let refunds = self.payment.effects(Effects::Refund).await?;
        let labels = self.warehouse.effects(Effects::Label).await?;
        let mut wrong = Vec::new();
        if let Some(expected) = expected
            && expected != orders.len()
        {
            let are = if orders.len() == 1 { "is" } else { "are" };
            wrong.push(format!("{} {are} there, {expected} expected", counted(orders.len() as i64, "order")));
        }
        for (id, status) in &orders {
            let of = |table: &HashMap<Uuid, (i64, i64)>| table.get(id).copied().unwrap_or_default();
            let ((charges, charged), (refunds, refunded), (labels, _)) = (of(&charges), of(&refunds), of(&labels));
            let counts = format!(
                "{} of {charged} cents, {} of {refunded} cents, {}",
                counted(charges, "charge"),
                counted(refunds, "refund"),
                counted(labels, "label")
            );
            match status.as_str() {
                "shipped" if (charges, refunds, labels) == (1, 0, 1) => {}
                "cancelled" if charges == refunds && charged == refunded && charges <= 1 && labels == 0 => {}
                "shipped" | "cancelled" => wrong.push(format!("order {id} is {status}, but has {counts}")),
                other => wrong.push(format!("order {id} has not ended: {other}, {counts}")),
            }
        }
        for (what, table) in [("charge", &charges), ("refund", &refunds), ("label", &labels)] {
            wrong.extend(
                table.keys().filter(|id| !orders.contains_key(id)).map(|id| format!("{what} for unknown order {id}")),
            );
        }
        for (name, store) in [("ordering", &self.ordering), ("payment", &self.payment), ("warehouse", &self.warehouse)]
        {
            self.leftovers(name, store, &mut wrong).await?;
        }
        let count = |status: &str| orders.values().filter(|known| *known == status).count();
        let total = |table: &HashMap<Uuid, (i64, i64)>| table.values().map(|(rows, _)| rows).sum();
        if wrong.len() > LISTED {
            let more = wrong.len() - LISTED;
            wrong.truncate(LISTED);
            wrong.push(format!("… and {more} more"));
        }
        Ok(Audit {
            orders: orders.len(),
            shipped: count("shipped"),
            cancelled: count("cancelled"),
            charges: total(&charges),
            refunds: total(&refunds),
            labels: total(&labels),
            violations: wrong,
        })
    }

    /// Every outbox empty, nothing held, no instance open.
    async fn leftovers(&self, name: &str, store: &Db, wrong: &mut Vec<String>) -> Result<()> {
        const LEFT: i64 = 5;
        let open = InstanceFilter { open: true, ..Default::default() };
        for row in store.outbox(&OutboxFilter::default(), LEFT).await? {
            let error = row.last_error.map(|error| format!(", last error: {error}")).unwrap_or_default();
            wrong.push(format!("outbox of {name}: {} {} ({}){error}", row.kind, row.type_name, row.message_id));
        }
        for held in store.held(&HeldFilter::default(), LEFT).await? {
            let error = held.error.unwrap_or_default();
            wrong.push(format!("held at {name}: {} ({}), {}: {error}", held.type_name, held.message_id, held.reason));
        }
        for instance in store.instances(&open, LEFT).await? {
            wrong.push(format!("instance {}/{} is open: {}", instance.saga, instance.id, instance.state));
        }
        Ok(())
    }
}

/// Prints an audit for people.
pub(crate) fn print(audit: &Audit) {
    let Audit { orders, shipped, cancelled, charges, refunds, labels, violations } = audit;
    println!("{}: {shipped} shipped, {cancelled} cancelled", counted(*orders as i64, "order"));
    println!("{}, {}, {}", counted(*charges, "charge"), counted(*refunds, "refund"), counted(*labels, "label"));
    match violations.as_slice() {
        [] => println!("no violations"),
        violations => violations.iter().for_each(|violation| println!("VIOLATION: {violation}")),
    }
}
