//! The envelope: everything about a message but its meaning.

use crate::{InstanceKey, MASKED_HEADER, ambient};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Names that a user's header must not have: Sagabus or the broker reads them. Names that begin with `x-` are the
/// broker's.
const RESERVED_HEADERS: [&str; 20] = [
    "attempt",
    "bcc",
    "causation-id",
    "cc",
    "content-type",
    "conversation-id",
    "entered",
    "message-id",
    "receiver",
    "reply-to",
    "saga",
    "saga-id",
    "sagabus-masked",
    "sagabus-unreadable",
    "sender",
    "sent-at",
    "timer",
    "traceparent",
    "tracestate",
    "type",
];

/// The most headers of a message.
const HEADERS_MAX: usize = 200;
/// The most bytes of JSON that all headers of a message take: AMQP sends them in one frame of 128 KiB.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// The times of sending that every database can keep: the years 1 to 9999, in microseconds since 1970.
const SENT_AT_US: std::ops::Range<i64> = -62_135_596_800_000_000..253_402_300_800_000_000;
/// How deep a header may nest. Parsers recurse: serde_json stops at 128 levels, others overflow their stack.
const HEADER_DEPTH_MAX: usize = 32;
/// The longest name of a header, in bytes: AMQP's limit.
const HEADER_NAME_BYTES_MAX: usize = 255;

/// A message with its properties and headers, as a transport carries it and the tables keep it.
///
/// Serialized, it is everything but the body, which is stored beside it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Envelope {
    /// Identity for deduplication: a UUID v7 in our own messages, any text in those of other programs.
    pub message_id: String,
    /// The logical name.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The first message of the conversation that this one belongs to.
    #[serde(default)]
    pub conversation_id: String,
    /// The message that was being handled when this one was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// The instance that sent it. An answer carries the instance that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<SagaRef>,
    /// The only receiver at the endpoint (of a retry, a timer, an answer to a saga); `None`: all that listen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiver: Option<String>,
    /// On a delayed retry the runs before this one, else 0. The inbox accepts a retry only if it knows the same number,
    /// so a forged one has no effect.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: i64,
    /// The endpoint or queue that an answer goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// The sending endpoint or application: for people; nothing depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// When it was sent: microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at_us: Option<i64>,
    /// The MIME type of the body; `None` counts as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// W3C trace context and the user's own headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Value>,
    /// The body as received or to be sent.
    #[serde(skip)]
    pub body: Bytes,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// A saga instance, and the entry of its state, that a message comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaRef {
    /// The saga's logical name.
    pub saga: String,
    /// The instance.
    pub id: String,
    /// How many state entries the instance had made; on commands and events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entered: Option<i64>,
    /// Which of the instance's timers it is; on timers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timer: Option<i64>,
}

impl Envelope {
    /// The longest property, in bytes. AMQP allows 255 and other brokers more, but an index does not.
    const PROPERTY_BYTES_MAX: usize = 1000;

    /// Whether every database can hold the text where a property is.
    pub(crate) fn holds(text: &str) -> bool {
        text.len() <= Self::PROPERTY_BYTES_MAX && !text.contains('\0')
    }
    /// The logical name of a wake-up: a message without an effect of its own that makes an instance look at what is
    /// held for it.
    pub const WAKE: &'static str = "sagabus.Wake";
    /// The logical name of what goes after a command that its saga [takes back](crate::Cancels): to the endpoint that
    /// handles it, with the command's type, id and hash as JSON.
    pub const TAKE_BACK: &'static str = "sagabus.TakeBack";

    /// A message that begins a conversation.
    pub fn new(message_id: impl Into<String>, type_name: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let message_id = message_id.into();
        Self {
            conversation_id: message_id.clone(),
            message_id,
            type_name: type_name.into(),
            body: body.into(),
            ..Self::default()
        }
    }

