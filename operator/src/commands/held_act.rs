//! `sagabus held retry` and `sagabus held discard`: first lists exactly which messages, then acts on those and no
//! others.

use super::{held_filter, held_list, held_show, list, operations, sagas::spell};
use crate::{
    bulk,
    databases::Session,
    find::{self, Found},
    text::count,
};
use clap::Args;
use saga_core::{ErrorCode, HeldAction, HeldFilter, HeldRef, HeldView, Inspect};
use serde_json::json;
use std::num::NonZeroU32;

#[derive(Args)]
#[command(group = clap::ArgGroup::new("filter").multiple(true).args(
    ["endpoint", "reason_is", "receiver", "saga", "id", "type_name", "error", "needs_person", "older_than",
        "newer_than", "all"]
))]
pub(super) struct Messages {
    /// The messages' ids, or how they begin
    #[arg(value_name = "MESSAGE", required_unless_present = "filter", conflicts_with = "filter")]
    ids: Vec<String>,
    #[command(flatten)]
    which: held_filter::Which,
    /// All that wait for a person
    #[arg(long)]
    all: bool,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
    /// At most so many a second
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
}

#[derive(Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    pub(super) which: Messages,
    /// Why: recorded with who and when
    #[arg(long, value_name = "TEXT", default_value = operations::NO_REASON, allow_hyphen_values = true)]
    pub(super) reason: String,
}

#[derive(Args)]
pub(crate) struct Discard {
    #[command(flatten)]
    pub(super) which: Messages,
    /// Why: recorded with who and when
    #[arg(long, value_name = "TEXT", value_parser = operations::reason, allow_hyphen_values = true)]
    pub(super) reason: String,
}

/// Acts on the messages that are named, or those of the filter.
pub(super) async fn run(session: &mut Session, action: HeldAction<'_>, arguments: Messages, why: &str) -> bool {
    let rows = if arguments.ids.is_empty() {
        of_filter(session, arguments.which.filter()).await
    } else {
        of_ids(session, &arguments.ids).await
    };
    let Some(rows) = rows else { return false };
    if arguments.dry_run {
        if session.screen.json {
            let json: Vec<_> = rows.iter().map(|(n, row)| session.labelled(*n, row)).collect();
            session.screen.value(&json!({ "found": rows.len(), "dry_run": true, "rows": json }));
        } else {
            let table = list::table(session, &held_list::HEADER, rows.iter().map(|(n, row)| (*n, row)), held_list::row);
            session.screen.table(&table, "");
            let messages = count(rows.len() as i64, "message");
            session.screen.line(format!("{messages} would be {}", word(action)));
        }
        return true;
    }
    act(session, action, rows, arguments.rate, why).await
}

/// The messages that the ids name; `None` when one of them names none, or several.
async fn of_ids(session: &mut Session, ids: &[String]) -> Option<Vec<(usize, HeldView)>> {
    let (mut rows, mut wrong): (Vec<(usize, HeldView)>, _) = (Vec::new(), Vec::new());
    for id in ids {
        match held_show::find(session, id).await {
            Found::One(found) => {
                let whole = found.first().map_or("", |(_, row)| &row.message_id);
                wrong.extend(find::unsure(id, whole, session.is_clean()));
                for (n, row) in found {
                    if !rows.iter().any(|(known_n, known)| *known_n == n && known.row() == row.row()) {
                        rows.push((n, row));
                    }
                }
            }
            Found::None => {
                let text = format!("no message {id} is held: it may have been dealt with already");
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

/// The messages that a filter finds. Those that wait for their turn are included only when the filter names their
/// reason.
async fn of_filter(session: &mut Session, mut filter: HeldFilter) -> Option<Vec<(usize, HeldView)>> {
    if !spell(session, &mut filter.saga).await {
        return None;
    }
    filter.needs_person |= filter.reason.is_none();
    let all = session
        .each(async |store: &dyn Inspect| {
            let rows = store.held(&filter, bulk::ROWS_MAX).await?;
            Ok((if bulk::is_full(&rows) { store.held_count(&filter).await? } else { 0 }, rows))
        })
        .await;
    let there: u64 = all.iter().map(|(_, (there, rows))| (*there).max(rows.len() as u64)).sum();
    let rows = find::flat(all.into_iter().map(|(n, (_, rows))| (n, rows)).collect());
    if rows.is_empty() {
        session.refused(ErrorCode::NotFound, "no held message matches; `sagabus held list` shows all");
        return None;
    }
    bulk::beyond(session, rows.len(), there);
    Some(rows)
}

async fn act(
    session: &mut Session,
    action: HeldAction<'_>,
    rows: Vec<(usize, HeldView)>,
    rate: Option<NonZeroU32>,
    why: &str,
) -> bool {
    let who = operations::who();
    let rows: Vec<(usize, HeldRef)> = rows.iter().map(|(n, row)| (*n, row.row())).collect();
    let step = async |store: &dyn Inspect, rows: &[HeldRef]| match action {
        HeldAction::Discard => store.held_discard(rows, &who, why).await,
        _ => store.held_retry(rows, &who, why).await,
    };
    let items = bulk::on_all(session, &rows, rate, step).await;
    let done = items.iter().filter(|item| item.result == word(action)).count();
    if session.screen.json {
        session.screen.value(&json!({ "found": rows.len(), word(action): done, "dry_run": false, "items": items }));
        return done == rows.len();
    }
    let messages = count(rows.len() as i64, "message");
    session.screen.line(match action {
        HeldAction::Discard => format!("{done} of {messages} discarded"),
        _ => format!("{done} of {messages} will be handled again by the next running process of their endpoint"),
    });
    for (result, text) in [
        ("gone", "dealt with meanwhile, or held anew since they were listed: left alone"),
        ("waits", "wait behind another message of their instance, which must go first: left alone"),
        ("unreadable", "have an envelope that this binary cannot read: left alone, a newer one may"),
    ] {
        let n = items.iter().filter(|item| item.result == result).count();
        if n > 0 {
            session.screen.line(format!("{n} {text}"));
        }
    }
    done == rows.len()
}

/// The result of an item when all went well.
fn word(action: HeldAction<'_>) -> &'static str {
    match action {
        HeldAction::Discard => "discarded",
        _ => "retried",
    }
}
