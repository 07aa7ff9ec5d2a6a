//! A listing as a statement that stays fast however many rows there are. It reads each place in the order of an index,
//! not further than [`LOOK_ROWS_MAX`] rows, and puts together what matches.

use super::{Params, Session, Tables, listing::within, order::unreadable};
use saga_core::{HELD_GROUPS_MAX, StoreError, Wanted};
use serde_json::Value;
use std::collections::BTreeMap;

/// How many rows a listing looks at to find those that its other conditions match, which no index serves.
pub(super) const LOOK_ROWS_MAX: i64 = 60_000;
/// Who wants more rows than a page has wants all that match: then there is no limit to the look.
pub(super) const PAGE_ROWS_MAX: i64 = 1000;
/// The most places that one statement reads; more of them are several statements. SQLite puts at most 500 selects into
/// one, and PostgreSQL takes long to plan so many.
pub(super) const PLACES_MAX: usize = 400;

/// How much of an error tells groups of held messages apart.
const ERROR_CHARS: usize = 200;

/// The parameters of a statement in the making.
#[derive(Default)]
pub(super) struct Bound(pub(super) Params);

impl Bound {
    /// Adds a parameter and returns its name.
    pub(super) fn text(&mut self, text: &str) -> String {
        self.0.push(Some(text.to_owned()));
        format!("${}", self.0.len())
    }

    /// A statement with those parameters alone that it names, numbered anew: of a listing's statements each has some.
    pub(super) fn used(&self, sql: &str) -> (String, Params) {
        let mut parts = sql.split('$');
        let mut text = parts.next().unwrap_or_default().to_owned();
        let (mut params, mut numbers) = (Params::new(), BTreeMap::new());
        for part in parts {
            let (number, rest) = part.split_at(part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len()));
            let next = numbers.len() + 1;
            let n = *numbers.entry(number).or_insert_with(|| {
                let nth = number.parse::<usize>().unwrap_or_default();
                params.push(self.0.get(nth.wrapping_sub(1)).cloned().flatten());
                next
            });
            text = text + "$" + &n.to_string() + rest;
        }
        (text, params)
    }

    /// The column is the text, if there is one.
    pub(super) fn is(&mut self, column: &str, text: Option<&String>) -> Option<String> {
        text.map(|text| format!("{column} = {}", self.text(text)))
    }

    /// The column begins with the text: a range of an index, because keys compare as bytes.
    pub(super) fn begins(&mut self, column: &str, text: &str) -> String {
        let (low, high) = (self.text(text), self.text(&format!("{text}\u{10ffff}")));
        format!("{column} >= {low} AND {column} < {high}")
    }

    /// The column contains the text, whatever its case.
    pub(super) fn contains<T: Tables>(&mut self, column: &str, text: &str) -> String {
        format!("{}(lower({column}), lower({})) > 0", T::FIND, self.text(text))
    }
}

/// A place where rows are read.
pub(super) struct Place {
    /// The conditions that an index serves.
    pub(super) of: String,
    /// The order of that index.
    pub(super) by: &'static str,
    /// Whether the first rows in that order are wanted: it is the listing's order, or the whole id is the first of
    /// those that begin with it. Else rows are sorted first.
    pub(super) is_ordered: bool,
}

impl Place {
    /// Where the first rows of the index are wanted.
    pub(super) fn ordered(of: String, by: &'static str) -> Self {
        Self { of, by, is_ordered: true }
    }

    /// Where rows are sorted first.
    pub(super) fn unordered(of: String, by: &'static str) -> Self {
        Self { of, by, is_ordered: false }
    }
}

/// What to read.
pub(super) struct Look {
    pub(super) table: &'static str,
    /// All columns but the body.
    pub(super) columns: &'static str,
    /// A row as the view has it.
    pub(super) json: String,
    /// The order of the listing.
    pub(super) order: &'static str,
    pub(super) places: Vec<Place>,
    /// The conditions that no index serves.
    pub(super) rest: Vec<String>,
    /// How many rows are looked at, whoever asks; `None`: as many as a page may take, or all.
    pub(super) at_most: Option<i64>,
    pub(super) bound: Bound,
}

impl Look {
    /// How far each place is read.
    fn reach(&self) -> i64 {
        (self.at_most.unwrap_or(LOOK_ROWS_MAX) / self.places.len().max(1) as i64).max(1)
    }

