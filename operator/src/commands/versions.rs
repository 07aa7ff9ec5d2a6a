//! `sagabus versions`: which versions of each saga are defined, which of them have instances, which can be retired.

use super::list;
use crate::{databases::Session, table::Cell, text::some};
use saga_core::{Counted, DefinitionView, FormCount, Inspect};
use serde::Serialize;
use std::collections::BTreeSet;

const HEADER: [&str; 7] = ["saga", "version", "endpoint", "started", "open", "done", "may be retired"];

/// A version of a saga.
#[derive(Debug, Serialize)]
pub(crate) struct Version {
    pub(crate) saga: String,
    pub(crate) version: i64,
    /// None, when no process has registered it.
    pub(crate) endpoint: Option<String>,
    /// When a process of this version last started: microseconds since 1970.
    pub(crate) registered_at_us: Option<i64>,
    /// Instances that this version wrote last and that are not done.
    pub(crate) open: i64,
    /// Those that are done.
    pub(crate) done: i64,
    /// A newer version is defined, and no instance is stored in the form of this one: code that reads it may go.
    pub(crate) retire: bool,
}

pub(crate) async fn run(session: &mut Session) -> bool {
    let read = async |store: &dyn Inspect| Ok(versions(&store.definitions().await?, &store.forms().await?));
    let all = session.each(read).await;
    let all: Vec<_> = all.into_iter().map(|(n, rows)| (n, (Counted::exactly(rows.len() as u64), rows))).collect();
    list::print(session, &all, &HEADER, |row| (cells(row), None), "no process has registered a saga");
    true
}

pub(crate) fn versions(definitions: &[DefinitionView], forms: &[FormCount]) -> Vec<Version> {
    let defined = definitions.iter().map(|it| (it.saga.as_str(), i64::from(it.version)));
    let stored = forms.iter().map(|it| (it.saga.as_str(), i64::from(it.version)));
    let all: BTreeSet<(&str, i64)> = defined.chain(stored).collect();
    let newest = |saga: &str| definitions.iter().filter(|it| it.saga == saga).map(|it| i64::from(it.version)).max();
    let of = |(saga, version): (&str, i64)| {
        let definition = definitions.iter().find(|it| it.saga == saga && i64::from(it.version) == version);
        let forms = forms.iter().filter(|it| it.saga == saga && i64::from(it.version) == version);
        let (count, done) = forms.fold((0, 0), |(count, done), it| (count + it.count, done + it.done));
        Version {
            saga: saga.into(),
            version,
            endpoint: definition.map(|it| it.endpoint.clone()),
            registered_at_us: definition.map(|it| it.registered_at_us),
            open: count - done,
            done,
            retire: count == 0 && newest(saga).is_some_and(|newest| newest > version),
        }
    };
    all.into_iter().map(of).collect()
}

fn cells(row: &Version) -> Vec<Cell> {
    vec![
        row.saga.as_str().into(),
        Cell::number(row.version),
        row.endpoint.as_deref().unwrap_or("not registered").into(),
        row.registered_at_us.map_or_else(|| "-".into(), Cell::At),
        some(row.open).into(),
        some(row.done).into(),
        if row.retire { "yes" } else { "no" }.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;
    use serde_json::json;

    #[test]
    fn a_version_is_retired_when_nothing_is_stored_in_its_form_and_a_newer_one_is_defined() {
        let definition = |version: u32| {
            let none = [(); 0];
            let chart = json!({ "saga": "order", "version": version, "states": none, "messages": none, "edges": none });
            serde_json::from_value::<DefinitionView>(json!({ "endpoint": "ordering", "saga": "order",
                "version": version, "chart": chart, "registered_at_us": 1_790_000_000_000_000_i64 }))
            .unwrap()
        };
        let form = |version: i32, count: i64, done: i64| {
            serde_json::from_value::<FormCount>(
                json!({ "saga": "order", "state": "S", "version": version, "count": count, "done": done }),
            )
            .unwrap()
        };
        let rows =
            versions(&[definition(2), definition(3), definition(4)], &[form(0, 1, 0), form(3, 2, 2), form(4, 5, 1)]);
        let told: Vec<(i64, i64, i64, bool)> =
            rows.iter().map(|row| (row.version, row.open, row.done, row.retire)).collect();
        assert_eq!(told, [(0, 1, 0, false), (2, 0, 0, true), (3, 0, 2, false), (4, 4, 1, false)]);
        let mut table = Table::new(&HEADER);
        rows.iter().for_each(|row| table.row(cells(row), None));
        crate::commands::golden_table("versions", 1_790_000_060_000_000, &table);
    }
}