    /// A wake-up for an instance.
    pub fn wake(key: &InstanceKey) -> Self {
        Self {
            saga: Some(SagaRef { saga: key.saga.clone(), id: key.id.clone(), entered: None, timer: None }),
            receiver: Some(key.saga.clone()),
            ..Self::new(ambient::fresh_id().to_string(), Self::WAKE, Bytes::from_static(b"{}"))
        }
    }

    /// A message that an operator gives an instance, with the fields of its body that operators do not see.
    pub fn by_hand(key: &InstanceKey, type_name: &str, body: &str, masked: &[String]) -> Self {
        let mut message = Self::wake(key);
        message.sender = Some("operator".into());
        message.type_name = type_name.into();
        message.body = Bytes::copy_from_slice(body.as_bytes());
        message.mask(masked.iter().map(String::as_str));
        message
    }

    /// The fields of its body that operators do not see, by their names in JSON: those that the sender has marked with
    /// `#[masked]`, and the receiver when it holds the message.
    pub fn masked(&self) -> Vec<&str> {
        let names = self.headers.get(MASKED_HEADER).and_then(Value::as_array);
        names.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Marks fields of the body.
    pub(crate) fn mask<'a>(&mut self, fields: impl IntoIterator<Item = &'a str>) {
        let known: Vec<String> = self.masked().into_iter().map(str::to_owned).collect();
        let mut all: Vec<Value> = known.iter().map(|name| name.as_str().into()).collect();
        all.extend(fields.into_iter().filter(|name| !known.iter().any(|known| known == name)).map(Value::from));
        if !all.is_empty() {
            self.headers.insert(MASKED_HEADER.into(), all.into());
        }
    }

    /// A hash of type and body that tells a redelivery from another message under the same id.
    pub fn body_hash(&self) -> i64 {
        hash_of([self.type_name.as_bytes(), &self.body])
    }

    /// Makes an incoming message storable if no database could keep it, and says what was wrong: a U+0000 in a property
    /// or header (PostgreSQL's texts cannot hold it), a property too long for an index, a header nested too deep to be
    /// read back. The body is kept as bytes and may hold anything.
    pub fn sanitize(&mut self) -> Option<String> {
        let mut wrong = None;
        for (name, text) in self.texts_mut() {
            if !Self::holds(text) {
                wrong = Some(format!("{name} contains U+0000 or is longer than {} bytes", Self::PROPERTY_BYTES_MAX));
                let short: String = text.chars().take(Self::PROPERTY_BYTES_MAX / 4).collect();
                *text = short.replace('\0', "\u{fffd}");
            }
        }
        let bad = |(name, value): (&String, &Value)| name.contains('\0') || !is_storable(value, HEADER_DEPTH_MAX);
        if self.headers.iter().any(bad) {
            wrong = Some(format!("a header contains U+0000 or is nested deeper than {HEADER_DEPTH_MAX} levels"));
            let headers = std::mem::take(&mut self.headers).into_iter();
            self.headers = headers.map(|(name, value)| (clean(&name), storable(value, HEADER_DEPTH_MAX))).collect();
        }
        // a time that no calendar has; what only informs is no reason to hold a message
        self.sent_at_us = self.sent_at_us.filter(|sent| SENT_AT_US.contains(sent));
        wrong
    }

    /// Why one of our messages must not leave. A message that the broker would refuse with a channel error, or that no
    /// table could keep, is refused before it is written.
    pub(crate) fn refusal(&self, body_bytes_max: usize) -> Option<String> {
        let what = &self.type_name;
        if let Some(refused) = body_refusal(what, &self.body, body_bytes_max) {
            return Some(refused);
        }
        if self.headers.len() > HEADERS_MAX {
            return Some(format!("{what} has {} headers; {HEADERS_MAX} are allowed", self.headers.len()));
        }
        let mut bytes = 0;
        for (name, value) in &self.headers {
            if name.is_empty() || name.len() > HEADER_NAME_BYTES_MAX || name.contains('\0') {
                return Some(format!(
                    "header `{}` of {what}: a name has 1 to {HEADER_NAME_BYTES_MAX} bytes",
                    clean(name)
                ));
            }
            if !is_storable(value, HEADER_DEPTH_MAX) {
                return Some(format!(
                    "header `{name}` of {what} contains U+0000 or is nested deeper than {HEADER_DEPTH_MAX} levels"
                ));
            }
            bytes += name.len() + value.to_string().len();
        }
        (bytes > HEADER_BYTES_MAX)
            .then(|| format!("the headers of {what} have {bytes} bytes; {HEADER_BYTES_MAX} are allowed"))
    }

