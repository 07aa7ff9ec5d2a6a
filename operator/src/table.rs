//! Tables that keep within the terminal and never cut or wrap a value.
//!
//! Columns that do not fit beside the others go on a line of their own under the row, with their names. An error or
//! another long text always stands under its row.

use crate::screen::View;
use crate::text::{distance, plain, time};
use textwrap::core::display_width;

/// The gap between two columns.
const GAP: &str = "  ";
/// The indent of what stands under a row.
const INDENT: &str = "    ";

/// A value in a table.
pub(crate) enum Cell {
    Text(String),
    /// Microseconds since 1970: a distance for people, a time for programs.
    At(i64),
}

impl Cell {
    /// A number.
    pub(crate) fn number(n: i64) -> Self {
        Self::Text(n.to_string())
    }

    fn shown(&self, view: &View) -> String {
        match self {
            Self::Text(text) => plain(text),
            Self::At(us) if view.width.is_some() => distance(*us, view.now_us),
            Self::At(us) => time(*us, &view.zone),
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::Text(text.into())
    }
}

/// Rows under a header.
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<(Vec<Cell>, Vec<String>)>,
}

impl Table {
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, and a long text that belongs to it.
    pub(crate) fn row(&mut self, cells: Vec<Cell>, note: Option<String>) {
        self.row_with(cells, note.into_iter().collect());
    }

    /// Adds a row, and long texts that belong to it, each on lines of its own.
    pub(crate) fn row_with(&mut self, cells: Vec<Cell>, notes: Vec<String>) {
        debug_assert_eq!(cells.len(), self.header.len(), "a row has a cell for each column");
        self.rows.push((cells, notes));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines of the table; without a terminal, values between tabs, the notes last.
    pub(crate) fn lines(&self, view: &View) -> Vec<String> {
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|(cells, _)| cells.iter().map(|cell| cell.shown(view)).collect()).collect();
        let notes = self.rows.iter().map(|(_, notes)| notes);
        let Some(width) = view.width else {
            let noted = self.rows.iter().any(|(_, notes)| !notes.is_empty());
            let line = |(cells, notes): (&Vec<String>, &Vec<String>)| {
                let notes = noted.then(|| plain(&notes.join("; ")));
                cells.iter().cloned().chain(notes).collect::<Vec<_>>().join("\t")
            };
            return rows.iter().zip(notes).map(line).collect();
        };
        let columns = self.widths(&rows);
        let beside = beside(&columns, width);
        let mut lines = vec![line(self.header[..beside].iter().copied(), &columns)];
        for (cells, notes) in rows.iter().zip(notes) {
            lines.push(line(cells[..beside].iter().map(String::as_str), &columns));
            let under = self.header[beside..].iter().zip(&cells[beside..]).filter(|(_, cell)| !is_nothing(cell));
            lines.extend(pack(under.map(|(name, cell)| format!("{name} {cell}")), width));
            lines.extend(notes.iter().flat_map(|note| wrapped(note, width)));
        }
        lines
    }

    fn widths(&self, rows: &[Vec<String>]) -> Vec<usize> {
        let widest = |(column, name): (usize, &&str)| {
            let cells = rows.iter().map(|row| display_width(&row[column]));
            cells.chain([display_width(name)]).max().unwrap_or_default()
        };
        self.header.iter().enumerate().map(widest).collect()
    }
}

fn is_nothing(cell: &str) -> bool {
    matches!(cell, "" | "-")
}

/// How many columns fit beside each other; at least one.
fn beside(columns: &[usize], width: usize) -> usize {
    let mut used = 0;
    let fits = |column: &&usize| {
        used += **column + if used == 0 { 0 } else { GAP.len() };
        used <= width
    };
    columns.iter().take_while(fits).count().max(1)
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, columns: &[usize]) -> String {
    let mut line = String::new();
    for (cell, column) in cells.zip(columns) {
        line.push_str(cell);
        line.push_str(&" ".repeat(column - display_width(cell).min(*column)));
        line.push_str(GAP);
    }
    line.truncate(line.trim_end().len());
    line
}

