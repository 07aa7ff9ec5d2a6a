//! Acts on rows of the outbox, timers among them: first lists exactly which rows, then acts on those and no others.

use super::{list, operations, outbox_list, sagas::spell};
use crate::{
    bulk,
    databases::Session,
    find::{self, Found},
    table::Cell,
    text::count,
};
use saga_core::{ErrorCode, Inspect, OutboxAction, OutboxFilter, OutboxKind, OutboxView};
use serde_json::json;
use std::num::NonZeroU32;

/// What to act on, and how.
pub(super) struct Orders<'a> {
    pub(super) action: OutboxAction<'a>,
    /// The rows' ids or their messages', or how they begin.
    pub(super) ids: &'a [String],
    /// Without ids: those of the filter.
    pub(super) filter: OutboxFilter,
    pub(super) dry_run: bool,
    pub(super) rate: Option<NonZeroU32>,
    pub(super) why: &'a str,
}

type Row = (usize, OutboxView);

pub(super) async fn run(session: &mut Session, orders: Orders<'_>) -> bool {
    let rows = if orders.ids.is_empty() { of_filter(session, &orders).await } else { of_ids(session, &orders).await };
    let Some(rows) = rows else { return false };
    if !orders.dry_run {
        return act(session, &orders, &rows).await;
    }
    if session.screen.json {
        let json: Vec<_> = rows.iter().map(|(n, row)| session.labelled(*n, row)).collect();
        session.screen.value(&json!({ "found": rows.len(), "dry_run": true, "rows": json }));
    } else {
        let of_row = |row: &OutboxView| (cells(row, orders.action), outbox_list::note(row));
        let header = header(orders.action);
        let table = list::table(session, header, rows.iter().map(|(n, row)| (*n, row)), of_row);
        session.screen.table(&table, "");
        let what = what(rows.len(), orders.action);
        session.screen.line(format!("{what} would be {}", done(orders.action)));
    }
    true
}

/// The columns of [`timer_cells`].
pub(super) const TIMERS: [&str; 6] = ["id", "saga", "instance", "timer", "due", "set"];

pub(super) fn timer_cells(row: &OutboxView) -> Vec<Cell> {
    vec![
        row.id.as_str().into(),
        row.saga.as_deref().unwrap_or("-").into(),
        row.saga_id.as_deref().unwrap_or("-").into(),
        row.type_name.as_str().into(),
        Cell::At(row.due_at_us),
        Cell::At(row.created_at_us),
    ]
}

fn header(action: OutboxAction<'_>) -> &'static [&'static str] {
    if action.wants_timers() { &TIMERS } else { &outbox_list::HEADER }
}

fn cells(row: &OutboxView, action: OutboxAction<'_>) -> Vec<Cell> {
    if action.wants_timers() { timer_cells(row) } else { outbox_list::cells(row) }
}

/// The rows that the ids name; `None` when one of them names none, or several.
async fn of_ids(session: &mut Session, orders: &Orders<'_>) -> Option<Vec<Row>> {
    let (mut rows, mut wrong): (Vec<Row>, _) = (Vec::new(), Vec::new());
    for id in orders.ids {
        let filter = OutboxFilter {
            id: Some(id.clone()),
            kind: orders.action.wants_timers().then_some(OutboxKind::Timer),
            ..OutboxFilter::default()
        };
        let all = session.each(async |store: &dyn Inspect| store.outbox(&filter, find::ROWS_MAX).await).await;
        // a row is named by its own id, or by its message's
        let id_of = |row: &OutboxView| if row.id.starts_with(id) { row.id.clone() } else { row.message_id.clone() };
        match find::one(id, find::flat(all), |(_, row)| id_of(row)) {
            Found::One(found) => {
                let whole = found.first().map_or_else(String::new, |(_, row)| id_of(row));
                wrong.extend(find::unsure(id, &whole, session.is_clean()));
                let new = |row: &Row| !rows.iter().any(|known| (known.0, &known.1.id) == (row.0, &row.1.id));
                let found: Vec<Row> = found.into_iter().filter(new).collect();
                rows.extend(found);
            }
            Found::None => {
                let what = if orders.action.wants_timers() { "timer" } else { "outbox row" };
                let text = format!("there is no {what} {id}: it may have been sent meanwhile");
                wrong.push(ErrorCode::NotFound.told(text));
            }
            Found::Several(text) => wrong.push(ErrorCode::Ambiguous.told(text)),
        }
    }
    // a database that is away keeps nobody from acting on what was found in the others
    let rows = wrong.is_empty().then_some(rows);
    wrong.into_iter().for_each(|text| session.failed(text));
    rows
}

/// The rows of a filter. Timers are left to `sagabus timers`, unless the filter names them.
async fn of_filter(session: &mut Session, orders: &Orders<'_>) -> Option<Vec<Row>> {
    let mut filter = OutboxFilter { no_timers: orders.filter.kind.is_none(), ..orders.filter.clone() };
    if !spell(session, &mut filter.saga).await {
        return None;
    }
    let read = async |store: &dyn Inspect| {
        let rows = store.outbox(&filter, bulk::ROWS_MAX).await?;
        Ok((if bulk::is_full(&rows) { store.outbox_count(&filter).await? } else { 0 }, rows))
    };
    let all = session.each(read).await;
    let there: u64 = all.iter().map(|(_, (there, rows))| (*there).max(rows.len() as u64)).sum();
    let rows = find::flat(all.into_iter().map(|(n, (_, rows))| (n, rows)).collect());
    if rows.is_empty() {
        let list = if orders.action.wants_timers() { "timers" } else { "outbox" };
        session.refused(ErrorCode::NotFound, format!("no row matches; `sagabus {list} list` shows all"));
        return None;
    }
    bulk::beyond(session, rows.len(), there);
    Some(rows)
}

async fn act(session: &mut Session, orders: &Orders<'_>, rows: &[Row]) -> bool {
    let who = operations::who();
    let ids: Vec<(usize, String)> = rows.iter().map(|(n, row)| (*n, row.id.clone())).collect();
    let step = async |store: &dyn Inspect, ids: &[String]| store.outbox_act(orders.action, ids, &who, orders.why).await;
    let items = bulk::on_all(session, &ids, orders.rate, step).await;
    let acted = items.iter().filter(|item| item.result == OutboxAction::DONE).count();
    if session.screen.json {
        session.screen.value(&json!({ "found": rows.len(), "done": acted, "dry_run": false, "items": items }));
        return acted == rows.len();
    }
    let (what, how) = (what(rows.len(), orders.action), done(orders.action));
    session.screen.line(format!("{acted} of {what} {how}"));
    for (result, text) in [
        ("gone", "sent or deleted meanwhile: left alone"),
        ("being sent", "being sent by a running process at this moment: left alone, try again"),
        ("not a timer", "no timers: left alone"),
        ("not possible", "of a kind with which this is not possible: left alone"),
    ] {
        let n = items.iter().filter(|item| item.result == result).count();
        if n > 0 {
            session.screen.line(format!("{n} {text}"));
        }
    }
    acted == rows.len()
}

fn what(n: usize, action: OutboxAction<'_>) -> String {
    count(n as i64, if action.wants_timers() { "timer" } else { "row" })
}

fn done(action: OutboxAction<'_>) -> &'static str {
    match action {
        OutboxAction::SendNow => "due now: the next running process of its endpoint sends it",
        OutboxAction::Discard => "discarded",
        OutboxAction::Reroute { .. } => "rerouted, and due now",
        OutboxAction::FireTimer => "due now",
        OutboxAction::MoveTimer { .. } => "moved",
        _ => "cancelled",
    }
}
