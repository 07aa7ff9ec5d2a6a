//! What goes between a relay or a dispatcher and the outbox.

use super::Destination;
use crate::Envelope;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// A relay's request for rows to publish.
#[derive(Debug, Clone)]
pub struct LeaseRequest<'a> {
    /// The endpoint whose rows it sends.
    pub endpoint: &'a str,
    /// This process.
    pub owner: &'a str,
    /// At most this many rows.
    pub rows_max: i64,
    /// How long the lease runs.
    pub lease: Duration,
    /// Rows whose first publish is older than this are left alone: [`Store::sweep`](super::Store::sweep) holds them for
    /// a person.
    pub retention: Duration,
}

/// What a relay got.
#[derive(Debug, Default)]
pub struct Leased {
    /// Rows to publish, oldest due first.
    pub rows: Vec<LeasedRow>,
    /// Time until the next row is due; `None` when none waits.
    pub next_due: Option<Duration>,
}

/// A leased outbox row.
#[derive(Debug, Clone)]
pub struct LeasedRow {
    /// The row.
    pub id: Uuid,
    /// Where it goes.
    pub destination: Destination,
    /// What goes.
    pub envelope: Arc<Envelope>,
    /// Earlier tries without success.
    pub attempts: u32,
    /// How often its lease ran out, because the process that was publishing it died.
    pub expired: u32,
}

/// What a dispatcher reports about the rows in its window.
#[derive(Debug, Clone)]
pub struct LeaseUpdate<'a> {
    /// This process.
    pub owner: &'a str,
    /// How long the lease runs from now.
    pub lease: Duration,
    /// Rows still being published, sorted.
    pub renew: &'a [Uuid],
    /// Rows that could not be published.
    pub failed: &'a [PublishFailed],
}

/// An outbox row that could not be published: its lease ends, and it is due again after a delay.
#[derive(Debug, Clone)]
pub struct PublishFailed {
    /// The row.
    pub id: Uuid,
    /// Why.
    pub error: String,
    /// Time until it is tried again.
    pub delay: Duration,
    /// Its destination has no queue: the row waits until it has one ([`Store::reopen`](super::Store::reopen)).
    pub unroutable: bool,
    /// Whether this counts as a try. A row that only waits behind another one was not tried.
    pub tried: bool,
}
