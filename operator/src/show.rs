//! Tables and times for people, JSON for programs.

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// Tables are as wide as the terminal, and this wide where there is none.
const WIDTH: u16 = 100;

/// Prints rows under a header; says so when there are none.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, none: &str) {
    if rows.is_empty() {
        println!("{none}");
        return;
    }
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    if table.width().is_none() {
        table.set_width(WIDTH);
    }
    table.add_rows(rows);
    println!("{table}");
}

/// Prints one JSON value.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A time, to the millisecond.
pub(crate) fn time(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map(|at| at.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()).unwrap_or_default()
}

/// How long ago, or how long until.
pub(crate) fn distance(us: i64, now_us: i64) -> String {
    let ms = (now_us - us).abs() / 1000;
    let text = match ms {
        0..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{} s", ms / 1000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    };
    if us > now_us { format!("in {text}") } else { format!("{text} ago") }
}

/// A body or a state, indented.
pub(crate) fn pretty(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => serde_json::to_string_pretty(value).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_read_well() {
        let now = 1_000_000_000_000;
        assert_eq!(distance(now - 500_000, now), "500 ms ago");
        assert_eq!(distance(now + 90_000_000, now), "in 90 s");
        assert_eq!(distance(now - 10_800_000_000, now), "3 h ago");
    }
}
