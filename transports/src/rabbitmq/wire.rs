//! The native format: the body is the message's JSON, everything else is in AMQP's properties and headers.

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use saga_core::{Envelope, SagaRef};
use serde_json::Value;
use std::collections::BTreeMap;

/// The last second that is taken for a time: some producers write milliseconds where AMQP means seconds.
const YEAR_9999: u64 = 253_402_300_799;

/// Properties and headers of an outgoing message.
pub(super) fn properties(envelope: &Envelope, reply_to: Option<&str>) -> Result<BasicProperties, String> {
    let short = |text: &str| {
        ShortString::try_new(text)
            .map_err(|_| format!("`{text}` is longer than the 255 bytes that an AMQP property holds"))
    };
    let mut headers = FieldTable::default();
    for (name, value) in &envelope.headers {
        headers.insert(short(name)?, to_amqp(value));
    }
    let mut put = |name: &'static str, value: AMQPValue| {
        headers.insert(name.into(), value);
    };
    let text = |text: &str| AMQPValue::LongString(text.into());
    if let Some(causation_id) = &envelope.causation_id {
        put("causation-id", text(causation_id));
    }
    if let Some(saga) = &envelope.saga {
        put("saga", text(&saga.saga));
        put("saga-id", text(&saga.id));
        if let Some(entered) = saga.entered {
            put("entered", AMQPValue::LongLongInt(entered));
        }
    }
    if let Some(receiver) = &envelope.receiver {
        put("receiver", text(receiver));
    }
    if envelope.attempt > 0 {
        put("attempt", AMQPValue::LongLongInt(envelope.attempt));
    }
    if envelope.round > 0 {
        put("round", AMQPValue::LongLongInt(envelope.round.into()));
    }
    let mut properties = BasicProperties::default()
        .with_message_id(short(&envelope.message_id)?)
        .with_type(short(&envelope.type_name)?)
        .with_correlation_id(short(&envelope.conversation_id)?)
        .with_content_type(short(envelope.content_type.as_deref().unwrap_or("application/json"))?)
        .with_delivery_mode(2);
    if let Some(us) = envelope.sent_at_us {
        put("sent-at", text(&rfc3339(us)));
        properties = properties.with_timestamp((us / 1_000_000).max(0) as u64);
    }
    if let Some(sender) = &envelope.sender {
        properties = properties.with_app_id(short(sender)?);
    }
    if let Some(reply_to) = reply_to {
        properties = properties.with_reply_to(short(reply_to)?);
    }
    Ok(properties.with_headers(headers))
}

/// The envelope of an incoming message; and what is wrong with it, if it cannot even be told from others.
pub(super) fn envelope(properties: &BasicProperties, body: Vec<u8>) -> (Envelope, Option<String>) {
    let own = |property: &Option<ShortString>| {
        property.as_ref().map(|text| text.as_str().to_owned()).filter(|t| !t.is_empty())
    };
    let mut headers: BTreeMap<String, Value> = BTreeMap::new();
    let (mut causation_id, mut saga, mut saga_id, mut receiver) = (None, None, None, None);
    let (mut entered, mut sent_at, mut attempt, mut round) = (None, None, None, None);
    for (name, value) in properties.headers().iter().flat_map(|table| table.inner()) {
        let text = || match from_amqp(value) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match name.as_str() {
            "causation-id" => causation_id = Some(text()),
            "saga" => saga = Some(text()),
            "saga-id" => saga_id = Some(text()),
            "receiver" => receiver = Some(text()),
            "entered" => entered = text().parse().ok(),
            "sent-at" => sent_at = parse_rfc3339(&text()),
            "attempt" => attempt = text().parse().ok(),
            "round" => round = text().parse().ok(),
            "x-delivery-count" => {} // the broker's own
            other => drop(headers.insert(other.to_owned(), from_amqp(value))),
        }
    }
    let message_id = own(properties.message_id());
    let type_name = own(properties.kind());
    let fault = match (&message_id, &type_name) {
        (None, _) => Some(
            "no message_id: without one a redelivery cannot be told from a new message; have the producer set it"
                .into(),
        ),
        (_, None) => {
            Some("no type: have the producer set the AMQP property `type` to the message's logical name".into())
        }
        _ => None,
    };
    // held under an id of its own, so that nothing is lost
    let message_id = message_id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let envelope = Envelope {
        conversation_id: own(properties.correlation_id()).unwrap_or_else(|| message_id.clone()),
        message_id,
        type_name: type_name.unwrap_or_default(),
        causation_id,
        saga: saga.zip(saga_id).map(|(saga, id)| SagaRef { saga, id, entered }),
        receiver,
        attempt: attempt.unwrap_or(0),
        round: round.unwrap_or(0),
        reply_to: own(properties.reply_to()),
        sender: own(properties.app_id()),
        sent_at_us: sent_at
            .or_else(|| properties.timestamp().filter(|s| *s <= YEAR_9999).map(|s| s as i64 * 1_000_000)),
        content_type: own(properties.content_type()).filter(|kind| kind != "application/json"),
        headers,
        body: Bytes::from(body),
    };
    (envelope, fault)
}

