//! The first page: what needs a person, then what goes on.

use super::{
    html::{Cx, Head, cell, tag},
    params::Params,
    sql, workbench,
};
use crate::{
    text::{age, plain, some},
    trouble::{TOLD_MAX, Trouble, lingering, troubles},
};
use axum::response::Response;
use maud::{Markup, html};
use saga_core::{EndpointStatus, ProcessReport, RowCount, Status};

/// The most processes on the first page.
const PROCESSES_TOLD: usize = 50;

pub(super) async fn show(cx: Cx) -> Response {
    let answers = cx.app.each(|store| async move { store.status().await }).await;
    let all = answers.all;
    let told = |of: fn(&Status) -> Vec<Trouble>| -> Vec<(usize, Trouble)> {
        all.iter().flat_map(|(n, status)| of(status).into_iter().map(|it| (*n, it))).collect()
    };
    let (troubles, lingering) = (told(troubles), told(lingering));
    let clean = answers.away.is_empty();
    let body = html! {
        (workbench::show(&cx))
        @if troubles.is_empty() {
            p.calm.well[clean] #summary { @if clean { "Nothing needs a person." }
                @else { "Nothing that could be read needs a person." } }
        } @else {
            section.trouble aria-labelledby="summary" {
                h2 #summary { "Needs a person: " (troubles.len()) }
                (list(&cx, &troubles))
            }
        }
        @if !lingering.is_empty() {
            section.lingering aria-labelledby="lingering" {
                h2 #lingering { "Has waited for more than a day: " (lingering.len()) }
                (list(&cx, &lingering))
            }
        }
        @if all.iter().all(|(_, status)| status.endpoints.is_empty()) {
            @if clean { p.muted { "No endpoint has started on these databases." } }
        }
        div.cards { @for (n, status) in &all { @for endpoint in &status.endpoints { (card(&cx, *n, endpoint)) } } }
        (states(&cx, &all))
        (processes(&cx, &all))
    };
    let (command, sql) = ("sagabus status".into(), sql::home());
    cx.page(&Head { title: "Home", part: "/", command, sql, away: &answers.away }, body)
}

/// The first of them; then how many there are beside them.
fn list(cx: &Cx, troubles: &[(usize, Trouble)]) -> Markup {
    html! {
        ul { @for (n, it) in troubles.iter().take(TOLD_MAX) { li { (trouble(cx, *n, it)) } } }
        @if troubles.len() > TOLD_MAX { p.muted { "and " (troubles.len() - TOLD_MAX) " more" } }
    }
}

/// A line of trouble, with a link to the page that shows it: pages are called as their commands are.
fn trouble(cx: &Cx, n: usize, trouble: &Trouble) -> Markup {
    let page = trouble.see.words.split(' ').next().unwrap_or_default();
    let there = Params::of_command(&trouble.see).href(&cx.url(&format!("/{page}")));
    html! {
        @if let Some(label) = cx.app.label(n) { span.muted { (label) ": " } }
        (plain(&trouble.told())) " " a href=(there) { "Show them" }
    }
}

fn card(cx: &Cx, n: usize, endpoint: &EndpointStatus) -> Markup {
    let name = endpoint.endpoint.as_str();
    let of = Params::default().with("endpoint", name);
    let rows = |what: &str, rows: &RowCount, kind: &str, failing: bool| {
        let of = if failing { of.with_set("failing") } else { of.clone() };
        let due = rows
            .oldest_ms
            .map(|ms| if ms < 0 { format!("next in {}", age(ms)) } else { format!("oldest {}", age(ms)) });
        html! {
            @if rows.count > 0 {
                dt { a href=(of.href(&cx.url("/outbox"))) { (what) } }
                dd { span class=(kind) { (some(rows.count)) } @if let Some(due) = due { " " span.muted { (due) } }
                    @if let Some(error) = &rows.error { div.error { (cell(error)) } } }
            }
        }
    };
    html! {
        section.card {
            h2 { (plain(name)) @if let Some(label) = cx.app.label(n) { " " span.muted { (label) } } }
            dl {
                dt { "handled, last minute" } dd { (endpoint.handled_last_minute) }
                (rows("due", &endpoint.due, "", false))
                (rows("publishing failed", &endpoint.failing, "bad", true))
                (rows("retrying", &endpoint.retrying, "warn", false))
                (rows("timers", &endpoint.timers, "", false))
                (rows("delayed", &endpoint.delayed, "", false))
                @for rows in &endpoint.unroutable {
                    dt { "no queue: " (plain(&rows.destination)) }
                    dd { span.bad { (some(rows.count)) } " " span.muted { "oldest " (age(rows.oldest_ms)) } }
                }
                @if let Some(ms) = endpoint.unconfirmed_ms { dt { "not confirmed" }
                    dd { span.muted { "oldest " (age(ms)) } } }
                @for held in &endpoint.held {
                    dt { a href=(of.with("reason-is", &held.reason).href(&cx.url("/held"))) {
                        "held: " (plain(&held.reason)) } }
                    dd { (some(held.count)) " " span.muted { "oldest " (age(held.oldest_ms)) } }
                }
                dt { "processes" } dd { (endpoint.processes.len()) }
            }
        }
    }
}

/// Instances by saga and state.
pub(super) fn states(cx: &Cx, all: &[(usize, Status)]) -> Markup {
    let rows = all.iter().flat_map(|(n, status)| status.instances.iter().map(move |state| (*n, state)));
    let cells = rows.map(|(n, state)| {
        let of = Params::default().with("saga", &state.saga);
        let there = of.with("state", &state.state);
        let cells = vec![
            html! { a href=(of.href(&cx.url("/sagas"))) { (plain(&state.saga)) } },
            html! { a href=(there.href(&cx.url("/sagas"))) { (plain(&state.state)) }
            @if state.done == state.count { " " (tag("done", "good")) } },
            html! { (some(state.count)) },
            html! {
                @if state.paused > 0 { a.bad href=(there.with_set("paused").href(&cx.url("/sagas"))) {
                    (state.paused) } } @else { "0" }
            },
            html! { (age(state.oldest_ms)) },
        ];
        (n, cells)
    });
    cx.rows("Instances by state", &["saga", "state", "instances", "paused", "oldest change"], cells)
}

fn processes(cx: &Cx, all: &[(usize, Status)]) -> Markup {
    let endpoints = all.iter().flat_map(|(n, status)| status.endpoints.iter().map(move |endpoint| (*n, endpoint)));
    let rows = endpoints.flat_map(|(n, endpoint)| endpoint.processes.iter().map(move |process| (n, endpoint, process)));
    let more = rows.clone().count().saturating_sub(PROCESSES_TOLD);
    let cells = rows.take(PROCESSES_TOLD).map(|(n, endpoint, process)| {
        let report = ProcessReport::read(&process.report);
        let cells = vec![
            html! { (plain(&endpoint.endpoint)) },
            html! { span.id { (plain(&process.owner)) } },
            cx.when(process.started_at_us),
            cx.when(process.seen_at_us),
            html! { @match report.down() { Some(why) => span.bad { (cell(why)) }, None => (tag("up", "good")) } },
            html! { @for handler in &report.breakers { (tag(handler, "bad")) " " } },
        ];
        (n, cells)
    });
    let head = ["endpoint", "process", "started", "last seen", "link", "breakers open"];
    html! {
        (cx.rows("Processes", &head, cells))
        @if more > 0 { p.muted { "and " (more) " more: " a href=(cx.url("/processes")) { "all processes" } } }
    }
}
