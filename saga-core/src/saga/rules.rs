//! What each state does with each message, worked out once from the chart.

use super::{Chart, ChartMessage, ChartState};
use crate::{HeldReason, MessageKind, port::InstanceRow};
use std::collections::{HashMap, HashSet};

/// What a state does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It has a transition, of its own or the enum's.
    Transition,
    /// `#[ignores(..)]`: journaled as ignored.
    Ignore,
    /// `#[defers(..)]`: waits for another state.
    Defer,
    /// `#[rejects(..)]`, `#[starts(reject)]`: held for a person, or its sender gets what the command gives up with.
    Reject,
    /// `#[starts(return)]`: the sender gets the reply that the instance has given, again.
    Return,
    /// A state that can still be reached has a transition: the message waits for it.
    Early,
    /// No state that can be reached has a transition: journaled as ignored.
    Late,
}

/// What each state does with each message: the chart as a table, made once when an endpoint starts.
#[derive(Debug)]
pub struct Rules {
    by_state: HashMap<String, HashMap<String, Rule>>,
    done: HashSet<String>,
    starts: HashSet<String>,
    timers: HashSet<String>,
    /// What some transition takes back: timers and commands.
    cancels: HashSet<String>,
    /// A start says `#[starts(return)]`.
    returns: bool,
    /// States that can be entered again.
    cyclic: HashSet<String>,
    /// Present names of renamed states, by their old ones.
    renamed: HashMap<String, String>,
}

/// What a state does with a message.
#[derive(Debug)]
enum Rule {
    Always(Disposition),
    /// Early as long as the instance has not been in one of these states, all of which take the message and can still
    /// be reached.
    EarlyFor(Vec<String>),
}

impl Rules {
    /// Works the table out.
    pub fn of(chart: &Chart) -> Self {
        let types = |pick: &dyn Fn(&&ChartMessage) -> bool| -> HashSet<String> {
            chart.messages.iter().filter(|m| pick(m)).map(|m| m.type_name.clone()).collect()
        };
        let starts = types(&|m| m.starts);
        let rejects_repeats = types(&|m| m.rejects_repeats);
        let returns_repeats = types(&|m| m.returns_repeats);
        let has =
            |state: &str, type_name: &str| chart.edges.iter().any(|edge| edge.from == state && edge.on == type_name);
        let judge = |state: &ChartState, type_name: &String| {
            let always = if state.ignore.contains(type_name) {
                Disposition::Ignore
            } else if state.defer.contains(type_name) {
                Disposition::Defer
            } else if state.reject.contains(type_name) {
                Disposition::Reject
            } else if has(&state.name, type_name) {
                Disposition::Transition
            } else if !state.done && !starts.contains(type_name) {
                let ahead = chart.reachable_from(&state.name).into_iter().filter(|next| has(next, type_name));
                return Rule::EarlyFor(ahead.map(Into::into).collect());
            } else if rejects_repeats.contains(type_name) {
                Disposition::Reject
            } else if returns_repeats.contains(type_name) {
                Disposition::Return
            } else {
                Disposition::Late
            };
            Rule::Always(always)
        };
        let by_state = chart.states.iter().map(|state| {
            let row = chart.messages.iter().map(|m| (m.type_name.clone(), judge(state, &m.type_name)));
            (state.name.clone(), row.collect())
        });
        // a state that leads to itself alone is left for good
        let cyclic = chart.states.iter().filter(|state| {
            let next = chart.reachable_from(&state.name);
            next.iter().any(|next| **next != state.name && chart.reachable_from(next).contains(&*state.name))
        });
        let renamed =
            chart.states.iter().flat_map(|state| state.was.iter().map(|was| (was.clone(), state.name.clone())));
        Self {
            by_state: by_state.collect(),
            done: chart.states.iter().filter(|s| s.done).map(|s| s.name.clone()).collect(),
            timers: types(&|m| m.kind == MessageKind::Timer),
            cancels: {
                let effects = chart.edges.iter().flat_map(|edge| &edge.effects);
                effects.filter(|effect| effect.kind == "cancel").map(|effect| effect.type_name.clone()).collect()
            },
            cyclic: cyclic.map(|state| state.name.clone()).collect(),
            renamed: renamed.collect(),
            returns: !returns_repeats.is_empty(),
            starts,
        }
    }

    /// What `state` does with a message of this type, in an instance that has been in these states before.
    ///
    /// A state that was visited had its chance: a message that only such states take is late. Else the second click on
    /// a button would be applied when the page is shown again.
    pub fn disposition(&self, state: &str, type_name: &str, visited: &[String]) -> Disposition {
        match self.by_state.get(state).and_then(|row| row.get(type_name)) {
            Some(Rule::Always(disposition)) => *disposition,
            Some(Rule::EarlyFor(states)) if states.iter().any(|state| !visited.contains(state)) => Disposition::Early,
            Some(Rule::EarlyFor(_)) | None => Disposition::Late,
        }
    }

    /// Whether a message that is held for this reason goes on in `state`, of an instance that is not paused.
    pub(crate) fn releases(&self, state: &str, type_name: &str, reason: HeldReason, visited: &[String]) -> bool {
        match reason {
            HeldReason::Paused | HeldReason::Version => true,
            HeldReason::Early | HeldReason::Deferred => {
                let disposition = self.disposition(state, type_name, visited);
                !matches!(disposition, Disposition::Early | Disposition::Defer)
            }
            _ => false,
        }
    }

    /// The present name of a state.
    pub fn name_of<'a>(&'a self, state: &'a str) -> &'a str {
        self.renamed.get(state).map_or(state, String::as_str)
    }

    /// States by their present names, each once.
    pub(super) fn present(&self, states: Vec<String>) -> Vec<String> {
        if self.renamed.is_empty() {
            return states; // each is written once
        }
        let mut present: Vec<String> = states.into_iter().map(|state| self.name_of(&state).to_owned()).collect();
        let mut seen = HashSet::new();
        present.retain(|state| seen.insert(state.clone()));
        present
    }

    /// Whether the saga has this state, by its present name.
    pub(super) fn has_state(&self, state: &str) -> bool {
        self.by_state.contains_key(state)
    }

    /// Whether `state` can be entered again.
    pub(super) fn is_cyclic(&self, state: &str) -> bool {
        self.cyclic.contains(state)
    }

    /// Whether the process is over in `state`.
    pub fn is_done(&self, state: &str) -> bool {
        self.done.contains(state) || state == InstanceRow::CANCELLED
    }

    /// Whether the message creates an instance.
    pub fn starts(&self, type_name: &str) -> bool {
        self.starts.contains(type_name)
    }

    /// Whether an instance keeps what it has replied.
    pub(super) fn returns(&self) -> bool {
        self.returns
    }

    /// Whether some transition takes it back.
    pub(crate) fn cancels(&self, type_name: &str) -> bool {
        self.cancels.contains(type_name)
    }

    /// Whether the message is a timer.
    pub fn is_timer(&self, type_name: &str) -> bool {
        self.timers.contains(type_name)
    }
}
