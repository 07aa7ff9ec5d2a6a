//! What a change of a saga means for the instances in flight.

use super::{Chart, ChartEdge, ChartState, short};
use crate::{
    MessageKind,
    saga::{Disposition, Rules},
};
use std::collections::{BTreeMap, BTreeSet};

impl Chart {
    /// What changed since `old`, and what that means for instances that began with `old`: each in a sentence or two;
    /// empty when their charts are alike.
    ///
    /// A chart does not show the fields of states and data: whether those of live instances can be read, the check of
    /// the endpoint tells ([`EndpointBuilder::check`](crate::EndpointBuilder::check)).
    pub fn changes_since(&self, old: &Self) -> Vec<String> {
        let comparison = Comparison { old, new: self, before: Rules::of(old), rules: Rules::of(self) };
        let mut changes = comparison.definition();
        changes.extend(comparison.states());
        changes.extend(comparison.messages());
        changes.extend(comparison.edges());
        changes.extend(comparison.fates());
        if changes.is_empty() && old != self {
            changes
                .push("nothing that matters to instances: order, names of branches, or what `verify` looks at".into());
        }
        changes
    }

    /// Whether a function takes this message in this state; an empty state is the start.
    fn takes(&self, state: &str, on: &str) -> bool {
        self.edges.iter().any(|edge| edge.from == state && edge.on == on)
    }

    fn knows(&self, type_name: &str) -> bool {
        self.messages.iter().any(|message| message.type_name == type_name)
    }

    fn is_timer(&self, type_name: &str) -> bool {
        self.messages.iter().any(|message| message.type_name == type_name && message.kind == MessageKind::Timer)
    }
}

struct Comparison<'a> {
    old: &'a Chart,
    new: &'a Chart,
    before: Rules,
    rules: Rules,
}

/// What becomes of a message that no function of a state takes, as far as its instance and its sender notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Ignored,
    Waits(&'static str),
    Rejected,
    AnsweredAgain,
}

impl Fate {
    /// `None`: a function takes it.
    fn of(chart: &Chart, rules: &Rules, state: &str, on: &str) -> Option<Self> {
        match rules.disposition(state, on, &[]) {
            Disposition::Transition => None,
            Disposition::Early if !chart.is_timer(on) => Some(Self::Waits("early")),
            Disposition::Ignore | Disposition::Late | Disposition::Early => Some(Self::Ignored),
            Disposition::Defer => Some(Self::Waits("deferred")),
            Disposition::Reject => Some(Self::Rejected),
            Disposition::Return => Some(Self::AnsweredAgain),
        }
    }
}

impl<'a> Comparison<'a> {
    fn definition(&self) -> Vec<String> {
        let (old, new) = (self.old, self.new);
        let mut changes = Vec::new();
        if old.saga != new.saga {
            changes.push(format!(
                "the saga `{}` is now named `{}`: instances under the old name get no message any more",
                old.saga, new.saga
            ));
        }
        if !(old.id.is_empty() || new.id.is_empty()) && old.id != new.id {
            changes.push(format!(
                "the id was `{}` and is `{}`: instances keep the ids that they have, and a message finds one only if \
                 it still makes the same text of its fields",
                old.id, new.id
            ));
        }
        if !old.id.is_empty() && old.has_data != new.has_data {
            let version = old.version;
            changes.push(match new.has_data {
                true => format!(
                    "the states share data now: raise the `version`, and write an `Upcast<{version}>` of the data \
                     whose old form is `()`"
                ),
                false => format!(
                    "the states share no data any more: raise the `version`, and write an `Upcast<{version}>` of each \
                     state that reads `{{data, state}}`"
                ),
            });
        }
        if new.version < old.version {
            changes.push(format!(
                "version {} became {}: this version leaves all rows of version {} alone, and their messages wait",
                old.version, new.version, old.version
            ));
        }
        if new.version > old.version {
            let (before, after) = (old.version, new.version);
            changes.push(format!(
                "version {before} became {after}: rows are read as version {before} wrote them, through \
                 `Upcast<{before}>` where a form has changed. A process of version {before} leaves the rows that \
                 {after} has written alone"
            ));
        }
        changes
    }

