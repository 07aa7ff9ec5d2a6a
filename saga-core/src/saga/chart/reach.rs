//! Which states follow which, and which edges can happen at all.

use super::{Chart, ChartEdge, ChartEffect};
use crate::MessageKind;
use std::collections::HashSet;

impl Chart {
    /// The states that can follow `state`, itself only if a cycle leads back.
    pub(in crate::saga) fn reachable_from<'a>(&'a self, state: &'a str) -> HashSet<&'a str> {
        let edges: Vec<&ChartEdge> = self.edges.iter().collect();
        let next = self.edges.iter().filter(|edge| edge.from == state).map(|edge| edge.to.as_str());
        reached(&edges, next, |_| true)
    }

    /// The edges without those that a function of the whole enum has in states where its message never comes: a timer
    /// of a state comes in no other, a deadline not before it is set, an answer not before its command.
    pub(super) fn edges_that_happen(&self) -> Vec<&ChartEdge> {
        let mut edges: Vec<&ChartEdge> = self.edges.iter().collect();
        loop {
            let kept: Vec<&ChartEdge> = edges.iter().copied().filter(|edge| self.happens(edge, &edges)).collect();
            if kept.len() == edges.len() {
                return kept;
            }
            edges = kept;
        }
    }

    /// Whether the message of an edge can come in its state, by these edges.
    fn happens(&self, edge: &ChartEdge, edges: &[&ChartEdge]) -> bool {
        let is_timer = self.messages.iter().any(|it| it.type_name == edge.on && it.kind == MessageKind::Timer);
        let is_legacy = self.states.iter().any(|state| state.name == edge.from && state.legacy);
        if !edge.inherited || is_legacy || !(is_timer || self.is_answer(&edge.on)) {
            return true;
        }
        // where it is set or asked for, by this kind of effect
        let entered = |kind: &'static str| {
            let brings = move |effect: &ChartEffect| {
                effect.kind == kind && (effect.type_name == edge.on || effect.outcome.contains(&edge.on))
            };
            edges.iter().filter(move |by| by.effects.iter().any(brings)).map(|by| by.to.as_str())
        };
        let from = if is_timer { "deadline" } else { "send" };
        entered("after").any(|state| state == edge.from)
            || reached(edges, entered(from), |_| true).contains(edge.from.as_str())
            || (entered("after").next().is_none() && entered(from).next().is_none())
    }
}

/// The states that can be reached from these, themselves included, by those of the edges.
pub(super) fn reached<'a>(
    edges: &[&'a ChartEdge],
    from: impl Iterator<Item = &'a str>,
    by: impl Fn(&ChartEdge) -> bool,
) -> HashSet<&'a str> {
    let mut open: Vec<&str> = from.collect();
    let mut found: HashSet<&str> = open.iter().copied().collect();
    while let Some(from) = open.pop() {
        for edge in edges.iter().filter(|edge| edge.from == from && by(edge)) {
            if found.insert(edge.to.as_str()) {
                open.push(&edge.to);
            }
        }
    }
    found
}
