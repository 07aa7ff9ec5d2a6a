//! What the API accepts as an order.

use super::refusal::Refusal;
use crate::{messages::OrderPlaced, services::CENTS_MAX};
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};
use std::time::Duration;
use uuid::Uuid;

/// Names and addresses are stored, shown and sent on: nobody needs a megabyte of them.
const CUSTOMER_BYTES_MAX: usize = 200;
const ADDRESS_BYTES_MAX: usize = 500;

/// Refuses a body of another type than JSON. `curl -d` calls every body a form; such a body is read as JSON as well.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let full = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    let essence = full.split(';').next().unwrap_or_default().trim();
    let json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if json || essence == "application/x-www-form-urlencoded" {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("`{essence}` is not application/json"))
        .about("content-type"))
}

/// Reads an order, or says which field is wrong and why.
pub(super) fn read(body: &[u8], payment_timeout: Duration) -> Result<OrderPlaced, Refusal> {
    let value: Value = serde_json::from_slice(body).map_err(|error| bad("body", format!("is not JSON: {error}")))?;
    let Value::Object(fields) = &value else { return Err(bad("body", "must be a JSON object")) };
    let order_id = match fields.get("order_id") {
        None | Some(Value::Null) => Uuid::now_v7(),
        Some(Value::String(text)) => {
            text.parse().map_err(|_| bad("order_id", format!("`{}` is not a uuid", shortened(text))))?
        }
        Some(_) => return Err(bad("order_id", "must be a uuid")),
    };
    let read = || {
        Ok(OrderPlaced {
            order_id,
            amount_cents: cents(fields, "amount_cents")?,
            customer: text(fields, "customer", CUSTOMER_BYTES_MAX)?,
            address: text(fields, "address", ADDRESS_BYTES_MAX)?,
            payment_timeout_ms: payment_timeout.as_millis() as u64,
        })
    };
    read().map_err(|refusal: Refusal| if fields.contains_key("order_id") { refusal.of(order_id) } else { refusal })
}

fn bad(field: &'static str, reason: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, reason).about(field)
}

fn text(fields: &Map<String, Value>, field: &'static str, bytes_max: usize) -> Result<String, Refusal> {
    match fields.get(field) {
        None => Err(bad(field, "is missing")),
        Some(Value::String(text)) if text.len() > bytes_max => {
            Err(bad(field, format!("is {} bytes long: {bytes_max} at most", text.len())))
        }
        Some(Value::String(text)) if text.trim().is_empty() => Err(bad(field, "must not be empty")),
        Some(Value::String(text)) if text.contains('\0') => Err(bad(field, "must not contain U+0000")),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(bad(field, "must be a text")),
    }
}

fn cents(fields: &Map<String, Value>, field: &'static str) -> Result<i64, Refusal> {
    let Some(value) = fields.get(field) else { return Err(bad(field, "is missing")) };
    let Value::Number(number) = value else { return Err(bad(field, "must be a number")) };
    // a number that fits no integer is parsed as a float: it may still be whole, but too large
    let size = number.as_f64().unwrap_or(f64::INFINITY);
    if size > CENTS_MAX as f64 {
        return Err(bad(field, format!("is too large: at most {CENTS_MAX}")));
    }
    if size <= 0.0 {
        return Err(bad(field, "must be above 0"));
    }
    number.as_i64().ok_or_else(|| bad(field, "must be an integer"))
}

/// The beginning of a foreign text.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let start: String = text.chars().take(CHARS_MAX).collect();
    if start.len() < text.len() { format!("{start}…") } else { start }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_orders_are_refused_with_the_field_and_the_reason() {
        let long = |field: &str, bytes: usize| {
            let mut order = serde_json::json!({ "customer": "a", "address": "b", "amount_cents": 1 });
            order[field] = "x".repeat(bytes).into();
            order.to_string()
        };
        for (body, field, reason) in [
            ("[", "body", "is not JSON"),
            ("[]", "body", "must be a JSON object"),
            (r#"{"customer":"a","address":"b"}"#, "amount_cents", "is missing"),
            (r#"{"customer":"a","address":"b","amount_cents":"1"}"#, "amount_cents", "must be a number"),
            (r#"{"customer":"a","address":"b","amount_cents":0}"#, "amount_cents", "must be above 0"),
            (r#"{"customer":"a","address":"b","amount_cents":-99999999999999999999}"#, "amount_cents", "above 0"),
            (r#"{"customer":"a","address":"b","amount_cents":1.5}"#, "amount_cents", "must be an integer"),
            (r#"{"customer":"a","address":"b","amount_cents":100000000001}"#, "amount_cents", "is too large"),
            (r#"{"customer":"a","address":"b","amount_cents":99999999999999999999}"#, "amount_cents", "is too large"),
            (r#"{"customer":"a","address":"b","amount_cents":1e300}"#, "amount_cents", "is too large"),
            (r#"{"address":"b","amount_cents":1}"#, "customer", "is missing"),
            (r#"{"customer":7,"address":"b","amount_cents":1}"#, "customer", "must be a text"),
            (r#"{"customer":"a","address":" ","amount_cents":1}"#, "address", "must not be empty"),
            (r#"{"customer":"a\u0000","address":"b","amount_cents":1}"#, "customer", "U+0000"),
            (r#"{"order_id":"x","customer":"a","address":"b","amount_cents":1}"#, "order_id", "is not a uuid"),
            (&long("order_id", 5000), "order_id", "x…` is not a uuid"),
            (&long("customer", 201), "customer", "is 201 bytes long: 200 at most"),
            (&long("address", 501), "address", "is 501 bytes long: 500 at most"),
        ] {
            let refusal = read(body.as_bytes(), Duration::from_secs(1)).expect_err(body);
            let (status, shown) = (refusal.status, refusal.shown());
            assert_eq!((status, &shown["field"]), (StatusCode::BAD_REQUEST, &Value::from(field)), "{body}");
            assert!(shown["reason"].as_str().is_some_and(|why| why.contains(reason)), "{body}: {shown}");
        }
        for body in [long("customer", 200), long("address", 500)] {
            assert!(read(body.as_bytes(), Duration::from_secs(1)).is_ok(), "{body}");
        }
    }

    #[test]
    fn json_comes_under_its_own_type_or_as_curl_sends_it() {
        let check = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().expect("a header"));
            check_content_type(&headers).map_err(|refusal| refusal.status)
        };
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.order+json",
            "application/x-www-form-urlencoded",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["application/xml", "text/plain", "text/json+xml", "multipart/form-data; boundary=x", ""] {
            assert_eq!(check(bad), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE), "{bad}");
        }
        assert!(check_content_type(&HeaderMap::new()).is_ok());
    }
}