/// Values on as few lines as they need; none is broken.
fn pack(values: impl Iterator<Item = String>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for value in values {
        match lines.last_mut() {
            Some(line) if display_width(line) + GAP.len() + display_width(&value) <= width => {
                line.push_str(GAP);
                line.push_str(&value);
            }
            _ => lines.push(format!("{INDENT}{value}")),
        }
    }
    lines
}

/// A long text on lines of its own. Words are broken only when they are longer than a line.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let options = textwrap::Options::new(width.max(INDENT.len() + 20))
        .initial_indent(INDENT)
        .subsequent_indent(INDENT)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::wrap(&plain(text), options).into_iter().map(|line| line.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "a8e85957-9041-4469-9839-bcadc0ba50fe";

    fn held() -> Table {
        let mut table = Table::new(&["message", "type", "reason", "receiver", "held", "runs"]);
        let error = "error returned from database: relation \"charge\" does not exist, and a great deal more is said";
        table.row(
            vec![
                ID.into(),
                "payment.MakePayment".into(),
                "failed".into(),
                "payment".into(),
                Cell::At(1_000_000),
                Cell::number(16),
            ],
            Some(error.into()),
        );
        table.row(
            vec!["7\x1b[2J".into(), "t\tu".into(), "early".into(), "-".into(), Cell::At(0), Cell::number(0)],
            None,
        );
        table
    }

    fn view(width: Option<usize>) -> View {
        View { width, now_us: 11_521_000_000, zone: jiff::tz::TimeZone::UTC }
    }

    fn shown(width: usize) -> String {
        held().lines(&view(Some(width))).iter().map(|line| format!("{line}|\n")).collect()
    }

    #[test]
    fn at_80_columns_what_does_not_fit_stands_under_its_row() {
        let expected = "\
message                               type                 reason  receiver|
a8e85957-9041-4469-9839-bcadc0ba50fe  payment.MakePayment  failed  payment|
    held 3 h 12 min ago  runs 16|
    error returned from database: relation \"charge\" does not exist, and a great|
    deal more is said|
7\\u{1b}[2J                            t\\tu                 early   -|
    held 3 h 12 min ago  runs 0|
";
        assert_eq!(shown(80), expected);
    }

    #[test]
    fn at_100_columns_all_stand_in_a_row() {
        let expected = "\
message                               type                 reason  receiver  held            runs|
a8e85957-9041-4469-9839-bcadc0ba50fe  payment.MakePayment  failed  payment   3 h 12 min ago  16|
    error returned from database: relation \"charge\" does not exist, and a great deal more is said|
7\\u{1b}[2J                            t\\tu                 early   -         3 h 12 min ago  0|
";
        assert_eq!(shown(100), expected);
        assert_eq!(shown(200), expected);
    }

    #[test]
    fn no_width_cuts_an_id_and_only_what_cannot_be_broken_is_wider_than_the_terminal() {
        for width in 1..220 {
            let lines = held().lines(&view(Some(width)));
            assert!(lines.iter().any(|line| line.contains(ID)), "{width}: {lines:#?}");
            let longest = lines.iter().map(|line| display_width(line)).max().unwrap();
            assert!(longest <= width.max(ID.len()), "{width}: {lines:#?}");
        }
    }

    #[test]
    fn without_a_terminal_values_stand_between_tabs() {
        let lines = held().lines(&view(None));
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].starts_with(&format!(
                "{ID}\tpayment.MakePayment\tfailed\tpayment\t1970-01-01 00:00:01.000Z\t16\terror"
            ))
        );
        assert_eq!(lines[1], "7\\u{1b}[2J\tt\\tu\tearly\t-\t1970-01-01 00:00:00.000Z\t0\t");
    }
}
