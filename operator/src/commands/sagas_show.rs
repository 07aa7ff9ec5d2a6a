//! `sagabus sagas show`: everything about one instance.

use super::{held_list, held_show, operations, outbox_list, sagas::spelt};
use crate::{
    choice::OneOfSeveral,
    databases::Session,
    diff,
    find::{self, Found},
    masks,
    screen::Screen,
    table::{Cell, Table},
    text::{count, distance, plain, quoted, time},
};
use clap::Args;
use saga_core::{
    ErrorCode, HeldFilter, HeldView, Inspect, InstanceFilter, InstanceView, JournalView, OperationFilter,
    OperationView, OutboxFilter, OutboxView, StoreError,
};
use serde_json::{Value, json};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The saga's name, whatever its case
    saga: String,
    /// The instance's id, or how it begins
    #[arg(allow_hyphen_values = true)]
    pub(crate) id: String,
}

pub(crate) async fn run(session: &mut Session, arguments: Arguments) -> bool {
    let Some(found) = find(session, arguments).await else { return false };
    session.show(found, show).await
}

/// The rows of one instance, each with its database's number. Reports at the end what cannot be found.
pub(super) async fn find(session: &mut Session, arguments: Arguments) -> Option<Vec<(usize, InstanceView)>> {
    let id = arguments.id;
    let (saga, _) = spelt(session, Some(arguments.saga), None).await?;
    let filter = InstanceFilter { saga: saga.clone(), id: Some(id.clone()), ..InstanceFilter::default() };
    let all = session.each(async |store: &dyn Inspect| store.instances(&filter, find::ROWS_MAX).await).await;
    let (code, text) = match find::one(&id, find::flat(all), |(_, instance)| instance.id.clone()) {
        Found::One(rows) => return Some(rows),
        Found::None => (ErrorCode::NotFound, format!("there is no instance {id} of saga {}", saga.unwrap_or_default())),
        Found::Several(text) => (ErrorCode::Ambiguous, text),
    };
    session.refused(code, text);
    None
}

/// Everything that is known about an instance.
struct Page {
    instance: InstanceView,
    /// What tells the message that pauses it from others with its id.
    options: String,
    outbox: Vec<OutboxView>,
    held: Vec<HeldView>,
    held_count: u64,
    operations: Vec<OperationView>,
    /// There are older operations at which nobody looked.
    operations_beyond: bool,
    journal: Vec<JournalView>,
    journal_count: u64,
}

async fn read(
    store: &dyn Inspect,
    mut instance: InstanceView,
    options: String,
    rows_max: i64,
    unmasked: bool,
) -> Result<Page, StoreError> {
    let key = instance.key();
    let (saga, saga_id) = (Some(key.saga.clone()), Some(key.id.clone()));
    let sent = OutboxFilter { saga: saga.clone(), saga_id: saga_id.clone(), ..OutboxFilter::default() };
    let waiting = HeldFilter { saga: saga.clone(), saga_id: saga_id.clone(), ..HeldFilter::default() };
    let done = OperationFilter { saga, saga_id, ..OperationFilter::default() };
    let mut journal = store.journal(&key, rows_max).await?;
    let (mut operations, operations_beyond) = operations::read(store, &done, operations::ROWS_MAX).await?;
    if !unmasked {
        let definitions = store.definitions().await?;
        masks::instance(&mut instance, &definitions);
        masks::journal(&key.saga, &mut journal, &definitions);
    }
    masks::operations(&mut operations, unmasked);
    Ok(Page {
        outbox: store.outbox(&sent, rows_max).await?,
        held: store.held(&waiting, rows_max).await?,
        held_count: store.held_count(&waiting).await?,
        operations,
        operations_beyond,
        journal,
        journal_count: store.journal_count(&key).await?,
        options,
        instance,
    })
}

/// What a command needs beside its id to mean the message that pauses an instance: other receivers may hold it as well.
async fn options(session: &mut Session, n: usize, instance: &InstanceView) -> String {
    let Some(message) = &instance.paused_by else { return String::new() };
    let Found::One(all) = held_show::find(session, message).await else { return String::new() };
    let (saga, id) = (Some(&instance.saga), Some(&instance.id));
    let is_its = |(of, row): &&(usize, HeldView)| *of == n && row.saga.as_ref() == saga && row.saga_id.as_ref() == id;
    match all.iter().find(is_its) {
        _ if all.iter().any(|(_, row)| row.message_id != *message) => String::new(),
        Some((_, row)) => row.chosen_by(n, &all),
        // it is being handled again: what others hold is not meant
        None => format!("--receiver {}", quoted(&instance.saga)),
    }
}

