//! Journals of real instances, run through today's code.

use super::{
    instance::Instance,
    story::{Happened, What},
};
use crate::{Envelope, ExportedInstance, InstanceRow, JournalView, Rules, Saga, SagaId, panics};
use serde::Deserialize;
use serde_json::Value;
use std::{fmt, fs, path::Path, sync::Arc};

/// Runs the journals in a file through today's code, and lists what goes otherwise than it went: another state, other
/// messages sent, a message that is now late, early or refused. `sagabus export` writes such files, from endpoints with
/// [`Settings::keep_messages`](crate::Settings::keep_messages).
///
/// An instance is followed up to its first difference: from there on it would have lived another life. One that an
/// operator has cancelled or forked is followed up to there. Bodies that are sent are not compared, nor what a state
/// holds: only states, and types of messages. `Moment::now` is the time at which the message was handled.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// use sagabus::{prelude::*, testing::replay};
///
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(name = "shop.OrderPlaced")]
/// # struct OrderPlaced { order_id: u64 }
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(name = "shop.OrderCancelled")]
/// # struct OrderCancelled { order_id: u64 }
/// # #[states]
/// # enum Order { #[waits] Open, #[done] Cancelled }
/// # #[saga(name = "order", id = order_id: u64)]
/// # impl Order {
/// #     fn placed(_: OrderPlaced) -> Open { Open }
/// #     fn cancelled(_: Open, _: OrderCancelled) -> Cancelled { Cancelled }
/// # }
/// # let folder = std::env::temp_dir().join(format!("sagabus-replay-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).unwrap();
/// # let file = folder.join("orders.jsonl");
/// # let line = |seq: i64, name: &str, from: &str, to: &str| format!(
/// #     r#"{{"message_id":"{seq}","type":"shop.{name}","result":"handled","seq":{seq},"from_state":{from},
/// #     "to_state":"{to}","effects":[],"causation_id":null,"handled_at_us":0,
/// #     "handled_by":"p","attempts":1,"note":null,
/// #     "message":{{"envelope":{{"message_id":"{seq}","type":"shop.{name}"}},"body":"{{\"order_id\":7}}"}}}}"#
/// # );
/// # let journal = [
/// #     line(1, "OrderPlaced", "null", "Open"),
/// #     line(2, "OrderCancelled", "\"Open\"", "Cancelled"),
/// # ].join(",").replace('\n', "");
/// # std::fs::write(&file, format!(
/// #     r#"{{"saga":"order","id":"7","state":"Cancelled","version":1,"journal":[{journal}]}}"#
/// # )).unwrap();
/// // sagabus export order > orders.jsonl
/// let replayed = replay::<Order>(&file);
/// replayed.expect_no_difference();
/// assert_eq!(replayed.instances(), 1);
/// # std::fs::remove_dir_all(&folder).unwrap();
/// ```
///
/// # Panics
/// When the file cannot be read, or is no export.
#[track_caller]
pub fn replay<S: Saga>(file: impl AsRef<Path>) -> Replayed {
    let file = file.as_ref();
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut replayed = Replayed::default();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let instance: ExportedInstance = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("{}:{number}: not a line of `sagabus export`: {error}", file.display());
        });
        if instance.saga == S::NAME {
            replayed.one::<S>(&instance);
        }
    }
    replayed
}

/// What came of a [`replay`].
#[derive(Debug, Default)]
#[must_use = "call `expect_no_difference`"]
pub struct Replayed {
    instances: usize,
    messages: usize,
    skipped: Vec<(String, String)>,
    differences: Vec<Difference>,
}

/// Where an instance would have gone otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The instance.
    pub id: String,
    /// The message's place in the journal, from 1.
    pub place: usize,
    /// What came, by logical name.
    pub message: String,
    /// What happened then.
    pub was: String,
    /// What happens with today's code.
    pub is: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, place, message, was, is } = self;
        write!(f, "instance {id}, message {place}, `{message}`:\n  then:  {was}\n  today: {is}")
    }
}

impl Replayed {
    /// How many instances were followed.
    pub fn instances(&self) -> usize {
        self.instances
    }

