//! Which states follow which, and which edges can happen at all.

use super::{Chart, ChartEdge, ChartEffect, short};
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
        if is_timer {
            let set_nowhere = !edges.iter().any(|by| by.sets(&edge.on));
            return set_nowhere || self.may_be_alive(&edge.on, &edge.from, edges);
        }
        let asks = |by: &&&ChartEdge| {
            by.effects.iter().any(|effect| effect.kind == "send" && effect.outcome.contains(&edge.on))
        };
        let asked = edges.iter().filter(asks).map(|by| by.to.as_str());
        let after = reached(edges, asked, |_| true);
        after.is_empty() || after.contains(edge.from.as_str())
    }

    /// Whether a timer can be alive in a state, by these edges: it is set where the state is entered, or it is a
    /// deadline that was set on the way. In a done state none is.
    pub(super) fn may_be_alive(&self, timer: &str, state: &str, edges: &[&ChartEdge]) -> bool {
        let set = |kind: &'static str| {
            let sets = move |effect: &ChartEffect| effect.kind == kind && effect.type_name == timer;
            edges.iter().filter(move |edge| edge.effects.iter().any(sets)).map(|edge| edge.to.as_str())
        };
        let lives = |edge: &ChartEdge| !self.is_done(&edge.from);
        !self.is_done(state)
            && (set("after").any(|entered| entered == state) || reached(edges, set("deadline"), lives).contains(state))
    }
}

impl ChartEdge {
    /// Whether the timer is set with it.
    pub(super) fn sets(&self, timer: &str) -> bool {
        let sets = |effect: &ChartEffect| matches!(&*effect.kind, "after" | "deadline") && effect.type_name == timer;
        self.effects.iter().any(sets)
    }

    /// How a text names it.
    pub(super) fn way(&self) -> String {
        let on = short(&self.on);
        match (self.from.as_str(), self.branch.as_str()) {
            ("", "") => format!("`{on}`"),
            ("", branch) => format!("`{on}` [{branch}]"),
            (from, "") => format!("`{on}` in state `{from}`"),
            (from, branch) => format!("`{on}` [{branch}] in state `{from}`"),
        }
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
