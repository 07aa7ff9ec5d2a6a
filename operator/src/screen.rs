//! The output of a command: gathered, then written at once.

use crate::{
    table::{Table, wrapped},
    text,
};
use jiff::tz::TimeZone;
use saga_core::Counted;
use serde::Serialize;
use serde_json::Value;
use std::io::{ErrorKind, IsTerminal, Write};

/// The width of a terminal that does not report one.
const WIDTH: usize = 80;

/// How things are shown.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// The terminal's width; `None` when stdout is not a terminal: then rows are for programs.
    pub(crate) width: Option<usize>,
    /// Distances are from here: microseconds since 1970.
    pub(crate) now_us: i64,
    /// Times are in this zone.
    pub(crate) zone: TimeZone,
}

impl View {
    /// As the terminal and the options ask for.
    pub(crate) fn of_stdout(utc: bool) -> Self {
        let stdout = std::io::stdout();
        let width = stdout.is_terminal().then(|| {
            let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|n| *n > 0);
            let real = || terminal_size::terminal_size_of(&stdout).map(|(width, _)| usize::from(width.0));
            said.or_else(real).filter(|n| *n > 0).unwrap_or(WIDTH)
        });
        let zone = if utc { TimeZone::UTC } else { TimeZone::system() };
        Self { width, now_us: jiff::Timestamp::now().as_microsecond(), zone }
    }
}

/// What will be written.
#[derive(Debug)]
pub(crate) struct Screen {
    pub(crate) view: View,
    /// Print JSON and nothing else.
    pub(crate) json: bool,
    out: String,
    notes: String,
}

impl Screen {
    pub(crate) fn new(view: View, json: bool) -> Self {
        Self { view, json, out: String::new(), notes: String::new() }
    }

    /// A line on stdout. Foreign texts in it must have gone through [`text::plain`].
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        self.out.push_str(line.as_ref());
        self.out.push('\n');
    }

    /// A long text, indented.
    pub(crate) fn long(&mut self, text: &str) {
        match self.view.width {
            Some(width) => wrapped(text, width).into_iter().for_each(|line| self.line(line)),
            None => self.line(text::plain(text)),
        }
    }

    /// A table; when it has no rows, people read `none`.
    pub(crate) fn table(&mut self, table: &Table, none: &str) {
        match (table.is_empty(), self.view.width) {
            (true, Some(_)) if !none.is_empty() => self.line(none),
            (true, None) if !none.is_empty() => self.note(none),
            (true, _) => {}
            (false, _) => table.lines(&self.view).into_iter().for_each(|line| self.line(line)),
        }
    }

    /// A table under a heading, if it has rows.
    pub(crate) fn section(&mut self, heading: &str, table: &Table) {
        if !table.is_empty() {
            self.line("");
            self.line(heading);
            self.table(table, "");
        }
    }

    /// A value as JSON.
    pub(crate) fn value(&mut self, value: &impl Serialize) {
        self.line(text::json(value));
    }

    /// What was found, as one document: a value by itself, several in an array.
    pub(crate) fn found(&mut self, mut values: Vec<Value>) {
        match values.len() {
            0 => {} // why is told at the end
            1 => self.value(&values.remove(0)),
            _ => self.value(&values),
        }
    }

    /// A remark that is not part of the answer: on stderr.
    pub(crate) fn note(&mut self, note: impl AsRef<str>) {
        self.notes.push_str(note.as_ref());
        self.notes.push('\n');
    }

    /// Says how many of all rows are shown, if not all are.
    pub(crate) fn shown(&mut self, shown: usize, all: Counted) {
        if (shown as u64) < all.rows || all.more && shown as u64 <= all.rows {
            self.note(format!("{shown} of {all} shown"));
        }
    }

    /// What is on stdout so far.
    #[cfg(test)]
    pub(crate) fn out(&self) -> &str {
        &self.out
    }

    /// Writes everything. Stops quietly when the reader has gone (`| head`).
    ///
    /// # Errors
    /// When stdout cannot be written for another reason.
    pub(crate) fn write(self) -> std::io::Result<()> {
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(self.out.as_bytes()).and_then(|()| stdout.flush());
        let _ = std::io::stderr().lock().write_all(self.notes.as_bytes()); // nobody reads them: nobody needs them
        match written {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}
