//! What is said of each difference between two charts.

use super::*;

/// A takes `Paid`, which leads to B; B takes `Cancel`, and a timer.
fn old() -> Chart {
    let states = vec![
        ChartState::new("A").waits(true),
        ChartState::new("B"),
        ChartState::new("C").waits(true),
        ChartState::new("End").done(true),
    ];
    let edges = vec![
        edge("", "Placed", "A", &[("publish", "shop.Began")]),
        edge("A", "Paid", "B", &[("after", "shop.Overdue")]),
        edge("A", "Watched", "C", &[]),
        edge("B", "Cancel", "End", &[]),
        edge("B", "shop.Overdue", "End", &[]),
        edge("C", "Paid", "End", &[]),
    ];
    let mut chart = of(states, edges);
    chart.messages.push(message("shop.Overdue", MessageKind::Timer));
    chart
}

/// What is said of one change.
#[track_caller]
fn told(change: impl FnOnce(&mut Chart)) -> Vec<String> {
    let mut new = old();
    change(&mut new);
    new.changes_since(&old())
}

#[track_caller]
fn says(change: impl FnOnce(&mut Chart), expected: &[&str]) {
    assert_eq!(told(change), expected);
}

#[test]
fn what_a_state_says_of_a_message_is_told_with_what_it_means_for_those_that_wait() {
    says(
        |new| new.states[0].ignore.push("Cancel".into()),
        &["`Cancel` is ignored now, in state `A`; so is what waits there, with the instance's next message"],
    );
    says(
        |new| new.states[0].reject.push("Cancel".into()),
        &["`Cancel` is rejected now, and held for a person, in state `A`; so is what waits there, with the \
           instance's next message"],
    );
    says(
        |new| new.states[0].defer.push("Cancel".into()),
        &["`Cancel` waits now, as held (`deferred`), in state `A`; what waits there goes on waiting"],
    );
    says(
        |new| {
            new.states[2].defer.push("Cancel".into());
            new.states[3].defer.push("Cancel".into());
        },
        &["`Cancel` waits now, as held (`deferred`), in states `C`, `End`; those that were ignored before do not \
           come again"],
    );
    let rejecting = |chart: &mut Chart| chart.states[3].reject.push("Paid".into());
    let mut before = old();
    rejecting(&mut before);
    let text = "`Paid` is ignored now, in state `End`; those that were rejected before stay held for a person";
    assert_eq!(old().changes_since(&before), [text]);
    let text = "`Paid` is rejected now, and held for a person, in state `End`; those that were ignored before do not \
                come again";
    assert_eq!(before.changes_since(&old()), [text]);
}

#[test]
fn what_makes_no_difference_to_instances_is_not_told_as_one() {
    let nothing = ["nothing that matters to instances: order, names of branches, or what `verify` looks at"];
    says(|new| new.states[3].ignore.push("Paid".into()), &nothing); // it was late
    says(|new| new.states[0].ignore.push("shop.Overdue".into()), &nothing); // no such timer is alive there
    says(|new| new.states[0].waits = false, &nothing);
}

#[test]
fn what_becomes_of_a_repeated_start_is_told() {
    let everywhere = "in states `A`, `B`, `C`, `End`; those that were ignored before do not come again";
    says(
        |new| new.messages[0].rejects_repeats = true,
        &[&format!("`Placed` is rejected now, and held for a person, {everywhere}")],
    );
    says(
        |new| new.messages[0].returns_repeats = true,
        &[&format!("`Placed` is answered once more now, where the instance replies from now on, {everywhere}")],
    );
    let mut before = old();
    before.messages[0].returns_repeats = true;
    let text = "`Placed` is ignored now, in states `A`, `B`, `C`, `End`; those that were answered before stay so";
    assert_eq!(old().changes_since(&before), [text]);
    says(
        |new| {
            new.messages[0].starts = false;
            new.edges[0] = edge("", "Restarted", "A", &[("publish", "shop.Began")]);
        },
        &[
            "`Placed` begins no instance any more: it waits an hour for one, as held (`early`)",
            "`Restarted` begins instances now",
        ],
    );
}

