//! One box takes any id, or the beginning of one: of an instance, a held message, a row of the outbox or its message.

use super::{
    held,
    html::{Cx, Head},
    operations, outbox,
    params::encoded,
    sagas, sql,
};
use crate::commands::operations::{heading, read};
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;
use saga_core::{
    Counted, HeldFilter, HeldView, InstanceFilter, InstanceView, OperationFilter, OperationView, OutboxFilter,
    OutboxView,
};

/// The most rows of each kind from each database.
const ROWS_MAX: i64 = 20;

pub(super) async fn show(cx: Cx) -> Response {
    let Some(id) = cx.params.text("q") else { return Redirect::to(&cx.url("/")).into_response() };
    let answers = cx
        .app
        .each(|store| {
            let id = Some(id.clone());
            async move {
                let instances = InstanceFilter { id: id.clone(), ..InstanceFilter::default() };
                let held = HeldFilter { message_id: id.clone(), ..HeldFilter::default() };
                let sent = OutboxFilter { id: id.clone(), ..OutboxFilter::default() };
                let done = OperationFilter { message_id: id, ..OperationFilter::default() };
                Ok((
                    store.instances(&instances, ROWS_MAX).await?,
                    store.held(&held, ROWS_MAX).await?,
                    store.outbox(&sent, ROWS_MAX).await?,
                    read(&*store, &done, ROWS_MAX).await?,
                ))
            }
        })
        .await;
    let mut instances: Vec<(usize, InstanceView)> = Vec::new();
    let mut held: Vec<(usize, HeldView)> = Vec::new();
    let mut sent: Vec<(usize, OutboxView)> = Vec::new();
    let mut done: Vec<(usize, OperationView)> = Vec::new();
    let mut beyond = false;
    for (n, (of_instances, of_held, of_outbox, (of_operations, more))) in answers.all {
        beyond |= more;
        instances.extend(of_instances.into_iter().map(|row| (n, row)));
        held.extend(of_held.into_iter().map(|row| (n, row)));
        sent.extend(of_outbox.into_iter().map(|row| (n, row)));
        done.extend(of_operations.into_iter().map(|row| (n, row)));
    }
    if answers.away.is_empty() {
        let there = match (&instances[..], &held[..], &sent[..]) {
            ([(_, it)], [], []) => Some(format!("/sagas/{}/{}", encoded(&it.saga), encoded(&it.id))),
            ([], [(_, it)], []) => Some(format!("/held/{}", encoded(&it.message_id))),
            ([], [], [(_, it)]) => Some(format!("/outbox/{}", encoded(&it.id))),
            _ => None,
        };
        if let Some(there) = there {
            return Redirect::to(&cx.url(&there)).into_response();
        }
    }
    let nothing = instances.is_empty() && held.is_empty() && sent.is_empty() && done.is_empty();
    let body = html! {
        p { "Ids that begin with " code { (crate::text::plain(&id)) } }
        @if nothing && !answers.away.is_empty() { (cx.none("", Counted::default(), &answers.away)) }
        @else if nothing { p.calm {
            "Nothing has this id: no instance, no held message, no row of the outbox. "
            "It may have been handled: " a href=(cx.url(&format!("/conversations/{}", encoded(&id)))) {
                "look among those" } "." } }
        (sagas::table(&cx, "Instances", instances.iter().map(|(n, row)| (*n, row))))
        (held::table(&cx, "Held messages", held.iter().map(|(n, row)| (*n, row))))
        (outbox::table(&cx, "Outbox", sent.iter().map(|(n, row)| (*n, row))))
        (operations::table(&cx, &heading("What operators did with it", beyond), done))
    };
    let sql = sql::search(&id, ROWS_MAX);
    cx.page(&Head { title: "Search", part: "", command: String::new(), sql, away: &answers.away }, body)
}
