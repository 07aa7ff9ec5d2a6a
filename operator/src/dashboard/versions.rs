//! Versions: which definitions of each saga are registered, which have instances, which may be retired.

use super::{
    html::{Cx, Head, cell, tag},
    params::Params,
    sql,
};
use crate::commands::versions::{Version, versions};
use axum::response::Response;
use maud::html;

pub(super) async fn show(cx: Cx) -> Response {
    let answers =
        cx.app.each(|store| async move { Ok(versions(&store.definitions().await?, &store.forms().await?)) }).await;
    let (rows, away) = answers.flat();
    let is_empty = rows.is_empty() && away.is_empty();
    let cells = rows.iter().map(|(n, row): &(usize, Version)| {
        let of = Params::default().with("saga", &row.saga);
        let cells = vec![
            html! { a href=(of.href(&cx.url("/sagas"))) { (cell(&row.saga)) } },
            html! { (row.version) },
            html! { @match &row.endpoint { Some(name) => (cell(name)), None => (tag("not registered", "bad")) } },
            html! { @if let Some(us) = row.registered_at_us { (cx.when(us)) } },
            html! { (row.open) },
            html! { (row.done) },
            html! { @if row.retire { (tag("may be retired", "good")) } },
        ];
        (*n, cells)
    });
    let head = ["saga", "version", "endpoint", "last started", "open", "done", ""];
    let body = html! {
        @if is_empty { p.calm { "No process has registered a saga." } }
        (cx.rows("Definitions, and the instances that each wrote last", &head, cells))
        p.muted {
            "A version may be retired when a newer one is registered, and no instance is stored in its form: "
            "code that reads it may go."
        }
    };
    let (command, sql) = ("sagabus versions".into(), sql::versions());
    cx.page(&Head { title: "Versions", part: "/versions", command, sql, away: &away }, body)
}
