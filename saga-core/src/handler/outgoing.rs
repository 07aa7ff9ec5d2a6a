//! Messages that leave with a transaction.

use crate::{Encoded, Envelope, MessageKind, ambient};
use serde_json::Value;
use std::{borrow::Cow, collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// A message that leaves with the transaction.
#[derive(Debug)]
pub struct OutgoingMessage {
    pub(crate) id: Uuid,
    pub(crate) to: Addressee,
    pub(crate) message: Encoded,
    /// Its logical name, where it is a message of a type that this program need not know.
    pub(crate) named: Option<String>,
    pub(crate) delay: Option<Duration>,
    pub(crate) headers: BTreeMap<String, Value>,
    /// Why it may not leave: the transaction fails with this text.
    pub(crate) refused: Option<String>,
}

/// Who gets a message.
#[derive(Debug)]
pub(crate) enum Addressee {
    Subscribers,
    Endpoint(String),
}

pub(crate) fn post(
    posted: &mut Vec<OutgoingMessage>,
    to: Addressee,
    message: Result<Encoded, (Encoded, String)>,
) -> &mut OutgoingMessage {
    posted.push(OutgoingMessage::new(to, message));
    posted.last_mut().expect("one was pushed just now")
}

/// A command that leaves at once.
pub(crate) fn request(to: &str, message: Result<Encoded, (Encoded, String)>) -> OutgoingMessage {
    OutgoingMessage::new(Addressee::Endpoint(to.into()), message)
}

impl OutgoingMessage {
    fn new(to: Addressee, message: Result<Encoded, (Encoded, String)>) -> Self {
        let (message, refused) = match message {
            Ok(message) => (message, None),
            Err((message, why)) => (message, Some(why)),
        };
        Self { id: ambient::fresh_id(), to, message, named: None, delay: None, headers: BTreeMap::new(), refused }
    }

    /// A message of a type that this program need not know, with its JSON.
    pub(crate) fn named(posted: &mut Vec<Self>, to: Addressee, type_name: String, json: String) -> &mut Self {
        let kind = match to {
            Addressee::Subscribers => MessageKind::Event,
            Addressee::Endpoint(_) => MessageKind::Command,
        };
        let out = post(posted, to, Ok(Encoded { type_name: "", kind, body: json.into(), masked: &[] }));
        out.named = Some(type_name);
        out
    }

    /// Its logical name.
    pub(crate) fn type_name(&self) -> Cow<'static, str> {
        self.named.clone().map_or(self.message.type_name.into(), Into::into)
    }

    /// Sends it after this time, by the database's clock.
    pub fn delay(&mut self, delay: Duration) -> &mut Self {
        self.delay = Some(delay);
        self
    }

    /// Sets a header. A name that Sagabus or the broker reads (`saga`, `CC`, `x-…`) makes the transaction fail with an
    /// error that names it. So do more than 200 headers, more than 64 KiB of them, and values nested deeper than 32
    /// levels.
    pub fn header(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        if Envelope::reserved(name) {
            self.refused = Some(format!("header `{name}` of {} is reserved", self.type_name()));
        } else {
            self.headers.insert(name.into(), value.into());
        }
        self
    }

    /// The id it will have.
    pub fn message_id(&self) -> Uuid {
        self.id
    }
}
