//! However messages fall into batches, an instance ends in the same state, the one that a small model predicts.

use super::*;
use proptest::{collection::vec, prelude::*, sample::select};
use std::collections::BTreeMap;

/// A message: its type, the transition that set it if it is a timer, whether its body can be read.
type Sent = (&'static str, i64, bool);

const TYPES: [&str; 14] = [
    "Begin", "Next", "Next", "Back", "Tick", "Tick", "Join", "Boom", "Skip", "Later", "Refuse", "Cancel", "Bye",
    "Timeout",
];

fn sent() -> impl Strategy<Value = Sent> {
    (select(&TYPES[..]), 1..5_i64, prop::bool::weighted(0.95))
}

/// The part of a history that must not depend on batches.
#[derive(Debug, Default, PartialEq)]
struct Left {
    /// State, its number, transitions, entries, and who pauses it.
    instance: Option<(String, u32, i64, i64, Option<String>)>,
    /// What became of each message.
    results: BTreeMap<String, String>,
    /// Transitions in their order: message, state, and what went out.
    moves: Vec<(String, String, Vec<&'static str>)>,
}

/// An instance and its held messages in tables, with pages as the endpoint reads them.
#[derive(Default)]
struct Tables {
    row: Option<InstanceRow>,
    /// In order of arrival.
    held: Vec<(Arc<Envelope>, HeldReason)>,
    left: Left,
}

impl Tables {
    /// Runs a batch in as many units as it needs, each of which reads at most a page of held messages.
    fn batch(&mut self, mut messages: Vec<Arc<Envelope>>, page: usize) {
        for _ in 0..1000 {
            if !self.unit(&mut messages, page) {
                assert!(messages.is_empty(), "messages were left without being asked about again");
                return;
            }
        }
        panic!("the batch never ends");
    }

    fn unit(&mut self, messages: &mut Vec<Arc<Envelope>>, page: usize) -> bool {
        let logic = Typed::<Walk>::new();
        let key = InstanceKey { saga: "walk".into(), id: "7".into() };
        let fits = |(envelope, reason): &&(Arc<Envelope>, HeldReason)| {
            self.row.as_ref().is_some_and(|row| logic.fits(row, &envelope.type_name, *reason))
        };
        let (wanted, others): (Vec<_>, Vec<_>) = self.held.iter().partition(fits);
        let unread: Vec<_> = others.iter().map(|(envelope, reason)| (envelope.type_name.clone(), *reason)).collect();
        let read = wanted.iter().take(page).map(|(envelope, reason)| (envelope.clone(), Some(*reason)));
        let came = messages.iter().map(|envelope| (envelope.clone(), None));
        let mut offers: Vec<Offer> = came
            .chain(read)
            .map(|(envelope, waiting)| Offer { envelope, decoded: None, waiting, fault: None })
            .collect();
        let partial = wanted.len() > page;
        let row = self.row.as_ref();
        let asked = Offers {
            key: &key,
            row,
            now_us: 0,
            unread: &unread,
            partial,
            overrule: None,
            body_bytes_max: 100,
            aliases: &KnownAliases::default(),
            keeps: false,
        };
        let decided = logic.decide(&asked, &mut offers);
        for (i, settled) in decided.settled {
            let envelope = &offers[i].envelope;
            messages.retain(|message| message.message_id != envelope.message_id);
            let held = match &settled {
                Settled::Held { reason, .. } => Some(*reason),
                _ => None,
            };
            let known = self.held.iter().position(|(known, _)| known.message_id == envelope.message_id);
            match (known, held) {
                (Some(known), Some(reason)) => self.held[known].1 = reason,
                (Some(known), None) => drop(self.held.remove(known)),
                (None, Some(reason)) => self.held.push((envelope.clone(), reason)),
                (None, None) => {}
            }
            let word = match settled {
                Settled::Moved(made) => {
                    let effects = made.emits.iter().map(|emit| emit.message.type_name).collect();
                    self.left.moves.push((envelope.message_id.clone(), made.to, effects));
                    "moved"
                }
                Settled::Ignored { .. } => "ignored",
                Settled::Stale { .. } => "stale",
                Settled::Held { reason, .. } => reason.as_str(),
                other => panic!("nothing here puts off or discards: {other:?}"),
            };
            self.left.results.insert(envelope.message_id.clone(), word.into());
        }
        if let Some(write) = decided.instance {
            assert_eq!(write.base_seq, self.row.as_ref().map_or(0, |row| row.seq));
            self.row = Some(write.row);
        }
        decided.more
    }

    fn left(mut self) -> Left {
        self.left.instance = self.row.map(|row| {
            let data: serde_json::Value = serde_json::from_str(&row.data).expect("a state is JSON");
            let number = data.get("ticks").or(data.get("later")).and_then(serde_json::Value::as_u64);
            (row.state, number.unwrap_or_default() as u32, row.seq, row.entered, row.paused_by)
        });
        self.left
    }
}

/// The same saga as a plain model, one message after the other.
#[derive(Default)]
struct Model {
    /// State and its number.
    at: Option<(&'static str, u32)>,
    seq: i64,
    entered: i64,
    /// The transition that set the timer which is alive.
    timer: Option<i64>,
    /// Whether B, and whether Done was visited. A is where it begins.
    visited: (bool, bool),
    paused_by: Option<String>,
    waiting: Vec<(String, Sent)>,
    left: Left,
}

impl Model {
    fn takes(&mut self, id: &str, message: Sent) {
        if self.paused_by.is_some() {
            return self.holds(id, message, "paused");
        }
        let (name, set_by, readable) = message;
        let Some((state, number)) = self.at else {
            return match name {
                "Begin" if !readable => self.says(id, "undecodable"),
                "Begin" => self.moves(id, ("A", 0), true, &["Timeout", "GiveUp", "Note", "Note"]),
                "Timeout" => self.says(id, "stale"),
                _ => self.holds(id, message, "early"),
            };
        };
        if name == "Timeout" && self.timer != Some(set_by) {
            return self.says(id, "stale");
        }
        // where to, whether that is a new entry, what goes out
        let to: (_, _, &[_]) = match (state, name) {
            ("A", "Next") => (("B", 0), true, &[]),
            ("A", "Tick") => (("A", number + 1), false, &[]),
            ("A", "Timeout") => (("A", number), false, &["Timeout"]),
            ("A", "Boom") => (("", 0), true, &[]),
            ("B", "Tick") => (("B", number), false, &[]),
            ("B", "Later") => (("B", number + 1), false, &[]),
            ("B", "Back") | ("Done", "Bye") => (("A", 0), true, &["Timeout"]),
            ("B", "Skip") => (("Done", 0), true, &[]),
            ("B", "Join") => (("Done", 0), true, &["Note"]),
            ("A" | "B", "Cancel") => (("Done", 0), true, &[]),
            ("A", "Later") => return self.holds(id, message, "deferred"),
            ("A", "Refuse") => return self.says(id, "rejected"),
            (state, name) if self.waits(state, name) => return self.holds(id, message, "early"),
            _ => return self.says(id, "ignored"),
        };
        if !readable || name == "Boom" {
            self.paused_by = Some(id.into());
            return self.says(id, if readable { "failed" } else { "undecodable" });
        }
        self.moves(id, to.0, to.1, to.2);
    }

    fn says(&mut self, id: &str, word: &str) {
        self.left.results.insert(id.into(), word.into());
    }

    fn holds(&mut self, id: &str, message: Sent, reason: &str) {
        self.says(id, reason);
        self.waiting.push((id.into(), message));
    }

    fn moves(&mut self, id: &str, to: (&'static str, u32), enters: bool, effects: &[&'static str]) {
        self.says(id, "moved");
        self.left.moves.push((id.into(), to.0.into(), effects.to_vec()));
        let from = self.at.replace(to).map(|(state, _)| state);
        self.seq += 1;
        if enters {
            self.entered += 1;
            self.timer = None;
            self.visited.0 |= from == Some("B");
            self.visited.1 |= from == Some("Done");
            if to.0 == "Done" {
                self.visited = (false, false);
            }
        }
        if effects.contains(&"Timeout") {
            self.timer = Some(self.seq);
        }
        // waiting messages that fit now go on, oldest first, each before the state may change again
        while self.paused_by.is_none() {
            let (state, _) = self.at.unwrap_or_default();
            let waits = |name: &str| self.waits(state, name) || (state, name) == ("A", "Later");
            let Some(place) = self.waiting.iter().position(|(_, (name, ..))| !waits(name)) else { return };
            let (id, message) = self.waiting.remove(place);
            self.takes(&id, message);
        }
    }

    /// Whether a state that was not visited yet takes the message.
    fn waits(&self, state: &str, name: &str) -> bool {
        match name {
            "Back" | "Join" => state == "A" && !self.visited.0,
            "Bye" => matches!(state, "A" | "B") && !self.visited.1,
            _ => false,
        }
    }

    fn left(mut self) -> Left {
        let Self { at, seq, entered, paused_by, .. } = self;
        self.left.instance = at.map(|(state, number)| (state.into(), number, seq, entered, paused_by));
        self.left
    }
}

fn envelopes(history: &[Sent]) -> Vec<Arc<Envelope>> {
    let envelope = |(n, (name, set_by, readable)): (usize, &Sent)| {
        let mut envelope = Envelope::new(format!("{n}"), *name, if *readable { "{\"id\":7}" } else { "{" });
        envelope.saga =
            Some(SagaRef { saga: "walk".into(), id: "7".into(), entered: None, timer: Some(set_by * 1000) });
        Arc::new(envelope)
    };
    history.iter().enumerate().map(envelope).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn batches_and_pages_do_not_matter(
        history in vec(sent(), 1..40),
        cuts in vec(1..12_usize, 40),
        page in 1..6_usize,
    ) {
        let messages = envelopes(&history);
        let mut model = Model::default();
        for (n, message) in history.iter().enumerate() {
            model.takes(&n.to_string(), *message);
        }
        let expected = model.left();

        let mut whole = Tables::default();
        whole.batch(messages.clone(), usize::MAX);
        prop_assert_eq!(&whole.left(), &expected);

        let mut parts = Tables::default();
        let mut rest = &messages[..];
        for cut in cuts {
            let (batch, after) = rest.split_at(cut.min(rest.len()));
            parts.batch(batch.to_vec(), page);
            rest = after;
        }
        prop_assert_eq!(&parts.left(), &expected);
    }
}
