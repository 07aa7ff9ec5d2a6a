//! What happened in a run: as lines, and as a sequence diagram.

use crate::Envelope;
use std::{
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::Instant;

/// The longest diagram, in lines: a browser draws no more in reasonable time.
const DIAGRAM_LINES_MAX: usize = 500;

/// Who sends what comes from outside.
pub(super) const CLIENT: &str = "client";

#[derive(Debug, Clone)]
enum What {
    /// A message comes from one endpoint to another; or it is lost.
    Message {
        from: String,
        to: String,
        text: String,
        lost: bool,
    },
    Note {
        at: String,
        text: String,
    },
}

/// What happened, each with its microseconds since the beginning.
type Lines = Vec<(u128, What)>;

/// Written only when somebody will read it: a clone writes into the same.
#[derive(Clone)]
pub(super) struct Trace(Option<Arc<Mutex<Lines>>>, Instant);

impl Trace {
    /// Begins now.
    pub(super) fn new(written: bool) -> Self {
        Self(written.then(Arc::default), Instant::now())
    }

    pub(super) fn is_written(&self) -> bool {
        self.0.is_some()
    }

    fn add(&self, what: impl FnOnce() -> What) {
        if let Some(lines) = &self.0 {
            let line = (self.1.elapsed().as_micros(), what());
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }

    pub(super) fn arrives(&self, from: &str, to: &str, envelope: &Envelope, again: u32) {
        self.add(|| {
            let again = if again > 0 { " (again)" } else { "" };
            let text = format!("{}{again}", label(envelope));
            What::Message { from: from.into(), to: to.into(), text, lost: false }
        });
    }

    pub(super) fn is_lost(&self, from: &str, to: &str, envelope: &Envelope, why: &str) {
        self.add(|| What::Message {
            from: from.into(),
            to: to.into(),
            text: format!("{} ({why})", label(envelope)),
            lost: true,
        });
    }

    pub(super) fn note(&self, at: &str, text: impl FnOnce() -> String) {
        self.add(|| What::Note { at: at.into(), text: text() });
    }

    fn lines(&self) -> Lines {
        let lines = self.0.as_ref().map(|lines| lines.lock().unwrap_or_else(PoisonError::into_inner).clone());
        lines.unwrap_or_default()
    }

    /// One line for everything that happened, with its time since the beginning.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (at, what) in self.lines() {
            let (seconds, ms) = (at / 1_000_000, at / 1000 % 1000);
            let what = match what {
                What::Message { from, to, text, lost: false } => format!("{from} -> {to}: {text}"),
                What::Message { from, to, text, lost: true } => format!("{from} -x {to}: {text}"),
                What::Note { at, text } => format!("{at}: {text}"),
            };
            let _ = writeln!(text, "{seconds:>6}.{ms:03} s  {what}"); // a String takes everything
        }
        text
    }

    /// A sequence diagram for Mermaid.
    pub(super) fn diagram(&self, endpoints: &[String]) -> String {
        let mut text = String::from("sequenceDiagram\n");
        for name in std::iter::once(CLIENT).chain(endpoints.iter().map(String::as_str)) {
            let _ = writeln!(text, "    participant {}", id(name));
        }
        let lines = self.lines();
        for (_, what) in lines.iter().take(DIAGRAM_LINES_MAX) {
            let _ = match what {
                What::Message { from, to, text: label, lost } => {
                    let arrow = if *lost { "--x" } else { "->>" };
                    writeln!(text, "    {}{arrow}{}: {}", id(from), id(to), plain(label))
                }
                What::Note { at, text: note } => writeln!(text, "    Note over {}: {}", id(at), plain(note)),
            };
        }
        if lines.len() > DIAGRAM_LINES_MAX {
            let more = lines.len() - DIAGRAM_LINES_MAX;
            let _ = writeln!(text, "    Note over {CLIENT}: and {more} lines more");
        }
        text
    }
}

/// A message's type, and the instance that it is from or for.
fn label(envelope: &Envelope) -> String {
    let name = short(&envelope.type_name);
    match &envelope.saga {
        Some(saga) => format!("{name} [{}]", short_id(&saga.id)),
        None => name.into(),
    }
}

/// A type's name without the endpoint before it.
pub(super) fn short(type_name: &str) -> &str {
    type_name.rsplit('.').next().unwrap_or(type_name)
}

/// The end of a long id: enough to tell the few of one run apart.
pub(super) fn short_id(id: &str) -> &str {
    let long = id.chars().count().saturating_sub(8);
    id.char_indices().nth(long).map_or(id, |(from, _)| &id[from..])
}

/// A participant's name without what Mermaid reads as its own.
fn id(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect()
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ';' | '#' | '\n') { ' ' } else { c }).collect()
}