    /// Why a user may not set a header of this name.
    pub(crate) fn reserved(name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        name.starts_with("x-") || RESERVED_HEADERS.contains(&name.as_str())
    }

    /// Trace context to hand on. Other programs may send it in any size, so what is too long is left out.
    pub(crate) fn trace(&self) -> BTreeMap<String, Value> {
        /// W3C asks for at least 512 bytes of `tracestate`.
        const TRACE_BYTES_MAX: usize = 1024;
        let headers = ["traceparent", "tracestate"].into_iter().filter_map(|name| {
            let value = self.headers.get(name)?;
            let fits = value.as_str().is_some_and(|text| text.len() <= TRACE_BYTES_MAX);
            fits.then(|| (name.to_owned(), value.clone()))
        });
        headers.collect()
    }

    /// Every text that becomes a column or a property, with its name.
    fn texts_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut String)> {
        let (saga, id) = self.saga.as_mut().map(|saga| (&mut saga.saga, &mut saga.id)).unzip();
        let texts = [
            ("message id", Some(&mut self.message_id)),
            ("type", Some(&mut self.type_name)),
            ("conversation id", Some(&mut self.conversation_id)),
            ("causation-id", self.causation_id.as_mut()),
            ("saga", saga),
            ("saga-id", id),
            ("receiver", self.receiver.as_mut()),
            ("reply-to", self.reply_to.as_mut()),
            ("sender", self.sender.as_mut()),
            ("content-type", self.content_type.as_mut()),
        ];
        texts.into_iter().filter_map(|(name, text)| Some((name, text?)))
    }
}