    fn rest(&self) -> String {
        self.rest.join(" AND ")
    }

    fn from<T: Tables>(&self) -> String {
        format!("{}{}", T::PREFIX, self.table)
    }

    /// A select for each place, put together. SQLite wants each in a select of its own.
    fn union(places: &[Place], of_place: impl Fn(&Place) -> String) -> String {
        let all: Vec<String> = places.iter().map(|place| format!("SELECT * FROM ({}) p", of_place(place))).collect();
        all.join(" UNION ALL ")
    }

    /// What is there at a place, before the other conditions.
    fn seen<T: Tables>(&self, place: &Place, columns: &str, rows: i64) -> String {
        let Place { of, by, .. } = place;
        format!("SELECT {columns} FROM {} WHERE {of} ORDER BY {by} LIMIT {rows}", self.from::<T>())
    }

    /// Reads the listing: a statement for so many places, and what they say together.
    pub(super) async fn read<T: Tables>(
        &self,
        session: &mut T::Session,
        wanted: Wanted,
    ) -> Result<Vec<String>, StoreError> {
        let mut all = Vec::new();
        for places in self.places.chunks(PLACES_MAX) {
            let (sql, params) = self.bound.used(&match wanted {
                Wanted::Rows(rows_max) => self.rows::<T>(places, rows_max),
                Wanted::Count => self.count::<T>(places),
                Wanted::CountUpTo(counted_max) => self.counted::<T>(places, counted_max),
                // it looks at no more than it shows
                Wanted::Beyond if self.rest.is_empty() && places.iter().all(|it| it.is_ordered) => break,
                Wanted::Beyond => format!("SELECT CAST(count(*) AS text) FROM ({}) b", self.beyond::<T>(places)),
            });
            all.extend(session.rows(&sql, &params).await?);
        }
        match wanted {
            Wanted::Rows(_) if self.places.len() <= PLACES_MAX => Ok(all),
            Wanted::Rows(rows_max) => merged(self.order, all, rows_max),
            Wanted::Count | Wanted::Beyond => {
                let counts = all.iter().map(|n| serde_json::from_str::<i64>(n)).collect::<Result<Vec<_>, _>>();
                Ok(vec![counts.map_err(unreadable)?.iter().sum::<i64>().to_string()])
            }
            Wanted::CountUpTo(counted_max) => {
                let (mut rows, mut beyond) = (0, 0);
                for pair in &all {
                    let (more, places) = serde_json::from_str::<(i64, i64)>(pair).map_err(unreadable)?;
                    (rows, beyond) = (rows + more, beyond + places);
                }
                Ok(vec![format!("[{},{beyond}]", rows.min(counted_max + 1))])
            }
        }
    }

    /// At most so many rows, each as JSON.
    fn rows<T: Tables>(&self, places: &[Place], rows_max: i64) -> String {
        let wants_all = rows_max > PAGE_ROWS_MAX && self.at_most.is_none();
        let reach = if wants_all { i64::MAX } else { self.reach() };
        let (columns, order, rest) = (self.columns, self.order, self.rest());
        let found = Self::union(places, |place| {
            if rest.is_empty() && place.is_ordered {
                return self.seen::<T>(place, columns, rows_max);
            }
            let seen = self.seen::<T>(place, columns, reach);
            let of = if rest.is_empty() { EVERY } else { &rest };
            let sorted = if place.is_ordered { String::new() } else { format!("ORDER BY {order}") };
            format!("SELECT * FROM ({seen}) s WHERE {of} {sorted} LIMIT {rows_max}")
        });
        // a row becomes JSON last: there are few by then
        let first = format!("SELECT * FROM ({found}) f ORDER BY {order} LIMIT {rows_max}");
        format!("SELECT {} FROM ({first}) h ORDER BY {order}", self.json)
    }

