//! What operators did: who, when, with what, and why.

use super::{
    html::{Cx, Head, cell, lines},
    sql,
};
use crate::{
    commands::operations::{heading, read},
    masks,
    text::{count, plain},
};
use axum::response::Response;
use maud::{Markup, html};
use saga_core::{Counted, OperationFilter, OperationItem, OperationView};

/// The most items of an operation that are listed.
const ITEMS_MAX: usize = 100;

pub(super) async fn show(cx: Cx) -> Response {
    let filter = OperationFilter {
        message_id: cx.params.text("message"),
        saga: cx.params.text("saga"),
        saga_id: cx.params.text("id"),
        ..OperationFilter::default()
    };
    let limit = cx.params.limit();
    let answers = cx
        .app
        .each(|store| {
            let filter = filter.clone();
            async move { read(&*store, &filter, limit).await }
        })
        .await;
    let (mut rows, mut beyond) = (Vec::new(), false);
    for (n, (found, more)) in answers.all {
        rows.extend(found.into_iter().map(|operation| (n, operation)));
        beyond |= more;
    }
    let away = answers.away;
    rows.sort_by_key(|(_, operation)| -operation.at_us);
    let may_have_more = rows.len() as i64 >= limit;
    let body = html! {
        @if rows.is_empty() {
            (cx.none(&format!("{}.", heading("Nobody has done anything yet", beyond)), Counted::default(), &away))
        }
        (table(&cx, &heading("Last first", beyond), rows))
        @if may_have_more {
            @if let Some(more) = cx.params.more() { p.shown { a href=(more.href(&cx.url("/operations"))) {
                "Show more" } } }
        }
    };
    let sql = sql::operations(&filter, limit);
    cx.page(&Head { title: "Operations", part: "/operations", command: String::new(), sql, away: &away }, body)
}

/// Operations as rows. What is masked in them is hidden here, so that no page can forget it.
pub(super) fn table(cx: &Cx, caption: &str, mut rows: Vec<(usize, OperationView)>) -> Markup {
    let hidden = masks::operations(rows.iter_mut().map(|(_, operation)| operation), cx.unmasked());
    let cells = |(n, operation): &(usize, OperationView)| {
        let cells = vec![
            cx.when(operation.at_us),
            html! { (cell(&operation.who)) },
            html! { (cell(&operation.action)) },
            html! { (cell(&operation.reason)) },
            items(cx, operation),
        ];
        (*n, cells)
    };
    html! {
        (cx.rows(caption, &["when", "who", "did", "why", "with what"], rows.iter().map(cells)))
        (cx.masks(&hidden.into_iter().collect::<Vec<_>>()))
    }
}

fn items(cx: &Cx, operation: &OperationView) -> Markup {
    let items = &operation.items;
    let left_out = items.len().saturating_sub(ITEMS_MAX);
    match &items[..] {
        [] => html! {},
        [one] => item(cx, one),
        all => html! {
            details id=(format!("operation-{}", operation.id)) {
                summary { (count(all.len() as i64, "message")) }
                ul.plain { @for one in all.iter().take(ITEMS_MAX) { li { (item(cx, one)) } } }
                @if left_out > 0 { p { "and " (left_out) " more" } }
            }
        },
    }
}

fn item(cx: &Cx, item: &OperationItem) -> Markup {
    let instance = item.saga.as_deref().zip(item.saga_id.as_deref());
    html! {
        (plain(&item.result)) " "
        @if !item.message_id.is_empty() { (cx.message(&item.message_id)) }
        @if let Some((saga, id)) = instance { " of " (plain(saga)) " " (cx.instance(saga, id)) }
        @if let Some(error) = &item.error { div.muted { "it was held because of: " (cell(error)) } }
        @if let Some(body) = &item.old_body { div.muted { "its old body:" } (lines(body)) }
    }
}
