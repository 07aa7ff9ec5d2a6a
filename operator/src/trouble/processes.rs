//! What the processes of an endpoint say that needs a person: one trouble each, however many of them say it.

use super::{Command, SILENT_MS, Trouble, about};
use crate::text::age;
use saga_core::{EndpointStatus, ErrorCode, ProcessReport};
use std::collections::{BTreeMap, BTreeSet};

/// The most names of handlers or processes in one line.
const NAMES_TOLD: usize = 3;

pub(super) fn troubles(endpoint: &EndpointStatus, now_us: i64, all: &mut Vec<Trouble>) {
    let name = endpoint.endpoint.as_str();
    let (mut silent, mut cut_off) = (Processes::default(), Processes::default());
    // a limit and a handler may have one name
    let mut failing: BTreeMap<(Option<String>, String), Failing> = BTreeMap::new();
    for process in &endpoint.processes {
        let owner = &process.owner;
        if now_us.saturating_sub(process.seen_at_us) / 1000 > SILENT_MS {
            silent.add(owner, Some(process.seen_at_us), None);
            continue; // what it said of itself is old
        }
        let report = ProcessReport::read(&process.report);
        if let Some(why) = report.down() {
            cut_off.add(owner, None, Some(why.to_string()));
        }
        for handler in &report.breakers {
            let behind = report.breakers_behind.get(handler).cloned();
            let first = if behind.is_some() { String::new() } else { handler.clone() };
            let of = failing.entry((behind, first)).or_default();
            of.handlers.insert(handler.clone());
            of.processes.add(owner, report.breakers_since_us.get(handler).copied(), None);
        }
    }
    let of_processes = |code, text: String| {
        let (about, text) = (about([name]), format!("{name}: {text}"));
        Trouble { code, about, text, see: Command::new("processes"), mend: None }
    };
    if let Some((who, one)) = silent.told() {
        let (have, they) = if one { ("has", "it died or is") } else { ("have", "they died or are") };
        let longest = if one { "" } else { ", the longest" };
        let lasts = silent.lasts(now_us);
        let text = format!("{who} {have} not been seen{longest}{lasts}; {they} cut off");
        all.push(of_processes(ErrorCode::ProcessSilent, text));
    }
    if let Some((who, one)) = cut_off.told() {
        let are = if one { "is cut off from its broker" } else { "are cut off from their broker" };
        let why = cut_off.why.unwrap_or_default();
        all.push(of_processes(ErrorCode::LinkDown, format!("{who} {are}; {why}")));
    }
    let of = |words: &str| Command::new(words).with("endpoint", name).with("kind", "retry");
    all.extend(failing.into_iter().map(|((behind, handler), it)| Trouble {
        code: ErrorCode::BreakerOpen,
        about: match &behind {
            Some(limit) => about([name, "limit", limit]),
            None => about([name, "handler", &handler]),
        },
        text: format!("{name}: {}", it.told(behind.as_deref(), now_us)),
        see: of("outbox list"),
        mend: Some(of("outbox send-now").because()),
    }));
}

/// Processes of which one thing is said.
#[derive(Default)]
struct Processes {
    names: BTreeSet<String>,
    /// Since when, of the first.
    since_us: Option<i64>,
    /// Why, as the first says.
    why: Option<String>,
}

impl Processes {
    fn add(&mut self, owner: &str, since_us: Option<i64>, why: Option<String>) {
        self.names.insert(owner.to_owned());
        self.since_us = [self.since_us, since_us].into_iter().flatten().min();
        self.why = self.why.take().or(why);
    }

    /// Which they are, if there are any, and whether it is one.
    fn told(&self) -> Option<(String, bool)> {
        (!self.names.is_empty()).then(|| (named("process", "processes", &self.names), self.names.len() == 1))
    }

    fn lasts(&self, now_us: i64) -> String {
        self.since_us.map_or_else(String::new, |us| format!(" for {}", age(now_us.saturating_sub(us) / 1000)))
    }
}

/// Handlers with one breaker, which fail for one reason, wherever they run.
#[derive(Default)]
struct Failing {
    handlers: BTreeSet<String>,
    processes: Processes,
}

impl Failing {
    /// `behind` is the limit before what they call, if it has a name.
    fn told(&self, behind: Option<&str>, now_us: i64) -> String {
        let keep = if self.handlers.len() == 1 { "keeps" } else { "keep" };
        let behind = behind.map_or_else(String::new, |behind| format!(" behind limit {behind}"));
        let (handlers, lasts) = (named("handler", "handlers", &self.handlers), self.processes.lasts(now_us));
        let processes = named("process", "processes", &self.processes.names);
        format!("{handlers}{behind} {keep} failing{lasts}, in {processes}")
    }
}

