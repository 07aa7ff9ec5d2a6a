//! The rows that were read, put together: which message caused which.

use super::{TraceView, TracedMessage, TracedStep, TracedWait};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Rows by message.
#[derive(Default)]
pub(super) struct Known {
    rows: HashMap<String, Vec<(usize, TraceView)>>,
}

/// A message that will be told, below the one that caused it.
struct Next {
    id: String,
    depth: usize,
    /// How its cause names it: type, where it went, who sent it.
    named: Option<(String, Option<String>, String)>,
}

impl Known {
    /// What was read of these messages, each row with the number of its database.
    pub(super) fn add(&mut self, ids: &[String], rows: Vec<(usize, TraceView)>) {
        for id in ids {
            self.rows.entry(id.clone()).or_default();
        }
        for (database, row) in rows {
            self.rows.entry(row.message_id.clone()).or_default().push((database, row));
        }
    }

    pub(super) fn was_read(&self, id: &str) -> bool {
        self.rows.contains_key(id)
    }

    fn of(&self, id: &str) -> impl Iterator<Item = &(usize, TraceView)> {
        self.rows.get(id).into_iter().flatten()
    }

    /// The message that caused it.
    pub(super) fn cause(&self, id: &str) -> Option<&str> {
        self.of(id).find_map(|(_, row)| row.causation_id.as_deref())
    }

    /// What it caused.
    pub(super) fn effects(&self, id: &str) -> Vec<String> {
        let effects = self.of(id).flat_map(|(_, row)| row.effects.iter().flatten());
        effects.filter_map(|effect| effect.id.clone()).collect()
    }

    /// The messages above these whose cause is not stored.
    pub(super) fn roots_of(&self, asked: &BTreeSet<String>) -> BTreeSet<String> {
        let mut roots = BTreeSet::new();
        for id in asked {
            let (mut id, mut seen) = (id.as_str(), HashSet::new());
            while seen.insert(id) {
                let stored = |id: &&str| self.of(id).next().is_some();
                let Some(cause) = self.cause(id).filter(stored) else { break };
                id = cause;
            }
            roots.insert(id.to_owned());
        }
        roots
    }

    /// The messages in the order of a tree, at most so many, and how many are left out.
    pub(super) fn told(
        &self,
        roots: &BTreeSet<String>,
        asked: &BTreeSet<String>,
        messages_max: usize,
    ) -> (Vec<TracedMessage>, usize) {
        let at = |id: &str| self.of(id).map(|(_, row)| row.sent_at_us.unwrap_or(row.at_us)).min();
        let mut roots: Vec<&String> = roots.iter().collect();
        roots.sort_by_key(|id| at(id));
        let next = |id: &String| Next { id: id.clone(), depth: 0, named: None };
        let mut stack: Vec<Next> = roots.into_iter().rev().map(next).collect();
        let (mut told, mut seen, mut left_out) = (Vec::new(), HashSet::new(), 0);
        while let Some(next) = stack.pop() {
            if !seen.insert(next.id.clone()) {
                continue;
            }
            if told.len() == messages_max {
                left_out += 1;
                continue;
            }
            let depth = next.depth + 1;
            let caused = self.of(&next.id).flat_map(|(_, row)| row.effects.iter().flatten().map(move |it| (row, it)));
            let below = caused.filter_map(|(row, effect)| {
                let named = Some((effect.type_name.clone(), effect.to.clone(), row.endpoint.clone()));
                effect.id.clone().map(|id| Next { id, depth, named })
            });
            let below: Vec<Next> = below.collect();
            stack.extend(below.into_iter().rev());
            told.push(self.message(next, asked));
        }
        (told, left_out)
    }

    fn message(&self, next: Next, asked: &BTreeSet<String>) -> TracedMessage {
        let Next { id, depth, named } = next;
        let (type_name, to, sender) = named.map_or((None, None, None), |(name, to, by)| (Some(name), to, Some(by)));
        let rows: Vec<&(usize, TraceView)> = self.of(&id).collect();
        let first = |pick: fn(&TraceView) -> Option<String>| rows.iter().find_map(|(_, row)| pick(row));
        let held: BTreeMap<(usize, &str, &str), &TraceView> =
            rows.iter().filter(|(_, row)| row.place == "held").map(|(n, row)| (key(*n, row), row)).collect();
        let settled: HashSet<(usize, &str, &str)> =
            rows.iter().filter(|(_, row)| row.place == "inbox").map(|(n, row)| key(*n, row)).collect();
        let mut steps: Vec<TracedStep> = Vec::new();
        for (n, row) in &rows {
            let why = held.get(&key(*n, row)).copied();
            match row.place.as_str() {
                "inbox" => steps.push(step(*n, row, why)),
                "held" if !settled.contains(&key(*n, row)) => steps.push(step(*n, row, Some(row))),
                _ => {}
            }
        }
        steps.sort_by_key(|step| step.at_us);
        let waits = rows.iter().filter(|(_, row)| row.place == "outbox").map(|(n, row)| wait(*n, row)).collect();
        TracedMessage {
            asked: asked.contains(&id),
            depth,
            type_name: type_name.or_else(|| first(|row| Some(row.type_name.clone()))).unwrap_or_default(),
            caused_by: first(|row| row.causation_id.clone()),
            conversation_id: first(|row| row.conversation_id.clone()),
            sender: sender.or_else(|| first(|row| row.sender.clone())),
            to: to.or_else(|| first(|row| row.to.clone())),
            sent_at_us: first_at(&rows),
            steps,
            waits,
            message_id: id,
        }
    }
}

fn first_at(rows: &[&(usize, TraceView)]) -> Option<i64> {
    rows.iter().find_map(|(_, row)| row.sent_at_us)
}

fn key(database: usize, row: &TraceView) -> (usize, &str, &str) {
    (database, &row.endpoint, &row.receiver)
}

fn step(database: usize, row: &TraceView, held: Option<&TraceView>) -> TracedStep {
    let caused = row.effects.iter().flatten().filter_map(|effect| effect.id.clone());
    TracedStep {
        database,
        endpoint: row.endpoint.clone(),
        receiver: row.receiver.clone(),
        result: if row.place == "held" { "held".into() } else { row.what.clone() },
        reason: held.map(|held| held.what.clone()),
        saga_id: row.saga_id.clone(),
        seq: row.seq,
        from_state: row.from_state.clone(),
        to_state: row.to_state.clone(),
        at_us: row.at_us,
        attempts: row.attempts,
        note: held.and_then(|held| held.note.clone()).or_else(|| row.note.clone()),
        caused: caused.collect(),
    }
}

fn wait(database: usize, row: &TraceView) -> TracedWait {
    TracedWait {
        database,
        endpoint: row.endpoint.clone(),
        kind: row.what.clone(),
        to: row.to.clone().unwrap_or_default(),
        due_at_us: row.at_us,
        note: row.note.clone(),
    }
}
