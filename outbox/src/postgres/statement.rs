//! One statement out of parts: a common table expression for each kind of row that a batch writes.
//!
//! In a part, `{}` is a parameter, and `{rows(name type, ..)}` a table `r` whose columns are parameters too: arrays.

use sqlx::{Arguments, Encode, Type, error::BoxDynError, postgres::PgArguments};

/// A part, by its place among the parts.
pub(super) struct Part {
    pub(super) sql: &'static str,
    /// The check of a part: SQL for a number that must equal the one given to [`Statement::part`].
    pub(super) count: Option<&'static str>,
}

/// The statement with those parts whose bits are set. Its last column is the check that a unit is open.
pub(super) fn text(parts: &[Part], chosen: usize) -> String {
    let (mut with, mut columns, mut placeholders) = (Vec::new(), Vec::new(), 0);
    for (n, part) in parts.iter().enumerate().filter(|(n, _)| chosen & (1 << n) != 0) {
        with.push(format!("p{n} AS MATERIALIZED ({})", filled(part.sql, &mut placeholders)));
        columns.extend(part.count.map(String::from));
    }
    columns.push("sagabus.in_unit()".into());
    format!("WITH {} SELECT {}", with.join(", "), columns.join(", "))
}

/// A part with its parameters numbered.
fn filled(template: &str, placeholders: &mut usize) -> String {
    let mut next = || {
        *placeholders += 1;
        format!("${placeholders}")
    };
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let (what, after) = after.split_once('}').expect("every brace is closed");
        match what.strip_prefix("rows(").and_then(|columns| columns.strip_suffix(')')) {
            Some(columns) => filled.push_str(&rows(columns, &mut next)),
            None => filled.push_str(&next()),
        }
        rest = after;
    }
    filled + rest
}

/// Arrays as a table. They come through `OFFSET 0`, which hides their length from the planner. Otherwise it would plan
/// each batch that is shorter than its guess anew, and planning costs several times as much as execution. The arrays
/// are unnested side by side in the `SELECT`: as `unnest(a, b, ..)` in `FROM`, each would first fill a table of its
/// own.
fn rows(columns: &str, next: &mut impl FnMut() -> String) -> String {
    let (mut arrays, mut unnested) = (Vec::new(), Vec::new());
    for (n, column) in columns.split(',').enumerate() {
        let (name, kind) = column.trim().split_once(' ').expect("a column has a name and a type");
        arrays.push(format!("{}::{kind}[] AS a{n}", next()));
        unnested.push(format!("unnest(a{n}) AS {name}"));
    }
    format!("(SELECT {} FROM (SELECT {} OFFSET 0) a) r", unnested.join(", "), arrays.join(", "))
}

/// What goes into a statement: each part takes its arguments in the order of its `{}`.
#[derive(Default)]
pub(super) struct Statement {
    /// The parts of the statement, as bits.
    pub(super) parts: usize,
    /// The numbers that its checks must return.
    pub(super) expected: Vec<i64>,
    /// Its arguments.
    pub(super) arguments: PgArguments,
}

impl Statement {
    /// Adds part `n`. Its check, if it has one, must return `expected`.
    pub(super) fn part(
        &mut self,
        n: usize,
        expected: Option<usize>,
        arguments: impl FnOnce(&mut Self) -> Result<(), BoxDynError>,
    ) -> Result<(), BoxDynError> {
        self.parts |= 1 << n;
        self.expected.extend(expected.map(|rows| rows as i64));
        arguments(self)
    }

    /// Adds a parameter.
    pub(super) fn add<'q, T: Encode<'q, sqlx::Postgres> + Type<sqlx::Postgres> + 'q>(
        &mut self,
        value: T,
    ) -> Result<(), BoxDynError> {
        self.arguments.add(value)
    }
}
