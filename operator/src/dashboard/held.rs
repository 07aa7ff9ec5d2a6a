//! Held messages: groups by reason, type and error, and the messages of a filter.

use super::{
    html::{self, Cx, Head, cell, refusal, tag},
    params::Params,
    plan,
    plans::{Plan, Work},
    sql,
};
use crate::{
    bulk,
    commands::{REASONS, WhichHeld},
    names,
    text::{count, plain, quoted, some_or_more},
};
use axum::{
    extract::Extension,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use saga_core::{Counted, HeldAction, HeldFilter, HeldGroup, HeldReason, HeldView};

/// The most groups on a page.
const GROUPS_MAX: usize = 100;

/// The filter of the page.
async fn filter(cx: &Cx) -> Result<HeldFilter, String> {
    let filter = cx.params.which::<WhichHeld>()?.filter();
    Ok(HeldFilter { saga: cx.app.spelt(filter.saga.clone()).await?, ..filter })
}

pub(super) async fn show(cx: Cx) -> Response {
    let filter = match filter(&cx).await {
        Ok(filter) => filter,
        Err(text) => return refusal(&cx.app, StatusCode::BAD_REQUEST, &text),
    };
    let limit = cx.params.limit();
    let answers = cx
        .app
        .each(|store| {
            let filter = filter.clone();
            async move {
                let filter = names::held(&*store, &filter).await?;
                let groups = store.held_groups(&filter).await?;
                Ok((store.held_counted(&filter).await?, groups, store.held(&filter, limit).await?))
            }
        })
        .await;
    let (mut all, mut groups, mut rows) = (Counted::default(), Vec::new(), Vec::new());
    for (n, (counted, of_it, held)) in answers.all {
        all = all + counted;
        groups.extend(of_it);
        rows.extend(held.into_iter().map(|row| (n, row)));
    }
    let of_filter = cx.params.of_filter::<WhichHeld>();
    let none = if of_filter.is_empty() { "Nothing is held." } else { "No held message matches." };
    let body = html! {
        (filters(&cx))
        @if rows.is_empty() {
            (cx.none(none, all, &answers.away))
        } @else {
            (by_group(&cx, groups))
            @if cx.visitor.may_act() { (actions(&cx, &of_filter, all)) }
            (table(&cx, "Messages in order of arrival", rows.iter().map(|(n, row)| (*n, row))))
            (cx.shown("/held", rows.len(), all))
        }
    };
    let (command, sql) = (of_filter.command("held list"), sql::held(&filter, Some(limit)));
    cx.page(&Head { title: "Held messages", part: "/held", command, sql, away: &answers.away }, body)
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
            (cx.filter_text("older-than", "Held for (15m, 3h, 2d)"))
            (cx.filter_text("newer-than", "Held for less than"))
            (cx.filter_check("needs-person", "Needs a person"))
            (cx.filter_buttons("/held"))
        }
    }
}

/// Messages with the same reason, type and error; first those that need a person.
fn by_group(cx: &Cx, groups: Vec<HeldGroup>) -> Markup {
    let mut groups = HeldGroup::together(groups);
    groups.sort_by_key(HeldGroup::waits_by_itself);
    let left_out = groups.len().saturating_sub(GROUPS_MAX);
    let row = |group: &HeldGroup| {
        let error = group.error.as_deref().unwrap_or_default();
        let narrowed = cx.params.with("reason-is", &group.reason).with("type", &group.type_name);
        let narrowed = narrowed.with("error", error).with("limit", "");
        vec![
            html! { a href=(narrowed.href(&cx.url("/held"))) {
            (some_or_more(group.count, group.more)) @if group.count == 1 && !group.more { " message" }
            @else { " messages" } } },
            reason_tag(&group.reason),
            cell(&group.type_name),
            html! {
                span.error { (cell(error)) }
                @for note in &group.notes { div.muted { (cell(&note.who)) ": " (cell(&note.text)) } }
            },
            cx.when(group.first_us),
            cx.when(group.last_us),
        ]
    };
    let caption = "By reason, type and error";
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

fn actions(cx: &Cx, of_filter: &Params, all: Counted) -> Markup {
    let is_named = of_filter.is_set("reason-is") || of_filter.is_set("needs-person");
    let which = match (is_named, of_filter.is_empty()) {
        (true, _) => format!("{all} of this filter"),
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

/// What a form asks for.
pub(super) fn deed(word: &str) -> Option<HeldAction<'static>> {
    match word {
        "retry" => Some(HeldAction::Retry),
        "discard" => Some(HeldAction::Discard),
        _ => None,
    }
}

/// Plans an action on all that a filter finds now.
pub(super) async fn plan(cx: Cx, Extension(fields): Extension<Params>) -> Response {
    let filter = match filter(&cx).await {
        Ok(filter) => filter,
        Err(text) => return refusal(&cx.app, StatusCode::BAD_REQUEST, &text),
    };
    let Some(action) = fields.get("do").and_then(deed) else { return plan::no_deed(&cx) };
    let answers = cx
        .app
        .each(|store| {
            let filter = filter.clone();
            async move { bulk::held(&*store, &filter).await }
        })
        .await;
    let (rows, there, away) = plan::taken(answers);
    if rows.is_empty() {
        return plan::nothing(&cx, &away, "no held message that needs a person matches this filter");
    }
    let filter = HeldFilter { needs_person: filter.needs_person || filter.reason.is_none(), ..filter };
    let command = plan::command(&cx.params.of_filter::<WhichHeld>(), action.as_str());
    let plan = Plan::new(Work::on_held(action, &rows), command, sql::held(&filter, None), &cx.visitor.name);
    plan::made(&cx, plan.without(away, there))
}

/// Plans an action on named rows and carries it out: its page has shown which. The options tell them from others with
/// their id.
pub(super) async fn at_once(
    cx: &Cx,
    action: HeldAction<'static>,
    (rows, options): (&[(usize, HeldView)], &str),
    why: String,
) -> Response {
    let id = &rows[0].1.message_id;
    let options = if options.is_empty() { String::new() } else { format!(" {options}") };
    let command = format!("sagabus {} {}{options} --reason …", action.as_str(), quoted(id));
    let plan = Plan::new(Work::on_held(action, rows), command, sql::message(id), &cx.visitor.name);
    let plan = cx.app.plans.add(plan);
    let there = cx.url(&format!("/plans/{}", plan.id));
    let _ = tokio::time::timeout(plan::PATIENCE, tokio::spawn(plan.carry_out(cx.app.clone(), why, None))).await;
    Redirect::to(&there).into_response()
}
