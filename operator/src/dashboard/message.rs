//! A held message: its error, its body in an editor, what operators did with it.

use super::{
    held,
    html::{Cx, Head, lines, refusal},
    json, operations,
    params::{Params, encoded},
    plan, sql,
};
use crate::{
    choice::OneOfSeveral,
    commands::operations::{heading, read},
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
    ErrorCode, GroupNote, HeldAction, HeldFilter, HeldReason, HeldRef, HeldView, OperationFilter, OperationView,
};

/// The most operations that are shown with a message.
const OPERATIONS_MAX: i64 = 50;
/// The most receivers that hold one message.
const HELD_MAX: i64 = 100;

/// A held row with its body.
struct Held {
    row: HeldView,
    body: Option<Vec<u8>>,
    notes: Vec<GroupNote>,
}

pub(super) async fn show(cx: Cx, Path(id): Path<String>) -> Response {
    let answers = cx
        .app
        .each(|store| {
            let id = id.clone();
            async move {
                let filter = HeldFilter { message_id: Some(id.clone()), ..HeldFilter::default() };
                let mut held = Vec::new();
                for row in store.held(&filter, HELD_MAX).await? {
                    if row.message_id == id {
                        let (body, notes) = (store.held_body(&row.row()).await?, store.held_notes(&row).await?);
                        held.push(Held { row, body, notes });
                    }
                }
                let filter = OperationFilter { message_id: Some(id), ..OperationFilter::default() };
                Ok((held, read(&*store, &filter, OPERATIONS_MAX).await?))
            }
        })
        .await;
    let mut held: Vec<(usize, Held)> = Vec::new();
    let mut operations: Vec<(usize, OperationView)> = Vec::new();
    let mut beyond = false;
    for (n, (rows, (done, more))) in answers.all {
        beyond |= more;
        held.extend(rows.into_iter().map(|row| (n, row)));
        operations.extend(done.into_iter().map(|operation| (n, operation)));
    }
    let title = held.first().map_or_else(|| "Message".into(), |(_, held)| plain(&held.row.type_name));
    let body = html! {
        p { (cx.conversation(&id)) span.muted { " where it came from, what it caused" } }
        @if held.is_empty() && answers.away.is_empty() {
            p.calm { "This message is not held now." }
            p { a href=(Params::default().with("q", &id).href(&cx.url("/search"))) { "Search for its id" } }
        }
        @for (k, (n, held)) in held.iter().enumerate() { (one(&cx, k, *n, held)) }
        (operations::table(&cx, &heading("What operators did", beyond), operations))
    };
    let command = format!("sagabus held show {}", quoted(&id));
    cx.page(&Head { title: &title, part: "/held", command, sql: sql::message(&id), away: &answers.away }, body)
}

fn one(cx: &Cx, k: usize, n: usize, held: &Held) -> Markup {
    let row = &held.row;
    let instance = row.saga.as_deref().zip(row.saga_id.as_deref());
    html! {
        section.card {
            dl {
                @if let Some(label) = cx.app.label(n) { dt { "Database" } dd { (label) } }
                dt { "Endpoint" } dd { (plain(&row.endpoint)) }
                dt { "For" } dd { @if row.receiver.is_empty() { "no receiver knows it" }
                    @else { (plain(&row.receiver)) } }
                @if let Some((saga, id)) = instance { dt { "Instance" }
                    dd { (plain(saga)) " " (cx.instance(saga, id)) } }
                @if let (Some(kind), Some(to)) = (&row.kind, &row.destination) {
                    dt { "It is" } dd { "a " (plain(kind)) " that never left for " (plain(to)) }
                }
                dt { "Held" } dd { (cx.at(row.held_at_us)) }
                dt { "Because" } dd { (held::reason_tag(&row.reason))
                    @if let Some(reason) = HeldReason::parse(&row.reason) { " [" (reason.code().as_str()) "]" }
                    " after " (count(row.attempts, "run")) }
                @if let Some(until) = row.expires_at_us { dt { "Until" }
                    dd { (cx.at(until)) ", then it waits for a person" } }
            }
            @if let Some(error) = &row.error { h2 { "Error" } div.error { (lines(error)) } }
            @for note in &held.notes { p.muted { "Noted by " (plain(&note.who)) " " (cx.when(note.at_us)) ": "
                (plain(&note.text)) } }
            (editor(cx, k, n, held))
            details id=(format!("envelope-{k}")) { summary { "Envelope" } (lines(&text::json(&row.envelope))) }
        }
    }
}

