//! `sagabus held groups` and `sagabus held note`: held messages by reason, type and error, and what is noted.

use super::{held_filter, list, operations, sagas::spell};
use crate::{
    databases::Session,
    names,
    table::Cell,
    text::{distance, some_or_more},
};
use clap::Args;
use saga_core::{
    Counted, ErrorCode, GroupName, GroupNote, HELD_GROUPS_MAX, HeldFilter, HeldGroup, Inspect, StoreError,
};

const HEADER: [&str; 5] = ["count", "reason", "type", "first", "last"];

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: held_filter::Which,
}

#[derive(Args)]
pub(crate) struct Note {
    /// About messages that are held for this reason, whatever its case
    #[arg(long, value_name = "REASON", value_parser = held_filter::reason)]
    reason_is: saga_core::HeldReason,
    /// Of this type, by logical name and whatever its case
    #[arg(long = "type", value_name = "NAME")]
    type_name: String,
    /// Only those whose error contains this text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    error: Option<String>,
    /// What to note
    #[arg(value_parser = held_filter::text)]
    text: String,
}

pub(crate) async fn run(session: &mut Session, arguments: &Arguments) -> bool {
    let mut filter = arguments.which.filter();
    if !spell(session, &mut filter.saga).await {
        return false;
    }
    let read = async |store: &dyn Inspect| {
        let filter = names::held(store, &filter).await?;
        let mut groups = store.held_groups(&filter).await?;
        groups.sort_by_key(HeldGroup::waits_by_itself); // a stable sort: in each half the largest stay first
        let more = if groups.is_empty() { may_match(store, &filter).await? } else { groups.len() >= HELD_GROUPS_MAX };
        Ok((Counted { rows: groups.len() as u64, more }, groups))
    };
    let all = session.each(read).await;
    let none = if filter.is_empty() { "nothing is held" } else { "no held message matches" };
    let now_us = session.screen.view.now_us;
    list::print_or(session, &all, &HEADER, |group| row(group, now_us), [none, list::GROUPS_BEYOND]);
    true
}

/// Whether messages may match all the same: groups are those of the first and the last messages.
async fn may_match(store: &dyn Inspect, filter: &HeldFilter) -> Result<bool, StoreError> {
    let there = store.held_counted(filter).await?;
    Ok(there.rows > 0 || there.more)
}

/// A group; below it what went wrong, and what was noted.
fn row(group: &HeldGroup, now_us: i64) -> (Vec<Cell>, Option<String>) {
    let notes = group.notes.iter().map(|note| noted(note, now_us));
    let below: Vec<String> = group.error.iter().cloned().chain(notes).collect();
    let cells = vec![
        some_or_more(group.count, group.more).into(),
        group.reason.as_str().into(),
        group.type_name.as_str().into(),
        Cell::At(group.first_us),
        Cell::At(group.last_us),
    ];
    (cells, (!below.is_empty()).then(|| below.join(" | ")))
}

/// A note on one line.
pub(super) fn noted(note: &GroupNote, now_us: i64) -> String {
    format!("{}, {}: {}", note.who, distance(note.at_us, now_us), note.text)
}

/// Notes it in every database that holds such messages.
pub(crate) async fn note(session: &mut Session, note: &Note) -> bool {
    let filter = HeldFilter {
        reason: Some(note.reason_is),
        type_name: Some(note.type_name.clone()),
        error: note.error.clone(),
        ..HeldFilter::default()
    };
    let who = operations::who();
    let noted = session
        .each(async |store: &dyn Inspect| {
            let filter = names::held(store, &filter).await?;
            let about = GroupName {
                reason: note.reason_is.as_str().into(),
                type_name: filter.type_name.clone().unwrap_or_default(),
                error: note.error.clone(),
            };
            // an action sees past what a list looks at, however long that takes
            let there = store.held_counted(&filter).await?;
            if there.rows == 0 && (!there.more || store.held_count(&filter).await? == 0) {
                return Ok(None);
            }
            store.held_note(about.clone(), &who, &note.text).await?;
            Ok(Some(about))
        })
        .await;
    let noted: Vec<GroupName> = noted.into_iter().filter_map(|(_, about)| about).collect();
    if noted.is_empty() {
        session.refused(ErrorCode::NotFound, "no held message matches; `sagabus held groups` shows all");
    } else if session.screen.json {
        session.screen.value(&serde_json::json!({ "noted": noted.len(), "about": noted[0] }));
    } else {
        session.screen.line("noted");
    }
    !noted.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;
    use serde_json::json;

    #[test]
    fn groups_are_as_wide_as_the_terminal() {
        let us = 1_790_000_000_000_000_i64;
        let group = |reason: &str, type_name: &str, error: Option<&str>, count: i64, notes: serde_json::Value| {
            let group = json!({ "reason": reason, "type": type_name, "error": error, "count": count, "first_us": us,
                "last_us": us + 60_000_000, "notes": notes });
            serde_json::from_value::<HeldGroup>(group).unwrap()
        };
        let noted = json!([{ "at_us": us + 120_000_000, "who": "ann", "text": "the bank is asked\u{1b}[2J" }]);
        let error = "error returned from database: relation \"charge\" does not exist (code 42P01)";
        let mut groups = [
            group("failed", "payment.MakePayment", Some(error), 10_001, noted),
            group("undecodable", "shop.OrderPlaced", Some("missing field `cents`"), 2, json!([])),
            group("early", "warehouse.ShippingLabelCreated", None, 7, json!([])),
        ];
        groups[1].more = true;
        let now_us = us + 11_520_000_000;
        let mut table = Table::new(&HEADER);
        for (cells, below) in groups.iter().map(|group| row(group, now_us)) {
            table.row(cells, below);
        }
        crate::commands::golden_table("held-groups", now_us, &table);
    }
}
