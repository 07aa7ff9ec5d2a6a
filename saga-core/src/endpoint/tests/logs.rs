//! What the endpoints of one test log.

use std::{
    fmt::{Debug, Write},
    sync::{Arc, Mutex},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::{DefaultGuard, set_default},
};

/// Warnings of this thread, as `text, field=value`; all tasks of a test with paused time run there.
#[derive(Clone, Default)]
pub(super) struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Hears as long as the guard lives.
    pub(super) fn listen() -> (Self, DefaultGuard) {
        let heard = Self::default();
        let guard = set_default(heard.clone());
        (heard, guard)
    }

    /// Those with this text, in order.
    pub(super) fn with(&self, text: &str) -> Vec<String> {
        let lines = self.0.lock().expect("nobody panics while it logs");
        lines.iter().filter(|line| line.contains(text)).cloned().collect()
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().expect("nobody panics while it logs").push(line.text + &line.fields);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    text: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            name => write!(self.fields, ", {name}={value:?}"), // a String takes everything
        };
    }
}