fn is_storable(value: &Value, depth: usize) -> bool {
    match value {
        Value::String(text) => !text.contains('\0'),
        Value::Array(values) => depth > 0 && values.iter().all(|value| is_storable(value, depth - 1)),
        Value::Object(fields) => {
            depth > 0 && fields.iter().all(|(name, value)| !name.contains('\0') && is_storable(value, depth - 1))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// The same value without U+0000; what is nested too deep becomes its JSON as a text.
fn storable(value: Value, depth: usize) -> Value {
    match value {
        Value::String(text) => clean(&text).into(),
        Value::Array(_) | Value::Object(_) if depth == 0 => clean(&value.to_string()).into(),
        Value::Array(values) => values.into_iter().map(|value| storable(value, depth - 1)).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (clean(&name), storable(value, depth - 1))).collect()
        }
        other => other,
    }
}

fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A hash over parts (XXH3, 64 bits, each part seeded by those before it). It is the same in all versions and on all
/// platforms, unlike `std`'s hashers: processes of different versions must take the same locks.
pub fn hash_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> i64 {
    parts.into_iter().fold(0, |seed, part| xxhash_rust::xxh3::xxh3_64_with_seed(part, seed)) as i64
}

/// Why a body of ours must not leave.
pub(crate) fn body_refusal(type_name: &str, body: &[u8], max: usize) -> Option<String> {
    let bytes = body.len();
    (bytes > max).then(|| format!("the body of {type_name} has {bytes} bytes; `body_bytes_max` allows {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_body_survives_json() {
        let envelope = Envelope {
            causation_id: Some("before".into()),
            saga: Some(SagaRef { saga: "s".into(), id: "7".into(), entered: Some(3), timer: Some(4) }),
            attempt: 3,
            sender: Some("other".into()),
            content_type: Some("application/json".into()),
            // headers of other programs may have the names of our own fields
            headers: BTreeMap::from([("sender".into(), "é".into()), ("receiver".into(), "".into())]),
            ..Envelope::new("m", "t", "{}")
        };
        let json = serde_json::to_string(&envelope).unwrap();
        let mut back: Envelope = serde_json::from_str(&json).unwrap();
        back.body = envelope.body.clone();
        assert_eq!(back, envelope);
        let plain = serde_json::to_string(&Envelope::new("m", "t", "{}")).unwrap();
        assert_eq!(plain, r#"{"message_id":"m","type":"t","conversation_id":"m"}"#, "what is absent takes no room");
    }

    #[test]
    fn r_039_what_no_database_can_keep_is_made_storable_and_said() {
        let mut plain = Envelope::new("m", "t", "{}");
        assert_eq!(plain.sanitize(), None);
        for (sent, kept) in [(i64::MIN, false), (-1, true), (i64::MAX, false), (SENT_AT_US.end - 1, true)] {
            plain.sent_at_us = Some(sent);
            assert_eq!(plain.sanitize(), None, "a time informs: it is no reason to hold a message");
            assert_eq!(plain.sent_at_us.is_some(), kept, "{sent} \u{b5}s");
        }
        let mut header = plain.clone();
        header.headers.insert("h".into(), "a\0b".into());
        let why = header.sanitize().expect("a NUL in a header was expected to be noticed");
        assert_eq!(header.headers["h"].as_str(), Some("a\u{fffd}b"), "{why}");
        plain.message_id = "x\0".repeat(600);
        let why = plain.sanitize().expect("a bad id was expected to be noticed");
        assert!(plain.message_id.len() <= 1000 && !plain.message_id.contains('\0'), "{}", plain.message_id);
        assert!(why.contains("message id"), "{why}");
    }

    #[test]
    fn a_header_too_deep_to_be_read_back_becomes_a_text() {
        let deep = (0..130).fold(Value::from(7), |inner, _| serde_json::json!({ "a": inner }));
        let mut envelope = Envelope::new("m", "t", "{}");
        envelope.headers.insert("deep".into(), deep);
        assert!(envelope.refusal(100).expect("a deep header is refused").contains("32 levels"));
        let why = envelope.sanitize().expect("a deep header is noticed");
        assert!(why.contains("deeper than 32"), "{why}");
        let json = serde_json::to_string(&envelope).unwrap();
        let back: Envelope = serde_json::from_str(&json).expect("what was stored can be read back");
        assert_eq!(back.headers, envelope.headers);
    }

    #[test]
    fn t_013_what_a_broker_would_refuse_is_refused_before_it_is_written() {
        for name in ["CC", "bcc", "x-match", "X-Death", "saga", "Message-Id"] {
            assert!(Envelope::reserved(name), "`{name}` is read by the broker or by us");
        }
        assert!(!Envelope::reserved("tenant"));
        let mut envelope = Envelope::new("m", "t", vec![b'1'; 101]);
        assert!(envelope.refusal(100).unwrap().contains("101 bytes"));
        assert_eq!(envelope.refusal(101), None);
        envelope.headers.insert("note".into(), "h".repeat(200_000).into());
        assert!(envelope.refusal(101).unwrap().contains("are allowed"));
        envelope.headers = (0..201).map(|n| (format!("h{n}"), n.into())).collect();
        assert!(envelope.refusal(101).unwrap().contains("201 headers"));
    }

    #[test]
    fn a_strangers_trace_context_is_handed_on_only_if_it_is_small() {
        let mut envelope = Envelope::new("m", "t", "{}");
        envelope.headers.insert("traceparent".into(), "00-1-2-01".into());
        envelope.headers.insert("tracestate".into(), "v".repeat(140_000).into());
        assert_eq!(envelope.trace().keys().collect::<Vec<_>>(), ["traceparent"]);
    }

    #[test]
    fn the_hash_keeps_parts_apart() {
        assert_ne!(hash_of([b"ab".as_slice(), b"c"]), hash_of([b"a".as_slice(), b"bc"]));
        // stored and shared between processes: it may never change
        assert_eq!(hash_of([b"saga".as_slice(), b"7"]), -2_168_416_078_465_198_018);
    }
}
