//! What a chart knows about itself.

use super::*;

fn message(type_name: &str, kind: MessageKind) -> ChartMessage {
    ChartMessage {
        type_name: type_name.into(),
        kind,
        starts: false,
        outcome: Vec::new(),
        rejects_repeats: false,
        returns_repeats: false,
        anyone: false,
        echo: false,
        can_wait: false,
        masked: Vec::new(),
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
        id: String::new(),
        has_data: false,
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
    chart.messages.retain(|message| !matches!(message.kind, MessageKind::Timer | MessageKind::Reply));
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
    never_set.edges.extend([edge("A", "Overdue", "End", &[]), edge("A", "Overdue", "A", &[])]);
    assert_eq!(never_set.errors(), [] as [String; 0], "an older version may have set it");
    let text = "saga `order`: a function takes the timer `Overdue`, but no transition sets it";
    assert_eq!(never_set.verify(), [text]);
}

/// A and B lead to each other; only the start sets a timer.
fn back_and_forth(of_start: &[(&str, &str)], of_return: &[(&str, &str)]) -> Chart {
    let states = vec![ChartState::new("A"), ChartState::new("B").waits(true), ChartState::new("End").done(true)];
    let edges = vec![
        edge("", "Placed", "A", of_start),
        edge("A", "Cancel", "A", &[]),
        edge("A", "Paid", "B", &[]),
        edge("A", "Overdue", "End", &[]),
        edge("B", "Cancel", "A", of_return),
    ];
    let mut chart = of(states, edges);
    chart.messages.push(message("Overdue", MessageKind::Timer));
    chart
}

#[test]
fn s_078_a_timer_that_was_forgotten_on_one_way_is_reported_with_the_way() {
    let overdue = [("after", "Overdue")];
    let forgotten = back_and_forth(&overdue, &[]);
    let way = |way: &str| {
        format!(
            "saga `order`: state `A` waits without a timer after {way}: set one where it is entered, or mark it \
             `#[waits]`"
        )
    };
    assert_eq!(forgotten.verify(), [way("`Cancel` in state `B`")], "a transition into the same state keeps its timer");
    assert_eq!(back_and_forth(&overdue, &overdue).verify(), [] as [String; 0]);

    let mut branches = forgotten.clone();
    branches.edges.push(ChartEdge { branch: "Again".into(), ..edge("B", "Paid", "A", &[]) });
    branches.edges.push(ChartEdge { branch: "AtOnce".into(), ..edge("", "Restarted", "A", &[]) });
    let ways = "`Cancel` in state `B`, `Paid` [Again] in state `B`, `Restarted` [AtOnce]";
    assert_eq!(branches.verify(), [way(ways)]);
    branches.edges[0].effects.clear();
    branches.edges[3].on = "Watched".into();
    let everywhere =
        "saga `order`: state `A` waits without a timer: set one where it is entered, or mark it `#[waits]`";
    assert_eq!(branches.verify(), [everywhere], "if none is set at all, the ways are not told apart");
}

#[test]
fn s_078_a_deadline_counts_until_it_is_over() {
    let both = [("after", "Overdue"), ("deadline", "GaveUp")];
    let mut chart = back_and_forth(&both, &[]);
    chart.messages.push(message("GaveUp", MessageKind::Timer));
    chart.edges.push(edge("B", "GaveUp", "End", &[]));
    assert_eq!(chart.verify(), [] as [String; 0], "it is set at the start");
    let text = |way: &str| {
        format!(
            "saga `order`: state `A` waits without a timer after {way}: set one where it is entered, or mark it \
             `#[waits]`"
        )
    };
    let mut fired = chart.clone();
    fired.edges.last_mut().unwrap().to = "A".into();
    fired.edges.push(edge("A", "GaveUp", "End", &[]));
    let ways = "`Cancel` in state `B`, `GaveUp` in state `B`";
    assert_eq!(fired.verify(), [text(ways)], "it came, and B may be entered again");
    fired.edges.push(edge("A", "Restarted", "End", &[("deadline", "Last")]));
    fired.messages.push(message("Last", MessageKind::Timer));
    assert_eq!(fired.verify(), [] as [String; 0], "of two deadlines one may live");
    let mut done = chart;
    done.edges.push(edge("End", "Restarted", "A", &[]));
    let ways = "`Cancel` in state `B`, `Restarted` in state `End`";
    assert_eq!(done.verify(), [text(ways)], "a done state has none");
}

#[test]
fn s_078_a_timer_that_is_never_alive_where_it_is_taken_is_reported() {
    let overdue = [("after", "Overdue")];
    let mut chart = back_and_forth(&overdue, &overdue);
    chart.edges.push(edge("B", "Overdue", "End", &[]));
    let text = "saga `order`: a function takes the timer `Overdue` in state `B`, where it is never alive: it is set \
                for `A` alone, and is gone when that is left. Set it where `B` is entered";
    assert_eq!(chart.verify(), [text]);
    let mut set = chart.clone();
    set.edges[2].effects = edge("", "", "", &overdue).effects;
    assert_eq!(set.verify(), [] as [String; 0]);
    let mut deadline = chart.clone();
    deadline.edges[0].effects = edge("", "", "", &[("deadline", "Overdue")]).effects;
    assert_eq!(deadline.verify(), [] as [String; 0], "a deadline comes in whatever state");
    let mut legacy = chart.clone();
    legacy.states[1].legacy = true;
    assert_eq!(legacy.verify(), [] as [String; 0], "an older version may have set it");
    chart.edges.pop();
    chart.edges.push(edge("End", "Overdue", "A", &overdue));
    let text = "saga `order`: a function takes the timer `Overdue` in state `End`, which is done: no timer lives there";
    assert_eq!(chart.verify(), [text]);
}

#[test]
fn s_078_a_reply_that_answers_no_command_is_reported() {
    let mut unasked = of(states(), vec![edge("", "Placed", "A", &[]), edge("A", "Did", "End", &[])]);
    unasked.messages.push(message("Did", MessageKind::Reply));
    let text = "saga `order`: a function takes the reply `Did`, but no transition sends a command with this outcome";
    assert_eq!(unasked.verify(), [text]);
    unasked.messages.last_mut().unwrap().anyone = true;
    assert_eq!(unasked.verify(), [] as [String; 0]);
}

/// Pays in A; gives up after a while; sometimes packs in between.
fn pays() -> Chart {
    let mut pays = of(
        vec![
            ChartState::new("A"),
            ChartState::new("Packing").waits(true),
            ChartState::new("GivenUp").done(true),
            ChartState::new("End").done(true),
        ],
        vec![
            edge("", "Placed", "A", &[("send", "Pay"), ("after", "Overdue")]),
            edge("A", "Paid", "Packing", &[("send", "Pack")]),
            edge("A", "Declined", "End", &[]),
            edge("A", "Overdue", "GivenUp", &[]),
            edge("Packing", "Packed", "End", &[]),
        ],
    );
    pays.edges[0].effects[0].outcome = vec!["Paid".into(), "Declined".into()];
    pays.edges[1].effects[0].outcome = vec!["Packed".into()];
    let reply = |name| message(name, MessageKind::Reply);
    let taken = [message("Overdue", MessageKind::Timer), reply("Declined"), reply("Packed")];
    pays.messages.extend(taken);
    pays
}

#[test]
fn s_078_an_outcome_that_may_come_late_is_reported_where_a_timer_or_a_stranger_took_the_instance_away() {
    let mut pays = pays();
    let late = |outcome: &str| {
        format!(
            "saga `order`: `{outcome}`, an outcome of `Pay`, may come in state `GivenUp`, where it would be late: \
             take it there, or say `#[ignores({outcome})]`"
        )
    };
    assert_eq!(pays.verify(), [late("Paid"), late("Declined")], "not `Packed`: only an answer leaves its state");
    pays.states[2] = ChartState::new("GivenUp").done(true).ignores(&["Declined"]);
    assert_eq!(pays.verify(), [late("Paid")]);
    pays.edges.push(edge("GivenUp", "Paid", "End", &[]));
    assert_eq!(pays.verify(), [] as [String; 0]);
}

/// What the whole enum does is drawn where its message can come.
#[test]
fn edges_of_the_whole_enum_are_drawn_only_where_they_can_happen() {
    let mut chart = pays();
    let of_enum = |from: &str, on: &str, to: &str| ChartEdge { inherited: true, ..edge(from, on, to, &[]) };
    chart.edges.retain(|edge| edge.on != "Overdue" && edge.on != "Declined");
    for from in ["A", "Packing"] {
        for (on, to) in [("Overdue", "GivenUp"), ("Declined", "End"), ("Late", "GivenUp"), ("Cancel", "GivenUp")] {
            chart.edges.push(of_enum(from, on, to));
        }
    }
    chart.edges.push(of_enum("A", "Packed", "A"));
    chart.messages.push(message("Late", MessageKind::Timer));
    let pay = chart.edges[0].effects[0].clone();
    chart.edges[1].effects.push(ChartEffect { kind: "deadline".into(), type_name: "Late".into(), ..pay });
    let drawn = |chart: &Chart, from: &str| {
        let edges = chart.edges_that_happen().into_iter().filter(|edge| edge.inherited && edge.from == from);
        edges.map(|edge| edge.on.clone()).collect::<Vec<_>>()
    };
    assert_eq!(drawn(&chart, "A"), ["Overdue", "Declined", "Cancel"], "no deadline is set yet, nothing is packed yet");
    assert_eq!(drawn(&chart, "Packing"), ["Declined", "Late", "Cancel"], "the timer of A is gone");
    assert!(!chart.to_mermaid().contains("Packing --> GivenUp : Overdue"));
    chart.states[1].legacy = true;
    assert_eq!(drawn(&chart, "Packing").len(), 4, "of old instances, nothing is known");
    chart.states[1].legacy = false;
    for edge in &mut chart.edges {
        edge.inherited = false;
    }
    assert_eq!(chart.edges_that_happen().len(), chart.edges.len(), "a state's own functions are all drawn");
}

#[test]
fn a_drawing_marks_the_way_and_escapes_what_it_shows() {
    let mut chart = pays();
    chart.saga = "a<b>&\"c\"\u{1}".into();
    chart.states[0].was = vec!["Old".into()];
    let plain = chart.to_svg();
    assert!(roxmltree::Document::parse(&plain).is_ok());
    assert!(plain.contains("<title>The states of a&lt;b&gt;&amp;&quot;c&quot;, version 1</title>"), "{plain}");
    let drawn = |svg: &str, what: &str| svg.matches(what).count();
    assert_eq!((drawn(&plain, "class=\"way taken\""), drawn(&plain, "class=\"count\"")), (0, 0));
    assert_eq!((drawn(&plain, "data-state="), drawn(&plain, "class=\"state done\"")), (4, 2));
    let way = [(None, "Placed", "Old"), (Some("A"), "Paid", "Packing"), (Some("Gone"), "Paid", "A")];
    let marked = chart.drawing().path(way).counts([("Old", 2), ("A", 3), ("Gone", 9)]).to_string();
    assert_eq!((drawn(&marked, "class=\"way taken\""), drawn(&marked, "state taken current")), (2, 1), "{marked}");
    assert!(marked.contains("state taken current\" data-state=\"Packing\""));
    assert_eq!((drawn(&marked, ">5</text>"), drawn(&marked, "class=\"count\"")), (1, 1), "renamed states are one");
    assert_eq!(marked, chart.drawing().path(way).counts([("A", 5)]).to_string(), "every run draws the same");
}

#[test]
fn s_077_each_form_of_a_chart_parses_and_changes_with_the_saga() {
    let (chart, mut more) = (pays(), pays());
    more.edges.push(edge("Packing", "Cancel", "End", &[]));
    let svg = chart.to_svg();
    let read = roxmltree::Document::parse(&svg).unwrap();
    let boxes = read.descendants().filter_map(|node| node.attribute("data-state")).collect::<Vec<_>>();
    assert_eq!(boxes, ["A", "Packing", "GivenUp", "End"]);
    assert_eq!(serde_json::from_str::<Chart>(&chart.to_json()).unwrap(), chart);
    let (mermaid, dot) = (chart.to_mermaid(), chart.to_dot());
    let arrow = |line: &str| line.contains(" --> ");
    assert!(mermaid.starts_with("stateDiagram-v2\n") && mermaid.lines().skip(1).all(arrow), "{mermaid}");
    let statement = |line: &str| line.ends_with(';') || line == "}" || line.ends_with('{');
    assert!(dot.starts_with("digraph \"order\" {") && dot.lines().all(statement), "{dot}");
    let forms = |chart: &Chart| [chart.to_svg(), chart.to_json(), chart.to_mermaid(), chart.to_dot()];
    assert_eq!(forms(&chart), forms(&pays()), "every run writes the same");
    assert!(forms(&chart).iter().zip(&forms(&more)).all(|(one, other)| one != other), "a new transition shows");
}

#[test]
fn s_077_in_dot_a_done_state_has_two_lines_and_a_start_comes_from_a_point() {
    let chart = Chart { version: 3, ..of(states(), vec![edge("", "Placed", "A", &[]), edge("A", "Paid", "End", &[])]) };
    let text = "digraph \"order\" {
    rankdir=LR; node [shape=box, style=rounded];
    \"\" [shape=point];
    \"A\" [peripheries=1];
    \"End\" [peripheries=2];
    \"\" -> \"A\" [label=\"Placed\"];
    \"A\" -> \"End\" [label=\"Paid\"];
}
";
    assert_eq!(chart.to_dot(), text);
}

