//! A story as a tree, as rows, and as a sequence diagram.

use crate::{
    table::{Cell, Table},
    text::{count, distance, plain},
};
use saga_core::{Story, TracedMessage, TracedStep, TracedWait};
use std::{collections::HashSet, fmt::Write};
use textwrap::core::display_width;

/// How a message's texts stand below its name.
const INDENT: &str = "  ";

/// The lines of a tree, as wide as the terminal. An id is never broken.
pub(super) fn tree(story: &Story, width: usize, now_us: i64) -> Vec<String> {
    let messages = &story.messages;
    let all_asked = messages.iter().all(|message| message.asked);
    let mut lines = Vec::new();
    for (n, message) in messages.iter().enumerate() {
        let (branch, below) = guides(messages, n, width);
        let mark = if message.asked && !all_asked { "  ◀" } else { "" };
        let (name, id) = (plain(&message.type_name), plain(&message.message_id));
        let whole = format!("{branch}{name} {id}{mark}");
        if display_width(&whole) <= width {
            lines.push(whole);
        } else {
            lines.push(format!("{branch}{name}{mark}"));
            lines.push(format!("{below}{INDENT}{id}"));
        }
        for text in texts(message, now_us) {
            let options = textwrap::Options::new(width.max(display_width(&below) + 20))
                .break_words(false)
                .word_separator(textwrap::WordSeparator::AsciiSpace)
                .word_splitter(textwrap::WordSplitter::NoHyphenation);
            let (first, next) = (format!("{below}{INDENT}"), format!("{below}{INDENT}{INDENT}"));
            let options = options.initial_indent(&first).subsequent_indent(&next);
            lines.extend(textwrap::wrap(&plain(&text), options).into_iter().map(|line| line.trim_end().to_owned()));
        }
    }
    lines
}

/// What stands before a message's name, and before the lines below it.
fn guides(messages: &[TracedMessage], n: usize, width: usize) -> (String, String) {
    let depth = messages[n].depth;
    if depth * 2 > width / 2 {
        return (format!("… {depth} deep: "), INDENT.into()); // deeper than a terminal can show
    }
    // whether a further message of this depth follows below the same ancestors
    let goes_on = |depth: usize| {
        let next = messages[n + 1..].iter().find(|next| next.depth <= depth);
        next.is_some_and(|next| next.depth == depth)
    };
    let mut before = String::new();
    (1..depth).for_each(|level| before.push_str(if goes_on(level) { "│ " } else { "  " }));
    let has_children = messages.get(n + 1).is_some_and(|next| next.depth > depth);
    let down = if has_children { "│ " } else { "  " };
    if depth == 0 {
        return (String::new(), down.into());
    }
    let (branch, side) = if goes_on(depth) { ("├ ", "│ ") } else { ("└ ", "  ") };
    (format!("{before}{branch}"), format!("{before}{side}{down}"))
}

/// What is known of a message, a text for each receiver.
fn texts(message: &TracedMessage, now_us: i64) -> Vec<String> {
    let mut texts = Vec::new();
    if message.depth == 0 {
        let by = message.sender.as_ref().map(|sender| format!(" by {sender}"));
        let at = message.sent_at_us.map(|us| format!(" {}", distance(us, now_us)));
        if by.is_some() || at.is_some() {
            texts.push(format!("sent{}{}", by.unwrap_or_default(), at.unwrap_or_default()));
        }
        if let Some(cause) = &message.caused_by {
            texts.push(format!("caused by {cause}, which is not in these databases"));
        }
    }
    texts.extend(message.steps.iter().map(|step| step_text(step, now_us)));
    texts.extend(message.waits.iter().map(|wait| wait_text(wait, now_us)));
    if message.steps.is_empty() && message.waits.is_empty() {
        let to = message.to.as_ref().map_or_else(String::new, |to| format!(" to {to}"));
        texts.push(format!("sent{to}; no receiver in these databases has had it"));
    }
    texts
}

fn step_text(step: &TracedStep, now_us: i64) -> String {
    let mut text = place(step);
    match (&step.from_state, &step.to_state) {
        (None, Some(to)) => drop(write!(text, ": → {to}")),
        (Some(from), Some(to)) => drop(write!(text, ": {from} → {to}")),
        _ => drop(write!(text, ": {}", result(step))),
    }
    if step.attempts > 1 {
        let _ = write!(text, " after {}", count(step.attempts, "run"));
    }
    let _ = write!(text, ", {}", distance(step.at_us, now_us));
    if let Some(note) = &step.note {
        let _ = write!(text, ": {note}");
    }
    text
}

