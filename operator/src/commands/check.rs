//! `sagabus check`: whether what is stored fits the definitions of the sagas, without the programs that have them.

use super::list;
use crate::{
    databases::Session,
    masks,
    table::{Cell, Table},
};
use clap::Args;
use saga_core::{
    Chart, Counted, DefinitionView, ErrorCode, FormCount, Inspect, InstanceFilter, InstanceRow, InstanceView,
};
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The chart of a saga in the program to be deployed, as `Chart::to_json` writes it; repeat it for further sagas
    ///
    /// Sagas without one are held against the newest definition that a process has registered.
    #[arg(long, value_name = "FILE")]
    chart: Vec<PathBuf>,
}

/// What one database holds.
struct Found {
    definitions: Vec<DefinitionView>,
    forms: Vec<(FormCount, Option<String>)>,
    /// Of the forms that do not fit.
    instances: Vec<InstanceView>,
}

pub(crate) async fn run(session: &mut Session, arguments: &Arguments) -> bool {
    let charts = match arguments.chart.iter().map(read).collect::<Result<Vec<_>, _>>() {
        Ok(charts) => charts,
        Err(text) => {
            session.refused(ErrorCode::InputUnfit, text);
            return false;
        }
    };
    let (rows_max, unmasked) = (session.rows_max, session.unmasked);
    let look = async |store: &dyn Inspect| {
        let definitions = store.definitions().await?;
        let forms = store.forms().await?.into_iter().map(|form| {
            let fault = fault(&form, newest(&definitions, &form.saga), &charts);
            (form, fault)
        });
        let forms: Vec<_> = forms.collect();
        let mut instances = Vec::new();
        for (form, _) in forms.iter().filter(|(_, fault)| fault.is_some()) {
            let mut filter = InstanceFilter::default();
            (filter.saga, filter.state) = (Some(form.saga.clone()), Some(form.state.clone()));
            let mut rows = store.instances(&filter, rows_max).await?;
            if !unmasked {
                masks::instances(store, &mut rows).await?;
            }
            instances.extend(rows.into_iter().filter(|row| row.version == form.version));
        }
        Ok(Found { definitions, forms, instances })
    };
    let all = session.each(look).await;
    let bad: i64 = all
        .iter()
        .flat_map(|(_, found)| &found.forms)
        .filter(|(_, fault)| fault.is_some())
        .map(|(form, _)| form.count)
        .sum();
    let listed: usize = all.iter().map(|(_, found)| found.instances.len()).sum();
    if session.screen.json {
        as_json(session, &all, &charts);
    } else {
        as_text(session, &all, &charts);
    }
    session.screen.shown(listed, Counted::exactly(bad.unsigned_abs()));
    bad == 0
}

fn read(path: &PathBuf) -> Result<Chart, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{name} is not a chart as `Chart::to_json` writes it: {error}"))
}

/// The definition of the highest version.
fn newest<'a>(definitions: &'a [DefinitionView], saga: &str) -> Option<&'a DefinitionView> {
    definitions.iter().filter(|it| it.saga == saga).max_by_key(|it| (it.version, it.registered_at_us))
}

/// Why instances of this form cannot be worked with; none if they can.
fn fault(form: &FormCount, registered: Option<&DefinitionView>, charts: &[Chart]) -> Option<String> {
    if form.state == InstanceRow::CANCELLED {
        return None; // an operator has ended them, and no program reads them
    }
    let given = charts.iter().find(|chart| chart.saga == form.saga);
    let Some(chart) = given.or(registered.map(|definition| &definition.chart)) else {
        return Some(ErrorCode::NoSuchSaga.told("no process has registered a saga of this name"));
    };
    let (what, version) = (if given.is_some() { "the program" } else { "the newest program" }, chart.version);
    if form.version > version as i32 {
        let text = format!("{what} has version {version}: it leaves them alone, and their messages wait");
        return Some(ErrorCode::NewerInstance.told(text));
    }
    let state = &form.state;
    chart.state(state).is_none().then(|| {
        ErrorCode::NoSuchState.told(format_args!(
            "{what} has no state `{state}`: their next messages pause them. If it was renamed, say \
             `#[was(\"{state}\")]`; else keep it with `#[legacy]`"
        ))
    })
}

/// What the given charts change, saga by saga.
fn changes(found: &Found, charts: &[Chart]) -> BTreeMap<String, Vec<String>> {
    let known = charts.iter().filter_map(|chart| Some((chart, newest(&found.definitions, &chart.saga)?)));
    let changed = known.map(|(chart, now)| (chart.saga.clone(), chart.changes_since(&now.chart)));
    changed.filter(|(_, changes)| !changes.is_empty()).collect()
}

fn as_json(session: &mut Session, all: &[(usize, Found)], charts: &[Chart]) {
    let (mut definitions, mut forms, mut instances, mut told) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (n, found) in all {
        for it in &found.definitions {
            let DefinitionView { endpoint, saga, version, registered_at_us, .. } = it;
            let view =
                json!({ "endpoint": endpoint, "saga": saga, "version": version, "registered_at_us": registered_at_us });
            definitions.push(session.labelled(*n, &view));
        }
        for (form, fault) in &found.forms {
            let mut view = session.labelled(*n, form);
            view["fault"] = json!(fault);
            forms.push(view);
        }
        instances.extend(found.instances.iter().map(|instance| session.labelled(*n, instance)));
        told.extend(
            changes(found, charts)
                .into_iter()
                .map(|(saga, changes)| session.labelled(*n, &json!({ "saga": saga, "changes": changes }))),
        );
    }
    let view = json!({ "definitions": definitions, "forms": forms, "unreadable": instances, "changes": told });
    session.screen.value(&view);
}

fn as_text(session: &mut Session, all: &[(usize, Found)], charts: &[Chart]) {
    let mut forms = Table::new(&session.header(&["saga", "state", "version", "instances", "done"]));
    for (n, found) in all {
        for (form, fault) in &found.forms {
            let cells = vec![
                form.saga.as_str().into(),
                form.state.as_str().into(),
                Cell::number(form.version.into()),
                Cell::number(form.count),
                Cell::number(form.done),
            ];
            forms.row(session.label(*n).map(Cell::from).into_iter().chain(cells).collect(), fault.clone());
        }
    }
    let none = session.none("no instances are stored");
    session.screen.table(&forms, none);
    let rows: Vec<(usize, &InstanceView)> =
        all.iter().flat_map(|(n, found)| found.instances.iter().map(|row| (*n, row))).collect();
    let cells = |row: &InstanceView| -> Vec<Cell> {
        let version = Cell::number(row.version.into());
        let (saga, id, state) = (row.saga.as_str(), row.id.as_str(), row.state.as_str());
        vec![saga.into(), id.into(), state.into(), version, Cell::At(row.updated_at_us)]
    };
    let header = ["saga", "id", "state", "version", "changed"];
    let table = list::table(session, &header, rows, |row| (cells(row), None));
    session.screen.section("cannot be worked with:", &table);
    for (saga, told) in all.iter().flat_map(|(_, found)| changes(found, charts)) {
        session.screen.line("");
        session.screen.line(format!("what changes for instances of {}:", crate::text::plain(&saga)));
        told.iter().for_each(|text| session.screen.long(text));
    }
}
