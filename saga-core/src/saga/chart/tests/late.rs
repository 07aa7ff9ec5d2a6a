//! Outcomes that come where nothing is done with them.

use super::*;

fn sends(mut edge: ChartEdge, commands: &[(&str, &[&str])]) -> ChartEdge {
    edge.effects.extend(commands.iter().map(|(name, outcome)| ChartEffect {
        kind: "send".into(),
        type_name: (*name).into(),
        to: Some("bank".into()),
        outcome: outcome.iter().map(|name| (*name).to_owned()).collect(),
    }));
    edge
}

fn late(states: &[ChartState], edges: Vec<ChartEdge>) -> Vec<String> {
    let mut chart = Chart { states: states.to_vec(), edges, ..chart() };
    chart.messages.retain(|message| message.kind != MessageKind::Timer);
    let names = ["Overdue", "Again"].map(|name| message(name, MessageKind::Timer));
    chart.messages.extend(names);
    chart.verify().into_iter().filter(|text| text.contains("late")).collect()
}

/// `Paying` can be entered again from `Checking`, but it has had its chance.
#[test]
fn an_outcome_is_late_in_a_state_from_which_only_the_way_back_takes_it() {
    let pay: &[(&str, &[&str])] = &[("Pay", &["Paid"])];
    let states = [ChartState::new("Paying"), ChartState::new("Checking"), ChartState::new("End").done(true)];
    let edges = vec![
        sends(edge("", "Placed", "Paying", &[("after", "Overdue")]), pay),
        edge("Paying", "Paid", "End", &[]),
        edge("Paying", "Overdue", "Checking", &[("after", "Again")]),
        sends(edge("Checking", "Again", "Paying", &[("after", "Overdue")]), pay),
    ];
    let told = late(&states, edges);
    let expected = "saga `order`: `Paid`, an outcome of `Pay`, may come in state `Checking`, where it would be late: \
                    take it there, or say `#[ignores(Paid)]`";
    assert!(told.contains(&expected.to_owned()), "{told:#?}");
}

/// Functions of the enum say `Stay`: the compiler knows that the enum takes the outcome, but a done state does not.
#[test]
fn an_outcome_that_a_done_state_asks_for_is_late_there() {
    let states = [ChartState::new("Open").waits(true), ChartState::new("End").done(true)];
    let edges = vec![
        edge("", "Placed", "Open", &[]),
        edge("Open", "Cancel", "End", &[]),
        sends(edge("End", "Watched", "End", &[]), &[("Refund", &["Paid"])]),
    ];
    let told = late(&states, edges);
    assert!(told.iter().any(|text| text.contains("`Refund`") && text.contains("state `End`")), "{told:#?}");
}

#[test]
fn an_answer_that_is_found_by_echo_answers_something() {
    let mut chart = chart();
    let watched = chart.messages.iter_mut().find(|message| message.type_name == "Watched").expect("it is on the chart");
    watched.echo = true;
    let errors = chart.errors();
    let expected = "saga `order`: `by(Watched = echo)`: `Watched` answers no command of the saga, so its envelope \
                    names no instance";
    assert!(errors.contains(&expected.to_owned()), "{errors:#?}");
}
