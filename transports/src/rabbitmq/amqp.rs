//! JSON values as AMQP's, and back.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::Value;

use super::readable::DEPTH_MAX;

/// A header's value, for a table that is `depth` deep in the headers.
pub(super) fn to_amqp(value: &Value, depth: usize) -> Result<AMQPValue, String> {
    if depth > DEPTH_MAX {
        return Err(format!("headers are nested deeper than {DEPTH_MAX}"));
    }
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(flag) => AMQPValue::Boolean(*flag),
        // as narrow as it came: what fits into a frame fits into one when it is sent again
        Value::Number(number) => match number.as_i64() {
            Some(n) => i8::try_from(n)
                .map(AMQPValue::ShortShortInt)
                .or_else(|_| i16::try_from(n).map(AMQPValue::ShortInt))
                .or_else(|_| i32::try_from(n).map(AMQPValue::LongInt))
                .unwrap_or(AMQPValue::LongLongInt(n)),
            None => AMQPValue::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(values) => {
            let values = values.iter().map(|value| to_amqp(value, depth + 1)).collect::<Result<Vec<_>, _>>()?;
            AMQPValue::FieldArray(values.into())
        }
        Value::Object(fields) => {
            let mut table = FieldTable::default();
            for (name, value) in fields {
                table.insert(header_name(name)?, to_amqp(value, depth + 1)?);
            }
            AMQPValue::FieldTable(table)
        }
    })
}

/// The name of a header: at most 255 bytes.
pub(super) fn header_name(name: &str) -> Result<ShortString, String> {
    ShortString::try_new(name).map_err(|_| {
        let begin: String = name.chars().take(40).collect();
        format!("the header name `{begin}…` is longer than the 255 bytes that AMQP allows")
    })
}

/// A value that lapin read. Its depth is limited: deeper headers do not get through (`readable.rs`).
pub(super) fn from_amqp(value: &AMQPValue) -> Value {
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

/// The size of the frame that carries these properties: a broker closes the connection over a frame that is too large,
/// and unlike a body it cannot be split.
pub(super) fn header_frame_bytes(properties: &BasicProperties) -> usize {
    /// Type, channel, length and end of the frame; class, weight and size of the body; flags.
    const FIXED: usize = 8 + 12 + 2;
    let short = |text: &Option<ShortString>| text.as_ref().map_or(0, |text| 1 + text.as_str().len());
    let texts = [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.expiration(),
        properties.message_id(),
        properties.kind(),
        properties.user_id(),
        properties.app_id(),
        properties.cluster_id(),
    ];
    let fixed = usize::from(properties.delivery_mode().is_some())
        + usize::from(properties.priority().is_some())
        + properties.timestamp().map_or(0, |_| 8);
    FIXED + texts.into_iter().map(short).sum::<usize>() + fixed + properties.headers().as_ref().map_or(0, table_bytes)
}

fn table_bytes(table: &FieldTable) -> usize {
    4 + table.inner().iter().map(|(name, value)| 1 + name.as_str().len() + value_bytes(value)).sum::<usize>()
}

fn value_bytes(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.as_bytes().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldArray(values) => 4 + values.as_slice().iter().map(value_bytes).sum::<usize>(),
        AMQPValue::FieldTable(table) => table_bytes(table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_survives_both_ways() {
        let value = json!({ "text": "é", "n": -7, "f": 1.5, "no": null, "list": [true, { "deep": [1] }] });
        assert_eq!(from_amqp(&to_amqp(&value, 0).unwrap()), value);
    }

    /// Restated: a value is kept as JSON; bytes that are no text and decimals are approximated, once.
    #[test]
    fn t_027_a_value_of_every_kind_is_the_same_after_it_was_sent_again() {
        let mut table = FieldTable::default();
        table.insert("nested".into(), AMQPValue::LongString("é".into()));
        let kinds = [
            (AMQPValue::Void, json!(null)),
            (AMQPValue::Boolean(true), json!(true)),
            (AMQPValue::ShortShortInt(-8), json!(-8)),
            (AMQPValue::ShortShortUInt(200), json!(200)),
            (AMQPValue::ShortInt(-300), json!(-300)),
            (AMQPValue::ShortUInt(60_000), json!(60_000)),
            (AMQPValue::LongInt(-70_000), json!(-70_000)),
            (AMQPValue::LongUInt(4_000_000_000), json!(4_000_000_000_u32)),
            (AMQPValue::LongLongInt(i64::MIN), json!(i64::MIN)),
            (AMQPValue::Float(1.5), json!(1.5)),
            (AMQPValue::Double(-2.25), json!(-2.25)),
            (AMQPValue::DecimalValue(lapin::types::DecimalValue { scale: 2, value: 1250 }), json!(12.5)),
            (AMQPValue::Timestamp(1_795_000_000), json!(1_795_000_000)),
            (AMQPValue::ShortString("short".into()), json!("short")),
            (AMQPValue::LongString("long".into()), json!("long")),
            (AMQPValue::ByteArray(vec![b'x', 0xff].into()), json!("x\u{fffd}")),
            (AMQPValue::FieldArray(vec![AMQPValue::Void, AMQPValue::ShortInt(7)].into()), json!([null, 7])),
            (AMQPValue::FieldTable(table), json!({ "nested": "é" })),
        ];
        for (value, expected) in kinds {
            let came = from_amqp(&value);
            assert_eq!(came, expected, "{value:?}");
            assert_eq!(from_amqp(&to_amqp(&came, 0).unwrap()), expected, "{value:?}, sent again");
        }
    }

    #[test]
    fn an_integer_is_sent_as_narrow_as_it_may_have_come() {
        for (number, bytes) in [(7, 2), (-128, 2), (200, 3), (-300, 3), (60_000, 5), (4_000_000_000_i64, 9)] {
            assert_eq!(value_bytes(&to_amqp(&json!(number), 0).unwrap()), bytes, "{number}");
        }
    }

    #[test]
    fn what_amqp_cannot_carry_is_refused() {
        let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        assert!(to_amqp(&nested(DEPTH_MAX), 0).is_ok());
        assert!(to_amqp(&nested(DEPTH_MAX + 1), 0).unwrap_err().contains("nested deeper than 32"));
        let long = json!({ "n".repeat(256): 1 });
        assert!(to_amqp(&long, 0).unwrap_err().contains("255 bytes"));
    }

    #[test]
    fn the_size_of_a_header_frame_is_what_lapin_writes() {
        let value = json!({ "text": "é", "n": -7, "f": 1.5, "no": null, "list": [true, { "deep": [1] }] });
        let AMQPValue::FieldTable(headers) = to_amqp(&value, 0).unwrap() else { panic!("a table was expected") };
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_message_id("m".into())
            .with_delivery_mode(2)
            .with_timestamp(7)
            .with_type("t".into());
        let mut written = vec![0; 4096];
        let context = lapin::protocol::basic::gen_properties(&properties)(written.as_mut_slice().into()).unwrap();
        let (_, length) = context.into_inner();
        assert_eq!(header_frame_bytes(&properties), 8 + 12 + length as usize);
    }
}
