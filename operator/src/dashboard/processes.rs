//! Processes: who runs, where, in which version, and what is remarkable about each.

use super::{
    html::{Cx, Head, cell, tag},
    sql,
};
use crate::commands::processes;
use axum::response::Response;
use maud::html;
use saga_core::{ProcessReport, RunningProcess};

/// The most processes on the page.
const ROWS_MAX: usize = 500;

pub(super) async fn show(cx: Cx) -> Response {
    let answers = cx.app.each(|store| async move { store.processes().await }).await;
    let (rows, away) = answers.flat();
    let is_empty = rows.is_empty() && away.is_empty();
    let more = rows.len().saturating_sub(ROWS_MAX);
    let cells = rows.iter().take(ROWS_MAX).map(|(n, row): &(usize, RunningProcess)| {
        let report = ProcessReport::read(&row.process.report);
        let is_well = processes::trouble(row, cx.now_us).is_empty();
        let cells = vec![
            html! { span.id { (cell(&row.process.owner)) } div.muted { (cell(&row.endpoint)) } },
            html! { (cell(&report.host)) },
            html! { (cell(&report.program)) div.muted { "Sagabus " (cell(&report.version)) } },
            cx.when(row.process.started_at_us),
            cx.when(row.process.seen_at_us),
            html! {
                @if is_well { (tag("well", "good")) }
                @if let Some(note) = processes::note(row, cx.now_us) { div.error[!is_well] { (cell(&note)) } }
            },
        ];
        (*n, cells)
    });
    let head = ["process", "host", "program", "started", "last seen", "condition"];
    let body = html! {
        @if is_empty { p.calm { "No process runs." } }
        (cx.rows("Who runs, and who has gone silent", &head, cells))
        @if more > 0 { p.muted { "and " (more) " more" } }
        p.muted { "To have one finish and stop: " code { "sagabus processes drain PROCESS --reason TEXT" } }
    };
    let (command, sql) = ("sagabus processes".into(), sql::processes(ROWS_MAX));
    cx.page(&Head { title: "Processes", part: "/processes", command, sql, away: &away }, body)
}