    /// How many rows there are, as far as the listing looks: two numbers, the rows, at most one more than
    /// `counted_max`, and the places that have more rows than were looked at.
    fn counted<T: Tables>(&self, places: &[Place], counted_max: i64) -> String {
        let (rest, reach, some) = (self.rest(), self.reach(), counted_max + 1);
        if rest.is_empty() {
            let found =
                Self::union(places, |it| format!("SELECT 1 FROM {} WHERE {} LIMIT {some}", self.from::<T>(), it.of));
            return format!(
                "SELECT CAST({}(count(*), 0) AS text) FROM (SELECT * FROM ({found}) f LIMIT {some}) c",
                T::ARRAY
            );
        }
        let found = Self::union(places, |place| {
            format!("SELECT 1 FROM ({}) s WHERE {rest}", self.seen::<T>(place, self.columns, reach))
        });
        let beyond = self.beyond::<T>(places);
        format!(
            "SELECT CAST({}((SELECT count(*) FROM (SELECT * FROM ({found}) f LIMIT {some}) c),
                (SELECT count(*) FROM ({beyond}) b)) AS text)",
            T::ARRAY
        )
    }

    /// A row for each place that has more rows than are looked at.
    fn beyond<T: Tables>(&self, places: &[Place]) -> String {
        let reach = self.reach();
        Self::union(places, |place| format!("{} OFFSET {reach}", self.seen::<T>(place, "1", 1)))
    }

    /// Reads held messages by reason, type and error. What several statements say of a group stands side by side.
    pub(super) async fn held_groups<T: Tables>(&self, session: &mut T::Session) -> Result<Vec<String>, StoreError> {
        let mut all = Vec::new();
        // two selects for each place
        for places in self.places.chunks(PLACES_MAX / 2) {
            let (sql, params) = self.bound.used(&self.grouped::<T>(places));
            all.extend(session.rows(&sql, &params).await?);
        }
        Ok(all)
    }

    fn grouped<T: Tables>(&self, places: &[Place]) -> String {
        let rest = if self.rest.is_empty() { String::new() } else { format!("WHERE {}", self.rest()) };
        let found = Self::union(places, |place| {
            let (ends, looked_at) = self.ends::<T>(place);
            let next = self.seen::<T>(place, "1", 1);
            format!(
                "SELECT reason, type, substr(error, 1, {ERROR_CHARS}) AS error, held_at, beyond FROM ({ends}) s
                 CROSS JOIN (SELECT count(*) AS beyond FROM ({next} OFFSET {looked_at}) b) m {rest}"
            )
        });
        format!(
            "SELECT CAST({}('reason', reason, 'type', type, 'error', error, 'count', count(*), 'more', max(beyond),
                'first_us', {}, 'last_us', {}) AS text)
             FROM ({found}) f GROUP BY reason, type, error
             ORDER BY count(*) DESC, reason, type, error LIMIT {HELD_GROUPS_MAX}",
            T::OBJECT,
            T::us("min(held_at)"),
            T::us("max(held_at)")
        )
    }

    /// The first rows of a place and its last: since when the newest is held is worth as much as the oldest. And how
    /// many rows that is.
    fn ends<T: Tables>(&self, place: &Place) -> (String, i64) {
        let Place { of, by, .. } = place;
        if *by != "arrival" {
            return (self.seen::<T>(place, self.columns, self.reach()), self.reach());
        }
        let (half, table, columns) = ((self.reach() / 2).max(1), self.from::<T>(), self.columns);
        let first = self.seen::<T>(place, columns, half);
        let before = format!("{} OFFSET {}", self.seen::<T>(place, by, 1), half - 1);
        let last =
            format!("SELECT {columns} FROM {table} WHERE {of} AND {by} > ({before}) ORDER BY {by} DESC LIMIT {half}");
        (format!("SELECT * FROM ({first}) x UNION ALL SELECT * FROM ({last}) y"), 2 * half)
    }

    /// All rows, counted one by one.
    fn count<T: Tables>(&self, places: &[Place]) -> String {
        let rest = if self.rest.is_empty() { String::new() } else { format!("AND {}", self.rest()) };
        let found =
            Self::union(places, |place| format!("SELECT 1 FROM {} WHERE {} {rest}", self.from::<T>(), place.of));
        format!("SELECT CAST(count(*) AS text) FROM ({found}) f")
    }
}

/// The condition of an index that has every row.
pub(super) const EVERY: &str = "TRUE";