/// How often a quorum queue delivered the message before.
pub(super) fn delivery_count(properties: &BasicProperties) -> u32 {
    let table = properties.headers().as_ref();
    let count = table.and_then(|table| table.inner().get("x-delivery-count"));
    count.and_then(|value| from_amqp(value).as_u64()).unwrap_or(0) as u32
}

fn to_amqp(value: &Value) -> AMQPValue {
    match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(flag) => AMQPValue::Boolean(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(n) => AMQPValue::LongLongInt(n),
            None => AMQPValue::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(values) => AMQPValue::FieldArray(values.iter().map(to_amqp).collect::<Vec<_>>().into()),
        Value::Object(fields) => {
            let mut table = FieldTable::default();
            for (name, value) in fields {
                if let Ok(name) = ShortString::try_new(name.as_str()) {
                    table.insert(name, to_amqp(value));
                }
            }
            AMQPValue::FieldTable(table)
        }
    }
}

fn from_amqp(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Void => Value::Null,
        AMQPValue::Boolean(flag) => (*flag).into(),
        AMQPValue::ShortShortInt(n) => (*n).into(),
        AMQPValue::ShortShortUInt(n) => (*n).into(),
        AMQPValue::ShortInt(n) => (*n).into(),
        AMQPValue::ShortUInt(n) => (*n).into(),
        AMQPValue::LongInt(n) => (*n).into(),
        AMQPValue::LongUInt(n) => (*n).into(),
        AMQPValue::LongLongInt(n) => (*n).into(),
        AMQPValue::Float(n) => f64::from(*n).into(),
        AMQPValue::Double(n) => (*n).into(),
        AMQPValue::DecimalValue(n) => (f64::from(n.value) / 10f64.powi(n.scale.into())).into(),
        AMQPValue::Timestamp(seconds) => (*seconds).into(),
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into(),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(from_amqp).collect(),
        AMQPValue::FieldTable(table) => Value::Object(
            table.inner().iter().map(|(name, value)| (name.as_str().to_owned(), from_amqp(value))).collect(),
        ),
    }
}

/// Microseconds since 1970 as `2026-11-21T04:05:06.000007Z`.
fn rfc3339(us: i64) -> String {
    let (seconds, micros) = (us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // the civil calendar from a day number: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Reads what [`rfc3339`] writes; another form counts as absent.
fn parse_rfc3339(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    if !text.ends_with('Z') || text.len() < 20 {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let fraction = text.get(20..text.len() - 1).unwrap_or("");
    let micros: i64 = if fraction.is_empty() { 0 } else { format!("{fraction:0<6}").get(..6)?.parse().ok()? };
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_envelope_survives_the_wire() {
        let sent = Envelope {
            message_id: "m".into(),
            type_name: "ordering.OrderPlaced".into(),
            conversation_id: "c".into(),
            causation_id: Some("before".into()),
            saga: Some(SagaRef { saga: "s".into(), id: "7".into(), entered: Some(3) }),
            receiver: Some("s".into()),
            attempt: 4,
            round: 1,
            reply_to: Some("ordering".into()),
            sender: Some("ordering".into()),
            sent_at_us: Some(1_795_000_000_123_456),
            content_type: None,
            headers: BTreeMap::from([
                ("tenant".into(), json!("é")),
                ("n".into(), json!(7)),
                ("list".into(), json!([true, null])),
            ]),
            body: Bytes::from_static(b"{}"),
        };
        let (came, fault) = envelope(&properties(&sent, sent.reply_to.as_deref()).unwrap(), sent.body.to_vec());
        assert_eq!((came, fault), (sent, None));
    }

    #[test]
    fn t_026_a_stranger_needs_only_id_type_and_body() {
        let properties = BasicProperties::default().with_message_id("m-1".into()).with_type("t".into());
        let (came, fault) = envelope(&properties, b"{}".to_vec());
        assert_eq!((came.message_id.as_str(), came.conversation_id.as_str(), fault), ("m-1", "m-1", None));
        let (_, fault) = envelope(&BasicProperties::default().with_type("t".into()), vec![]);
        assert!(fault.unwrap().contains("no message_id"));
    }

    #[test]
    fn times_are_exact() {
        for us in [0, 951_782_400_000_000, 1_795_000_000_123_456, 4_102_444_799_999_999] {
            assert_eq!(parse_rfc3339(&rfc3339(us)), Some(us));
        }
        assert_eq!(rfc3339(951_782_400_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(parse_rfc3339("yesterday"), None);
    }
}
