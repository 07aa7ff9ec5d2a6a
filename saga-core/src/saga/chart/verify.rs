//! What is wrong with a chart, and what deserves a look.

use super::{Chart, ChartEdge, ChartEffect, ChartState, reach::reached, short};
use crate::{
    MessageKind,
    saga::{Disposition, Rules},
};
use std::collections::HashSet;

impl Chart {
    /// What is wrong with the chart and what deserves a look, each in one sentence; empty when there is neither. An
    /// endpoint does not start with [what is wrong](Self::errors), and logs the rest.
    ///
    /// It deserves a look
    /// - when a state waits without any timer: mark it `#[waits]` if nothing need happen there;
    /// - when an outcome may come late: a timer, or a message from outside, can take the instance away from the state
    ///   that waits for it, to one that does nothing with it. If nothing need be done, say so: `#[ignores(..)]`. A
    ///   state that is reached by answers alone is not mentioned: then the saga itself knows what it still expects;
    /// - when a function takes a reply that answers no command of the saga: nothing brings it.
    ///
    /// What several endpoints have to agree on is looked at by [`Wiring`](crate::Wiring).
    pub fn verify(&self) -> Vec<String> {
        [self.errors(), self.advice()].concat()
    }

    /// What deserves a look, each in one sentence.
    pub(crate) fn advice(&self) -> Vec<String> {
        let waiting = self.states.iter().filter(|state| self.waits_for_ever(state)).map(|state| {
            let (name, remedy) = (&state.name, "set one where it is entered, or mark it `#[waits]`");
            format!("state `{name}` waits without a timer: {remedy}")
        });
        let unasked = self.messages.iter().filter(|message| {
            let asked = self.effects().any(|effect| effect.outcome.contains(&message.type_name));
            message.kind == MessageKind::Reply && !(asked || message.starts || message.anyone)
        });
        let unasked = unasked.map(|message| {
            let name = &message.type_name;
            format!("a function takes the reply `{name}`, but no transition sends a command with this outcome")
        });
        let all = waiting.chain(unasked).chain(self.late_outcomes());
        all.map(|text| format!("saga `{}`: {text}", self.saga)).collect()
    }

    /// The outcomes that may come where nothing is done with them.
    fn late_outcomes(&self) -> Vec<String> {
        let (edges, rules) = (self.edges_that_happen(), Rules::of(self));
        let sent = edges.iter().flat_map(|edge| edge.effects.iter().map(move |effect| (edge.to.as_str(), effect)));
        let mut seen = HashSet::new();
        let mut late = Vec::new();
        for (state, command) in sent.filter(|(_, effect)| effect.kind == "send" && !effect.outcome.is_empty()) {
            let unanswered = |edge: &ChartEdge| !command.outcome.contains(&edge.on);
            let waiting = reached(&edges, std::iter::once(state), unanswered);
            let escapes = edges.iter().filter(|edge| {
                waiting.contains(edge.from.as_str())
                    && edge.from != edge.to
                    && unanswered(edge)
                    && !self.is_answer(&edge.on)
            });
            let after = reached(&edges, escapes.map(|edge| edge.to.as_str()), unanswered);
            let states = self.states.iter().filter(|state| after.contains(state.name.as_str()));
            for (state, outcome) in states.flat_map(|state| command.outcome.iter().map(move |it| (&state.name, it))) {
                if rules.disposition(state, outcome, &[]) == Disposition::Late && seen.insert((state, outcome)) {
                    let (command, name) = (&command.type_name, short(outcome));
                    late.push(format!(
                        "`{outcome}`, an outcome of `{command}`, may come in state `{state}`, where it would be late: \
                         take it there, or say `#[ignores({name})]`"
                    ));
                }
            }
        }
        late
    }

    /// What is wrong with the chart, each in one sentence.
    pub fn errors(&self) -> Vec<String> {
        let edges = self.edges_that_happen();
        let starts = edges.iter().filter(|edge| edge.from.is_empty()).map(|edge| edge.to.as_str());
        let reachable = reached(&edges, starts, |_| true);
        let mut wrong = Vec::new();
        for state in self.states.iter().filter(|state| !state.legacy) {
            let name = state.name.as_str();
            if !reachable.contains(name) {
                wrong.push(format!(
                    "no transition leads to state `{name}`; if only old instances are in it, say `#[legacy]`"
                ));
            } else if !state.done && !edges.iter().any(|edge| edge.from == name) {
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
        let (mut wrong, edges) = (Vec::new(), self.edges_that_happen());
        for command in self.messages.iter().filter(|message| message.starts && !message.outcome.is_empty()) {
            let answers = |edge: &ChartEdge| {
                edge.effects.iter().any(|effect| effect.kind == "reply" && command.outcome.contains(&effect.type_name))
            };
            let begun = edges.iter().filter(|edge| edge.from.is_empty() && edge.on == command.type_name);
            let begun = begun.filter(|edge| !answers(edge)).map(|edge| edge.to.as_str());
            let silent = reached(&edges, begun, |edge| !answers(edge));
            for state in self.states.iter().filter(|state| state.done && silent.contains(state.name.as_str())) {
                let (name, command) = (&state.name, &command.type_name);
                wrong.push(format!("state `{name}` can be reached without an answer to `{command}`: return `Replies`"));
            }
        }
        wrong
    }
}
