//! One instance: where it is, what it waits for, how it came there, and what can be done.

use super::{
    held,
    html::{Cx, Head, lines, refusal, tag},
    message, operations, outbox,
    params::Params,
    plan, sagas, sql, timeline,
};
use crate::{
    commands::operations::{heading, read as read_operations},
    masks,
    text::{self, count, plain, quoted},
};
use axum::{
    extract::{Extension, Path},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use saga_core::{
    DefinitionView, ErrorCode, HeldFilter, HeldView, Inspect, InstanceAction, InstanceFilter, InstanceKey,
    InstanceSeen, InstanceView, JournalView, OperationFilter, OperationView, OutboxFilter, OutboxView, StoreError,
};
use std::sync::Arc;

/// The most rows of each kind.
const ROWS_MAX: i64 = 200;

/// Everything that is known about an instance.
pub(super) struct Page {
    pub(super) instance: InstanceView,
    pub(super) definition: Option<DefinitionView>,
    outbox: Vec<OutboxView>,
    held: Vec<HeldView>,
    held_count: u64,
    /// And whether there are older operations at which nobody looked.
    operations: (Vec<OperationView>, bool),
    pub(super) journal: Vec<JournalView>,
    pub(super) journal_count: u64,
    /// The masked fields that are hidden in its data and its journal.
    hidden: Vec<String>,
}

async fn read(store: Arc<dyn Inspect>, key: InstanceKey, unmasked: bool) -> Result<Option<Page>, StoreError> {
    let (saga, saga_id) = (Some(key.saga.clone()), Some(key.id.clone()));
    let filter = InstanceFilter { saga: saga.clone(), id: saga_id.clone(), ..InstanceFilter::default() };
    let found = store.instances(&filter, crate::find::ROWS_MAX).await?;
    let Some(mut instance) = found.into_iter().find(|instance| instance.id == key.id) else { return Ok(None) };
    let sent = OutboxFilter { saga: saga.clone(), saga_id: saga_id.clone(), ..OutboxFilter::default() };
    let waiting = HeldFilter { saga: saga.clone(), saga_id: saga_id.clone(), ..HeldFilter::default() };
    let done = OperationFilter { saga, saga_id, ..OperationFilter::default() };
    let definitions = store.definitions().await?;
    let mut journal = store.journal(&key, ROWS_MAX).await?;
    let mut hidden = masks::Hidden::new();
    if !unmasked {
        hidden.extend(masks::instance(&mut instance, &definitions));
        hidden.extend(masks::journal(&key.saga, &mut journal, &definitions));
    }
    Ok(Some(Page {
        definition: sagas::newest(&key.saga, &definitions).cloned(),
        outbox: store.outbox(&sent, ROWS_MAX).await?,
        held: store.held(&waiting, ROWS_MAX).await?,
        held_count: store.held_count(&waiting).await?,
        operations: read_operations(&*store, &done, ROWS_MAX).await?,
        journal,
        journal_count: store.journal_count(&key).await?,
        instance,
        hidden: hidden.into_iter().collect(),
    }))
}

pub(super) async fn show(cx: Cx, Path((saga, id)): Path<(String, String)>) -> Response {
    let unmasked = cx.unmasked();
    let answers = cx
        .app
        .each(|store| {
            let key = InstanceKey { saga: saga.clone(), id: id.clone() };
            read(store, key, unmasked)
        })
        .await;
    let pages: Vec<(usize, Page)> = answers.all.into_iter().filter_map(|(n, page)| Some((n, page?))).collect();
    if pages.is_empty() && answers.away.is_empty() {
        return refusal(&cx.app, StatusCode::NOT_FOUND, "there is no such instance");
    }
    let body = html! { @for (n, page) in &pages { (one(&cx, *n, page)) } };
    let title = plain(&format!("{saga} {id}"));
    let command = format!("sagabus sagas show {} {}", quoted(&saga), quoted(&id));
    let sql = sql::instance(&saga, &id);
    cx.page(&Head { title: &title, part: "/sagas", command, sql, away: &answers.away }, body)
}

fn one(cx: &Cx, n: usize, page: &Page) -> Markup {
    let Page { instance, outbox, .. } = page;
    let of = Params::default().with("saga", &instance.saga);
    let (timers, sent): (Vec<_>, Vec<_>) = outbox.iter().partition(|row| row.kind == "timer");
    let all = |shown: usize, all: u64| if (shown as u64) < all { format!(": {shown} of {all}") } else { String::new() };
    html! {
        section.card {
            dl {
                @if let Some(label) = cx.app.label(n) { dt { "Database" } dd { (label) } }
                dt { "Saga" } dd { a href=(of.href(&cx.url("/sagas"))) { (plain(&instance.saga)) } }
                dt { "State" } dd { strong { (plain(&instance.state)) } @if instance.completed_at_us.is_some() { " "
                    (tag("done", "good")) }
                    span.muted { " step " (instance.seq) ", version " (instance.version) } }
                dt { "Id" } dd { (cx.conversation(&instance.id)) span.muted { " where it came from, what it caused" } }
                @for (field, value) in &instance.aliases { dt { "Alias" } dd { (plain(&format!("{field} {value}"))) } }
                @for field in &instance.fields { dt { "Field" } dd { (alike(cx, &instance.saga, field)) } }
                dt { "Started" } dd { (cx.at(instance.created_at_us)) }
                dt { "Changed" } dd { (cx.at(instance.updated_at_us)) }
                @if let Some(done) = instance.completed_at_us { dt { "Done" } dd { (cx.at(done)) } }
            }
            @if let Some(message) = &instance.paused_by {
                p.banner.bad { strong { "Paused." }
                    " It waits until somebody deals with message " (cx.message(message)) "." }
            }
            (waits(page))
        }
        @if cx.visitor.may_act() && instance.completed_at_us.is_none() { (actions(cx, n, page)) }
        h2 { "Data" }
        (lines(&text::json(&instance.data)))
        (cx.masks(&page.hidden))
        @if let Some(definition) = &page.definition {
            @let steps = page.journal.iter().filter_map(step_taken);
            section { h2 { "Its way" }
                (cx.chart(&definition.chart.drawing().path(steps), "Chart of the saga with the way of this instance")) }
        }
        (outbox::table(cx, "Timers", timers.into_iter().map(|row| (n, row))))
        (outbox::table(cx, "Sent and not confirmed, or to be handled again", sent.into_iter().map(|row| (n, row))))
        (held::table(cx, &format!("Held for it{}", all(page.held.len(), page.held_count)),
            page.held.iter().map(|row| (n, row))))
        (timeline::show(cx, n, page))
        @let (operations, beyond) = &page.operations;
        (operations::table(cx, &heading("What operators did", *beyond),
            operations.iter().map(|it| (n, it.clone())).collect()))
    }
}

/// A field, with a link to the instances that have the same value in it.
fn alike(cx: &Cx, saga: &str, (field, value): (&String, &String)) -> Markup {
    let of = Params::default().with("saga", saga).with("where", &format!("{field}={value}"));
    html! {
        (plain(field)) " "
        @if value == masks::MASK { (value) } @else { a href=(of.href(&cx.url("/sagas"))) { (plain(value)) } }
    }
}

/// The messages that lead on from the state it is in.
fn waits(page: &Page) -> Markup {
    let instance = &page.instance;
    let chart = page.definition.as_ref().map(|definition| &definition.chart);
    let state = chart.and_then(|chart| chart.state(&instance.state));
    let (Some(chart), Some(state)) = (chart, state) else { return html! {} };
    let mut on: Vec<&str> = chart.edges.iter().filter(|edge| edge.from == state.name).map(|edge| &*edge.on).collect();
    on.sort_unstable();
    on.dedup();
    html! {
        @if instance.completed_at_us.is_none() && !on.is_empty() {
            p { "It waits for " @for (k, name) in on.iter().enumerate() { @if k > 0 { ", or " }
                code { (plain(name)) } } "." }
        }
    }
}

/// A transition as a chart has it.
fn step_taken(line: &JournalView) -> Option<(Option<&str>, &str, &str)> {
    Some((line.from_state.as_deref(), &line.type_name, line.to_state.as_deref()?))
}

/// What each form says of the instance as the page shows it.
pub(super) fn hidden(cx: &Cx, n: usize, instance: &InstanceView) -> Markup {
    html! {
        (cx.csrf())
        input type="hidden" name="database" value=(cx.app.source(n).short);
        input type="hidden" name="seq" value=(instance.seq);
        @if let Some(message) = &instance.paused_by { input type="hidden" name="paused-by" value=(message); }
    }
}

fn actions(cx: &Cx, n: usize, page: &Page) -> Markup {
    let instance = &page.instance;
    let hidden = || hidden(cx, n, instance);
    html! {
        section.acts aria-label="What can be done" {
            @if instance.paused_by.is_some() {
                details.card id="resume" { summary { "Go on without the message that failed" }
                    form.stack method="post" {
                        (hidden())
                        p {
                            "What waits behind it is handled, in order. "
                            "The message stays held, to be retried or discarded later."
                        }
                        (cx.reason("resume-reason"))
                        div.buttons { button name="do" value="resume" { "Resume" } }
                    } }
            }
            @if let Some(definition) = &page.definition { (send(&hidden, definition, cx)) }
            details.card id="cancel" { summary { "End it where it is" }
                form.stack method="post" {
                    (hidden())
                    p { "Nothing is sent, and nobody is told. Its timers go, and "
                        (count(page.held_count as i64, "held message"))
                        " will be discarded with it. This cannot be undone." }
                    (cx.reason("cancel-reason"))
                    div.buttons { button.danger name="do" value="cancel" { "Cancel the instance" } }
                } }
        }
    }
}

/// The form for a message that the saga takes.
fn send(hidden: &dyn Fn() -> Markup, definition: &DefinitionView, cx: &Cx) -> Markup {
    let messages = definition.chart.messages.iter().map(|message| message.type_name.as_str());
    html! {
        details.card id="send" { summary { "Give it a message" }
            form.stack method="post" {
                (hidden())
                p { "A running process handles it as if it had come." }
                label for="send-type" { "Type" }
                select id="send-type" name="type" { @for name in messages { option value=(name) { (plain(name)) } } }
                label for="send-body" { "Body, in JSON" }
                textarea id="send-body" name="body" rows="4" spellcheck="false" required {}
                (cx.reason("send-reason"))
                div.buttons { button name="do" value="send" { "Send" } }
            } }
    }
}

pub(super) async fn act(
    cx: Cx,
    Path((saga, id)): Path<(String, String)>,
    Extension(fields): Extension<Params>,
) -> Response {
    let Some(why) = fields.text("reason") else { return plan::no_reason(&cx) };
    let Some(n) = fields.get("database").and_then(|short| cx.app.number(short)) else {
        return refusal(&cx.app, StatusCode::BAD_REQUEST, "this form does not name a database");
    };
    let [type_name, body] = ["type", "body"].map(|name| fields.get(name).unwrap_or_default());
    let at = fields.get("at").and_then(|at| at.parse().ok());
    let action = match fields.get("do") {
        Some("fork") if at.is_some() => InstanceAction::Fork { at: at.unwrap_or_default(), dry_run: false },
        Some("cancel") => InstanceAction::Cancel,
        Some("resume") => InstanceAction::Resume,
        Some("send") => InstanceAction::Send { type_name, body },
        _ => return refusal(&cx.app, StatusCode::BAD_REQUEST, "this form does not say what to do"),
    };
    let Some(seq) = fields.get("seq").and_then(|seq| seq.parse().ok()) else {
        return refusal(&cx.app, StatusCode::BAD_REQUEST, "this form does not say where the instance was");
    };
    let seen = InstanceSeen { seq, paused_by: fields.get("paused-by").map(str::to_owned) };
    let (key, who) = (InstanceKey { saga, id }, &cx.visitor.name);
    let done = cx.app.source(n).order(|store| {
        let (key, seen, why) = (&key, &seen, &why);
        async move {
            match action {
                InstanceAction::Cancel => store.saga_cancel(key, seen, who, why).await,
                InstanceAction::Fork { at, dry_run } => store.saga_fork(key, (at, dry_run), seen, who, why).await,
                InstanceAction::Send { type_name, body } => store.saga_send(key, (type_name, body), who, why).await,
                _ => store.saga_resume(key, seen, who, why).await,
            }
        }
    });
    match done.await {
        Ok(done) if done.is_done() => {
            cx.app.live.changed();
            let there = format!("/sagas/{}/{}", super::params::encoded(&key.saga), super::params::encoded(&key.id));
            Redirect::to(&cx.url(&there)).into_response()
        }
        Ok(done) => {
            let text = match done.result.as_str() {
                "moved" => "Nothing was done: the instance has moved on since its page was made. Look again.".into(),
                other => format!("Nothing was done: the instance is {}.", plain(other)),
            };
            refusal(&cx.app, StatusCode::CONFLICT, &text)
        }
        Err(error) if matches!(error.code(), ErrorCode::InputUnfit | ErrorCode::StepUnfit | ErrorCode::NotFound) => {
            refusal(&cx.app, StatusCode::BAD_REQUEST, &plain(&error.to_string()))
        }
        Err(error) => message::unreachable(&cx, n, &error),
    }
}
