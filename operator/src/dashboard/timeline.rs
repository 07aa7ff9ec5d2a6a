//! What an instance has handled, what each step changed in its data, and the way back to a step.

use super::{
    html::{Cx, cell, lines, tag},
    instance::{Page, hidden},
};
use crate::{
    diff::{Change, of_journal},
    text::{self, age, count, plain},
};
use maud::{Markup, html};
use saga_core::{JournalView, MessageKind};

/// A longer time without a step is shown as a gap.
const GAP_US: i64 = 60_000_000;

pub(super) fn show(cx: &Cx, n: usize, page: &Page) -> Markup {
    let journal = &page.journal;
    if journal.is_empty() {
        return html! {};
    }
    let before = journal.iter().map(|line| Some(line.handled_at_us));
    let before = std::iter::once(None).chain(before);
    html! {
        h2 { "Timeline" }
        @if (journal.len() as u64) < page.journal_count { p.shown {
            "The last " (journal.len()) " of " (page.journal_count) " lines." } }
        ol.timeline {
            @for ((line, changes), before) in journal.iter().zip(of_journal(journal)).zip(before) {
                @if let Some(gap) = before.map(|before| line.handled_at_us - before).filter(|gap| *gap > GAP_US) {
                    li.gap { (age(gap / 1000)) " without a step" }
                }
                (step(cx, line, &changes, &fork(cx, n, page, line)))
            }
        }
    }
}

fn step(cx: &Cx, line: &JournalView, changes: &[Change], fork: &Markup) -> Markup {
    let sent: Vec<&str> =
        line.effects.as_array().into_iter().flatten().filter_map(|effect| effect["type"].as_str()).collect();
    let key = line.seq.map_or_else(|| line.message_id.clone(), |seq| seq.to_string());
    html! {
        li {
            div.step {
                strong { (cell(&line.type_name)) } " "
                @match (&line.from_state, &line.to_state) {
                    (None, Some(to)) => { "→ " (cell(to)) }
                    (Some(from), Some(to)) if from == to => { "stayed in " (cell(to)) }
                    (Some(from), Some(to)) => { (cell(from)) " → " (cell(to)) }
                    (_, None) => (tag(&line.result, "quiet")),
                }
            }
            div.muted { (cx.at(line.handled_at_us)) }
            @if !sent.is_empty() { div { "sent " @for (k, name) in sent.iter().enumerate() { @if k > 0 { ", " }
                code { (plain(name)) } } } }
            @for change in changes { div { code { (change.line()) } } }
            @if line.attempts > 1 { div.warn { "after " (count(line.attempts, "run")) } }
            @if let Some(note) = &line.note { div { (cell(note)) } }
            details id=(format!("step-{key}")) {
                summary { "Details" }
                dl {
                    dt { "Message" } dd { (cx.conversation(&line.message_id)) }
                    @if let Some(cause) = &line.causation_id { dt { "Caused by" } dd { (cx.conversation(cause)) } }
                    dt { "Handled by" } dd.id { (plain(&line.handled_by)) }
                }
                @if let Some(message) = &line.message { (lines(&text::json(message))) }
            }
            (fork)
        }
    }
}

/// The form that lets the instance stand again where a step left it, if that is kept.
fn fork(cx: &Cx, n: usize, page: &Page, line: &JournalView) -> Markup {
    let kept = line.seq.filter(|seq| line.after.is_some() && *seq < page.instance.seq);
    let Some(at) = kept.filter(|_| cx.visitor.may_act()) else { return html! {} };
    let stays = sent_after(page, at);
    html! {
        details id=(format!("fork-{at}")) {
            summary { "Let it stand here again" }
            form.stack method="post" {
                (hidden(cx, n, &page.instance))
                input type="hidden" name="at" value=(at);
                p {
                    "State, data and timers are those of step " (at) " again. Nothing is sent"
                    @match stays {
                        0 => { "." }
                        1 => { ", and 1 message that it sent after this step stays sent." }
                        _ => { ", and " (stays) " messages that it sent after this step stay sent." }
                    }
                }
                (cx.reason(&format!("fork-reason-{at}")))
                div.buttons { button name="do" value="fork" { "Go back to step " (at) } }
            }
        }
    }
}

/// How many messages the steps after one have sent, its own timers apart.
fn sent_after(page: &Page, at: i64) -> usize {
    let messages = page.definition.iter().flat_map(|definition| &definition.chart.messages);
    let timers: Vec<&str> =
        messages.filter(|it| it.kind == MessageKind::Timer).map(|it| it.type_name.as_str()).collect();
    let later = page.journal.iter().filter(|line| line.seq.is_some_and(|seq| seq > at));
    let effects = later.filter_map(|line| line.effects.as_array()).flatten();
    let is_message = |effect: &&serde_json::Value| {
        !effect["id"].is_null() && !timers.contains(&effect["type"].as_str().unwrap_or_default())
    };
    effects.filter(is_message).count()
}
