//! State charts as data.

use crate::MessageKind;
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, fmt::Write};

/// A saga's states, messages and edges, read from its types.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Chart {
    /// The saga's logical name.
    pub saga: String,
    /// The version of the definition.
    pub version: u32,
    /// In the order of the enum's variants.
    pub states: Vec<ChartState>,
    /// Every message it takes, once.
    pub messages: Vec<ChartMessage>,
    /// Every transition that the types allow.
    pub edges: Vec<ChartEdge>,
}

/// A state on the chart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChartState {
    /// The variant's name.
    pub name: String,
    /// Whether the process is over in it.
    pub done: bool,
    /// Only instances of older versions are in it: no transition need lead here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub legacy: bool,
    /// It waits on purpose without a timer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
    /// Its former names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub was: Vec<String>,
    /// Messages journaled as ignored here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Messages that wait here for another state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub defer: Vec<String>,
    /// Messages held for a person here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reject: Vec<String>,
}

/// A message on the chart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChartMessage {
    /// The logical name.
    pub type_name: String,
    /// How it travels.
    pub kind: MessageKind,
    /// Whether it creates an instance.
    pub starts: bool,
    /// What a command that creates an instance may be answered with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcome: Vec<String>,
    /// Held for a person when it comes although the instance exists, and the state does not take it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rejects_repeats: bool,
    /// Whether the saga takes it from anyone (`#[on(anyone)]`), although it also answers a command of the saga.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anyone: bool,
}

/// A transition on the chart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChartEdge {
    /// The state left; empty for a start.
    pub from: String,
    /// The message's logical name.
    pub on: String,
    /// The branch's name; empty when there is only one, or an `Either`.
    pub branch: String,
    /// The state entered.
    pub to: String,
    /// What goes out.
    pub effects: Vec<ChartEffect>,
}

impl ChartEdge {
    pub(crate) fn new(from: &str, on: &str, branch: &str, to: &str, effects: Vec<ChartEffect>) -> Self {
        Self { from: from.into(), on: on.into(), branch: branch.into(), to: to.into(), effects }
    }

    /// Message, branch and effects, as they stand on a drawing.
    fn label(&self) -> String {
        let mut label = short(&self.on).to_owned();
        if !self.branch.is_empty() {
            let _ = write!(label, " [{}]", self.branch);
        }
        for (i, effect) in self.effects.iter().enumerate() {
            let sign = if i == 0 { " / " } else { ", " };
            let _ = write!(label, "{sign}{} {}", effect.kind, short(&effect.type_name));
        }
        label
    }
}

/// An effect on the chart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChartEffect {
    /// `send`, `publish`, `reply`, `after`, `deadline` or `cancel`.
    pub kind: String,
    /// The message's logical name.
    pub type_name: String,
    /// The endpoint that handles a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The possible outcomes of a command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcome: Vec<String>,
}

/// What is said about a state, one word after the other, as the macros write it.
#[doc(hidden)]
impl ChartState {
    pub fn new(name: impl Into<String>) -> Self {
        let (none, name) = (Vec::new, name.into());
        Self {
            name,
            done: false,
            legacy: false,
            waits: false,
            was: none(),
            ignore: none(),
            defer: none(),
            reject: none(),
        }
    }

    pub fn done(self, done: bool) -> Self {
        Self { done, ..self }
    }

    pub fn legacy(self, legacy: bool) -> Self {
        Self { legacy, ..self }
    }

    pub fn waits(self, waits: bool) -> Self {
        Self { waits, ..self }
    }

    pub fn was(self, names: &[&str]) -> Self {
        Self { was: texts(names), ..self }
    }

    pub fn ignores(self, types: &[&str]) -> Self {
        Self { ignore: texts(types), ..self }
    }

    pub fn defers(self, types: &[&str]) -> Self {
        Self { defer: texts(types), ..self }
    }

    pub fn rejects(self, types: &[&str]) -> Self {
        Self { reject: texts(types), ..self }
    }
}

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|&text| text.into()).collect()
}

