//! What a transition may know about its surroundings.

use crate::Envelope;
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The surroundings of one transition: fixed values, no clock to ask.
///
/// A test makes one with [`Moment::at`].
#[derive(Debug, Clone)]
pub struct Moment {
    pub(crate) now_us: i64,
    pub(crate) saga_id: String,
    pub(crate) seq: i64,
    pub(crate) entered: i64,
    pub(crate) envelope: Option<Arc<Envelope>>,
}

impl Moment {
    /// A moment for a test of a transition: everything but the time is empty.
    pub fn at(now: SystemTime) -> Self {
        let now_us = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        Self { now_us, saga_id: String::new(), seq: 0, entered: 0, envelope: None }
    }

    /// The handling time by the database's clock; it stays the same during the transition.
    pub fn now(&self) -> SystemTime {
        time_from_us(self.now_us)
    }

    /// When the message was sent, if its sender says so.
    pub fn sent_at(&self) -> Option<SystemTime> {
        self.envelope.as_ref()?.sent_at_us.map(time_from_us)
    }

    /// The id of the message being handled.
    pub fn message_id(&self) -> &str {
        self.envelope.as_ref().map_or("", |envelope| &envelope.message_id)
    }

    /// The instance's business key.
    pub fn saga_id(&self) -> &str {
        &self.saga_id
    }

    /// Transitions made before this one.
    pub fn seq(&self) -> i64 {
        self.seq
    }

    /// A header of the message being handled.
    pub fn header(&self, name: &str) -> Option<&Value> {
        self.envelope.as_ref()?.headers.get(name)
    }

    /// Whether an outcome answers a command sent by the present entry of the state, not by an earlier entry in a cycle.
    pub fn answers_this_entry(&self) -> bool {
        let saga = self.envelope.as_ref().and_then(|envelope| envelope.saga.as_ref());
        saga.is_some_and(|saga| saga.entered == Some(self.entered))
    }
}

fn time_from_us(us: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(us.max(0) as u64)
}
