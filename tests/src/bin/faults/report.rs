//! The table.

use serde::Serialize;

/// What came of a row.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) fault: &'static str,
    pub(crate) injected: usize,
    pub(crate) orders: usize,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    pub(crate) stall_ms: u64,
    pub(crate) resume_ms: u64,
    /// Processes that died by themselves.
    pub(crate) deaths: usize,
    /// Why it failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) wrong: Vec<String>,
}

impl Line {
    /// Nothing is lost, doubled or late.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.wrong.is_empty()
    }
}

/// The table's head, in Markdown.
pub(crate) const HEAD: &str = "\
| fault | injected | orders | lost | doubled | longest stall | time to resume |
|---|--:|--:|--:|--:|--:|--:|";

/// A line of the table.
pub(crate) fn line(line: &Line) -> String {
    let Line { fault, injected, orders, lost, doubled, stall_ms, resume_ms, .. } = line;
    let (stall, resume) = (seconds(*stall_ms), seconds(*resume_ms));
    format!("| {fault} | {injected} | {orders} | {lost} | {doubled} | {stall} | {resume} |")
}

/// The sums: the last line of the table.
pub(crate) fn total(lines: &[Line]) -> String {
    let sum = |of: fn(&Line) -> usize| lines.iter().map(of).sum::<usize>();
    let max = |of: fn(&Line) -> u64| lines.iter().map(of).max().unwrap_or_default();
    line(&Line {
        fault: "**all**",
        injected: sum(|line| line.injected),
        orders: sum(|line| line.orders),
        lost: sum(|line| line.lost),
        doubled: sum(|line| line.doubled),
        stall_ms: max(|line| line.stall_ms),
        resume_ms: max(|line| line.resume_ms),
        deaths: 0,
        wrong: Vec::new(),
    })
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1000.0)
}
