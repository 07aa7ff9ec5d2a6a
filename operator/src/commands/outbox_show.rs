//! `sagabus outbox show`.

use super::outbox_list::tries;
use crate::{
    databases::Session,
    find::{self, Found},
    masks,
    text::{self, count, distance, plain, time},
};
use clap::Args;
use saga_core::{ErrorCode, Inspect, OutboxFilter, OutboxView};
use serde_json::Value;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The id of the row or of its message, or how it begins
    id: String,
}

pub(crate) async fn run(session: &mut Session, arguments: &Arguments) -> bool {
    let filter = OutboxFilter { id: Some(arguments.id.clone()), ..OutboxFilter::default() };
    let all = session.each(async |store: &dyn Inspect| store.outbox(&filter, find::ROWS_MAX).await).await;
    let all = find::flat(all);
    // a row is named by its own id, or by its message's
    let id_of = |row: &OutboxView| {
        if row.id.starts_with(&arguments.id) { row.id.clone() } else { row.message_id.clone() }
    };
    match find::one(&arguments.id, all, |(_, row)| id_of(row)) {
        Found::One(rows) => {
            let mut values = Vec::new();
            for (n, row) in rows {
                values.extend(show(session, n, &row).await);
            }
            session.screen.found(values);
            true
        }
        Found::None => {
            let id = &arguments.id;
            session
                .refused(ErrorCode::NotFound, format!("there is no outbox row {id}: it may have been sent meanwhile"));
            false
        }
        Found::Several(text) => {
            session.refused(ErrorCode::Ambiguous, text);
            false
        }
    }
}

/// Shows it, or returns it as JSON if that is asked for.
async fn show(session: &mut Session, n: usize, row: &OutboxView) -> Option<Value> {
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
        let mut value = session.labelled(n, row);
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
        if what == "try" && tries(row) != 1 { format!("{} tries", tries(row)) } else { count(tries(row), what) };
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
