//! A message that is being settled.

use crate::{Envelope, endpoint::judge::Before, port::HeldRow};
use std::{sync::Arc, time::Duration};

/// A message that is being settled: its receiver, and where the message comes from.
#[derive(Clone, Copy)]
pub(crate) struct Settling<'a> {
    pub(crate) receiver: &'a str,
    pub(crate) envelope: &'a Arc<Envelope>,
    pub(crate) saga_id: Option<&'a str>,
    pub(crate) origin: Origin<'a>,
}

/// Where a message that is being settled comes from.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// From the broker.
    Broker(Before),
    /// It was held.
    Held(&'a HeldRow),
}

impl Settling<'_> {
    pub(super) fn completes(&self) -> Option<i64> {
        match self.origin {
            Origin::Broker(before) => before.completes,
            Origin::Held(row) => Some(row.attempts),
        }
    }

    /// Runs that were counted before.
    pub(crate) fn attempts(&self) -> i64 {
        self.completes().unwrap_or(0)
    }

    /// Time since it is tried.
    pub(super) fn elapsed(&self) -> Duration {
        match self.origin {
            Origin::Broker(before) => before.elapsed,
            Origin::Held(_) => Duration::ZERO,
        }
    }

    pub(super) fn round(&self) -> u32 {
        match self.origin {
            Origin::Broker(before) => before.round,
            Origin::Held(_) => 0,
        }
    }
}
