//! State charts as data.

mod compare;
mod layout;
mod reach;
mod svg;
mod verify;

pub use svg::Drawing;

use crate::{Message, MessageKind, Outcome as _};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// A saga's states, messages and edges, read from its types.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Chart {
    /// The saga's logical name.
    pub saga: String,
    /// The version of the definition.
    pub version: u32,
    /// The parts of the id, as they are written: `order_id: Uuid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Whether the states share data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_data: bool,
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
    /// Messages rejected here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reject: Vec<String>,
    /// Fields of the state and of the data that operators do not see, by their names in JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<String>,
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
    /// Rejected when it comes although the instance exists, and the state does not take it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rejects_repeats: bool,
    /// Answered again with what the instance has replied, when it comes although the instance exists, and the state
    /// does not take it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returns_repeats: bool,
    /// Whether the saga takes it from anyone (`#[on(anyone)]`), although it also answers a command of the saga.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anyone: bool,
    /// The header of what it answers names the instance (`by(M = echo)`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub echo: bool,
    /// A command that can wait (`priority = low`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub can_wait: bool,
    /// Its fields that operators do not see, by their names in JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<String>,
}

#[doc(hidden)]
impl ChartMessage {
    pub(crate) fn of<M: Message>(starts: bool, rejects_repeats: bool, anyone: bool) -> Self {
        let outcome = if starts { M::Outcome::types().into_iter().map(Into::into).collect() } else { Vec::new() };
        let (type_name, kind) = (M::TYPE.into(), M::KIND);
        let (returns_repeats, echo) = (false, false);
        let (can_wait, masked) = (M::CAN_WAIT, texts(M::MASKED));
        Self { type_name, kind, starts, outcome, rejects_repeats, returns_repeats, anyone, echo, can_wait, masked }
    }

    pub fn by_echo(self) -> Self {
        Self { echo: true, ..self }
    }

    pub fn returning(self) -> Self {
        Self { returns_repeats: true, ..self }
    }
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
    /// A function of the whole enum makes it, not one of the state's own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inherited: bool,
}

impl ChartEdge {
    pub(crate) fn new(from: &str, on: &str, branch: &str, to: &str, effects: Vec<ChartEffect>) -> Self {
        let inherited = false;
        Self { from: from.into(), on: on.into(), branch: branch.into(), to: to.into(), effects, inherited }
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
            masked: none(),
        }
    }

    pub fn masked(self, fields: &[&str]) -> Self {
        Self { masked: texts(fields), ..self }
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
        for edge in self.edges_that_happen() {
            let from = if edge.from.is_empty() { "[*]" } else { &edge.from };
            let _ = writeln!(text, "    {from} --> {} : {}", edge.to, edge.label());
        }
        for state in self.states.iter().filter(|state| state.done) {
            let _ = writeln!(text, "    {} --> [*]", state.name);
        }
        text
    }

    /// The state of this name, or that once had it (`#[was]`).
    pub fn state(&self, name: &str) -> Option<&ChartState> {
        self.states.iter().find(|state| state.name == name || state.was.iter().any(|was| was == name))
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

    /// The chart as a drawing, light or dark as its reader likes it: see [`Drawing`], which can also mark the way of an
    /// instance and show counts.
    pub fn to_svg(&self) -> String {
        self.drawing().to_string()
    }

    /// The chart as a drawing to which something is to be added.
    pub fn drawing(&self) -> Drawing<'_> {
        Drawing::new(self)
    }

    /// The chart as JSON, indented: the fields of [`Chart`] and of what it holds, by their names in Rust; most flags
    /// that are not set and most empty lists are left out. The names do not change; new ones may come, and
    /// `serde_json::from_str::<Chart>` reads the charts of older versions.
    ///
    /// ```json
    /// {
    ///   "saga": "order-fulfilment", "version": 1,
    ///   "states": [{ "name": "AwaitingPayment" }, { "name": "Shipped", "done": true }],
    ///   "messages": [{ "type_name": "orders.OrderPlaced", "kind": "event", "starts": true }],
    ///   "edges": [{
    ///     "from": "", "on": "orders.OrderPlaced", "branch": "", "to": "AwaitingPayment",
    ///     "effects": [{
    ///       "kind": "send", "type_name": "payment.MakePayment", "to": "payment",
    ///       "outcome": ["payment.PaymentCompleted"]
    ///     }]
    ///   }]
    /// }
    /// ```
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|error| panic!("a chart is plain data: {error}"))
    }

    /// The chart in the language of Graphviz.
    pub fn to_dot(&self) -> String {
        let mut text = format!("digraph {:?} {{\n    rankdir=LR; node [shape=box, style=rounded];\n", self.saga);
        text.push_str("    \"\" [shape=point];\n");
        for state in &self.states {
            let peripheries = if state.done { 2 } else { 1 };
            let _ = writeln!(text, "    {:?} [peripheries={peripheries}];", state.name);
        }
        for edge in self.edges_that_happen() {
            let _ = writeln!(text, "    {:?} -> {:?} [label={:?}];", edge.from, edge.to, edge.label());
        }
        text.push_str("}\n");
        text
    }
}

fn short(type_name: &str) -> &str {
    type_name.rsplit('.').next().unwrap_or(type_name)
}

#[cfg(test)]
mod tests;
