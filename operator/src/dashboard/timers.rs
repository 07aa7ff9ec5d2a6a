//! Timers: what is due when, for which instance.

use super::{
    html::{Cx, Head, refusal},
    outbox, sql,
};
use crate::{commands::WhichTimers, names};
use axum::{http::StatusCode, response::Response};
use maud::html;
use saga_core::{Counted, OutboxFilter, OutboxView};

async fn filter(cx: &Cx) -> Result<OutboxFilter, String> {
    let filter = cx.params.which::<WhichTimers>()?.filter();
    Ok(OutboxFilter { saga: cx.app.spelt(filter.saga.clone()).await?, ..filter })
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
                let filter = names::outbox(&*store, &filter).await?;
                Ok((store.outbox_counted(&filter).await?, store.outbox(&filter, limit).await?))
            }
        })
        .await;
    let there: Counted = answers.all.iter().map(|(_, (n, _))| *n).sum();
    let rows: Vec<(usize, OutboxView)> =
        crate::find::flat(answers.all.into_iter().map(|(n, (_, rows))| (n, rows)).collect());
    let of_filter = cx.params.of_filter::<WhichTimers>();
    let none = if of_filter.is_empty() { "No timer is set." } else { "No timer matches." };
    let body = html! {
        form.filter action=(cx.url("/timers")) aria-label="Filter" {
            (cx.filter_text("endpoint", "Endpoint")) (cx.filter_text("saga", "Saga"))
            (cx.filter_text("id", "Instance, with its saga")) (cx.filter_text("type", "Type"))
            (cx.filter_check("due", "Due")) (cx.filter_buttons("/timers"))
        }
        @if rows.is_empty() { (cx.none(none, there, &answers.away)) }
        (outbox::table(&cx, "Next due first", rows.iter().map(|(n, row)| (*n, row))))
        @if !rows.is_empty() { (cx.shown("/timers", rows.len(), there)) }
    };
    let command = of_filter.command("timers list");
    let sql = sql::timers(&filter, Some(limit));
    cx.page(&Head { title: "Timers", part: "/timers", command, sql, away: &answers.away }, body)
}
