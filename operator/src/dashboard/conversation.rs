//! A conversation: where a message came from and what it caused, across the databases, as a tree.

use super::{
    app::Away,
    held,
    html::{Cx, Head, cell, lines, refusal},
    sql,
};
use crate::{
    commands::{explain::OLDER, mermaid},
    text::{count, plain, quoted},
};
use axum::{extract::Path, http::StatusCode, response::Response};
use maud::{Markup, html};
use saga_core::{Counted, Explained, Explanation, Inspect, Story, TracedMessage, TracedStep, TracedWait, explain};
use std::sync::Arc;

/// The most messages of a story.
const MESSAGES_MAX: usize = 500;

pub(super) async fn show(cx: Cx, Path(id): Path<String>) -> Response {
    let opened = cx.app.each(|store| async move { Ok(store) }).await;
    let (numbers, stores): (Vec<_>, Vec<_>) = opened.all.into_iter().unzip();
    let explained = match story(stores, id.clone()).await {
        Ok(explained) => explained,
        Err(error) => return refusal(&cx.app, StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    let mut away = opened.away;
    for (k, error) in explained.unread {
        away.push(Away { name: cx.app.source(numbers[k]).name.clone(), error: error.to_string() });
    }
    let body = match &explained.answer {
        Explanation::Story(story) => tree(&cx, &numbers, story),
        Explanation::Several(ids) => html! {
            p { "Several ids begin with it:" }
            ul.plain { @for id in ids { li { (cx.conversation(id)) } } }
        },
        _ => {
            let none = "There is no message, instance or conversation of this id. After its retention it is forgotten.";
            cx.none(none, Counted::default(), &away)
        }
    };
    let command = format!("sagabus explain {}", quoted(&id));
    let body = html! { p.id { (plain(&id)) } (body) @if explained.beyond { p.shown { (OLDER) } } };
    cx.page(&Head { title: "Conversation", part: "", command, sql: sql::conversation(&id), away: &away }, body)
}

/// On a thread of its own: the compiler does not see that the future could go from thread to thread
/// (rust-lang/rust#102211).
async fn story(stores: Vec<Arc<dyn Inspect>>, id: String) -> Result<Explained, tokio::task::JoinError> {
    let runtime = tokio::runtime::Handle::current();
    let explained = move || {
        let stores: Vec<&dyn Inspect> = stores.iter().map(|store| &**store).collect();
        runtime.block_on(explain(&stores, &id, MESSAGES_MAX))
    };
    tokio::task::spawn_blocking(explained).await
}

fn tree(cx: &Cx, numbers: &[usize], story: &Story) -> Markup {
    html! {
        ul.tree aria-label="Messages, each above those that it caused" { (below(cx, numbers, &story.messages, 0)) }
        @if story.left_out > 0 { p.shown { "At least " (count(story.left_out as i64, "message")) " more." } }
        details id="diagram" {
            summary { "As a sequence diagram, in Mermaid's language" }
            (lines(&mermaid(story)))
        }
    }
}

/// The messages of a depth, each with those below it. They come in the order of a tree.
fn below(cx: &Cx, numbers: &[usize], messages: &[TracedMessage], depth: usize) -> Markup {
    let starts: Vec<usize> = (0..messages.len()).filter(|k| messages[*k].depth <= depth).collect();
    let ends = starts.iter().skip(1).copied().chain([messages.len()]);
    html! {
        @for (start, end) in starts.iter().copied().zip(ends) {
            @let children = &messages[start + 1..end];
            li {
                (node(cx, numbers, &messages[start]))
                @if !children.is_empty() { ul { (below(cx, numbers, children, depth + 1)) } }
            }
        }
    }
}

fn node(cx: &Cx, numbers: &[usize], message: &TracedMessage) -> Markup {
    let is_held = message.steps.iter().any(|step| step.reason.is_some());
    html! {
        div.node.asked[message.asked] {
            div {
                strong { (cell(&message.type_name)) } " "
                @if is_held { (cx.message(&message.message_id)) }
                    @else { span.id.muted { (plain(&message.message_id)) } }
            }
            @if message.depth == 0 {
                div.muted {
                    @if let Some(sender) = &message.sender { "sent by " (cell(sender)) " " }
                    @if let Some(us) = message.sent_at_us { (cx.when(us)) }
                    @if let Some(cause) = &message.caused_by {
                        " caused by " span.id { (plain(cause)) } ", which is not in these databases"
                    }
                }
            }
            @for it in &message.steps { (step(cx, numbers, it)) }
            @for it in &message.waits { (wait(cx, it)) }
            @if message.steps.is_empty() && message.waits.is_empty() {
                div.warn {
                    "sent" @if let Some(to) = &message.to { " to " (cell(to)) }
                    "; no receiver in these databases has had it"
                }
            }
        }
    }
}

fn step(cx: &Cx, numbers: &[usize], step: &TracedStep) -> Markup {
    let label = numbers.get(step.database).and_then(|n| cx.app.label(*n));
    html! {
        div {
            @if let Some(label) = label { span.muted { (label) " " } }
            (plain(&step.endpoint)) @if !step.receiver.is_empty() { " / " (cell(&step.receiver)) }
            @if let Some(id) = &step.saga_id { " " (cx.instance(&step.receiver, id)) }
            ": "
            @match (&step.from_state, &step.to_state) {
                (None, Some(to)) => { "→ " (cell(to)) }
                (Some(from), Some(to)) => { (cell(from)) " → " (cell(to)) }
                _ => { (plain(&step.result)) @if let Some(reason) = &step.reason { " as " (held::reason_tag(reason)) } }
            }
            @if step.attempts > 1 { span.warn { " after " (count(step.attempts, "run")) } }
            " " span.muted { (cx.when(step.at_us)) }
            @if let Some(note) = &step.note { div.error[step.reason.is_some()] { (cell(note)) } }
        }
    }
}

fn wait(cx: &Cx, wait: &TracedWait) -> Markup {
    html! {
        div.warn {
            @match wait.kind.as_str() {
                "timer" => "a timer",
                "retry" => { (plain(&wait.endpoint)) " will handle it again" }
                _ => { (plain(&wait.endpoint)) " has not sent it to " (plain(&wait.to)) " yet" }
            }
            ", due " (cx.when(wait.due_at_us))
            @if let Some(note) = &wait.note { ": " (cell(note)) }
        }
    }
}
