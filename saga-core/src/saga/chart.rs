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
            let mut label = short(&edge.on).to_owned();
            if !edge.branch.is_empty() {
                let _ = write!(label, " [{}]", edge.branch);
            }
            for (i, effect) in edge.effects.iter().enumerate() {
                let sign = if i == 0 { " / " } else { ", " };
                let _ = write!(label, "{sign}{} {}", effect.kind, short(&effect.type_name));
            }
            let _ = writeln!(text, "    {from} --> {} : {label}", edge.to);
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

    /// What is wrong with the chart, each in one sentence; empty when it holds together.
    pub fn verify(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let starts: Vec<&str> =
            self.edges.iter().filter(|edge| edge.from.is_empty()).map(|edge| edge.to.as_str()).collect();
        let mut reachable: HashSet<&str> = starts.iter().copied().collect();
        for start in starts {
            reachable.extend(self.reachable_from(start));
        }
        for state in &self.states {
            let name = state.name.as_str();
            if state.legacy {
                continue;
            }
            if !reachable.contains(name) {
                wrong.push(format!("saga `{}`: no transition leads to state `{name}`", self.saga));
            } else if !state.done && !self.edges.iter().any(|edge| edge.from == name) {
                wrong.push(format!(
                    "saga `{}`: state `{name}` is a dead end: give it a transition, or mark it `#[done]`",
                    self.saga
                ));
            }
        }
        wrong
    }

    /// The states that can follow `state`, itself only if a cycle leads back.
    pub(super) fn reachable_from<'a>(&'a self, state: &'a str) -> HashSet<&'a str> {
        let mut found = HashSet::new();
        let mut open = vec![state];
        while let Some(from) = open.pop() {
            for edge in self.edges.iter().filter(|edge| edge.from == from) {
                if found.insert(edge.to.as_str()) {
                    open.push(&edge.to);
                }
            }
        }
        found
    }
}

fn short(type_name: &str) -> &str {
    type_name.rsplit('.').next().unwrap_or(type_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(type_name: &str, kind: MessageKind) -> ChartMessage {
        ChartMessage { type_name: type_name.into(), kind, starts: false, rejects_repeats: false, anyone: false }
    }

    /// A saga that starts with `Placed` and `Restarted`, sends `Pay` with four outcomes, and takes other messages.
    fn chart() -> Chart {
        let pay = ChartEffect {
            kind: "send".into(),
            type_name: "Pay".into(),
            to: Some("bank".into()),
            outcome: ["Paid", "Declined", "Watched", "Restarted"].map(String::from).into(),
        };
        let started = |type_name| ChartMessage { starts: true, ..message(type_name, MessageKind::Event) };
        Chart {
            saga: "order".into(),
            version: 1,
            states: Vec::new(),
            messages: vec![
                started("Placed"),
                started("Restarted"),
                message("Paid", MessageKind::Event),
                message("Declined", MessageKind::Reply),
                ChartMessage { anyone: true, ..message("Watched", MessageKind::Event) },
                message("Cancel", MessageKind::Event),
                message("ChildDone", MessageKind::Reply),
                message("DoIt", MessageKind::Command),
                message("Overdue", MessageKind::Timer),
            ],
            edges: vec![ChartEdge::new("", "Placed", "", "Waiting", vec![pay])],
        }
    }

    #[test]
    fn an_outcome_of_its_own_command_is_an_answer() {
        let chart = chart();
        let answers = chart.messages.iter().map(|message| message.type_name.as_str()).filter(|m| chart.is_answer(m));
        assert_eq!(answers.collect::<Vec<_>>(), ["Paid", "Declined"]);
        assert!(!chart.is_answer("Unknown"));
    }

    #[test]
    fn an_endpoint_subscribes_to_the_events_that_are_no_answers() {
        assert_eq!(chart().subscribes(), ["Placed", "Restarted", "Watched", "Cancel"]);
    }

    #[test]
    fn only_a_sent_command_makes_an_event_an_answer() {
        let mut chart = chart();
        chart.edges[0].effects[0].kind = "publish".into();
        assert!(!chart.is_answer("Paid"));
        assert_eq!(chart.subscribes(), ["Placed", "Restarted", "Paid", "Watched", "Cancel"]);
    }

    #[test]
    fn from_anyone_is_written_only_where_it_was_said() {
        let chart = chart();
        let written = serde_json::to_value(&chart).unwrap();
        let anyone = |n: usize| written["messages"][n].get("anyone").cloned();
        assert_eq!((anyone(2), anyone(4)), (None, Some(true.into())));
        assert_eq!(serde_json::from_value::<Chart>(written).unwrap(), chart);
    }
}