/// Every line ends at a box, no two boxes overlap, and all is inside, also where links lead back and far.
#[test]
fn a_drawing_of_any_chart_has_room_for_everything() {
    let names: Vec<String> = (0..14).map(|n| format!("State{n}")).collect();
    let mut edges = vec![edge("", "Placed", "State0", &[])];
    for n in 0..14_usize {
        for to in [(n * 5 + 3) % 14, (n * 3 + 1) % 14, n] {
            edges.push(edge(&names[n], "Cancel", &names[to], &[("publish", "SomethingHappened")]));
        }
    }
    let svg = of(names.iter().map(|name| ChartState::new(name.as_str())).collect(), edges).to_svg();
    let number = |text: &str, name: &str| -> f64 {
        let at = text.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
        text[at..].split('"').next().unwrap().parse().unwrap()
    };
    let (wide, high) = (number(&svg, " width"), number(&svg, " height"));
    let of_box = |text: &str| [" x", " y", " width", " height"].map(|name| number(text, name));
    let boxes: Vec<[f64; 4]> = svg.split("class=\"box\"").skip(1).map(of_box).collect();
    assert_eq!(boxes.len(), 14);
    for (n, [x, y, w, h]) in boxes.iter().enumerate() {
        assert!(*x >= 0.0 && *y >= 0.0 && x + w <= wide && y + h <= high, "box {n} is outside");
        for [x2, y2, w2, h2] in &boxes[..n] {
            assert!(x + w < *x2 || x2 + w2 < *x || y + h < *y2 || y2 + h2 < *y, "box {n} meets another");
        }
    }
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

mod compare;
mod late;