/// The groups of a table by the first columns of an index, all of them, by their values in these columns; with `wanted`
/// only those that have its values. `of` is the condition of a partial index, or [`EVERY`].
pub(super) async fn groups<T: Tables>(
    session: &mut T::Session,
    table: &str,
    columns: &[&str],
    of: &str,
    wanted: &[Option<&String>],
) -> Result<Vec<Vec<String>>, StoreError> {
    let mut bound = Bound::default();
    // what begins the index narrows the look, the rest is told apart afterwards
    let known: Vec<String> = wanted.iter().map_while(|it| it.cloned()).collect();
    let of = if known.is_empty() { of.to_owned() } else { format!("{of} AND {}", within(&mut bound, columns, &known)) };
    let mut all = Vec::new();
    for row in session.rows(&each_group::<T>(table, columns, &of), &bound.0).await? {
        let key: Vec<Value> = serde_json::from_str(&row).map_err(unreadable)?;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        all.push(key.iter().map(text).collect());
    }
    let is_wanted = |key: &Vec<String>| wanted.iter().zip(key).all(|(it, has)| it.is_none_or(|it| it == has));
    all.retain(is_wanted);
    Ok(all)
}

/// The groups, each a JSON array: every group is looked up behind the one before, so that it does not matter how many
/// rows a group has.
fn each_group<T: Tables>(table: &str, columns: &[&str], of: &str) -> String {
    let (names, table) = (columns.join(", "), format!("{}{table}", T::PREFIX));
    let key = format!("{}({names})", T::ARRAY);
    let first = |more: &str| format!("(SELECT {key} FROM {table} WHERE {of}{more} ORDER BY {names} LIMIT 1)");
    let last = |n: usize| match columns[n] {
        "version" => T::integer(&format!("k ->> {n}")),
        _ => format!("k ->> {n}"),
    };
    // not `(a, b) > (x, y)`: for that SQLite steps over every row of the group
    let next = (0..columns.len()).rev().map(|n| {
        let same = (0..n).map(|same| format!(" AND {} = {}", columns[same], last(same))).collect::<String>();
        first(&format!("{same} AND {} > {}", columns[n], last(n)))
    });
    let next = next.collect::<Vec<_>>().join(", ");
    // every text: so the plan names where it begins, and one that does not reads all rows
    let begin = first(&format!(" AND {} >= ''", columns[0]));
    format!(
        "WITH RECURSIVE g (k) AS (
            SELECT {begin} UNION ALL SELECT coalesce({next}, NULL) FROM g WHERE k IS NOT NULL)
         SELECT CAST(k AS text) FROM g WHERE k IS NOT NULL"
    )
}

/// The first rows of several statements together, in the order that each has them in.
fn merged(order: &str, rows: Vec<String>, rows_max: i64) -> Result<Vec<String>, StoreError> {
    let keyed = rows.into_iter().map(|row| {
        let view: Value = serde_json::from_str(&row).map_err(unreadable)?;
        let term = |term: &str| {
            let (column, falls) = term.strip_suffix(" DESC").map_or((term, 1), |column| (column, -1));
            // a time's field has its unit
            let value = view.get(column).unwrap_or_else(|| &view[format!("{column}_us")]);
            (value.as_i64().unwrap_or_default() * falls, value.as_str().unwrap_or_default().to_owned())
        };
        Ok((order.split(", ").map(term).collect::<Vec<_>>(), row))
    });
    let mut keyed = keyed.collect::<Result<Vec<_>, StoreError>>()?;
    keyed.sort_unstable();
    keyed.truncate(usize::try_from(rows_max).unwrap_or(usize::MAX));
    Ok(keyed.into_iter().map(|(_, row)| row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_has_the_parameters_that_it_names_and_no_others() {
        let mut bound = Bound::default();
        for text in ["a", "b", "c"] {
            bound.text(text);
        }
        let (sql, params) = bound.used("x = $3 AND y = $1 OR x <> $3");
        assert_eq!(sql, "x = $1 AND y = $2 OR x <> $1");
        assert_eq!(params, [Some("c".to_owned()), Some("a".to_owned())]);
    }

    #[test]
    fn rows_of_several_statements_are_put_in_order() {
        let row = |us: i64, id: &str| format!(r#"{{"updated_at_us":{us},"id":"{id}","saga":"s"}}"#);
        let rows = vec![row(9, "b"), row(7, "a"), row(9, "a"), row(8, "c")];
        let newest = merged("updated_at DESC, id, saga", rows.clone(), 3).unwrap();
        assert_eq!(newest, [row(9, "a"), row(9, "b"), row(8, "c")]);
        assert_eq!(merged("updated_at, id, saga", rows, 1).unwrap(), [row(7, "a")]);
    }
}
