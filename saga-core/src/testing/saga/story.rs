//! What became of the messages that an instance was offered: as lines, and as a sequence diagram.

use crate::{HeldReason, saga::Route};
use std::{
    collections::BTreeSet,
    fmt::{self, Write},
    sync::Arc,
};

/// Who sends what nobody in the story sends.
const OTHERS: &str = "others";
/// Who takes events.
const SUBSCRIBERS: &str = "subscribers";

/// A message that the instance was offered.
#[derive(Debug, Clone)]
pub(super) struct Happened {
    pub(super) message_id: String,
    pub(super) type_name: String,
    /// One of the instance's own timers.
    pub(super) is_timer: bool,
    pub(super) what: What,
}

/// What became of a message.
#[derive(Debug, Clone)]
pub(super) enum What {
    Moved {
        from: Option<String>,
        to: String,
        effects: Vec<Caused>,
    },
    Ignored {
        state: String,
    },
    /// A repeated start was answered with what had been replied.
    Returned {
        state: String,
        reply: String,
    },
    Stale,
    /// A command that the state rejects was answered.
    GivenUp {
        error: String,
        answer: &'static str,
    },
    Held {
        reason: HeldReason,
        error: String,
    },
    PutOff {
        error: String,
    },
    Discarded {
        note: String,
    },
}

/// A message that a transition sent, or a timer that it set.
#[derive(Debug, Clone)]
pub(super) struct Caused {
    pub(super) type_name: &'static str,
    to: To,
}

#[derive(Debug, Clone, Copy)]
enum To {
    Endpoint(&'static str),
    Subscribers,
    Starter,
    Itself,
}

impl Caused {
    pub(super) fn new(type_name: &'static str, route: &Route) -> Self {
        let to = match route {
            Route::Command { to } => To::Endpoint(to),
            Route::Event => To::Subscribers,
            Route::Reply => To::Starter,
            Route::Timer { .. } => To::Itself,
        };
        Self { type_name, to }
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.type_name;
        match &self.what {
            What::Moved { from, to, .. } => write!(f, "{name}: {} -> {to}", from.as_deref().unwrap_or("(start)")),
            What::Ignored { state } => write!(f, "{name}: ignored in {state}"),
            What::Returned { state, reply } => write!(f, "{name}: answered again in {state}, {reply}"),
            What::Stale => write!(f, "{name}: stale"),
            What::GivenUp { error, answer } => write!(f, "{name}: given up, {answer}: {error}"),
            What::Held { reason, error } => write!(f, "{name}: held as {}: {error}", reason.as_str()),
            What::PutOff { error } => write!(f, "{name}: put off: {error}"),
            What::Discarded { note } => write!(f, "{name}: discarded: {note}"),
        }
    }
}

/// One line for each message.
pub(super) fn lines(story: &[Arc<Happened>]) -> Vec<String> {
    story.iter().map(ToString::to_string).collect()
}

/// A sequence diagram for Mermaid, of an instance of this saga.
pub(super) fn diagram(saga: &str, story: &[Arc<Happened>]) -> String {
    let mut steps = String::new();
    let me = id(saga);
    let mut others = BTreeSet::new();
    let mut starter = OTHERS.to_owned();
    for (n, happened) in story.iter().enumerate() {
        let from = if happened.is_timer { me.clone() } else { id(sender(&happened.type_name)) };
        if n == 0 {
            starter.clone_from(&from);
        }
        let name = short(&happened.type_name);
        let _ = writeln!(steps, "    {from}->>{me}: {name}"); // a String takes everything
        others.insert(from);
        match &happened.what {
            What::Moved { to, effects, .. } => {
                let _ = writeln!(steps, "    Note over {me}: {to}");
                for Caused { type_name, to } in effects {
                    let name = short(type_name);
                    let to = match to {
                        To::Endpoint(name) => id(name),
                        To::Subscribers => SUBSCRIBERS.into(),
                        To::Starter => starter.clone(),
                        To::Itself => {
                            let _ = writeln!(steps, "    Note over {me}: sets {name}");
                            continue;
                        }
                    };
                    let _ = writeln!(steps, "    {me}->>{to}: {name}");
                    others.insert(to);
                }
            }
            _ => {
                let line = happened.to_string();
                let what = line.split_once(": ").map_or("", |(_, what)| what);
                let plain: String = what.chars().map(|c| if matches!(c, ';' | '#' | '\n') { ' ' } else { c }).collect();
                let _ = writeln!(steps, "    Note over {me}: {plain}");
            }
        }
    }
    let mut text = format!("sequenceDiagram\n    participant {me}\n");
    for other in others.iter().filter(|other| **other != me) {
        let _ = writeln!(text, "    participant {other}");
    }
    text + &steps
}

/// The endpoint in a logical name: `payment.PaymentCompleted` comes from `payment`.
fn sender(type_name: &str) -> &str {
    type_name.rsplit_once('.').map_or(OTHERS, |(endpoint, _)| endpoint)
}

fn short(type_name: &str) -> &str {
    type_name.rsplit('.').next().unwrap_or(type_name)
}

/// A name without what Mermaid reads as its own.
fn id(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect()
}
