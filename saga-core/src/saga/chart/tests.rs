//! What a chart knows about itself.

use super::*;

fn message(type_name: &str, kind: MessageKind) -> ChartMessage {
    ChartMessage {
        type_name: type_name.into(),
        kind,
        starts: false,
        outcome: Vec::new(),
        rejects_repeats: false,
        anyone: false,
    }
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

fn edge(from: &str, on: &str, to: &str, effects: &[(&str, &str)]) -> ChartEdge {
    let effects = effects.iter().map(|(kind, type_name)| ChartEffect {
        kind: (*kind).into(),
        type_name: (*type_name).into(),
        to: None,
        outcome: Vec::new(),
    });
    ChartEdge::new(from, on, "", to, effects.collect())
}

/// Begins in A, ends in End; `edges` say how.
fn of(states: Vec<ChartState>, edges: Vec<ChartEdge>) -> Chart {
    let mut chart = Chart { states, edges, ..chart() };
    chart.messages.retain(|message| message.kind != MessageKind::Timer);
    chart
}

fn states() -> Vec<ChartState> {
    vec![ChartState::new("A").waits(true), ChartState::new("End").done(true)]
}

#[test]
fn s_078_each_fault_of_a_chart_is_reported_once_with_its_name() {
    let through = || vec![edge("", "Placed", "A", &[]), edge("A", "Paid", "End", &[])];
    assert_eq!(of(states(), through()).verify(), [] as [String; 0]);

    let with = |state: ChartState| of([states(), vec![state]].concat(), through());
    let unreachable =
        "saga `order`: no transition leads to state `B`; if only old instances are in it, say `#[legacy]`";
    assert_eq!(with(ChartState::new("B").done(true)).verify(), [unreachable]);
    assert_eq!(with(ChartState::new("B").legacy(true)).verify(), [] as [String; 0]);

    let dead_end = of(states(), vec![edge("", "Placed", "A", &[])]).errors();
    assert_eq!(dead_end[0], "saga `order`: state `A` is a dead end: give it a transition, or mark it `#[done]`");

    let waits = of(vec![ChartState::new("A"), ChartState::new("End").done(true)], through());
    assert_eq!(waits.errors(), [] as [String; 0]);
    let text = "saga `order`: state `A` waits without a timer: set one where it is entered, or mark it `#[waits]`";
    assert_eq!(waits.verify(), [text]);
    for timer in ["after", "deadline"] {
        let edges = vec![edge("", "Placed", "A", &[(timer, "Overdue")]), edge("A", "Paid", "End", &[])];
        let timed = of(vec![ChartState::new("A"), ChartState::new("End").done(true)], edges);
        assert_eq!(timed.verify(), [] as [String; 0], "{timer}");
    }

    let mut never_set = of(states(), through());
    never_set.messages.push(message("Overdue", MessageKind::Timer));
    let text = "saga `order`: a function takes the timer `Overdue`, but no transition sets it";
    assert_eq!(never_set.verify(), [text]);
}

#[test]
fn a_child_answers_on_every_way_before_it_is_done() {
    let mut silent = of(states(), vec![edge("", "DoIt", "A", &[]), edge("A", "Paid", "End", &[])]);
    silent.messages.push(ChartMessage {
        starts: true,
        outcome: vec!["Did".into()],
        ..message("DoIt", MessageKind::Command)
    });
    let text = "saga `order`: state `End` can be reached without an answer to `DoIt`: return `Replies`";
    assert_eq!(silent.verify(), [text]);
    let answers = [("reply", "Did")];
    silent.edges[1] = edge("A", "Paid", "End", &answers);
    assert_eq!(silent.verify(), [] as [String; 0], "at the end");
    silent.edges = vec![edge("", "DoIt", "A", &answers), edge("A", "Paid", "End", &[])];
    assert_eq!(silent.verify(), [] as [String; 0], "at the start");
    silent.edges[0] = edge("", "DoIt", "A", &[("reply", "SomethingElse")]);
    assert_eq!(silent.verify(), [text], "that is no answer to it");
}

#[test]
fn from_anyone_is_written_only_where_it_was_said() {
    let chart = chart();
    let written = serde_json::to_value(&chart).unwrap();
    let anyone = |n: usize| written["messages"][n].get("anyone").cloned();
    assert_eq!((anyone(2), anyone(4)), (None, Some(true.into())));
    assert_eq!(serde_json::from_value::<Chart>(written).unwrap(), chart);
}
