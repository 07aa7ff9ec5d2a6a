//! What goes between a relay or a dispatcher and the outbox.

use super::Destination;
use crate::Envelope;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// A row that is no longer in the outbox, because its message is not to be sent after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TakenBack {
    /// The row.
    pub row: Uuid,
    /// A process has tried to publish it before: the broker may have the message all the same.
    pub tried: bool,
}

impl TakenBack {
    /// A row that is gone.
    pub fn new(row: Uuid, tried: bool) -> Self {
        Self { row, tried }
    }
}

/// A relay's request for rows to publish.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LeaseRequest<'a> {
    /// The endpoint whose rows it sends.
    pub endpoint: &'a str,
    /// This process.
    pub owner: &'a str,
    /// At most this many rows.
    pub rows_max: i64,
    /// No more rows once the bodies of those before have so many bytes.
    pub bytes_max: i64,
    /// How long the lease runs.
    pub lease: Duration,
    /// Rows whose first publish is older than this are left alone: [`Store::sweep`](super::Store::sweep) holds them for
    /// a person.
    pub retention: Duration,
    /// Rows that became due longer ago need not be looked for: the relay has looked there just now, and looks again
    /// soon. `None`: all rows. On a store that does not slow down by rows that are gone it makes no difference.
    pub since: Option<Duration>,
    /// What this process is publishing, sorted, if it may have rows under its lease that it does not know of: the
    /// database's answer to a commit or to an earlier request was lost. Such rows are taken too, although their leases
    /// run; `since` does not matter then. `None`, as usual: leave rows under a lease that runs alone.
    pub known: Option<&'a [Uuid]>,
    /// The next row that is due need not be named if it is due later than this from now: the relay looks again then.
    /// While PostgreSQL cannot remove rows that are gone, it would read all of them on its way to that row.
    pub ahead: Duration,
}

impl<'a> LeaseRequest<'a> {
    /// A process's request for the rows of its endpoint.
    pub fn new(endpoint: &'a str, owner: &'a str, rows_max: i64, lease: Duration, retention: Duration) -> Self {
        let (bytes_max, since, known, ahead) = (i64::MAX, None, None, Duration::MAX);
        Self { endpoint, owner, rows_max, bytes_max, lease, retention, since, known, ahead }
    }
}

/// What a relay got.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Leased {
    /// Rows to publish, oldest due first.
    pub rows: Vec<LeasedRow>,
    /// Time until the next row is due; `None` when none waits, or none [ahead](LeaseRequest::ahead).
    pub next_due: Option<Duration>,
}

impl Leased {
    /// Rows, and the time until the next one is due.
    pub fn new(rows: Vec<LeasedRow>, next_due: Option<Duration>) -> Self {
        Self { rows, next_due }
    }
}

/// A leased outbox row.
#[derive(Debug, Clone)]
#[non_exhaustive]
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
    /// Of a timer that leaves for the first time: how long ago it was due.
    pub late: Option<Duration>,
    /// It was tried before and waits for no destination: an operator wants it sent now, another process has found its
    /// destination open, or the time of its next try has come. The process that leases it does not make it wait again.
    pub wanted: bool,
}

impl LeasedRow {
    /// A row that was not tried before.
    pub fn new(id: Uuid, destination: Destination, envelope: Arc<Envelope>) -> Self {
        Self { id, destination, envelope, attempts: 0, expired: 0, late: None, wanted: false }
    }
}

/// What a dispatcher reports about the rows in its window.
#[derive(Debug, Clone)]
#[non_exhaustive]
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

impl<'a> LeaseUpdate<'a> {
    /// A report without rows.
    pub fn new(owner: &'a str, lease: Duration) -> Self {
        Self { owner, lease, renew: &[], failed: &[] }
    }
}

/// An outbox row that could not be published: its lease ends, and it is due again after a delay.
#[derive(Debug, Clone)]
#[non_exhaustive]
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

impl PublishFailed {
    /// A row that was tried in vain, although its destination may have a queue.
    pub fn new(id: Uuid, error: impl Into<String>, delay: Duration) -> Self {
        Self { id, error: error.into(), delay, unroutable: false, tried: true }
    }
}