/// Shows it, or returns it as JSON if that is asked for.
async fn show(session: &mut Session, n: usize, instance: InstanceView) -> Option<Value> {
    let options = options(session, n, &instance).await;
    let page = match read(&*session.database(n).store, instance, options, session.rows_max, session.unmasked).await {
        Ok(page) => page,
        Err(error) => {
            let name = session.database(n).name.clone();
            session.failed(format!("cannot read {name}: {error}"));
            return None;
        }
    };
    if !session.screen.json {
        print(&mut session.screen, &page);
        return None;
    }
    let (timers, outbox): (Vec<_>, Vec<_>) = page.outbox.iter().partition(|row| row.kind == "timer");
    Some(json!({
        "instance": session.labelled(n, &page.instance), "timers": timers, "outbox": outbox, "held": page.held,
        "held_count": page.held_count, "operations": page.operations,
        "operations_beyond": page.operations_beyond, "journal": page.journal, "journal_count": page.journal_count,
    }))
}

fn print(screen: &mut Screen, page: &Page) {
    let instance = &page.instance;
    let (now, zone) = (screen.view.now_us, screen.view.zone.clone());
    let at = |us: i64| format!("{} ({})", time(us, &zone), distance(us, now));
    let InstanceView { saga, id, state, seq, version, .. } = instance;
    screen.line(plain(&format!("{saga} {id}: {state} (seq {seq}, version {version})")));
    screen.line(format!("started {}", at(instance.created_at_us)));
    screen.line(format!("changed {}", at(instance.updated_at_us)));
    if let Some(done) = instance.completed_at_us {
        screen.line(format!("done    {}", at(done)));
    }
    for (field, value) in &instance.aliases {
        screen.line(plain(&format!("alias   {field} {value}")));
    }
    for (field, value) in &instance.fields {
        screen.line(plain(&format!("field   {field} {value}")));
    }
    if let Some(message) = &instance.paused_by {
        screen.line(plain(&format!("PAUSED by message {message}")));
        let (message, saga, id) = (quoted(message), quoted(saga), quoted(id));
        screen.line(format!("    look at it:     sagabus held show {message}"));
        let options = if page.options.is_empty() { String::new() } else { format!(" {}", page.options) };
        screen.line(format!("    run it again:   sagabus held retry {message}{options}"));
        screen.line(format!("    or give it up:  sagabus held discard {message}{options} --reason TEXT"));
        screen.line(format!("    go on without:  sagabus sagas resume {saga} {id}"));
    }
    screen.line(find::pretty(&instance.data));
    outbox(screen, page);
    let mut held = Table::new(&held_list::HEADER);
    for (cells, error) in page.held.iter().map(held_list::row) {
        held.row(cells, error);
    }
    let all = left_out(page.held.len(), page.held_count, "oldest");
    screen.section(&format!("held messages{all}"), &held);
    let did = operations::heading("what operators did", page.operations_beyond);
    screen.section(&did, &operations::table(&page.operations));
    let mut timeline = Table::new(&["at", "message", "transition", "sent"]);
    for (line, changes) in page.journal.iter().zip(diff::of_journal(&page.journal)) {
        // the number is what `sagas fork` wants
        let step = line.seq.filter(|_| line.after.is_some()).map(|seq| format!("step {seq}"));
        let notes = note(line).into_iter().chain(step).chain(changes.iter().map(diff::Change::line)).collect();
        timeline.row_with(journal_cells(line, |us| time(us, &zone)), notes);
    }
    screen.line("");
    if timeline.is_empty() {
        screen.line("no timeline: its retention is over");
    } else {
        screen.line(format!("timeline{}", left_out(page.journal.len(), page.journal_count, "newest")));
        screen.table(&timeline, "");
    }
}

fn outbox(screen: &mut Screen, page: &Page) {
    let table = |of: &dyn Fn(&&OutboxView) -> bool| {
        let mut table = Table::new(&outbox_list::HEADER);
        page.outbox.iter().filter(of).for_each(|row| table.row(outbox_list::cells(row), outbox_list::note(row)));
        table
    };
    let timers = table(&|row| row.kind == "timer");
    if timers.is_empty() {
        screen.line("no timers");
    }
    screen.section("timers", &timers);
    screen.section("sent and not confirmed", &table(&|row| row.kind != "timer" && row.kind != "retry"));
    screen.section("to be handled again", &table(&|row| row.kind == "retry"));
}

fn left_out(shown: usize, all: u64, which: &str) -> String {
    if shown as u64 >= all { String::new() } else { format!(" (the {which} {shown} of {all}; --limit N shows more)") }
}

fn journal_cells(line: &JournalView, time: impl Fn(i64) -> String) -> Vec<Cell> {
    let states = match (&line.from_state, &line.to_state) {
        (None, Some(to)) => format!("→ {to}"),
        (Some(from), Some(to)) => format!("{from} → {to}"),
        (from, None) => format!("({}) {}", line.result, from.as_deref().unwrap_or_default()).trim_end().to_owned(),
    };
    let sent = line
        .effects
        .as_array()
        .map(|effects| effects.iter().filter_map(|effect| effect["type"].as_str()).collect::<Vec<_>>().join(", "));
    vec![
        time(line.handled_at_us).into(),
        line.type_name.as_str().into(),
        states.into(),
        sent.unwrap_or_default().into(),
    ]
}