    /// The state of `old` as it is called now.
    fn present(&self, old: &str) -> Option<&'a ChartState> {
        self.new.state(old)
    }

    /// Whether a state was there before, under any of its names.
    fn is_new(&self, state: &ChartState) -> bool {
        let was = |old: &ChartState| old.name == state.name || state.was.contains(&old.name);
        !self.old.states.iter().any(was)
    }

    fn states(&self) -> Vec<String> {
        let mut changes = Vec::new();
        let added: Vec<&ChartState> = self.new.states.iter().filter(|state| self.is_new(state)).collect();
        for old in &self.old.states {
            let name = &old.name;
            match self.present(name) {
                None => {
                    let candidate = added.first().map_or("the new one", |state| state.name.as_str());
                    changes.push(format!(
                        "state `{name}` is gone: instances in it cannot be read, and are paused by their next \
                         message. If it was renamed, say `#[was(\"{name}\")]` at `{candidate}`; if instances may still \
                         be in it, keep it with `#[legacy]`"
                    ));
                }
                Some(new) if new.name != *name => {
                    changes.push(format!("state `{name}` is now `{}`: its instances are read as before", new.name));
                }
                Some(new) if new.done && !old.done => changes.push(format!(
                    "state `{name}` is done now: instances that are already in it stay open, and their timers run, \
                     until a message moves them"
                )),
                Some(new) if old.done && !new.done => changes.push(format!(
                    "state `{name}` is not done any more: instances that are already in it count as done, and are \
                     deleted when their time is up"
                )),
                Some(_) => {}
            }
            for was in old.was.iter().filter(|was| self.present(name).is_some() && self.present(was).is_none()) {
                changes.push(format!(
                    "state `{name}` was called `{was}`, and `#[was(\"{was}\")]` is gone: instances that were stored \
                     under that name and have not moved since cannot be read"
                ));
            }
        }
        for state in added {
            let name = &state.name;
            let text = if self.new.version == self.old.version {
                "while processes of the last program run, they cannot read it and pause its instances: raise the \
                 saga's `version`, and they leave such rows to this program"
            } else {
                "no instance is in it yet"
            };
            changes.push(format!("state `{name}` is new: {text}"));
        }
        changes
    }

    fn messages(&self) -> Vec<String> {
        let mut changes = self.messages_gone();
        for old in &self.old.messages {
            let name = &old.type_name;
            let Some(new) = self.new.messages.iter().find(|message| message.type_name == *name) else { continue };
            if new.kind != old.kind {
                changes.push(format!(
                    "`{name}` is a message of another kind now: {} instead of {}. What is on its way, or held, still \
                     comes as it was sent",
                    word(new.kind),
                    word(old.kind)
                ));
            }
            match (self.old.is_answer(name), self.new.is_answer(name)) {
                (true, false) => changes.push(format!(
                    "`{name}` is taken from everyone now: what answers others, or nobody, reaches the instance that \
                     its id names; before, it was left alone"
                )),
                (false, true) => changes.push(format!(
                    "`{name}` is taken only as the answer to a command of the instance now: one that comes from \
                     anyone else is left alone, also one that is on its way"
                )),
                _ => {}
            }
        }
        let new = self.new.messages.iter().filter(|message| !self.old.knows(&message.type_name));
        changes.extend(new.filter(|message| message.kind != MessageKind::Timer).map(|message| {
            let (name, event) = (&message.type_name, message.kind == MessageKind::Event);
            let subscribed = if event && !self.new.is_answer(name) { "; the endpoint subscribes to it" } else { "" };
            format!("`{name}` is known now: one that waits as held (`version`) is offered{subscribed}")
        }));
        changes
    }

    fn messages_gone(&self) -> Vec<String> {
        let gone = self.old.messages.iter().filter(|message| !self.new.knows(&message.type_name));
        let gone = gone.map(|message| {
            let name = &message.type_name;
            match message.kind {
                MessageKind::Timer => format!(
                    "no function takes the timer `{name}` any more: one that was set before waits as held (`version`), \
                     and a day later for a person. Keep the function as long as old timers live"
                ),
                _ => format!(
                    "no function takes `{name}` any more: one that is on its way waits as held (`version`), and a day \
                     later for a person; an event is unsubscribed when the last old process has stopped"
                ),
            }
        });
        gone.collect()
    }

    fn edges(&self) -> Vec<String> {
        let pairs = |chart: &'a Chart| -> BTreeSet<(&'a str, &'a str)> {
            chart.edges.iter().map(|edge| (edge.from.as_str(), edge.on.as_str())).collect()
        };
        let mut changes = Vec::new();
        for (from, on) in pairs(self.old) {
            let Some(now) = (if from.is_empty() { Some("") } else { self.present(from).map(|state| &*state.name) })
            else {
                continue; // told with the state
            };
            if !self.new.takes(now, on) {
                changes.extend(self.removed(now, on));
            } else {
                changes.extend(self.changed(from, now, on));
            }
        }
        for (from, on) in pairs(self.new) {
            let state = self.new.states.iter().find(|state| state.name == from);
            let before = state.map_or(Some(""), |state| {
                let was = |old: &&ChartState| old.name == state.name || state.was.contains(&old.name);
                self.old.states.iter().find(was).map(|old| &*old.name)
            });
            if before.is_some_and(|before| !self.old.takes(before, on)) {
                if from.is_empty() {
                    changes.push(format!("`{on}` begins instances now"));
                    continue;
                }
                let then = match Fate::of(self.old, &self.before, before.unwrap_or_default(), on) {
                    Some(Fate::Waits(_)) => "those that wait there are offered with the instance's next message",
                    Some(Fate::Rejected) => "those that were rejected before stay held for a person",
                    _ => "those that came too late before do not come again",
                };
                changes.push(format!("`{on}` is taken in state `{from}` now; {then}"));
            }
        }
        changes
    }

    fn removed(&self, state: &str, on: &str) -> Option<String> {
        if !self.new.knows(on) {
            return None; // told with the messages
        }
        if state.is_empty() {
            return Some(format!("`{on}` begins no instance any more: it waits an hour for one, as held (`early`)"));
        }
        let then = match self.rules.disposition(state, on, &[]) {
            Disposition::Late | Disposition::Early if self.new.is_timer(on) => {
                "a timer that was set before is ignored when it comes"
            }
            Disposition::Late => "what would have been taken is late now, and ignored",
            Disposition::Early => "it waits, as held (`early`), for a state that takes it",
            Disposition::Defer => "it waits, as held (`deferred`), for another state",
            Disposition::Reject => "it is held for a person (`rejected`)",
            Disposition::Ignore => "it is ignored, as the state says",
            Disposition::Return => "its sender gets the reply that was given, if there is one",
            Disposition::Transition => return None,
        };
        Some(format!("no function takes `{on}` in state `{state}` any more: {then}"))
    }

    /// Messages that no function of a state takes, neither now nor before, and to which something else happens now.
    fn fates(&self) -> Vec<String> {
        let mut changed: BTreeMap<(&str, Fate, Fate), BTreeSet<String>> = BTreeMap::new();
        for old in &self.old.states {
            let Some(state) = self.present(&old.name) else { continue };
            for message in self.old.messages.iter().filter(|message| self.new.knows(&message.type_name)) {
                let on = message.type_name.as_str();
                let was = Fate::of(self.old, &self.before, &old.name, on);
                let is = Fate::of(self.new, &self.rules, &state.name, on);
                if let (Some(was), Some(is)) = (was, is)
                    && was != is
                {
                    changed.entry((on, was, is)).or_default().insert(state.name.clone());
                }
            }
        }
        let told = changed.into_iter().map(|((on, was, is), states)| {
            let now = match is {
                Fate::Ignored => "is ignored now".to_owned(),
                Fate::Waits(reason) => format!("waits now, as held (`{reason}`)"),
                Fate::Rejected => "is rejected now, and held for a person".to_owned(),
                Fate::AnsweredAgain => "is answered once more now, where the instance replies from now on".to_owned(),
            };
            let before = match (was, is) {
                (Fate::Waits(_), Fate::Waits(_)) => "what waits there goes on waiting",
                (Fate::Waits(_), _) => "so is what waits there, with the instance's next message",
                (Fate::Ignored, _) => "those that were ignored before do not come again",
                (Fate::Rejected, _) => "those that were rejected before stay held for a person",
                (Fate::AnsweredAgain, _) => "those that were answered before stay so",
            };
            let in_states = if states.len() == 1 { "in state" } else { "in states" };
            format!("`{on}` {now}, {in_states} {}; {before}", list(&states))
        });
        told.collect()
    }

    /// The same transition leads elsewhere, or sends something else.
    fn changed(&self, before: &str, now: &str, on: &str) -> Vec<String> {
        let of = |chart: &'a Chart, from: &str| -> Vec<&'a ChartEdge> {
            chart.edges.iter().filter(|edge| edge.from == from && edge.on == on).collect()
        };
        let (old, new) = (of(self.old, before), of(self.new, now));
        let place = if now.is_empty() { format!("`{on}`") } else { format!("`{on}` in state `{now}`") };
        let mut changes = Vec::new();
        let to = |edge: &&ChartEdge| self.present(&edge.to).map_or(edge.to.clone(), |state| state.name.clone());
        let (was, is): (BTreeSet<String>, BTreeSet<String>) =
            (old.iter().map(to).collect(), new.iter().map(|edge| edge.to.clone()).collect());
        if was != is {
            changes.push(format!("{place} leads to {} instead of {}", list(&is), list(&was)));
        }
        let effects = |edges: &[&'a ChartEdge]| -> BTreeSet<(&'a str, &'a str, Option<&'a str>)> {
            let all = edges.iter().flat_map(|edge| &edge.effects);
            all.map(|effect| (&*effect.kind, &*effect.type_name, effect.to.as_deref())).collect()
        };
        let (was, is) = (effects(&old), effects(&new));
        for (kind, name, to) in is.difference(&was) {
            let states = new.iter().filter(|edge| edge.effects.iter().any(|effect| effect.type_name == *name));
            let states: BTreeSet<String> = states.map(|edge| edge.to.clone()).collect();
            changes.push(match (*kind, to) {
                ("send", Some(to)) => {
                    format!("{place} sends `{name}` now: endpoint `{to}` must know it before this program runs")
                }
                ("after" | "deadline", _) => format!(
                    "{place} sets the timer `{}` now: instances that are already in {} have none",
                    short(name),
                    list(&states)
                ),
                _ => format!("{place} has the effect `{kind} {name}` now: it is missing where it was handled before"),
            });
        }
        let timers = |kind| match matches!(kind, "after" | "deadline") {
            true => "; timers that are set already still come",
            false => "",
        };
        for (kind, name, _) in was.difference(&is) {
            changes.push(format!("{place} has the effect `{kind} {name}` no more{}", timers(kind)));
        }
        // of several ways one may have lost what another has gained
        let kept = |name: &str| was.iter().any(|it| it.1 == name) && is.iter().any(|it| it.1 == name);
        for to in new.iter().map(|edge| edge.to.as_str()).collect::<BTreeSet<_>>() {
            let before: Vec<&ChartEdge> = old.iter().copied().filter(|edge| self.leads(edge, to)).collect();
            let now: Vec<&ChartEdge> = new.iter().copied().filter(|edge| edge.to == to).collect();
            if before.is_empty() {
                continue; // told above
            }
            let (was, is) = (effects(&before), effects(&now));
            for (kind, name, _) in is.difference(&was).filter(|it| kept(it.1)) {
                changes.push(format!("{place} has the effect `{kind} {name}` now where it leads to `{to}`"));
            }
            for (kind, name, _) in was.difference(&is).filter(|it| kept(it.1)) {
                let gone = format!("`{kind} {name}` no more where it leads to `{to}`");
                changes.push(format!("{place} has the effect {gone}{}", timers(kind)));
            }
        }
        changes
    }

    /// Whether an edge of `old` leads to this state, as it is called now.
    fn leads(&self, edge: &ChartEdge, to: &str) -> bool {
        self.present(&edge.to).map_or(edge.to.as_str(), |state| &state.name) == to
    }
}

fn word(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Command => "a command",
        MessageKind::Event => "an event",
        MessageKind::Reply => "a reply",
        MessageKind::Timer => "a timer",
    }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
