//! Charts as files, so that a change of a saga is seen and understood in its review.

use crate::Chart;
use std::{env, fs, path::Path};

/// Set to `1`, a test that compares a chart with its file writes the file instead.
const UPDATE: &str = "SAGABUS_UPDATE";

/// Compares a chart with the file that holds it, which is kept with the source. A test of a package finds the file from
/// the package's folder. The name's end says the form:
///
/// - `.json`: the chart as data. When it differs, the test fails with what the difference means for the instances in
///   flight: see [`Chart::changes_since`].
/// - `.mmd` (Mermaid), `.dot` (Graphviz), `.svg`: a drawing for readers.
///
/// With `SAGABUS_UPDATE=1` in the environment the file is written instead, and its diff is part of the change.
///
/// ```no_run
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// # #[saga(name = "parcel", id = id: u64)]
/// # impl Parcel {
/// #     fn packed(packed: ParcelPacked) -> Travelling { Travelling { id: packed.id, scans: 0 } }
/// #     fn scanned(_: Travelling, _: Scanned) -> Arrived { Arrived }
/// # }
/// # fn main() {}
/// #[test]
/// fn the_chart_is_as_agreed() {
///     sagabus::testing::snapshot(&Parcel::chart(), "parcel.json");
/// }
/// ```
///
/// # Panics
/// When the chart is another than the file says, or when there is no file.
#[track_caller]
pub fn snapshot(chart: &Chart, file: impl AsRef<Path>) {
    let update = env::var(UPDATE).is_ok_and(|value| value == "1");
    if let Err(text) = compare(chart, file.as_ref(), update) {
        panic!("{text}");
    }
}

fn compare(chart: &Chart, file: &Path, update: bool) -> Result<(), String> {
    let name = file.display();
    let now = match file.extension().and_then(|extension| extension.to_str()) {
        Some("json") => chart.to_json() + "\n",
        Some("mmd") => chart.to_mermaid(),
        Some("dot") => chart.to_dot(),
        Some("svg") => chart.to_svg(),
        _ => return Err(format!("{name}: a chart is kept as `.json`, `.mmd`, `.dot` or `.svg`")),
    };
    let before = fs::read_to_string(file).map_err(|error| error.to_string());
    if before.as_ref() == Ok(&now) {
        return Ok(());
    }
    if update {
        return fs::write(file, now).map_err(|error| format!("{name} cannot be written: {error}"));
    }
    let how = format!("run the test with {UPDATE}=1 to write the file, and commit it");
    let before = before.map_err(|error| format!("{name} cannot be read: {error}; {how}"))?;
    let saga = &chart.saga;
    let changes = match serde_json::from_str::<Chart>(&before) {
        Ok(old) => chart.changes_since(&old),
        Err(error) if file.extension().is_some_and(|it| it == "json") => vec![format!("it cannot be read: {error}")],
        Err(_) => different_lines(&before, &now),
    };
    let changes: String = changes.iter().map(|change| format!("\n  - {change}")).collect();
    Err(format!("saga `{saga}` is not as {name} says:{changes}\nIf this is what you want: {how}."))
}

/// The lines that only one of two texts has; the beginning of them, for a drawing may be long.
fn different_lines(before: &str, now: &str) -> Vec<String> {
    let without = |text: &str, other: &str, sign: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !other.lines().any(|has| has == *line));
        lines.map(|line| format!("{sign} {}", line.trim())).collect()
    };
    let mut lines = [without(before, now, "-"), without(now, before, "+")].concat();
    lines.truncate(40);
    lines
}

#[cfg(test)]
mod tests;
