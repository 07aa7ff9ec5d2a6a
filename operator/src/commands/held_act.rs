//! `sagabus held retry` and `sagabus held discard`: first lists exactly which messages, then acts on those and no
//! others.

use super::{held_filter, held_list, held_show, list, operations, sagas::spell};
use crate::{bulk, databases::Session, text::count};
use clap::Args;
use saga_core::{HeldAction, HeldRef, HeldView, Inspect};
use serde_json::json;
use std::num::NonZeroU32;

#[derive(Args)]
#[command(group = clap::ArgGroup::new("filter").multiple(true).args(
    ["endpoint", "reason_is", "receiver", "saga", "id", "type_name", "error", "needs_person", "older_than",
        "newer_than", "all"]
))]
pub(super) struct Messages {
    /// The messages' ids, or how they begin. One that several receivers hold needs --receiver or --endpoint as well
    #[arg(value_name = "MESSAGE", required_unless_present = "filter", conflicts_with_all = [
        "reason_is", "saga", "id", "type_name", "error", "needs_person", "older_than", "newer_than", "all"
    ])]
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
        let mut filter = arguments.which.filter();
        if !spell(session, &mut filter.saga).await {
            return false;
        }
        let none = "no held message matches; `sagabus held list` shows all";
        bulk::of_filter(session, async |store: &dyn Inspect| bulk::held(store, &filter).await, none).await
    } else {
        let holder = arguments.which.holder();
        let find = async |session: &mut Session, id: &str| held_show::find_at(session, id, &holder).await;
        bulk::of_ids(session, &arguments.ids, find, |id| held_show::none_at(id, &holder)).await
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

async fn act(
    session: &mut Session,
    action: HeldAction<'_>,
    rows: Vec<(usize, HeldView)>,
    rate: Option<NonZeroU32>,
    why: &str,
) -> bool {
    let who = operations::who();
    let rows: Vec<(usize, HeldRef)> = rows.iter().map(|(n, row)| (*n, row.row())).collect();
    let items = bulk::on_all(session, &rows, rate, &bulk::Order { action, who: &who, why }).await;
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
    for (result, text) in LEFT_ALONE {
        let n = items.iter().filter(|item| item.result == result).count();
        if n > 0 {
            session.screen.line(format!("{n} {text}"));
        }
    }
    done == rows.len()
}

/// The other results of items, and what they mean.
pub(crate) const LEFT_ALONE: [(&str, &str); 3] = [
    ("gone", "dealt with meanwhile, or held anew since they were listed: left alone"),
    ("waits", "wait behind another message of their instance, which must go first: left alone"),
    ("unreadable", "have an envelope that this program cannot read: left alone, a newer one may"),
];

/// The result of an item when all went well.
pub(crate) fn word(action: HeldAction<'_>) -> &'static str {
    match action {
        HeldAction::Discard => "discarded",
        _ => "retried",
    }
}