/// What is remarkable about a line of the timeline.
fn note(line: &JournalView) -> Option<String> {
    let runs = (line.attempts > 1).then(|| format!("after {}", count(line.attempts, "run")));
    let parts: Vec<String> = runs.into_iter().chain(line.note.clone()).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::View;

    const M: &str = "df6196a1-6b3d-4c3c-8d43-5f0d6cb2a001";
    const US: i64 = 1_790_000_000_000_000;

    fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn outbox_row(kind: &str, type_name: &str, due_at_us: i64) -> Value {
        json!({ "id": "01997a10-0000-7000-8000-000000000001", "endpoint": "ordering", "message_id": "m", "kind": kind,
            "type": type_name, "destination": "payment", "saga": "order", "saga_id": "7", "created_at_us": US,
            "due_at_us": due_at_us, "first_attempt_at_us": null, "lease_until_us": null, "lease_owner": null,
            "attempts": 0, "expired": 0, "waits_for": null, "last_error": null, "envelope": {} })
    }

    fn page() -> Page {
        let mut unroutable = outbox_row("command", "payment.MakePayment", US);
        unroutable["waits_for"] = "payment".into();
        unroutable["attempts"] = 3.into();
        unroutable["last_error"] = "no queue is bound".into();
        let line = |seq: Option<i64>, from: Option<&str>, to: Option<&str>, note: Option<&str>| {
            let data = json!({ "amount": 5, "card": { "name": "Ann\x1b[2J" } });
            let after = seq.map(|_| json!({ "data": data, "version": 1, "done": false }));
            of(json!({ "message_id": "m", "type": "orders.OrderPlaced",
                "result": if seq.is_some() { "handled" } else { "ignored" }, "seq": seq,
                "from_state": from, "to_state": to, "effects": [{ "type": "payment.MakePayment" }],
                "causation_id": null, "handled_at_us": US, "handled_by": "p", "attempts": 2, "note": note,
                "after": after }))
        };
        Page {
            instance: of(json!({ "saga": "order", "id": "7", "state": "AwaitingPayment", "data": { "amount": 5 },
                "aliases": { "reference": "pay_1\x1b[2J" }, "fields": { "customer": "7\x1b[2J" },
                "seq": 2, "version": 1, "paused_by": M,
                "created_at_us": US, "updated_at_us": US + 1_000_000,
                "completed_at_us": null })),
            options: String::new(),
            outbox: vec![of(outbox_row("timer", "orders.PaymentOverdue", US + 3_600_000_000)), of(unroutable)],
            held: vec![of(
                json!({ "endpoint": "ordering", "receiver": "order", "message_id": M, "type": "payment.Paid\x1b[2J",
                "arrival": 1, "reason": "undecodable", "saga": "order", "saga_id": "7",
                "error": "missing field `payment_id` at line 1 column 2\x1b[2J", "attempts": 1, "held_at_us": US,
                "expires_at_us": null, "kind": null, "destination": null, "envelope": {} }),
            )],
            held_count: 1,
            operations: vec![of(json!({ "id": "o", "at_us": US, "who": "ann", "action": "held retry",
                "reason": "the table is back", "items": [{ "endpoint": "ordering", "receiver": "order",
                "message_id": M, "result": "retried" }] }))],
            operations_beyond: false,
            journal: vec![
                line(Some(1), None, Some("AwaitingPayment"), None),
                line(None, Some("AwaitingPayment"), None, Some("came twice")),
            ],
            journal_count: 2561,
        }
    }

    fn shown(width: Option<usize>) -> String {
        let view = View { width, now_us: US + 11_520_000_000, zone: jiff::tz::TimeZone::UTC };
        let mut screen = Screen::new(view, false);
        print(&mut screen, &page());
        screen.out().to_owned()
    }

    #[test]
    fn an_instance_is_shown_as_wide_as_the_terminal() {
        for width in [80, 100, 200] {
            crate::commands::golden(&format!("sagas-show-{width}.txt"), &shown(Some(width)));
        }
        crate::commands::golden("sagas-show-no-terminal.txt", &shown(None));
    }

    #[test]
    fn commands_mean_the_message_of_the_instance_when_others_hold_it_as_well() {
        let view = View { width: None, now_us: US, zone: jiff::tz::TimeZone::UTC };
        let mut screen = Screen::new(view, false);
        print(&mut screen, &Page { options: "--receiver order".into(), ..page() });
        for command in
            [format!("held retry {M} --receiver order\n"), format!("held discard {M} --receiver order --rea")]
        {
            assert!(screen.out().contains(&command), "{}", screen.out());
        }
    }

    #[test]
    fn no_text_of_a_stranger_reaches_the_terminal_raw() {
        let page = shown(Some(100));
        assert!(!page.contains('\x1b'), "{page}");
        assert!(page.contains("held discard") && page.contains("held retry"), "both ways out are named: {page}");
    }
}
