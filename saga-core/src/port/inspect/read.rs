//! The rows of a listing, as views and as counts.

use super::{COUNTED_MAX, Counted};
use crate::port::{ErrorCode, StoreError, StoreErrorKind};
use serde::de::DeserializeOwned;

fn unreadable(row: &str, error: &serde_json::Error) -> StoreError {
    let row: String = row.chars().take(200).collect();
    StoreError::new(StoreErrorKind::Schema, format!("the tables hold what this binary cannot read: {error} in {row}"))
}

pub(super) fn read<T: DeserializeOwned>(rows: Vec<String>) -> Result<Vec<T>, StoreError> {
    rows.iter().map(|row| serde_json::from_str(row).map_err(|error| unreadable(row, &error))).collect()
}

pub(super) fn count(rows: Vec<String>) -> Result<u64, StoreError> {
    Ok(read(rows)?.first().copied().unwrap_or_default())
}

pub(super) fn counted(rows: Vec<String>) -> Result<Counted, StoreError> {
    let (rows, places) = read::<(i64, i64)>(rows)?.first().copied().unwrap_or_default();
    Ok(Counted { rows: rows.clamp(0, COUNTED_MAX) as u64, more: rows > COUNTED_MAX || places > 0 })
}

pub(super) fn body(rows: Vec<String>) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(digits) = read::<String>(rows)?.pop() else { return Ok(None) };
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes = digits.as_bytes().chunks(2).map(pair).collect::<Option<_>>();
    bytes.map(Some).ok_or_else(|| StoreError::new(StoreErrorKind::Schema, "a body did not come as hexadecimal digits"))
}

pub(super) fn must_be_json(body: &str) -> Result<(), StoreError> {
    let wrong = |error| {
        let text = format!("the new body is not JSON: {error}");
        StoreError::new(StoreErrorKind::Invalid, text).with_code(ErrorCode::InputUnfit)
    };
    serde_json::from_str::<serde::de::IgnoredAny>(body).map(drop).map_err(wrong)
}
