//! Held messages: groups by reason, type and error, and the messages of a filter.

use super::{
    html::{self, Cx, Head, cell, refusal, tag},
    params::Params,
    plan,
    plans::{Deed, Plan},
};
use crate::text::{count, plain};
use axum::{
    extract::Extension,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use saga_core::{HeldFilter, HeldReason, HeldView};
use std::collections::BTreeMap;

/// The options of `sagabus held list` that make a filter.
const FILTER: [&str; 8] = ["endpoint", "reason-is", "receiver", "saga", "id", "type", "error", "needs-person"];
/// The words for why a message waits: those that need a person first.
const REASONS: [&str; 9] =
    ["failed", "rejected", "crashes", "undecodable", "stranded", "early", "deferred", "paused", "version"];
/// The most messages that are grouped, of each database.
const GROUPED_MAX: i64 = 10_000;
/// The most messages that a plan takes, of each database.
const PLANNED_MAX: i64 = 100_000;
/// The most groups on a page.
const GROUPS_MAX: usize = 100;
/// A group is found again by the beginning of its error.
const ERROR_CHARS: usize = 200;

/// The filter of a page's parameters; `None` if its reason is none.
pub(super) fn filter(params: &Params) -> Option<HeldFilter> {
    let reason = match params.text("reason-is") {
        Some(text) => Some(HeldReason::parse(&text.to_lowercase())?),
        None => None,
    };
    Some(HeldFilter {
        message_id: None,
        endpoint: params.text("endpoint"),
        reason,
        receiver: params.text("receiver"),
        saga: params.text("saga"),
        saga_id: params.text("id"),
        type_name: params.text("type"),
        error: params.text("error"),
        needs_person: params.is_set("needs-person"),
    })
}

pub(super) async fn show(cx: Cx) -> Response {
    let Some(filter) = filter(&cx.params) else { return no_reason_called(&cx) };
    let limit = cx.params.limit();
    let answers = cx
        .app
        .each(|store| {
            let filter = filter.clone();
            async move { Ok((store.held_count(&filter).await?, store.held(&filter, GROUPED_MAX).await?)) }
        })
        .await;
    let all: u64 = answers.all.iter().map(|(_, (n, _))| n).sum();
    let rows: Vec<(usize, HeldView)> = crate::find::flat(answers.all.into_iter().map(|(n, (_, r))| (n, r)).collect());
    let of_filter = cx.params.only(&FILTER);
    let shown: Vec<_> = rows.iter().take(limit as usize).map(|(n, row)| (*n, row)).collect();
    let of_groups = if (rows.len() as u64) < all { format!(" of the first {}", rows.len()) } else { String::new() };
    let body = html! {
        (filters(&cx))
        @if rows.is_empty() {
            p.calm { @if of_filter.is_empty() { "Nothing is held." } @else { "No held message matches." } }
        } @else {
            (groups(&cx, &format!("By reason, type and error{of_groups}"), &rows))
            @if cx.visitor.may_act() { (actions(&cx, &of_filter, all)) }
            (table(&cx, "Messages in order of arrival", shown.iter().copied()))
            (cx.shown("/held", shown.len(), all))
        }
    };
    cx.page(
        &Head { title: "Held messages", part: "/held", command: of_filter.command("held list"), away: &answers.away },
        body,
    )
}

fn no_reason_called(cx: &Cx) -> Response {
    let text = format!("no reason is called that; there are: {}", REASONS.join(", "));
    refusal(&cx.app, StatusCode::BAD_REQUEST, &text)
}

fn filters(cx: &Cx) -> Markup {
    let reason = cx.params.get("reason-is").unwrap_or_default().to_lowercase();
    html! {
        form.filter action=(cx.url("/held")) aria-label="Filter" {
            div {
                label for="f-reason" { "Reason" }
                select id="f-reason" name="reason-is" {
                    option value="" { "any" }
                    @for word in REASONS { option value=(word) selected[word == reason] { (word) } }
                }
            }
            (cx.filter_text("endpoint", "Endpoint")) (cx.filter_text("receiver", "Saga or handler"))
            (cx.filter_text("type", "Type")) (cx.filter_text("error", "Error contains"))
            (cx.filter_text("saga", "Saga")) (cx.filter_text("id", "Instance"))
            (cx.filter_check("needs-person", "Needs a person"))
            (cx.filter_buttons("/held"))
        }
    }
}

/// Messages with the same reason, type and error.
struct Group {
    count: i64,
    first_us: i64,
    last_us: i64,
}

fn groups(cx: &Cx, caption: &str, rows: &[(usize, HeldView)]) -> Markup {
    let mut groups: BTreeMap<(&str, &str, &str), Group> = BTreeMap::new();
    for (_, row) in rows {
        let name = (row.reason.as_str(), row.type_name.as_str(), row.error.as_deref().unwrap_or_default());
        let group = groups.entry(name).or_insert(Group { count: 0, first_us: i64::MAX, last_us: i64::MIN });
        group.count += 1;
        group.first_us = group.first_us.min(row.held_at_us);
        group.last_us = group.last_us.max(row.held_at_us);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|((reason, ..), group)| (waits(reason), -group.count));
    let left_out = groups.len().saturating_sub(GROUPS_MAX);
    let row = |((reason, type_name, error), group): &((&str, &str, &str), Group)| {
        let error: String = error.chars().take(ERROR_CHARS).collect();
        let narrowed =
            cx.params.with("reason-is", reason).with("type", type_name).with("error", &error).with("limit", "");
        vec![
            html! { a href=(narrowed.href(&cx.url("/held"))) { (count(group.count, "message")) } },
            reason_tag(reason),
            cell(type_name),
            html! { span.error { (cell(&error)) } },
            cx.when(group.first_us),
            cx.when(group.last_us),
        ]
    };
    html! {
        (html::table(caption, &["count", "reason", "type", "error", "first", "last"],
            groups.iter().take(GROUPS_MAX).map(row)))
        @if left_out > 0 { p.shown { "and " (count(left_out as i64, "group")) " more" } }
    }
}

/// Whether messages with this reason go on by themselves. One that this program does not know may need a person.
fn waits(reason: &str) -> bool {
    HeldReason::parse(reason).is_some_and(HeldReason::releases_itself)
}

pub(super) fn reason_tag(reason: &str) -> Markup {
    tag(reason, if waits(reason) { "quiet" } else { "bad" })
}

fn actions(cx: &Cx, of_filter: &Params, all: u64) -> Markup {
    let is_named = of_filter.is_set("reason-is") || of_filter.is_set("needs-person");
    let which = match (is_named, of_filter.is_empty()) {
        (true, _) => format!("{} of this filter", count(all as i64, "message")),
        (false, true) => "all that need a person".into(),
        (false, false) => "those of this filter that need a person".into(),
    };
    html! {
        form.buttons method="post" action=(of_filter.href(&cx.url("/held"))) aria-label="Act on the filter" {
            (cx.csrf())
            button.quiet name="do" value="retry" { "Retry " (which) "…" }
            button.quiet name="do" value="discard" { "Discard " (which) "…" }
            span.muted { "You see which before anything is done." }
        }
    }
}

/// Held messages as rows.
pub(super) fn table<'a>(cx: &Cx, caption: &str, rows: impl IntoIterator<Item = (usize, &'a HeldView)>) -> Markup {
    let cells = |(n, row): (usize, &HeldView)| {
        let instance = row.saga.as_deref().zip(row.saga_id.as_deref());
        let cells = vec![
            html! { (cx.message(&row.message_id)) div.muted { (cell(&row.type_name)) } },
            html! { (reason_tag(&row.reason)) @if let Some(error) = &row.error { div.error { (cell(error)) } } },
            html! {
                (plain(&row.endpoint)) @if !row.receiver.is_empty() { " / " (cell(&row.receiver)) }
                @if let Some((saga, id)) = instance { div { (cx.instance(saga, id)) } }
            },
            cx.when(row.held_at_us),
            html! { (row.attempts) },
        ];
        (n, cells)
    };
    let head = ["message", "why", "receiver", "held", "runs"];
    cx.rows(caption, &head, rows.into_iter().map(cells))
}