fn place(step: &TracedStep) -> String {
    match (step.receiver.as_str(), &step.saga_id) {
        ("", _) => step.endpoint.clone(),
        (receiver, Some(id)) => format!("{}/{receiver} {id}", step.endpoint),
        (receiver, None) => format!("{}/{receiver}", step.endpoint),
    }
}

fn result(step: &TracedStep) -> String {
    match &step.reason {
        Some(reason) => format!("{} as {reason}", step.result),
        None => step.result.clone(),
    }
}

fn wait_text(wait: &TracedWait, now_us: i64) -> String {
    let what = match wait.kind.as_str() {
        "timer" => "timer".to_owned(),
        "retry" => format!("{} will handle it again", wait.endpoint),
        _ => format!("{} has not sent it to {} yet", wait.endpoint, wait.to),
    };
    let due = distance(wait.due_at_us, now_us);
    let note = wait.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
    format!("{what}, due {due}{note}")
}

/// Rows for programs: one for each receiver of each message, and for each wait.
pub(super) fn rows(story: &Story) -> Table {
    let mut table = Table::new(&["depth", "message", "type", "caused by", "receiver", "result", "from", "to", "at"]);
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    for message in &story.messages {
        let mut row = |rest: [String; 4], at: Cell, note: Option<String>| {
            let first: [String; 4] = [
                message.depth.to_string(),
                message.message_id.clone(),
                message.type_name.clone(),
                text(&message.caused_by),
            ];
            table.row(first.into_iter().chain(rest).map(Cell::from).chain([at]).collect(), note);
        };
        for step in &message.steps {
            let states = [text(&step.from_state), text(&step.to_state)];
            let [from, to] = states;
            row([place(step), result(step), from, to], Cell::At(step.at_us), step.note.clone());
        }
        for wait in &message.waits {
            let rest = [wait.to.clone(), format!("waits: {}", wait.kind), "-".into(), "-".into()];
            row(rest, Cell::At(wait.due_at_us), wait.note.clone());
        }
        if message.steps.is_empty() && message.waits.is_empty() {
            let to = text(&message.to);
            row([to, "not seen".into(), "-".into(), "-".into()], "-".into(), None);
        }
    }
    table
}

/// A sequence diagram, in the order in which messages were handled.
pub(crate) fn mermaid(story: &Story) -> String {
    let mut lines: Vec<(i64, String)> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut alias = |name: &str| {
        let n = names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        format!("p{n}")
    };
    for message in &story.messages {
        let from = alias(message.sender.as_deref().unwrap_or("outside"));
        let name = label(&message.type_name);
        let mut seen = HashSet::new();
        for step in &message.steps {
            let to = alias(&step.endpoint);
            if seen.insert(step.endpoint.clone()) {
                lines.push((step.at_us, format!("{from}->>{to}: {name}")));
            }
            let what = match (&step.from_state, &step.to_state) {
                (None, Some(state)) => format!("→ {state}"),
                (Some(before), Some(state)) => format!("{before} → {state}"),
                _ => result(step),
            };
            let who = if step.receiver.is_empty() { "nobody" } else { &step.receiver };
            lines.push((step.at_us, format!("Note over {to}: {}", label(&format!("{who}: {what}")))));
        }
        for wait in &message.waits {
            let to = alias(if wait.kind == "event" { "subscribers" } else { &wait.to });
            let waits = if wait.kind == "timer" { "not due" } else { "waits" };
            lines.push((wait.due_at_us, format!("{from}--){to}: {name} ({waits})")));
        }
        if let (Some(to), true) = (&message.to, message.steps.is_empty() && message.waits.is_empty()) {
            let to = alias(to);
            lines.push((message.sent_at_us.unwrap_or(i64::MAX), format!("{from}-x{to}: {name} (not seen)")));
        }
    }
    lines.sort_by_key(|(at, _)| *at); // stable: what has one time keeps its order
    let participants = names.iter().enumerate().map(|(n, name)| format!("    participant p{n} as {}", label(name)));
    let head = std::iter::once("sequenceDiagram".to_owned()).chain(participants);
    head.chain(lines.into_iter().map(|(_, line)| format!("    {line}"))).collect::<Vec<_>>().join("\n")
}

