//! Sagas: counts by state, the chart with them, and the instances of a filter.

use super::{
    home,
    html::{Cx, Head, cell, tag},
    params::Params,
    sql,
};
use crate::{commands::WhichInstances, fields, text::plain};
use axum::{http::StatusCode, response::Response};
use maud::{Markup, html};
use saga_core::{Counted, DefinitionView, FieldName, Inspect, InstanceFilter, InstanceView, Status};
use std::sync::Arc;

pub(super) async fn show(cx: Cx) -> Response {
    let filter = match cx.params.which::<WhichInstances>() {
        Ok(which) => which.filter(),
        Err(text) => return super::html::refusal(&cx.app, StatusCode::BAD_REQUEST, &text),
    };
    let (by_fields, unmasked) = (!filter.fields.is_empty(), cx.unmasked());
    let read = |store: Arc<dyn Inspect>| async move {
        let names = if by_fields { fields::names(&*store, unmasked).await? } else { Vec::new() };
        Ok((store.status().await?, store.definitions().await?, names))
    };
    let known = cx.app.each(read).await;
    let mut names_of_fields: Vec<FieldName> = Vec::new();
    let (mut all, mut definitions): (Vec<(usize, Status)>, Vec<DefinitionView>) = Default::default();
    for (n, (status, defined, names)) in known.all {
        all.push((n, status));
        definitions.extend(defined);
        names_of_fields.extend(names);
    }
    let filter = InstanceFilter {
        saga: filter.saga.as_ref().map(|saga| spelt(saga, &names(&all, |state| &state.saga))),
        state: filter.state.as_ref().map(|state| spelt(state, &names(&all, |state| &state.state))),
        ..filter
    };
    let filter = match fields::spelt(&filter.fields, filter.saga.as_ref(), names_of_fields) {
        Ok(fields) => InstanceFilter { fields, ..filter },
        // a database that is away may have the name
        Err(_) if !known.away.is_empty() => filter,
        Err(text) => return super::html::refusal(&cx.app, StatusCode::BAD_REQUEST, &plain(&text)),
    };
    let limit = cx.params.limit();
    let answers = cx
        .app
        .each(|store| {
            let filter = filter.clone();
            async move { Ok((store.instances_counted(&filter).await?, store.instances(&filter, limit).await?)) }
        })
        .await;
    let there: Counted = answers.all.iter().map(|(_, (n, _))| *n).sum();
    let rows: Vec<(usize, InstanceView)> =
        crate::find::flat(answers.all.into_iter().map(|(n, (_, r))| (n, r)).collect());
    if let Some(saga) = &filter.saga {
        all.iter_mut().for_each(|(_, status)| status.instances.retain(|state| state.saga == *saga));
    }
    let of_filter = cx.params.of_filter::<WhichInstances>();
    let none = if of_filter.is_empty() { "No instance yet." } else { "No instance matches." };
    let body = html! {
        (filters(&cx))
        (home::states(&cx, &all))
        @if let Some(saga) = &filter.saga { (chart(&cx, saga, &definitions, &all)) }
        @if rows.is_empty() { (cx.none(none, there, &answers.away)) }
        (table(&cx, "Instances", rows.iter().map(|(n, row)| (*n, row))))
        @if !rows.is_empty() { (cx.shown("/sagas", rows.len(), there)) }
    };
    let title = filter.saga.as_deref().map_or_else(|| "Sagas".into(), plain);
    let (command, sql) = (of_filter.command("sagas list"), sql::instances(&filter, limit));
    cx.page(&Head { title: &title, part: "/sagas", command, sql, away: &answers.away }, body)
}

fn names(all: &[(usize, Status)], name: impl Fn(&saga_core::StateCount) -> &String) -> Vec<String> {
    all.iter().flat_map(|(_, status)| status.instances.iter().map(|state| name(state).clone())).collect()
}

/// The name in its proper spelling; one that does not exist as it is, to find nothing.
fn spelt(wanted: &str, known: &[String]) -> String {
    crate::find::name(wanted, known, "name").unwrap_or_else(|_| wanted.to_owned())
}

fn filters(cx: &Cx) -> Markup {
    html! {
        form.filter action=(cx.url("/sagas")) aria-label="Filter" {
            (cx.filter_text("saga", "Saga")) (cx.filter_text("state", "State"))
            (cx.filter_text("id", "Id begins with")) (cx.filter_text("older-than", "Unchanged for (15m, 3h, 2d)"))
            (cx.filter_texts("where", "Field (customer=7)"))
            (cx.filter_check("paused", "Paused")) (cx.filter_check("open", "Not done"))
            (cx.filter_buttons("/sagas"))
        }
    }
}

/// The newest definition of a saga.
pub(super) fn newest<'a>(saga: &str, definitions: &'a [DefinitionView]) -> Option<&'a DefinitionView> {
    definitions.iter().filter(|definition| definition.saga == saga).max_by_key(|definition| definition.version)
}

fn chart(cx: &Cx, saga: &str, definitions: &[DefinitionView], all: &[(usize, Status)]) -> Markup {
    let Some(definition) = newest(saga, definitions) else { return html! {} };
    let states = all.iter().flat_map(|(_, status)| &status.instances);
    let counts = states.map(|state| (state.state.as_str(), state.count.max(0) as u64));
    let drawing = definition.chart.drawing().counts(counts);
    html! {
        section {
            h2 { "Version " (definition.version) }
            (cx.chart(&drawing, &format!("Chart of {saga} with the number of instances in each state")))
        }
    }
}

/// Instances as rows.
pub(super) fn table<'a>(cx: &Cx, caption: &str, rows: impl IntoIterator<Item = (usize, &'a InstanceView)>) -> Markup {
    let cells = |(n, row): (usize, &InstanceView)| {
        let of = Params::default().with("saga", &row.saga);
        let cells = vec![
            html! { a href=(of.href(&cx.url("/sagas"))) { (cell(&row.saga)) } },
            cx.instance(&row.saga, &row.id),
            html! { (cell(&row.state)) @if row.completed_at_us.is_some() { " " (tag("done", "good")) } },
            html! { (row.seq) },
            cx.when(row.updated_at_us),
            html! { @if let Some(message) = &row.paused_by { (tag("paused", "bad")) " " (cx.message(message)) } },
        ];
        (n, cells)
    };
    cx.rows(caption, &["saga", "id", "state", "seq", "changed", "paused by"], rows.into_iter().map(cells))
}
