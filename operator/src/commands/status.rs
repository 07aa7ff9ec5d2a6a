//! `sagabus status`: one line for each thing that is going on, and what needs a person.

use crate::{
    databases::Session,
    screen::Screen,
    table::{Cell, Table},
    text::{age, plain, some},
    trouble::{TOLD_MAX, Trouble, lingering, troubles},
};
use clap::Args;
use saga_core::{EndpointStatus, Inspect, ProcessReport, RowCount, StateCount, Status};
use serde_json::json;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Exit 1 when something needs a person
    #[arg(long)]
    check: bool,
}

pub(crate) async fn run(session: &mut Session, arguments: &Arguments) -> bool {
    let all = session.each(async |store: &dyn Inspect| store.status().await).await;
    let told = |of: fn(&Status) -> Vec<Trouble>| -> Vec<Trouble> {
        let labelled = |n: usize, trouble: Trouble| match session.label(n) {
            Some(label) => Trouble { text: format!("{label}: {}", trouble.text), ..trouble },
            None => trouble,
        };
        all.iter().flat_map(|(n, status)| of(status).into_iter().map(|it| labelled(*n, it))).collect()
    };
    let (trouble, lingering) = (told(troubles), told(lingering));
    if session.screen.json {
        let rows = |pick: fn(&Status) -> Vec<serde_json::Value>| -> Vec<serde_json::Value> {
            let rows =
                all.iter().flat_map(|(n, status)| pick(status).into_iter().map(|row| session.labelled(*n, &row)));
            rows.collect()
        };
        let endpoints = rows(|status| status.endpoints.iter().map(|row| json!(row)).collect());
        let instances = rows(|status| status.instances.iter().map(|row| json!(row)).collect());
        let lines = |all: &[Trouble]| all.iter().map(Trouble::to_string).collect::<Vec<_>>();
        let (trouble, lingering) = (lines(&trouble), lines(&lingering));
        let value =
            json!({ "endpoints": endpoints, "instances": instances, "lingering": lingering, "trouble": trouble });
        session.screen.value(&value);
    } else {
        let mut endpoints = Table::new(&session.header(&["endpoint", "what", "count", "age"]));
        let mut instances = Table::new(&session.header(&["saga", "state", "instances", "paused", "oldest change"]));
        for (n, status) in &all {
            let label = session.label(*n);
            status.endpoints.iter().for_each(|endpoint| lines(&mut endpoints, label, endpoint, status.now_us));
            status.instances.iter().for_each(|state| instances.row(labelled(label, state_cells(state)), None));
        }
        let clean = session.is_clean();
        if all.is_empty() && !clean {
            return false; // there is nothing to show, and why is told at the end
        }
        show(&mut session.screen, (&endpoints, &instances), (&trouble, &lingering), clean);
    }
    !arguments.check || trouble.is_empty()
}

/// The most processes of an endpoint that have a line: what is wrong with the others is told all the same.
const PROCESSES_TOLD: usize = 20;

/// What shows the rows behind the counts.
const MORE: &str = "more: sagabus outbox, timers, held groups, sagas, processes; sagabus explain ANY-ID";

fn show(
    screen: &mut Screen,
    (endpoints, instances): (&Table, &Table),
    (trouble, lingering): (&[Trouble], &[Trouble]),
    clean: bool,
) {
    screen.table(endpoints, if clean { "no endpoint has started on these databases" } else { "" });
    screen.line("");
    screen.table(instances, if clean { "no saga instances" } else { "" });
    screen.line("");
    screen.line(MORE);
    screen.line("");
    if !lingering.is_empty() {
        screen.line(format!("has waited for more than a day ({}):", lingering.len()));
        lines_of(screen, lingering);
        screen.line("");
    }
    if trouble.is_empty() {
        screen.line(if clean { "nothing needs a person" } else { "nothing that could be read needs a person" });
    } else {
        screen.line(format!("needs a person ({}):", trouble.len()));
        lines_of(screen, trouble);
    }
}

/// The first troubles; then how many there are beside them.
fn lines_of(screen: &mut Screen, troubles: &[Trouble]) {
    troubles.iter().take(TOLD_MAX).for_each(|it| line(screen, it));
    if troubles.len() > TOLD_MAX {
        screen.line(format!("and {} more: sagabus --json status has all", troubles.len() - TOLD_MAX));
    }
}

/// A trouble with its commands. They are not wrapped: what the terminal breaks is copied in one piece.
fn line(screen: &mut Screen, trouble: &Trouble) {
    if screen.view.width.is_none() {
        return screen.line(plain(&trouble.to_string()));
    }
    screen.long(&trouble.told());
    screen.line(format!("        {}", trouble.see));
    trouble.mend.iter().for_each(|mend| screen.line(format!("        {mend}")));
}

fn labelled(label: Option<&str>, cells: Vec<Cell>) -> Vec<Cell> {
    label.map(Cell::from).into_iter().chain(cells).collect()
}