#[test]
fn whose_answers_are_taken_is_told() {
    let asking = |anyone: bool| {
        let mut chart = old();
        chart.edges[0].effects = vec![ChartEffect {
            kind: "send".into(),
            type_name: "bank.Pay".into(),
            to: Some("bank".into()),
            outcome: vec!["Paid".into()],
        }];
        let paid = chart.messages.iter_mut().find(|message| message.type_name == "Paid").unwrap();
        paid.anyone = anyone;
        chart
    };
    let everyone = "`Paid` is taken from everyone now: what answers others, or nobody, reaches the instance that its \
                    id names; before, it was left alone";
    assert_eq!(asking(true).changes_since(&asking(false)), [everyone]);
    let ours = "`Paid` is taken only as the answer to a command of the instance now: one that comes from anyone else \
                is left alone, also one that is on its way";
    assert_eq!(asking(false).changes_since(&asking(true)), [ours]);
}

#[test]
fn messages_that_are_new_or_of_another_kind_are_told() {
    says(
        |new| new.messages.push(message("Returned", MessageKind::Event)),
        &["`Returned` is known now: one that waits as held (`version`) is offered; the endpoint subscribes to it"],
    );
    says(
        |new| new.messages.push(message("Returned", MessageKind::Reply)),
        &["`Returned` is known now: one that waits as held (`version`) is offered"],
    );
    for (kind, word) in
        [(MessageKind::Reply, "a reply"), (MessageKind::Command, "a command"), (MessageKind::Timer, "a timer")]
    {
        let texts = told(|new| new.messages[0].kind = kind);
        let text = format!("`Placed` is a message of another kind now: {word} instead of an event. What is on its way");
        assert!(texts.len() == 1 && texts[0].starts_with(&text), "{texts:?}");
    }
}

#[test]
fn what_becomes_of_states_is_told() {
    let mut renamed = old();
    renamed.states[1].was.push("Packing".into());
    let text = "state `B` was called `Packing`, and `#[was(\"Packing\")]` is gone: instances that were stored under \
                that name and have not moved since cannot be read";
    assert_eq!(old().changes_since(&renamed), [text]);
    says(
        |new| new.states[3].done = false,
        &["state `End` is not done any more: instances that are already in it count as done, and are deleted when \
           their time is up"],
    );
    let done = told(|new| new.states[2].done = true);
    assert_eq!(
        done,
        ["state `C` is done now: instances that are already in it stay open, and their timers run, until a message \
             moves them"]
    );
    let more = |version| {
        told(move |new| {
            new.version = version;
            new.states.push(ChartState::new("D").done(true));
        })
    };
    let [raise] = more(1).try_into().unwrap();
    assert!(raise.starts_with("state `D` is new: while processes of the last program run"), "{raise}");
    assert_eq!(more(2)[1..], ["state `D` is new: no instance is in it yet"]);
    let gone = told(|new| new.states.truncate(3));
    assert!(gone[0].contains("say `#[was(\"End\")]` at `the new one`; if instances"), "{gone:?}");
}

/// A function that is gone: what comes instead depends on the rest of the chart.
#[test]
fn a_function_that_is_gone_is_told_with_what_happens_instead() {
    let without = |from: &'static str, on: &'static str, change: fn(&mut Chart)| {
        told(move |new| {
            new.edges.retain(|edge| edge.from != from || edge.on != on);
            change(new);
        })
    };
    let gone = "no function takes `Cancel` in state `B` any more:";
    let of = |change| without("B", "Cancel", change).into_iter().find(|text| text.starts_with(gone)).unwrap();
    for (change, then) in [
        ((|_: &mut Chart| {}) as fn(&mut Chart), "what would have been taken is late now, and ignored"),
        (|new| new.states[1].defer.push("Cancel".into()), "it waits, as held (`deferred`), for another state"),
        (|new| new.states[1].reject.push("Cancel".into()), "it is held for a person (`rejected`)"),
        (|new| new.states[1].ignore.push("Cancel".into()), "it is ignored, as the state says"),
        (
            |new| new.edges.extend([edge("B", "Watched", "A", &[]), edge("A", "Cancel", "End", &[])]),
            "it waits, as held (`early`), for a state that takes it",
        ),
    ] {
        assert_eq!(of(change), format!("{gone} {then}"));
    }
    let timer = without("B", "shop.Overdue", |new| new.edges.push(edge("A", "shop.Overdue", "End", &[])));
    let text = "no function takes `shop.Overdue` in state `B` any more: a timer that was set before is ignored when it \
                comes";
    assert!(timer.contains(&text.to_owned()), "{timer:#?}");
    let back = without("B", "shop.Overdue", |new| {
        new.edges.extend([edge("B", "Watched", "A", &[]), edge("A", "shop.Overdue", "End", &[])]);
    });
    assert!(back.contains(&text.to_owned()), "{back:#?}");

    let mut own = old();
    own.edges.push(edge("B", "Placed", "B", &[]));
    let mut new = old();
    new.messages[0].returns_repeats = true;
    let texts = new.changes_since(&own);
    let text = "no function takes `Placed` in state `B` any more: its sender gets the reply that was given, if there \
                is one";
    assert!(texts.contains(&text.to_owned()), "{texts:#?}");
}

