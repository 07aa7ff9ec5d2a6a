//! What is wrong with a chart, and what deserves a look.

use super::{Chart, ChartEdge, ChartEffect, ChartState, reach::reached, short};
use crate::{
    MessageKind,
    saga::{Disposition, Rules},
};
use std::collections::{BTreeSet, HashSet};

impl Chart {
    /// What is wrong with the chart and what deserves a look, each in one sentence; empty when there is neither. An
    /// endpoint does not start with [what is wrong](Self::errors), and logs the rest.
    ///
    /// It deserves a look
    /// - when a state waits without any timer, if only on one of the ways that lead into it: mark it `#[waits]` if
    ///   nothing need happen there;
    /// - when a function takes a timer where it is never alive: no transition sets it, or one does for another state,
    ///   with which it goes. Keep the function as long as instances may live for which an older version has set it;
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
        let waiting = self.states.iter().filter_map(|state| {
            let (name, ways) = (&state.name, self.ways_without_timer(state)?);
            let remedy = "set one where it is entered, or mark it `#[waits]`";
            Some(match ways {
                Some(ways) => format!("state `{name}` waits without a timer after {ways}: {remedy}"),
                None => format!("state `{name}` waits without a timer: {remedy}"),
            })
        });
        let unasked = self.messages.iter().filter(|message| {
            let asked = self.effects().any(|effect| effect.outcome.contains(&message.type_name));
            message.kind == MessageKind::Reply && !(asked || message.starts || message.anyone)
        });
        let unasked = unasked.map(|message| {
            let name = &message.type_name;
            format!("a function takes the reply `{name}`, but no transition sends a command with this outcome")
        });
        let all = waiting.chain(self.dead_timers()).chain(unasked).chain(self.late_outcomes());
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
            // each with what the instance has left by then: a state that it has been in makes nothing early
            let escapes = escapes.map(|edge| {
                let after = reached(&edges, std::iter::once(edge.to.as_str()), unanswered);
                (after, vec![state.to_owned(), edge.from.clone()])
            });
            // where it is asked for: the compiler knows what the enum takes, and not that a done state does not
            let asked = (HashSet::from([state]), Vec::new());
            for (after, left) in std::iter::once(asked).chain(escapes) {
                let states = self.states.iter().filter(|state| after.contains(state.name.as_str()));
                for (state, outcome) in states.flat_map(|it| command.outcome.iter().map(move |on| (&it.name, on))) {
                    if rules.disposition(state, outcome, &left) == Disposition::Late && seen.insert((state, outcome)) {
                        let (command, name) = (&command.type_name, short(outcome));
                        late.push(format!(
                            "`{outcome}`, an outcome of `{command}`, may come in state `{state}`, where it would be \
                             late: take it there, or say `#[ignores({name})]`"
                        ));
                    }
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
        wrong.extend(self.unanswered());
        let lost = self.messages.iter().filter(|it| it.echo && it.kind != MessageKind::Reply);
        wrong.extend(lost.filter(|it| !self.is_answer(&it.type_name)).map(|it| {
            let name = &it.type_name;
            format!(
                "`by({} = echo)`: `{name}` answers no command of the saga, so its envelope names no instance",
                short(name)
            )
        }));
        wrong.into_iter().map(|text| format!("saga `{}`: {text}", self.saga)).collect()
    }

    fn effects(&self) -> impl Iterator<Item = &ChartEffect> {
        self.edges.iter().flat_map(|edge| &edge.effects)
    }

    /// The ways into a state on which no timer is set for it, where it must not wait for ever; `Some(None)`: all ways.
    ///
    /// A way is an edge from another state. A deadline that was set before counts.
    fn ways_without_timer(&self, state: &ChartState) -> Option<Option<String>> {
        if state.done || state.waits || state.legacy {
            return None;
        }
        let edges = self.edges_that_happen();
        let sets = |edge: &ChartEdge, kind: &str| edge.effects.iter().any(|effect| effect.kind == kind);
        let deadlines: HashSet<&str> =
            self.effects().filter(|effect| effect.kind == "deadline").map(|effect| &*effect.type_name).collect();
        // none was set before it, or the last one is over
        let begins = |edge: &ChartEdge| {
            edge.from.is_empty() || self.is_done(&edge.from) || (deadlines.len() == 1 && deadlines.contains(&*edge.on))
        };
        let begun = edges.iter().filter(|edge| begins(edge) && !sets(edge, "deadline"));
        let timeless = reached(&edges, begun.map(|edge| edge.to.as_str()), |edge| !sets(edge, "deadline"));
        let into = edges.iter().copied().filter(|edge| edge.to == state.name && edge.from != edge.to);
        let (bare, timed): (Vec<&ChartEdge>, Vec<&ChartEdge>) = into.partition(|edge| {
            let no_deadline = begins(edge) || timeless.contains(edge.from.as_str());
            no_deadline && !sets(edge, "after") && !sets(edge, "deadline")
        });
        if bare.is_empty() {
            return None;
        }
        let mut ways: Vec<String> = bare.iter().map(|edge| edge.way()).collect();
        ways.dedup();
        Some((!timed.is_empty()).then(|| ways.join(", ")))
    }

    /// Functions that take a timer where it is never alive.
    fn dead_timers(&self) -> Vec<String> {
        let edges = self.edges_that_happen();
        let is_legacy = |name: &str| self.states.iter().any(|state| state.name == name && state.legacy);
        let dead = edges.iter().filter(|edge| {
            let is_timer = self.messages.iter().any(|it| it.type_name == edge.on && it.kind == MessageKind::Timer);
            is_timer && !is_legacy(&edge.from) && !self.may_be_alive(&edge.on, &edge.from, &edges)
        });
        let mut told: Vec<String> = Vec::new();
        for ChartEdge { from, on, .. } in dead {
            let set: BTreeSet<&str> = edges.iter().filter(|edge| edge.sets(on)).map(|edge| edge.to.as_str()).collect();
            let text = if set.is_empty() {
                format!("a function takes the timer `{on}`, but no transition sets it")
            } else if self.is_done(from) {
                format!("a function takes the timer `{on}` in state `{from}`, which is done: no timer lives there")
            } else {
                let states = set.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                format!(
                    "a function takes the timer `{on}` in state `{from}`, where it is never alive: it is set for \
                     {states} alone, and is gone when that is left. Set it where `{from}` is entered"
                )
            };
            if !told.contains(&text) {
                told.push(text);
            }
        }
        told
    }

    pub(super) fn is_done(&self, state: &str) -> bool {
        self.states.iter().any(|it| it.name == state && it.done)
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
