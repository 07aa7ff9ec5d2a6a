//! `sagabus outbox show`.

use super::outbox_list::tries;
use crate::{
    databases::Session,
    find::{self, Found, Named},
    masks,
    text::{self, count, distance, plain, time},
};
use clap::Args;
use saga_core::{ErrorCode, Inspect, OutboxFilter, OutboxKind, OutboxView};
use serde_json::Value;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The id of the row or of its message, or how it begins
    id: String,
}

pub(crate) async fn run(session: &mut Session, arguments: &Arguments) -> bool {
    let id = &arguments.id;
    match find(session, id, None).await {
        Found::One(rows) => session.show(rows, show).await,
        Found::None => {
            session.refused(ErrorCode::NotFound, none("outbox row", id));
            false
        }
        Found::Several(text) => {
            session.refused(ErrorCode::Ambiguous, text);
            false
        }
    }
}

/// The rows with an id, or with the only one that begins with the text: a row's own, or its message's.
pub(super) async fn find(session: &mut Session, id: &str, kind: Option<OutboxKind>) -> Found<(usize, OutboxView)> {
    let filter = OutboxFilter { id: Some(id.to_owned()), kind, ..OutboxFilter::default() };
    let all = session.each(async |store: &dyn Inspect| store.outbox(&filter, find::ROWS_MAX).await).await;
    find::one(id, find::flat(all), |(_, row)| row.named(id))
}

/// What an id is that names nothing.
pub(super) fn none(what: &str, id: &str) -> String {
    format!("there is no {what} {id}: it may have been sent meanwhile")
}

/// Shows it, or returns it as JSON if that is asked for.
async fn show(session: &mut Session, n: usize, row: OutboxView) -> Option<Value> {
    let mut body = match session.database(n).store.outbox_body(&row.id).await {
        Ok(body) => body.map(|body| text::body(&body)),
        Err(error) => {
            session.failed(format!("cannot read the body of {}: {error}", row.id));
            None
        }
    };
    if !session.unmasked {
        body.iter_mut().for_each(|body| drop(masks::hide(body, &row.masked())));
    }
    if session.screen.json {
        let mut value = session.labelled(n, &row);
        value["body"] = body.into();
        return Some(value);
    }
    let screen = &mut session.screen;
    let (now, zone) = (screen.view.now_us, screen.view.zone.clone());
    let at = |us: i64| format!("{} ({})", time(us, &zone), distance(us, now));
    screen.line(plain(&format!("{} {} {} to {}", row.endpoint, row.kind, row.type_name, row.destination)));
    screen.line(format!("row        {}", plain(&row.id)));
    screen.line(format!("message    {}", plain(&row.message_id)));
    screen.line(format!("written    {}", at(row.created_at_us)));
    screen.line(format!("due        {}", at(row.due_at_us)));
    if let Some(first) = row.first_attempt_at_us {
        screen.line(format!("first sent {}", at(first)));
    }
    if let (Some(owner), Some(until)) = (&row.lease_owner, row.lease_until_us) {
        screen.line(format!("leased by  {}, until {}", plain(owner), at(until)));
    }
    let what = if row.kind == "retry" { "failed run" } else { "try" };
    let tries =
        if what == "try" && tries(&row) != 1 { format!("{} tries", tries(&row)) } else { count(tries(&row), what) };
    screen.line(format!("so far     {tries}"));
    if let Some(to) = &row.waits_for {
        screen.line(format!("waits      no queue takes what goes to {}", plain(to)));
    }
    if let Some(error) = &row.last_error {
        screen.line("last error");
        screen.long(error);
    }
    screen.line(format!("envelope {}", text::json(&row.envelope)));
    screen.line(body.map_or_else(|| "it was sent meanwhile".into(), |body| find::pretty(&body)));
    None
}