/// The lines of an endpoint; zero counts have no line.
fn lines(table: &mut Table, label: Option<&str>, endpoint: &EndpointStatus, now_us: i64) {
    let mut line = |what: String, n: String, age: String, note: Option<String>| {
        table.row(labelled(label, vec![endpoint.endpoint.as_str().into(), what.into(), n.into(), age.into()]), note);
    };
    line("handled in the last minute".into(), endpoint.handled_last_minute.to_string(), String::new(), None);
    let counts: [(&str, &RowCount); 5] = [
        ("due", &endpoint.due),
        ("publishing failed", &endpoint.failing),
        ("retrying", &endpoint.retrying),
        ("timers", &endpoint.timers),
        ("delayed", &endpoint.delayed),
    ];
    for (what, rows) in counts.into_iter().filter(|(_, rows)| rows.count > 0) {
        let due = rows.oldest_ms.map_or_else(String::new, |ms| {
            if ms < 0 { format!("next in {}", age(ms)) } else { format!("oldest {}", age(ms)) }
        });
        line(what.into(), some(rows.count), due, rows.error.clone());
    }
    for rows in &endpoint.unroutable {
        line(
            format!("no queue: {}", rows.destination),
            some(rows.count),
            format!("oldest {}", age(rows.oldest_ms)),
            None,
        );
    }
    if let Some(ms) = endpoint.unconfirmed_ms {
        line("not confirmed".into(), String::new(), format!("oldest {}", age(ms)), None);
    }
    for held in &endpoint.held {
        line(format!("held: {}", held.reason), some(held.count), format!("oldest {}", age(held.oldest_ms)), None);
    }
    for process in endpoint.processes.iter().take(PROCESSES_TOLD) {
        let up = age(now_us.saturating_sub(process.started_at_us) / 1000);
        let seen = age(now_us.saturating_sub(process.seen_at_us) / 1000);
        let report = ProcessReport::read(&process.report);
        let down = report.down().map(|why| format!("the link is down: {why}"));
        let breakers = report.breakers.iter().map(|breaker| format!("breaker of {breaker} is open"));
        let note: Vec<String> = down.into_iter().chain(breakers).collect();
        let note = (!note.is_empty()).then(|| note.join("; "));
        line(format!("process {}", process.owner), String::new(), format!("up {up}, seen {seen} ago"), note);
    }
    let more = endpoint.processes.len().saturating_sub(PROCESSES_TOLD);
    if more > 0 {
        line("more processes".into(), more.to_string(), String::new(), Some("sagabus processes".into()));
    }
}

fn state_cells(state: &StateCount) -> Vec<Cell> {
    let done = if state.done == state.count { " (done)" } else { "" };
    vec![
        state.saga.as_str().into(),
        format!("{}{done}", plain(&state.state)).into(),
        some(state.count).into(),
        some(state.paused).into(),
        age(state.oldest_ms).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{screen::View, trouble};

    fn page(width: Option<usize>) -> String {
        let status = trouble::tests::bad();
        let view = View { width, now_us: status.now_us, zone: jiff::tz::TimeZone::UTC };
        let mut screen = Screen::new(view, false);
        let mut endpoints = Table::new(&["endpoint", "what", "count", "age"]);
        let mut instances = Table::new(&["saga", "state", "instances", "paused", "oldest change"]);
        status.endpoints.iter().for_each(|endpoint| lines(&mut endpoints, None, endpoint, status.now_us));
        status.instances.iter().for_each(|state| instances.row(state_cells(state), None));
        show(&mut screen, (&endpoints, &instances), (&troubles(&status), &lingering(&status)), true);
        screen.out().to_owned()
    }

    #[test]
    fn a_page_ends_however_much_is_wrong() {
        let trouble = troubles(&trouble::tests::bad()).remove(0);
        let all = vec![trouble; TOLD_MAX + 7];
        let mut screen = Screen::new(View { width: None, now_us: 0, zone: jiff::tz::TimeZone::UTC }, false);
        lines_of(&mut screen, &all);
        assert_eq!(screen.out().lines().count(), TOLD_MAX + 1);
        assert!(screen.out().ends_with("and 7 more: sagabus --json status has all\n"), "{}", screen.out());
        let mut endpoint = EndpointStatus::default();
        let process = json!({ "owner": "p", "started_at_us": 0, "seen_at_us": 0, "report": null });
        endpoint.processes = vec![serde_json::from_value(process).unwrap(); PROCESSES_TOLD + 3];
        let mut table = Table::new(&["endpoint", "what", "count", "age"]);
        lines(&mut table, None, &endpoint, 0);
        let mut screen = Screen::new(View { width: None, now_us: 0, zone: jiff::tz::TimeZone::UTC }, false);
        screen.table(&table, "");
        let told = screen.out();
        assert!(told.contains("more processes\t3"), "{told}");
        assert_eq!(told.matches("process p").count(), PROCESSES_TOLD, "{told}");
    }

    #[test]
    fn a_status_is_as_wide_as_the_terminal() {
        crate::commands::golden("status-80.txt", &page(Some(80)));
        crate::commands::golden("status-100.txt", &page(Some(100)));
        crate::commands::golden("status-200.txt", &page(Some(200)));
        crate::commands::golden("status-no-terminal.txt", &page(None));
    }
}