impl Chart {
    /// The chart as a Mermaid state diagram.
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("stateDiagram-v2\n");
        for edge in &self.edges {
            let from = if edge.from.is_empty() { "[*]" } else { &edge.from };
            let _ = writeln!(text, "    {from} --> {} : {}", edge.to, edge.label());
        }
        for state in self.states.iter().filter(|state| state.done) {
            let _ = writeln!(text, "    {} --> [*]", state.name);
        }
        text
    }

    /// Whether the saga takes a message of this type only as the answer to a command that it sends itself.
    ///
    /// A message that starts the saga, or that a function with `#[on(anyone)]` takes, may come from others too.
    pub fn is_answer(&self, type_name: &str) -> bool {
        let message = self.messages.iter().find(|message| message.type_name == type_name);
        let wanted_from_all = message.is_some_and(|message| message.starts || message.anyone);
        let effects = self.edges.iter().flat_map(|edge| &edge.effects);
        let mut outcomes = effects.filter(|effect| effect.kind == "send").flat_map(|effect| &effect.outcome);
        !wanted_from_all && outcomes.any(|outcome| outcome == type_name)
    }

    /// The events that the saga takes from anyone: its endpoint subscribes to them, by logical name.
    pub fn subscribes(&self) -> Vec<&str> {
        let events = self.messages.iter().filter(|message| message.kind == MessageKind::Event);
        events.map(|message| message.type_name.as_str()).filter(|name| !self.is_answer(name)).collect()
    }

    /// The chart in the language of Graphviz.
    pub fn to_dot(&self) -> String {
        let mut text = format!("digraph {:?} {{\n    rankdir=LR; node [shape=box, style=rounded];\n", self.saga);
        text.push_str("    \"\" [shape=point];\n");
        for state in &self.states {
            let peripheries = if state.done { 2 } else { 1 };
            let _ = writeln!(text, "    {:?} [peripheries={peripheries}];", state.name);
        }
        for edge in &self.edges {
            let _ = writeln!(text, "    {:?} -> {:?} [label={:?}];", edge.from, edge.to, edge.label());
        }
        text.push_str("}\n");
        text
    }

    /// What is wrong with the chart and what deserves a look, each in one sentence; empty when there is neither. An
    /// endpoint does not start with [what is wrong](Self::errors), and logs the rest.
    ///
    /// It deserves a look when a state waits without any timer: mark it `#[waits]` if nothing need happen there.
    pub fn verify(&self) -> Vec<String> {
        [self.errors(), self.advice()].concat()
    }

    /// What deserves a look, each in one sentence.
    pub(crate) fn advice(&self) -> Vec<String> {
        let waiting = self.states.iter().filter(|state| self.waits_for_ever(state)).map(|state| {
            let Self { saga, .. } = self;
            let name = &state.name;
            let remedy = "set one where it is entered, or mark it `#[waits]`";
            format!("saga `{saga}`: state `{name}` waits without a timer: {remedy}")
        });
        waiting.collect()
    }

    /// What is wrong with the chart, each in one sentence.
    pub fn errors(&self) -> Vec<String> {
        let starts = self.edges.iter().filter(|edge| edge.from.is_empty()).map(|edge| edge.to.as_str());
        let reachable = self.reached(starts, |_| true);
        let mut wrong = Vec::new();
        for state in self.states.iter().filter(|state| !state.legacy) {
            let name = state.name.as_str();
            if !reachable.contains(name) {
                wrong.push(format!(
                    "no transition leads to state `{name}`; if only old instances are in it, say `#[legacy]`"
                ));
            } else if !state.done && !self.edges.iter().any(|edge| edge.from == name) {
                wrong.push(format!("state `{name}` is a dead end: give it a transition, or mark it `#[done]`"));
            }
        }
        for timer in self.messages.iter().filter(|message| message.kind == MessageKind::Timer) {
            let name = &timer.type_name;
            if !self.effects().any(|effect| effect.type_name == *name && effect.kind != "cancel") {
                wrong.push(format!("a function takes the timer `{name}`, but no transition sets it"));
            }
        }
        wrong.extend(self.unanswered());
        wrong.into_iter().map(|text| format!("saga `{}`: {text}", self.saga)).collect()
    }

    fn effects(&self) -> impl Iterator<Item = &ChartEffect> {
        self.edges.iter().flat_map(|edge| &edge.effects)
    }

    /// No timer can be alive in it: none is set on the way in, no deadline at all.
    fn waits_for_ever(&self, state: &ChartState) -> bool {
        let into = self.edges.iter().filter(|edge| edge.to == state.name);
        let timers = into.flat_map(|edge| &edge.effects).any(|effect| effect.kind == "after");
        !(state.done || state.waits || state.legacy || timers || self.effects().any(|effect| effect.kind == "deadline"))
    }

    /// A saga that a command with an outcome begins answers it before it is done, on every way.
    fn unanswered(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for command in self.messages.iter().filter(|message| message.starts && !message.outcome.is_empty()) {
            let answers = |edge: &ChartEdge| {
                edge.effects.iter().any(|effect| effect.kind == "reply" && command.outcome.contains(&effect.type_name))
            };
            let begun = self.edges.iter().filter(|edge| edge.from.is_empty() && edge.on == command.type_name);
            let begun = begun.filter(|edge| !answers(edge)).map(|edge| edge.to.as_str());
            let silent = self.reached(begun, |edge| !answers(edge));
            for state in self.states.iter().filter(|state| state.done && silent.contains(state.name.as_str())) {
                let (name, command) = (&state.name, &command.type_name);
                wrong.push(format!("state `{name}` can be reached without an answer to `{command}`: return `Replies`"));
            }
        }
        wrong
    }

    /// The states that can be reached from these, themselves included, by edges of this kind.
    fn reached<'a>(&'a self, from: impl Iterator<Item = &'a str>, by: impl Fn(&ChartEdge) -> bool) -> HashSet<&'a str> {
        let mut open: Vec<&str> = from.collect();
        let mut found: HashSet<&str> = open.iter().copied().collect();
        while let Some(from) = open.pop() {
            for edge in self.edges.iter().filter(|edge| edge.from == from && by(edge)) {
                if found.insert(edge.to.as_str()) {
                    open.push(&edge.to);
                }
            }
        }
        found
    }

    /// The states that can follow `state`, itself only if a cycle leads back.
    pub(super) fn reachable_from<'a>(&'a self, state: &'a str) -> HashSet<&'a str> {
        let next = self.edges.iter().filter(|edge| edge.from == state).map(|edge| edge.to.as_str());
        self.reached(next, |_| true)
    }
}

fn short(type_name: &str) -> &str {
    type_name.rsplit('.').next().unwrap_or(type_name)
}

#[cfg(test)]
mod tests;