/// The body, and what can be done.
fn editor(cx: &Cx, k: usize, n: usize, held: &Held) -> Markup {
    let Some(body) = &held.body else { return html! { p { "It was dealt with meanwhile." } } };
    let row = &held.row;
    let hidden = cx.hidden(row.masked());
    let shown = masks::hidden(body, &hidden);
    // what is hidden would be lost in an edit
    let editable = if hidden.is_empty() { json::editable(body) } else { Err("fields of it are masked".to_owned()) };
    let (body_id, reason_id) = (format!("body-{k}"), format!("reason-{k}"));
    if !cx.visitor.may_act() {
        return html! { h2 { "Body" } (lines(&json::shown(&shown))) (cx.masks(&hidden)) };
    }
    html! {
        form.stack method="post" action=(cx.url(&format!("/held/{}", encoded(&row.message_id)))) {
            (cx.csrf())
            input type="hidden" name="database" value=(cx.app.source(n).short);
            input type="hidden" name="endpoint" value=(row.endpoint);
            input type="hidden" name="receiver" value=(row.receiver);
            input type="hidden" name="arrival" value=(row.arrival);
            h2 { label for=(body_id) { "Body" } }
            @match &editable {
                Ok(body) => {
                    // a browser drops the first line break of a text
                    textarea id=(body_id) name="body" rows=(body.lines().count().clamp(3, 24)) spellcheck="false"
                        aria-describedby=(format!("edit-{k}")) { "\n" (body) }
                    p.muted id=(format!("edit-{k}")) {
                        "Change it and press the second button. The old body is kept in the record." }
                }
                Err(why) => { (lines(&json::shown(&shown))) p.muted { "It cannot be edited here: " (why) "." } }
            }
            (cx.masks(&hidden))
            (cx.reason(&reason_id))
            div.buttons {
                button name="do" value="retry" { "Retry" }
                @if editable.is_ok() { button name="do" value="edit" { "Retry with this body" } }
                button.danger name="do" value="discard" { "Discard" }
            }
        }
    }
}

pub(super) async fn act(cx: Cx, Path(id): Path<String>, Extension(fields): Extension<Params>) -> Response {
    let Some(why) = fields.text("reason") else { return plan::no_reason(&cx) };
    let n = fields.get("database").and_then(|short| cx.app.number(short));
    let arrival = fields.get("arrival").and_then(|arrival| arrival.parse().ok());
    let (Some(n), Some(arrival)) = (n, arrival) else {
        return refusal(&cx.app, StatusCode::BAD_REQUEST, "this form does not name a message");
    };
    let row = HeldRef {
        endpoint: fields.get("endpoint").unwrap_or_default().into(),
        receiver: fields.get("receiver").unwrap_or_default().into(),
        message_id: id,
        arrival,
    };
    match fields.get("do") {
        Some("edit") => edit(&cx, n, &row, fields.get("body").unwrap_or_default(), &why).await,
        deed => match deed.and_then(held::deed) {
            Some(action) => plain_deed(&cx, n, &row, action, why).await,
            None => plan::no_deed(&cx),
        },
    }
}

/// Retries or discards exactly the row that the page showed.
async fn plain_deed(cx: &Cx, n: usize, row: &HeldRef, action: HeldAction<'static>, why: String) -> Response {
    let filter = HeldFilter { message_id: Some(row.message_id.clone()), ..HeldFilter::default() };
    let found = cx.app.source(n).ask(|store| {
        let filter = filter.clone();
        async move { store.held(&filter, HELD_MAX).await }
    });
    let mut rows: Vec<(usize, HeldView)> = match found.await {
        Ok(rows) => rows.into_iter().filter(|it| it.message_id == row.message_id).map(|row| (n, row)).collect(),
        Err(error) => return unreachable(cx, n, &error),
    };
    let its = rows.iter().find(|(_, found)| found.row() == *row);
    let Some(options) = its.map(|(_, found)| found.chosen_by(n, &rows)) else {
        let text = "this message was dealt with meanwhile, or was held anew: nothing was done";
        return refusal(&cx.app, StatusCode::CONFLICT, text);
    };
    rows.retain(|(_, found)| found.row() == *row);
    held::at_once(cx, action, (&rows, &options), why).await
}

async fn edit(cx: &Cx, n: usize, row: &HeldRef, body: &str, why: &str) -> Response {
    // browsers send every line break of a form as two characters
    let body = body.replace("\r\n", "\n");
    let done = cx.app.source(n).order(|store| {
        let body = &body;
        async move {
            // lines that the page added are no change
            let old = store.held_body(row).await?.and_then(|old| String::from_utf8(old).ok());
            let body =
                old.filter(|old| json::indented(old).trim_end() == body.trim_end()).unwrap_or_else(|| body.clone());
            store.held_edit(row, &body, &cx.visitor.name, why).await
        }
    });
    match done.await {
        Ok(item) if item.result == "edited" => {
            cx.app.live.changed();
            Redirect::to(&cx.url(&format!("/held/{}", encoded(&row.message_id)))).into_response()
        }
        Ok(item) => {
            let text = format!("Nothing was done: the message {}.", plan::told_of_held(&item.result));
            refusal(&cx.app, StatusCode::CONFLICT, &text)
        }
        Err(error) if error.code() == ErrorCode::InputUnfit => {
            refusal(&cx.app, StatusCode::BAD_REQUEST, &plain(&error.to_string()))
        }
        Err(error) => unreachable(cx, n, &error),
    }
}

pub(super) fn unreachable(cx: &Cx, n: usize, error: &dyn std::fmt::Display) -> Response {
    let text = format!("{} could not do it: {}", cx.app.source(n).name, plain(&error.to_string()));
    refusal(&cx.app, StatusCode::SERVICE_UNAVAILABLE, &text)
}