/// Plans an action on all that a filter finds now. Those that wait for their turn are included only when the filter
/// names their reason.
pub(super) async fn plan(cx: Cx, Extension(fields): Extension<Params>) -> Response {
    let Some(filter) = filter(&cx.params) else { return no_reason_called(&cx) };
    let Some(deed) = fields.get("do").and_then(Deed::parse) else {
        return refusal(&cx.app, StatusCode::BAD_REQUEST, "nothing is called that which is to be done");
    };
    let filter = HeldFilter { needs_person: filter.needs_person || filter.reason.is_none(), ..filter };
    let answers = cx
        .app
        .each(|store| {
            let filter = filter.clone();
            async move { store.held(&filter, PLANNED_MAX).await }
        })
        .await;
    let (rows, away) = answers.flat();
    if let Some(away) = away.first() {
        // half of what was asked for would be a surprise
        let text = format!("{} is unreachable, so nothing was planned: {}", away.name, plain(&away.error));
        return refusal(&cx.app, StatusCode::SERVICE_UNAVAILABLE, &text);
    }
    if rows.is_empty() {
        return refusal(&cx.app, StatusCode::NOT_FOUND, "no held message that needs a person matches this filter");
    }
    let command = cx.params.only(&FILTER);
    let command = if command.is_empty() { command.with_set("all") } else { command };
    let command = format!("{} --reason …", command.command(&format!("held {}", deed.as_str())));
    let plan = cx.app.plans.add(Plan::new(deed, &rows, command, &cx.visitor.name));
    Redirect::to(&cx.url(&format!("/plans/{}", plan.id))).into_response()
}

/// Plans an action on named rows and carries it out: its page has shown which.
pub(super) async fn at_once(cx: &Cx, deed: Deed, rows: &[(usize, HeldView)], why: String) -> Response {
    let id = &rows[0].1.message_id;
    let command = format!("sagabus held {} {} --reason …", deed.as_str(), super::params::quoted(id));
    let plan = cx.app.plans.add(Plan::new(deed, rows, command, &cx.visitor.name));
    let there = cx.url(&format!("/plans/{}", plan.id));
    let _ = tokio::time::timeout(plan::PATIENCE, tokio::spawn(plan.carry_out(cx.app.clone(), why))).await;
    Redirect::to(&there).into_response()
}