#[test]
fn a_function_that_is_new_is_told_with_what_happens_to_those_that_came_before() {
    let taken = |then: &str| format!("`Cancel` is taken in state `A` now; {then}");
    let takes = |chart: &mut Chart| chart.edges.push(edge("A", "Cancel", "End", &[]));
    assert_eq!(told(takes), [taken("those that wait there are offered with the instance's next message")]);
    let mut new = old();
    takes(&mut new);
    let before = |change: fn(&mut Chart)| {
        let mut before = old();
        change(&mut before);
        before
    };
    let rejecting = before(|chart| chart.states[0].reject.push("Cancel".into()));
    assert_eq!(new.changes_since(&rejecting), [taken("those that were rejected before stay held for a person")]);
    let ignoring = before(|chart| chart.states[0].ignore.push("Cancel".into()));
    assert_eq!(new.changes_since(&ignoring), [taken("those that came too late before do not come again")]);
}

#[test]
fn what_a_function_does_otherwise_is_told() {
    let follows = "`Paid` waits now, as held (`early`), in state `B`; those that were ignored before do not come again";
    says(|new| new.edges[3].to = "C".into(), &["`Cancel` in state `B` leads to `C` instead of `End`", follows]);
    says(
        |new| new.edges.push(ChartEdge { branch: "Other".into(), ..edge("B", "Cancel", "C", &[]) }),
        &["`Cancel` in state `B` leads to `C`, `End` instead of `End`", follows],
    );
    says(|new| new.edges[0].effects.clear(), &["`Placed` has the effect `publish shop.Began` no more"]);
    says(
        |new| new.edges[1].effects.clear(),
        &["`Paid` in state `A` has the effect `after shop.Overdue` no more; timers that are set already still come"],
    );
    says(
        |new| new.edges[3].effects = edge("", "", "", &[("publish", "shop.Over")]).effects,
        &["`Cancel` in state `B` has the effect `publish shop.Over` now: it is missing where it was handled before"],
    );
    says(
        |new| {
            new.edges[3].effects = edge("", "", "", &[("send", "bank.Pay")]).effects;
            new.edges[3].effects[0].to = Some("bank".into());
        },
        &["`Cancel` in state `B` sends `bank.Pay` now: endpoint `bank` must know it before this program runs"],
    );
    for kind in ["after", "deadline"] {
        says(
            |new| {
                let set = edge("", "", "", &[(kind, "shop.Overdue")]).effects;
                new.edges.push(ChartEdge { branch: "Other".into(), ..edge("A", "Watched", "B", &[]) });
                new.edges.iter_mut().filter(|edge| edge.on == "Watched").for_each(|edge| edge.effects = set.clone());
            },
            &[
                "`Watched` in state `A` leads to `B`, `C` instead of `C`",
                "`Watched` in state `A` sets the timer `Overdue` now: instances that are already in `B`, `C` have none",
            ],
        );
    }
}

#[test]
fn of_two_ways_one_may_lose_what_the_other_gains() {
    let ways = |b: &[(&str, &str)], c: &[(&str, &str)]| {
        let mut chart = old();
        chart.edges.push(edge("A", "Cancel", "B", b));
        chart.edges.push(edge("A", "Cancel", "C", c));
        chart
    };
    let (timer, none) = (&[("after", "shop.Overdue")][..], &[][..]);
    assert_eq!(
        ways(none, timer).changes_since(&ways(timer, none)),
        [
            "`Cancel` in state `A` has the effect `after shop.Overdue` no more where it leads to `B`; timers that \
             are set already still come",
            "`Cancel` in state `A` has the effect `after shop.Overdue` now where it leads to `C`",
        ]
    );
}

#[test]
fn another_id_and_data_that_come_or_go_are_told() {
    let with = |id: &str, has_data: bool| Chart { id: id.into(), has_data, ..old() };
    let before = with("order_id: Uuid", false);
    let [id, data] = &with("order_id: (u32, Uuid)", true).changes_since(&before)[..] else { panic!("two changes") };
    assert!(id.contains("the id was `order_id: Uuid` and is `order_id: (u32, Uuid)`"), "{id}");
    assert!(data.contains("share data now") && data.contains("`Upcast<1>`"), "{data}");
    assert_eq!(before.changes_since(&before), [""; 0]);
}