/// The first names, and how many there are beside them.
fn named(one: &str, many: &str, names: &BTreeSet<String>) -> String {
    let mut told: Vec<&str> = names.iter().take(NAMES_TOLD).map(String::as_str).collect();
    let more = format!("{} more", names.len().saturating_sub(NAMES_TOLD));
    told.extend((names.len() > NAMES_TOLD).then_some(more.as_str()));
    format!("{} {}", if names.len() == 1 { one } else { many }, told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::ProcessView;
    use serde_json::{Value, json};

    const NOW_US: i64 = 1_790_000_000_000_000;

    /// What is said of an endpoint whose processes write these reports, some of them a while ago.
    fn told(processes: &[(&str, i64, Value)]) -> Vec<Trouble> {
        let mut payment = EndpointStatus::default();
        payment.endpoint = "payment".into();
        let view = |(owner, ago_s, report): &(&str, i64, Value)| -> ProcessView {
            let seen = NOW_US - ago_s * 1_000_000;
            let view = json!({ "owner": owner, "started_at_us": 0, "seen_at_us": seen, "report": report });
            serde_json::from_value(view).unwrap()
        };
        payment.processes = processes.iter().map(view).collect();
        let mut all = Vec::new();
        troubles(&payment, NOW_US, &mut all);
        all
    }

    fn texts(all: &[Trouble]) -> Vec<&str> {
        all.iter().map(|it| it.text.as_str()).collect()
    }

    fn keys(all: &[Trouble]) -> Vec<String> {
        all.iter().map(Trouble::key).collect()
    }

    #[test]
    fn handlers_before_one_dependency_are_one_trouble_however_many_processes_run() {
        let report = json!({ "link": "up", "breakers": ["pay", "refund", "mail"],
            "breakers_since_us": { "pay": NOW_US - 60_000_000, "refund": NOW_US - 90_000_000,
                "mail": NOW_US - 1_000_000 },
            "breakers_behind": { "pay": "bank", "refund": "bank" } });
        let all = ["p1", "p2", "p3", "p4", "p5"].map(|owner| (owner, 0, report.clone()));
        assert_eq!(
            texts(&told(&all)),
            [
                "payment: handler mail keeps failing for 1 s, in processes p1, p2, p3, 2 more",
                "payment: handlers pay, refund behind limit bank keep failing for 1 min 30 s, in processes p1, p2, p3, \
                 2 more",
            ]
        );
    }

    #[test]
    fn a_trouble_keeps_its_key_while_more_handlers_and_processes_have_it() {
        let open = |handlers: &[&str]| {
            let behind: BTreeMap<&str, &str> = handlers.iter().map(|handler| (*handler, "bank")).collect();
            json!({ "link": "up", "breakers": handlers, "breakers_behind": behind })
        };
        let first = told(&[("p2", 0, open(&["pay"]))]);
        let grown = told(&[("p1", 0, open(&["charge", "pay"])), ("p2", 0, open(&["pay"]))]);
        assert_ne!(texts(&first), texts(&grown));
        assert_eq!(keys(&first), keys(&grown));
        let one = json!({ "link": "up", "breakers": ["bank"] });
        let both = told(&[("p1", 0, open(&["pay"])), ("p2", 0, one)]);
        assert_eq!(
            texts(&both),
            [
                "payment: handler bank keeps failing, in process p2",
                "payment: handler pay behind limit bank keeps failing, in process p1",
            ],
            "a limit and a handler of one name are two"
        );
        assert_ne!(both[0].key(), both[1].key());
    }

    #[test]
    fn silent_and_cut_off_processes_are_a_line_for_each_endpoint() {
        let names: Vec<String> = (10..70).map(|n| format!("p{n}")).collect();
        let silent: Vec<_> = names.iter().map(|name| (name.as_str(), 600, Value::Null)).collect();
        let down = json!({ "link": "away" });
        let mut all = silent.clone();
        all.extend([("q1", 0, down.clone()), ("q2", 0, down)]);
        let grown = told(&all);
        assert_eq!(
            texts(&grown),
            [
                "payment: processes p10, p11, p12, 57 more have not been seen, the longest for 10 min; they died or \
                 are cut off",
                "payment: processes q1, q2 are cut off from their broker; away",
            ]
        );
        let first = told(&silent[..1]);
        assert_eq!(texts(&first), ["payment: process p10 has not been seen for 10 min; it died or is cut off"]);
        assert_eq!(first[0].key(), grown[0].key());
    }
}
