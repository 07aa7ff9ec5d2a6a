//! `sagabus held show`.

use super::{held_groups, operations};
use crate::{
    choice::{Holder, OneOfSeveral},
    databases::Session,
    find::{self, Found, Named},
    masks,
    text::{self, count, distance, plain, quoted, time},
};
use clap::Args;
use saga_core::{
    ErrorCode, GroupNote, HeldFilter, HeldReason, HeldView, Inspect, OperationFilter, OperationView, StoreError,
};
use serde_json::{Value, json};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The message's id, or how it begins
    #[arg(allow_hyphen_values = true)]
    id: String,
}

pub(crate) async fn run(session: &mut Session, arguments: &Arguments) -> bool {
    let id = &arguments.id;
    match find(session, id).await {
        Found::One(rows) => {
            let options = |(n, row): &(usize, HeldView)| row.chosen_by(*n, &rows);
            let options: Vec<String> = rows.iter().map(options).collect();
            let rows = rows.into_iter().zip(options).map(|((n, row), options)| (n, (row, options))).collect();
            session.show(rows, show).await
        }
        Found::None => gone(session, id).await,
        Found::Several(text) => {
            session.refused(ErrorCode::Ambiguous, text);
            false
        }
    }
}

/// The held rows with an id, or with the only id that begins with the text.
pub(super) async fn find(session: &mut Session, id: &str) -> Found<(usize, HeldView)> {
    let filter = HeldFilter { message_id: Some(id.to_owned()), ..HeldFilter::default() };
    let all = session.each(async |store: &dyn Inspect| store.held(&filter, find::ROWS_MAX).await).await;
    find::one(id, find::flat(all), |(_, row)| row.named(id))
}

/// Those of them that a receiver or an endpoint holds.
pub(super) async fn find_at(session: &mut Session, id: &str, holder: &Holder) -> Found<(usize, HeldView)> {
    match find(session, id).await {
        Found::One(rows) => match holder.of(rows) {
            none if none.is_empty() => Found::None,
            rows => Found::One(rows),
        },
        other => other,
    }
}

/// What an id is that names no held message.
pub(super) fn none(id: &str) -> String {
    format!("no message {id} is held: it may have been dealt with already")
}

/// What an id is that names none of a receiver or an endpoint.
pub(super) fn none_at(id: &str, holder: &Holder) -> String {
    let Some(by) = holder.told() else { return none(id) };
    format!("no message {id} is held by {by}; who holds it: sagabus held show {}", quoted(id))
}

/// A message that is not held: shows what operators did with it.
async fn gone(session: &mut Session, id: &str) -> bool {
    let filter = OperationFilter { message_id: Some(id.to_owned()), ..OperationFilter::default() };
    let read = async |store: &dyn Inspect| operations::read(store, &filter, operations::ROWS_MAX).await;
    let found = session.each(read).await;
    let beyond = found.iter().any(|(_, (_, beyond))| *beyond);
    let mut all: Vec<OperationView> = found.into_iter().flat_map(|(_, (operations, _))| operations).collect();
    masks::operations(&mut all, session.unmasked);
    if all.is_empty() {
        session.refused(ErrorCode::NotFound, none(id));
        return false;
    }
    if session.screen.json {
        session.screen.value(&json!({ "held": [], "operations": all, "operations_beyond": beyond }));
    } else {
        session.screen.line(format!("message {} is not held now", plain(id)));
        let did = operations::heading("what operators did", beyond);
        session.screen.section(&did, &operations::table(&all));
    }
    true
}

/// What a held row does not say.
struct More {
    body: Option<Vec<u8>>,
    operations: (Vec<OperationView>, bool),
    notes: Vec<GroupNote>,
}

async fn more(store: &dyn Inspect, row: &HeldView) -> Result<More, StoreError> {
    let filter = OperationFilter { message_id: Some(row.message_id.clone()), ..OperationFilter::default() };
    Ok(More {
        body: store.held_body(&row.row()).await?,
        operations: operations::read(store, &filter, operations::ROWS_MAX).await?,
        notes: store.held_notes(row).await?,
    })
}

/// Shows it, or returns it as JSON if that is asked for. The options tell it from others with its id.
async fn show(session: &mut Session, n: usize, (row, options): (HeldView, String)) -> Option<Value> {
    let More { body, operations: (mut done, beyond), notes } = match more(&*session.database(n).store, &row).await {
        Ok(more) => more,
        Err(error) => {
            let name = session.database(n).name.clone();
            session.failed(format!("cannot read {name}: {error}"));
            return None;
        }
    };
    let mut body = body.map(|body| text::body(&body));
    if !session.unmasked {
        body.iter_mut().for_each(|body| drop(masks::hide(body, &row.masked())));
    }
    masks::operations(&mut done, session.unmasked);
    if session.screen.json {
        let mut value = session.labelled(n, &row);
        value["body"] = body.into();
        value["operations"] = json!(done);
        value["operations_beyond"] = beyond.into();
        value["notes"] = json!(notes);
        return Some(value);
    }
    let label = session.label(n).map_or_else(String::new, |label| format!(" of {label}"));
    let screen = &mut session.screen;
    let (now, zone) = (screen.view.now_us, screen.view.zone.clone());
    let at = |us: i64| format!("{} ({})", time(us, &zone), distance(us, now));
    let receiver =
        if row.receiver.is_empty() { "no receiver knows it".into() } else { format!("for {}", row.receiver) };
    screen.line(plain(&format!("{} {}", row.type_name, row.message_id)));
    screen.line(plain(&format!("at       {}{label}, {receiver}", row.endpoint)));
    if let (Some(saga), Some(id)) = (&row.saga, &row.saga_id) {
        screen.line(format!("instance {} {}", plain(saga), plain(id)));
    }
    if let (Some(kind), Some(to)) = (&row.kind, &row.destination) {
        screen.line(format!("it is    a {} that never left for {}", plain(kind), plain(to)));
    }
    if !options.is_empty() {
        screen.line(format!("act      on this one by {options}, in held retry, discard and edit"));
    }
    screen.line(format!("held     {}", at(row.held_at_us)));
    let code = HeldReason::parse(&row.reason).map(HeldReason::code);
    let code = code.map_or_else(String::new, |code| format!(" [{code}]"));
    screen.line(format!("because  {}{code}, after {}", plain(&row.reason), count(row.attempts, "run")));
    if let Some(expires) = row.expires_at_us {
        screen.line(format!("until    {}, then it waits for a person", at(expires)));
    }
    if let Some(error) = &row.error {
        screen.line("error");
        screen.long(error);
    }
    for note in &notes {
        screen.line(plain(&format!("noted    {}", held_groups::noted(note, now))));
    }
    screen.line(format!("envelope {}", text::json(&row.envelope)));
    screen.line(body.map_or_else(|| "it was dealt with meanwhile".into(), |body| find::pretty(&body)));
    screen.section(&operations::heading("what operators did", beyond), &operations::table(&done));
    None
}