    /// How many messages they took.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Instances that could not be followed, with the reason: their journal has no messages, or not from the beginning.
    pub fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }

    /// What goes otherwise, by instance.
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// Nothing goes otherwise, and something was followed.
    ///
    /// # Panics
    /// Otherwise, with each difference.
    #[track_caller]
    pub fn expect_no_difference(&self) {
        let differences: Vec<String> = self.differences.iter().map(ToString::to_string).collect();
        assert!(differences.is_empty(), "today's code goes another way:\n{}", differences.join("\n"));
        let why = self.skipped.first().map_or("the file has none of this saga", |(_, why)| why);
        assert!(self.instances > 0, "no instance was followed: {why}");
    }

    fn one<S: Saga>(&mut self, exported: &ExportedInstance) {
        let journal: Vec<&JournalView> = exported
            .journal
            .iter()
            // from there on a person has decided
            .take_while(|line| ![InstanceRow::CANCEL, InstanceRow::FORK].contains(&&*line.type_name))
            .filter(|line| was_decided(line))
            .collect();
        let skip = |why: &str| (exported.id.clone(), why.to_owned());
        let messages: Option<Vec<Envelope>> = journal.iter().map(|line| message(line)).collect();
        let Some(messages) = messages else {
            let why = "its journal has no messages: set `keep_messages` at its endpoint before it begins";
            return self.skipped.push(skip(why));
        };
        if journal.iter().find_map(|line| line.seq) != Some(1) {
            return self.skipped.push(skip("its journal does not go back to its beginning"));
        }
        let id = match S::Id::parse(&exported.id) {
            Ok(id) => id,
            Err(error) => return self.skipped.push(skip(&format!("its id cannot be read: {error}"))),
        };
        self.instances += 1;
        let rules = Rules::of(&S::chart());
        let mut instance = Instance::<S>::new(&id);
        for (place, (line, envelope)) in (1..).zip(journal.into_iter().zip(messages)) {
            self.messages += 1;
            let was = then(&rules, line);
            let is = today(&mut instance, line.handled_at_us, envelope);
            if was != is {
                let (id, message) = (exported.id.clone(), line.type_name.clone());
                return self.differences.push(Difference { id, place, message, was, is });
            }
        }
    }
}

/// Whether the saga's code has decided about the message: what is held or was given up by a person is no decision of
/// its.
fn was_decided(line: &JournalView) -> bool {
    matches!(line.result.as_str(), "handled" | "ignored" | "stale") && line.type_name != Envelope::WAKE
}

/// The message of a line, if it was kept.
fn message(line: &JournalView) -> Option<Envelope> {
    #[derive(Deserialize)]
    struct Kept {
        envelope: Envelope,
        body: String,
    }
    let kept: Kept = serde_json::from_value(line.message.clone()?).ok()?;
    Some(Envelope { body: kept.body.into(), ..kept.envelope })
}

fn told(from: Option<&str>, to: &str, effects: &[&str]) -> String {
    let sends = if effects.is_empty() { "nothing".into() } else { effects.join(", ") };
    format!("{} -> {to}, sends {sends}", from.unwrap_or("(start)"))
}

/// States by their present names.
fn then(rules: &Rules, line: &JournalView) -> String {
    let name = |state: &Option<String>| state.as_deref().map(|state| rules.name_of(state).to_owned());
    let (from, to) = (name(&line.from_state), name(&line.to_state));
    match line.result.as_str() {
        "handled" => {
            let effects = line.effects.as_array().map(Vec::as_slice).unwrap_or_default();
            let effects = effects.iter().filter_map(|effect| effect.get("type").and_then(Value::as_str));
            // whether a command is still to be taken back depends on when its answer came
            let effects: Vec<&str> = effects.filter(|name| *name != Envelope::TAKE_BACK).collect();
            told(from.as_deref(), to.as_deref().unwrap_or_default(), &effects)
        }
        "ignored" => format!("ignored in {}", from.unwrap_or_default()),
        other => other.into(),
    }
}

fn today<S: Saga>(instance: &mut Instance<S>, now_us: i64, envelope: Envelope) -> String {
    let known = S::chart().messages.iter().any(|message| message.type_name == envelope.type_name);
    if !known {
        return format!("the saga knows no `{}`", envelope.type_name);
    }
    let message_id = envelope.message_id.clone();
    instance.now_us = now_us;
    let before = instance.story.len();
    if let Err(panic) = panics::caught(|| instance.offer(envelope)) {
        return panic;
    }
    let settled = instance.story[before..].iter().find(|happened: &&Arc<Happened>| happened.message_id == message_id);
    let Some(happened) = settled else { return "it waits".into() };
    match &happened.what {
        What::Moved { from, to, effects, .. } => {
            let effects: Vec<&str> = effects.iter().map(|effect| effect.type_name).collect();
            told(from.as_deref(), to, &effects)
        }
        What::Ignored { state } => format!("ignored in {state}"),
        What::Returned { state, reply } => told(Some(state), "", &[reply]),
        What::Stale => "stale".into(),
        What::GivenUp { error, answer } => format!("given up, {answer}: {error}"),
        What::Held { reason, error } => format!("held as {}: {error}", reason.as_str()),
        What::PutOff { error } => format!("put off: {error}"),
        What::Discarded { note } => format!("discarded: {note}"),
    }
}
