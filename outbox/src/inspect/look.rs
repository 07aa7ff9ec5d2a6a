//! A listing as a statement that stays fast however many rows there are. It reads each place in the order of an index,
//! not further than [`LOOK_ROWS_MAX`] rows, and puts together what matches.

use super::{Params, Tables};
use serde_json::Value;

/// How many rows a listing looks at to find those that its other conditions match, which no index serves.
pub(super) const LOOK_ROWS_MAX: i64 = 60_000;
/// Who wants more rows than a page has wants all that match: then there is no limit to the look.
const PAGE_ROWS_MAX: i64 = 1000;
/// The most groups of rows that a listing knows apart: SQLite puts at most 500 selects into one statement.
pub(super) const GROUPS_MAX: usize = 400;

/// How much of an error tells groups of held messages apart.
const ERROR_CHARS: usize = 200;
/// The most groups of held messages that are told.
const HELD_GROUPS_MAX: usize = 200;

/// The parameters of a statement in the making.
#[derive(Default)]
pub(super) struct Bound(pub(super) Params);

impl Bound {
    /// Adds a parameter and returns its name.
    pub(super) fn text(&mut self, text: &str) -> String {
        self.0.push(Some(text.to_owned()));
        format!("${}", self.0.len())
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
    pub(super) json: &'static str,
    /// The order of the listing.
    pub(super) order: &'static str,
    pub(super) places: Vec<Place>,
    /// The conditions that no index serves.
    pub(super) rest: Vec<String>,
    pub(super) bound: Bound,
}

impl Look {
    /// How far each place is read.
    fn reach(&self) -> i64 {
        (LOOK_ROWS_MAX / self.places.len().max(1) as i64).max(1)
    }

    fn rest(&self) -> String {
        self.rest.join(" AND ")
    }

    fn from<T: Tables>(&self) -> String {
        format!("{}{}", T::PREFIX, self.table)
    }

    /// A select for each place, put together. SQLite wants each in a select of its own.
    fn union(&self, of_place: impl Fn(&Place) -> String) -> String {
        let all: Vec<String> =
            self.places.iter().map(|place| format!("SELECT * FROM ({}) p", of_place(place))).collect();
        all.join(" UNION ALL ")
    }

    /// What is there at a place, before the other conditions.
    fn seen<T: Tables>(&self, place: &Place, columns: &str, rows: i64) -> String {
        let Place { of, by, .. } = place;
        format!("SELECT {columns} FROM {} WHERE {of} ORDER BY {by} LIMIT {rows}", self.from::<T>())
    }

    /// At most so many rows, each as JSON.
    pub(super) fn rows<T: Tables>(&self, rows_max: i64) -> String {
        let reach = if rows_max > PAGE_ROWS_MAX { i64::MAX } else { self.reach() };
        let (columns, order, rest) = (self.columns, self.order, self.rest());
        let found = self.union(|place| {
            if rest.is_empty() {
                return self.seen::<T>(place, columns, rows_max);
            }
            let seen = self.seen::<T>(place, columns, reach);
            let sorted = if place.is_ordered { String::new() } else { format!("ORDER BY {order}") };
            format!("SELECT * FROM ({seen}) s WHERE {rest} {sorted} LIMIT {rows_max}")
        });
        // a row becomes JSON last: there are few by then
        let first = format!("SELECT * FROM ({found}) f ORDER BY {order} LIMIT {rows_max}");
        format!("SELECT {} FROM ({first}) h ORDER BY {order}", self.json)
    }

    /// How many rows there are, as far as the listing looks: two numbers, the rows, at most one more than
    /// `counted_max`, and the places that have more rows than were looked at.
    pub(super) fn counted<T: Tables>(&self, counted_max: i64) -> String {
        let (rest, reach, some) = (self.rest(), self.reach(), counted_max + 1);
        if rest.is_empty() {
            let found =
                self.union(|place| format!("SELECT 1 FROM {} WHERE {} LIMIT {some}", self.from::<T>(), place.of));
            return format!(
                "SELECT CAST({}(count(*), 0) AS text) FROM (SELECT * FROM ({found}) f LIMIT {some}) c",
                T::ARRAY
            );
        }
        let found = self
            .union(|place| format!("SELECT 1 FROM ({}) s WHERE {rest}", self.seen::<T>(place, self.columns, reach)));
        let beyond = self.union(|place| format!("{} OFFSET {reach}", self.seen::<T>(place, "1", 1)));
        format!(
            "SELECT CAST({}((SELECT count(*) FROM (SELECT * FROM ({found}) f LIMIT {some}) c),
                (SELECT count(*) FROM ({beyond}) b)) AS text)",
            T::ARRAY
        )
    }

    /// Held messages by reason, type and error.
    pub(super) fn held_groups<T: Tables>(&self) -> String {
        let (rest, reach) = (self.rest(), self.reach());
        let found = self.union(|place| {
            let seen = self.seen::<T>(place, self.columns, reach);
            let rest = if rest.is_empty() { String::new() } else { format!("WHERE {rest}") };
            format!("SELECT reason, type, substr(error, 1, {ERROR_CHARS}) AS error, held_at FROM ({seen}) s {rest}")
        });
        format!(
            "SELECT CAST({}('reason', reason, 'type', type, 'error', error, 'count', count(*),
                'first_us', {}, 'last_us', {}) AS text)
             FROM ({found}) f GROUP BY reason, type, error
             ORDER BY count(*) DESC, reason, type, error LIMIT {HELD_GROUPS_MAX}",
            T::OBJECT,
            T::us("min(held_at)"),
            T::us("max(held_at)")
        )
    }

    /// All rows, counted one by one.
    pub(super) fn count<T: Tables>(&self) -> String {
        let rest = if self.rest.is_empty() { String::new() } else { format!("AND {}", self.rest()) };
        let found = self.union(|place| format!("SELECT 1 FROM {} WHERE {} {rest}", self.from::<T>(), place.of));
        format!("SELECT CAST(count(*) AS text) FROM ({found}) f")
    }
}

/// The condition of an index that has every row.
pub(super) const EVERY: &str = "TRUE";

/// The groups of a table by the first columns of an index, each a JSON array: every group is looked up behind the one
/// before, so that it does not matter how many rows a group has. `of` is the condition of a partial index, or
/// [`EVERY`].
pub(super) fn groups<T: Tables>(table: &str, columns: &[&str], of: &str) -> String {
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
    format!(
        "WITH RECURSIVE g (k) AS (
            SELECT {} UNION ALL SELECT coalesce({next}, NULL) FROM g WHERE k IS NOT NULL)
         SELECT CAST(k AS text) FROM g WHERE k IS NOT NULL LIMIT {GROUPS_MAX}",
        first("")
    )
}

/// The groups that [`groups`] found.
pub(super) fn keys(rows: &[String]) -> Vec<Vec<String>> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let key = |row: &String| serde_json::from_str::<Vec<Value>>(row).ok().map(|key| key.iter().map(text).collect());
    rows.iter().filter_map(key).collect()
}
