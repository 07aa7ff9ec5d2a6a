//! The outbox: what is not confirmed, or not due.

use super::{
    html::{Cx, Head, cell, lines, refusal},
    json, outbox_act,
    params::encoded,
    sql::{self, Sql},
};
use crate::{
    commands::{KINDS, WhichSent, tries},
    masks, names,
    text::{self, plain, quoted},
};
use axum::{extract::Path, http::StatusCode, response::Response};
use maud::{Markup, html};
use saga_core::{Counted, OutboxFilter, OutboxView};

pub(super) async fn filter(cx: &Cx) -> Result<OutboxFilter, String> {
    let filter = cx.params.which::<WhichSent>()?.filter();
    Ok(OutboxFilter { saga: cx.app.spelt(filter.saga.clone()).await?, ..filter })
}

pub(super) async fn list(cx: Cx) -> Response {
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
                let filter = names::outbox(&*store, &filter).await?;
                Ok((store.outbox_counted(&filter).await?, store.outbox(&filter, limit).await?))
            }
        })
        .await;
    let there: Counted = answers.all.iter().map(|(_, (n, _))| *n).sum();
    let rows: Vec<(usize, OutboxView)> = crate::find::flat(answers.all.into_iter().map(|(n, (_, r))| (n, r)).collect());
    let of_filter = cx.params.of_filter::<WhichSent>();
    let none = if of_filter.is_empty() { "The outbox is empty." } else { "No row of the outbox matches." };
    let body = html! {
        form.filter action=(cx.url("/outbox")) aria-label="Filter" {
            div {
                label for="f-kind" { "Kind" }
                select id="f-kind" name="kind" {
                    option value="" { "any" }
                    @for word in KINDS {
                        option value=(word) selected[cx.params.get("kind") == Some(word)] { (word) }
                    }
                }
            }
            (cx.filter_text("endpoint", "Endpoint")) (cx.filter_text("type", "Type"))
            (cx.filter_text("to", "To")) (cx.filter_text("error", "Error contains"))
            (cx.filter_text("older-than", "Written before (15m, 3h, 2d)"))
            (cx.filter_text("newer-than", "Written within"))
            (cx.filter_check("failing", "Failing, or without a queue")) (cx.filter_check("due", "Due"))
            (cx.filter_buttons("/outbox"))
        }
        @if rows.is_empty() { (cx.none(none, there, &answers.away)) }
        @else if cx.visitor.may_act() { (outbox_act::of_filter(&cx, &of_filter)) }
        (table(&cx, "Next due first", rows.iter().map(|(n, row)| (*n, row))))
        @if !rows.is_empty() { (cx.shown("/outbox", rows.len(), there)) }
    };
    let (command, sql) = (of_filter.command("outbox list"), sql::outbox(&filter, Some(limit)));
    cx.page(&Head { title: "Outbox", part: "/outbox", command, sql, away: &answers.away }, body)
}

/// Rows of the outbox as rows.
pub(super) fn table<'a>(cx: &Cx, caption: &str, rows: impl IntoIterator<Item = (usize, &'a OutboxView)>) -> Markup {
    let cells = |(n, row): (usize, &OutboxView)| {
        let instance = row.saga.as_deref().zip(row.saga_id.as_deref());
        let cells = vec![
            html! {
                a.id href=(cx.url(&format!("/outbox/{}", encoded(&row.id)))) { (plain(&row.id)) }
                div { (cell(&row.type_name)) }
                div.muted { (plain(&row.kind)) " to " (cell(&row.destination)) }
            },
            html! { @if let Some((saga, id)) = instance { (plain(saga)) div { (cx.instance(saga, id)) } } },
            cx.when(row.due_at_us),
            html! { (tries(row)) },
            trouble(row),
        ];
        (n, cells)
    };
    let head = ["row", "instance", "due", "tries", "why it is there"];
    cx.rows(caption, &head, rows.into_iter().map(cells))
}

fn trouble(row: &OutboxView) -> Markup {
    html! {
        @if let Some(to) = &row.waits_for { div.error { "no queue takes what goes to " (plain(to)) } }
        @if let Some(error) = &row.last_error { div.error { (cell(error)) } }
        @else if let Some(owner) = &row.lease_owner { span.muted { "being sent by " (plain(owner)) } }
    }
}

pub(super) async fn show(cx: Cx, Path(id): Path<String>) -> Response {
    let answers = cx
        .app
        .each(|store| {
            let id = id.clone();
            async move {
                let filter = OutboxFilter { id: Some(id.clone()), ..OutboxFilter::default() };
                let mut found = Vec::new();
                for row in store.outbox(&filter, 100).await? {
                    if row.id == id || row.message_id == id {
                        found.push((store.outbox_body(&row.id).await?, row));
                    }
                }
                Ok(found)
            }
        })
        .await;
    let (rows, away) = answers.flat();
    if rows.is_empty() && away.is_empty() {
        let text = "there is no such row in the outbox: it may have been sent meanwhile";
        return refusal(&cx.app, StatusCode::NOT_FOUND, text);
    }
    let body =
        html! { @for (k, (n, (body, row))) in rows.iter().enumerate() { (one(&cx, k, *n, row, body.as_deref())) } };
    let title = rows.first().map_or_else(|| "Outbox".into(), |(_, (_, row))| plain(&row.type_name));
    let command = format!("sagabus outbox show {}", quoted(&id));
    let sql = rows.first().map_or_else(Sql::default, |(_, (_, row))| sql::row(row));
    cx.page(&Head { title: &title, part: "/outbox", command, sql, away: &away }, body)
}

fn one(cx: &Cx, k: usize, n: usize, row: &OutboxView, body: Option<&[u8]>) -> Markup {
    let instance = row.saga.as_deref().zip(row.saga_id.as_deref());
    html! {
        section.card {
            dl {
                @if let Some(label) = cx.app.label(n) { dt { "Database" } dd { (label) } }
                dt { "Endpoint" } dd { (plain(&row.endpoint)) }
                dt { "Kind" } dd { (plain(&row.kind)) " to " (plain(&row.destination)) }
                dt { "Row" } dd.id { (plain(&row.id)) }
                dt { "Message" } dd { (cx.conversation(&row.message_id)) }
                @if let Some((saga, id)) = instance { dt { "Instance" }
                    dd { (plain(saga)) " " (cx.instance(saga, id)) } }
                dt { "Written" } dd { (cx.at(row.created_at_us)) }
                dt { "Due" } dd { (cx.at(row.due_at_us)) }
                @if let Some(first) = row.first_attempt_at_us { dt { "First sent" } dd { (cx.at(first)) } }
                @if let (Some(owner), Some(until)) = (&row.lease_owner, row.lease_until_us) {
                    dt { "Leased by" } dd { (plain(owner)) ", until " (cx.at(until)) }
                }
                dt { (if row.kind == "retry" { "Failed runs" } else { "Tries" }) } dd { (tries(row)) }
            }
            @if let Some(to) = &row.waits_for { p.banner.bad { "No queue takes what goes to " (plain(to)) "." } }
            @if let Some(error) = &row.last_error { h2 { "Last error" } div.error { (lines(error)) } }
            h2 { "Body" }
            @let hidden = cx.hidden(row.masked());
            @match body { Some(body) => (lines(&json::shown(&masks::hidden(body, &hidden)))),
                None => p { "It was sent meanwhile." } }
            (cx.masks(&hidden))
            @if cx.visitor.may_act() { h2 { "Act" } (outbox_act::form(cx, k, n, row)) }
            details id=(format!("envelope-{k}")) { summary { "Envelope" } (lines(&text::json(&row.envelope))) }
        }
    }
}