/// A text that Mermaid takes for nothing else.
fn label(text: &str) -> String {
    let safe = |c: char| match c {
        '#' | ';' | ':' => format!("#{};", u32::from(c)),
        c => c.into(),
    };
    plain(text).chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::{Screen, View};
    use serde_json::json;

    const US: i64 = 1_790_000_000_000_000;
    const PLACED: &str = "01997a10-0000-7000-8000-000000000001";
    const PAY: &str = "01997a10-0000-7000-8000-000000000002";
    const PAID: &str = "01997a10-0000-7000-8000-000000000003";
    const OVERDUE: &str = "01997a10-0000-7000-8000-000000000004";

    fn story() -> Story {
        // what cannot be built outside of its crate is read
        let step = |endpoint: &str, receiver: &str, more: serde_json::Value| {
            let mut step = json!({ "database": 0, "endpoint": endpoint, "receiver": receiver, "result": "handled",
                "reason": null, "saga_id": null, "seq": null, "from_state": null, "to_state": null,
                "at_us": US, "attempts": 1, "note": null, "caused": [] });
            step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            step
        };
        let message = |id: &str, type_name: &str, depth: usize, more: serde_json::Value| {
            let mut message = json!({ "message_id": id, "type": type_name, "depth": depth, "caused_by": null,
                "conversation_id": PLACED, "sender": "ordering", "to": null, "sent_at_us": US, "asked": false,
                "steps": [], "waits": [] });
            message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            message
        };
        let error = "error returned from database: relation \"charge\" does not exist\x1b[2J";
        serde_json::from_value(json!({ "id": PLACED, "left_out": 0, "messages": [
            message(PLACED, "ordering.OrderPlaced", 0, json!({ "asked": true, "steps": [
                step("ordering", "order-fulfilment", json!({ "saga_id": "7", "to_state": "AwaitingPayment" })),
                step("shop", "mails", json!({ "result": "retrying", "attempts": 3, "note": "no server" })),
            ] })),
            message(PAY, "payment.MakePayment", 1, json!({ "caused_by": PLACED, "steps": [step("payment", "charge",
                json!({ "result": "held", "reason": "failed", "attempts": 16, "note": error, "at_us": US + 1 }))] })),
            message(PAID, "payment.PaymentCompleted", 2, json!({ "caused_by": PAY, "to": "ordering" })),
            message(OVERDUE, "ordering.PaymentOverdue", 1, json!({ "caused_by": PLACED, "waits": [{ "database": 0,
                "endpoint": "ordering", "kind": "timer", "to": "ordering", "due_at_us": US + 3_600_000_000_i64,
                "note": null }] })),
        ] }))
        .unwrap()
    }

    #[test]
    fn a_story_is_a_tree_as_wide_as_the_terminal() {
        for width in [80, 100, 200] {
            let page = tree(&story(), width, US + 60_000_000).join("\n") + "\n";
            assert!(!page.contains('\x1b'), "{page}");
            let longest = page.lines().map(display_width).max().unwrap();
            assert!(longest <= width, "{longest}: {page}");
            crate::commands::golden(&format!("explain-{width}.txt"), &page);
        }
        let page = tree(&story(), 30, US).join("\n");
        assert!([PLACED, PAY, PAID, OVERDUE].iter().all(|id| page.contains(id)), "ids stay whole: {page}");
        let view = View { width: None, now_us: US, zone: jiff::tz::TimeZone::UTC };
        let mut screen = Screen::new(view, false);
        screen.table(&rows(&story()), "");
        crate::commands::golden("explain-no-terminal.txt", screen.out());
    }

    #[test]
    fn a_story_is_a_sequence_diagram() {
        let mut wild = story();
        wild.messages[2].type_name = "pay;ment#: x".into();
        crate::commands::golden("explain.mmd", &(mermaid(&wild) + "\n"));
    }

    #[test]
    fn what_is_deeper_than_the_terminal_is_still_told() {
        let mut story = story();
        let last = story.messages[3].clone();
        for depth in 2..60 {
            let mut next = last.clone();
            next.depth = depth;
            story.messages.push(next);
        }
        let page = tree(&story, 80, US);
        assert!(page.iter().any(|line| line.starts_with("… 59 deep: ordering.PaymentOverdue")), "{page:#?}");
        assert!(page.iter().all(|line| display_width(line) <= 80), "{page:#?}");
    }
}
