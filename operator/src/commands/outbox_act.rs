//! Acts on rows of the outbox, timers among them: first lists exactly which rows, then acts on those and no others.

use super::{list, operations, outbox_list, outbox_show, sagas::spell};
use crate::{bulk, databases::Session, table::Cell, text::count};
use saga_core::{Inspect, OutboxAction, OutboxFilter, OutboxKind, OutboxView};
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
    let Some(rows) = rows(session, &orders).await else { return false };
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

/// The rows that are meant; `None` when there are none.
async fn rows(session: &mut Session, orders: &Orders<'_>) -> Option<Vec<Row>> {
    let wants_timers = orders.action.wants_timers();
    if !orders.ids.is_empty() {
        let kind = wants_timers.then_some(OutboxKind::Timer);
        let find = async |session: &mut Session, id: &str| outbox_show::find(session, id, kind).await;
        let what = if wants_timers { "timer" } else { "outbox row" };
        return bulk::of_ids(session, orders.ids, find, |id| outbox_show::none(what, id)).await;
    }
    let mut filter = orders.filter.clone();
    if !spell(session, &mut filter.saga).await {
        return None;
    }
    let list = if wants_timers { "timers" } else { "outbox" };
    let none = format!("no row matches; `sagabus {list} list` shows all");
    bulk::of_filter(session, async |store: &dyn Inspect| bulk::outbox(store, &filter).await, &none).await
}

async fn act(session: &mut Session, orders: &Orders<'_>, rows: &[Row]) -> bool {
    let who = operations::who();
    let ids: Vec<(usize, String)> = rows.iter().map(|(n, row)| (*n, row.id.clone())).collect();
    let order = bulk::Order { action: orders.action, who: &who, why: orders.why };
    let items = bulk::on_all(session, &ids, orders.rate, &order).await;
    let acted = items.iter().filter(|item| item.result == OutboxAction::DONE).count();
    if session.screen.json {
        session.screen.value(&json!({ "found": rows.len(), "done": acted, "dry_run": false, "items": items }));
        return acted == rows.len();
    }
    let (what, how) = (what(rows.len(), orders.action), done(orders.action));
    session.screen.line(format!("{acted} of {what} {how}"));
    for (result, text) in LEFT_ALONE {
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

/// The results of items with which nothing was done, and what they mean.
pub(crate) const LEFT_ALONE: [(&str, &str); 4] = [
    ("gone", "sent or deleted meanwhile: left alone"),
    ("being sent", "being sent by a running process at this moment: left alone, try again"),
    ("not a timer", "no timers: left alone"),
    ("not possible", "of a kind with which this is not possible: left alone"),
];

/// What has become of a row when all went well.
pub(crate) fn done(action: OutboxAction<'_>) -> &'static str {
    match action {
        OutboxAction::SendNow => "due now: the next running process of its endpoint sends it",
        OutboxAction::Discard => "discarded",
        OutboxAction::Reroute { .. } => "rerouted, and due now",
        OutboxAction::FireTimer => "due now",
        OutboxAction::MoveTimer { .. } => "moved",
        _ => "cancelled",
    }
}
