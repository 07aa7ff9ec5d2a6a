//! Finding one thing by its id, or by how the id begins.

use crate::text::{json, plain};
use saga_core::{HeldRef, HeldView, OutboxView};
use serde_json::Value;

/// The most rows that are searched for one.
pub(crate) const ROWS_MAX: i64 = 1000;
/// The most that are named when several begin alike, or have one id.
pub(crate) const IDS_TOLD: usize = 10;

/// What an id, or the beginning of one, leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<T> {
    /// The rows with one id.
    One(Vec<T>),
    /// Nothing.
    None,
    /// Several ids begin with it; the text names them.
    Several(String),
}

/// A row that a person names by an id, or by how the id begins.
pub(crate) trait Named {
    /// What no other row of its database has.
    type Key: PartialEq;

    fn key(&self) -> Self::Key;

    /// The id that a text means which names the row.
    fn named(&self, text: &str) -> String;
}

impl Named for HeldView {
    type Key = HeldRef;

    fn key(&self) -> HeldRef {
        self.row()
    }

    fn named(&self, _: &str) -> String {
        self.message_id.clone()
    }
}

impl Named for OutboxView {
    type Key = String;

    fn key(&self) -> String {
        self.id.clone()
    }

    /// Its own id, or its message's.
    fn named(&self, text: &str) -> String {
        if self.id.starts_with(text) { self.id.clone() } else { self.message_id.clone() }
    }
}

/// The rows with the id; else the rows with the only id that begins with it.
pub(crate) fn one<T>(id: &str, mut rows: Vec<T>, id_of: impl Fn(&T) -> String) -> Found<T> {
    if id.is_empty() {
        return Found::Several("an empty id names nothing".into());
    }
    if rows.iter().any(|row| id_of(row) == id) {
        rows.retain(|row| id_of(row) == id);
        return Found::One(rows);
    }
    rows.retain(|row| id_of(row).starts_with(id));
    let mut ids: Vec<String> = rows.iter().map(&id_of).collect();
    ids.sort_unstable();
    ids.dedup();
    match ids.len() {
        0 => Found::None,
        1 => Found::One(rows),
        n => {
            let more = if n > IDS_TOLD { format!(" and {} more", n - IDS_TOLD) } else { String::new() };
            ids.truncate(IDS_TOLD);
            Found::Several(format!("{n} ids begin with {id}: {}{more}", ids.join(", ")))
        }
    }
}

/// Why a beginning does not do: `whole` is the only id found, but a database that is away may have others.
pub(crate) fn unsure(id: &str, whole: &str, all_answered: bool) -> Option<String> {
    let text = || format!("{id} may begin other ids in the database that is away: give the whole id, {whole}");
    (!all_answered && id != whole).then(text)
}

/// Rows of all databases, each with its database's number.
pub(crate) fn flat<T>(all: Vec<(usize, Vec<T>)>) -> Vec<(usize, T)> {
    all.into_iter().flat_map(|(n, rows)| rows.into_iter().map(move |row| (n, row))).collect()
}

/// The name in its proper spelling, whatever its case; else the existing names.
pub(crate) fn name(wanted: &str, known: &[String], what: &str) -> Result<String, String> {
    let exact = known.iter().find(|name| *name == wanted);
    let alike = || known.iter().find(|name| name.to_lowercase() == wanted.to_lowercase());
    if let Some(name) = exact.or_else(alike) {
        return Ok(name.clone());
    }
    let mut known = known.to_vec();
    known.sort_unstable();
    known.dedup();
    let there = if known.is_empty() { "there is none".into() } else { format!("there are: {}", known.join(", ")) };
    Err(format!("no {what} is called {wanted}; {there}"))
}

/// A body or a state, indented.
pub(crate) fn pretty(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        value => json(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(id: &str, ids: &[&str]) -> Found<String> {
        one(id, ids.iter().map(|id| (*id).to_owned()).collect(), |id| id.clone())
    }

    #[test]
    fn a_whole_id_wins_and_a_beginning_must_be_the_only_one() {
        let ids = ["7", "71", "72", "8a", "8a"];
        assert_eq!(find("7", &ids), Found::One(vec!["7".into()]));
        assert_eq!(find("8", &ids), Found::One(vec!["8a".into(), "8a".into()]), "two receivers hold the one message");
        assert_eq!(find("9", &ids), Found::None);
        let Found::Several(text) = find("7", &ids[1..]) else { panic!("two begin with 7") };
        assert_eq!(text, "2 ids begin with 7: 71, 72");
        assert!(matches!(find("", &ids), Found::Several(_)), "nothing names everything");
    }

    #[test]
    fn a_name_matches_whatever_its_case_and_a_wrong_one_tells_what_there_is() {
        let known = ["Cancelled".to_owned(), "Shipped".to_owned(), "SHIPPED".to_owned()];
        assert_eq!(name("cancelled", &known, "state").unwrap(), "Cancelled");
        assert_eq!(name("SHIPPED", &known, "state").unwrap(), "SHIPPED");
        assert_eq!(
            name("Lost", &known, "state").unwrap_err(),
            "no state is called Lost; there are: Cancelled, SHIPPED, Shipped"
        );
    }
}
