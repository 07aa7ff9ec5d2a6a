//! What the demo prints: what it simulates, the story of one order, and the figures. Lines fit into 80 columns.

use super::run::{Ended, Run};
use crate::{
    figures::{Latency, counted, rate},
    ledger::Ledger,
    saga::OrderFulfilment,
    services::World,
    verify::{self, Audit},
};
use anyhow::Result;
use sagabus::{
    Saga,
    port::{InstanceKey, JournalView},
};
use serde::Serialize;
use std::time::Duration;

/// What this run did, and what the books say about it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    orders: usize,
    shipped: usize,
    cancelled: usize,
    charges: i64,
    refunds: i64,
    labels: i64,
    violations: Vec<String>,
    elapsed_ms: u64,
    sagas_per_s: Option<f64>,
    latency_ms: Option<Latency>,
    /// The same without orders that met the silent bank: those only wait.
    answered: Answered,
}

#[derive(Debug, Serialize)]
struct Answered {
    orders: usize,
    elapsed_ms: u64,
    sagas_per_s: Option<f64>,
    latency_ms: Option<Latency>,
}

/// Says what is about to happen.
pub(super) fn opening(orders: usize, world: World, payment_timeout: f64, stage: &str) {
    println!("{} through ordering, payment and warehouse,", counted(orders as i64, "order"));
    println!("{stage}");
    let World { decline, no_stock, silent } = world;
    println!("simulated: {decline} % of payments declined, {no_stock} % of orders out of stock,");
    println!("{silent} % met by a silent bank and cancelled by a timer after {payment_timeout} s");
    println!();
}

impl Report {
    pub(super) fn new(before: &Audit, after: &Audit, run: &Run) -> Self {
        let times = |ended: &mut dyn Iterator<Item = &Ended>| Latency::of(ended.map(|order| order.took).collect());
        let answered = || run.ended.iter().filter(|order| !order.silent);
        let last_answered = answered().map(|order| order.at).max().unwrap_or_default();
        Self {
            orders: after.orders - before.orders,
            shipped: after.shipped - before.shipped,
            cancelled: after.cancelled - before.cancelled,
            charges: after.charges - before.charges,
            refunds: after.refunds - before.refunds,
            labels: after.labels - before.labels,
            violations: after.violations.clone(),
            elapsed_ms: run.elapsed.as_millis() as u64,
            sagas_per_s: rate(run.ended.len(), run.elapsed),
            latency_ms: times(&mut run.ended.iter()),
            answered: Answered {
                orders: answered().count(),
                elapsed_ms: last_answered.as_millis() as u64,
                sagas_per_s: rate(answered().count(), last_answered),
                latency_ms: times(&mut answered()),
            },
        }
    }

    pub(super) fn print(&self, payment_timeout: f64, story: Option<&str>, after: &Audit) {
        if let Some(story) = story {
            println!("{story}");
        }
        self.speed(payment_timeout).iter().for_each(|line| println!("{line}"));
        println!("the books, earlier runs included:");
        verify::print(after);
    }

    /// How fast it was; `None` when there is nothing to measure.
    fn speed(&self, payment_timeout: f64) -> Vec<String> {
        let mut lines = Vec::new();
        let Answered { orders, elapsed_ms, sagas_per_s, latency_ms } = &self.answered;
        if let Some(rate) = sagas_per_s {
            let seconds = *elapsed_ms as f64 / 1000.0;
            lines.push(format!("{} in {seconds:.1} s: {rate:.0} orders/s", counted(*orders as i64, "order")));
        }
        if let Some(Latency { p50, p99, max }) = latency_ms {
            lines.push(format!("from placed to ended: p50 {p50:.0} ms, p99 {p99:.0} ms, max {max:.0} ms"));
        }
        let silent = self.orders.saturating_sub(*orders);
        if silent > 0 {
            let met = counted(silent as i64, "order");
            lines.push(format!("{met} met the silent bank and ended by a timer after {payment_timeout} s"));
        }
        lines
    }
}

/// More than any order has.
const STORY_LINES_MAX: i64 = 100;

/// The story of one order, from the journal: an order that was paid and refunded if there is one, else the first to
/// end.
pub(super) async fn story<Db: Ledger>(ordering: &Db, world: World, run: &Run) -> Result<Option<String>> {
    let turns = |order: &&Ended| {
        let id = order.order_id;
        !order.silent && !world.declines(id) && world.lacks_stock(id)
    };
    let Some(order) = run.ended.iter().find(turns).or(run.ended.first()) else { return Ok(None) };
    let id = order.order_id.to_string();
    let key = InstanceKey { saga: OrderFulfilment::NAME.into(), id: id.clone() };
    let journal = ordering.journal(&key, STORY_LINES_MAX).await?;
    Ok(Some(told(&id, &journal)))
}

fn told(id: &str, journal: &[JournalView]) -> String {
    let began_us = journal.first().map_or(0, |line| line.handled_at_us);
    let mut story = format!("the story of order {id}:\n");
    for line in journal {
        let Some(state) = &line.to_state else { continue };
        let after = Duration::from_micros(line.handled_at_us.saturating_sub(began_us).max(0) as u64).as_millis();
        let sent: Vec<&str> = line.effects.as_array().into_iter().flatten().filter_map(sent).collect();
        let sends = if sent.is_empty() { String::new() } else { format!(" sends {}", sent.join(" and ")) };
        let told = format!("{after:>5} ms  {:<20} -> {state:<16}{sends}", name(&line.type_name));
        story.push_str(told.trim_end());
        story.push('\n');
    }
    story
}

/// A message's name without its service.
fn name(type_name: &str) -> &str {
    type_name.rsplit('.').next().unwrap_or(type_name)
}

/// What a transition caused: a message by its name. A message from ordering to itself is a timer.
fn sent(effect: &serde_json::Value) -> Option<&str> {
    if effect["to"] == "ordering" { Some("a timer") } else { effect["type"].as_str().map(name) }
}
