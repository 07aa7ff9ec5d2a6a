//! A plan: what would be done, then how far it is, then what was done.

use super::{
    app::{Answers, Away},
    held,
    html::{Cx, Head, refusal},
    outbox,
    params::Params,
    plans::{Plan, Sending, Stage, Work},
};
use crate::{
    bulk::Taken,
    commands::{HELD_LEFT_ALONE, OUTBOX_LEFT_ALONE},
    text::plain,
};
use axum::{
    extract::{Extension, Path},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use saga_core::HeldAction;
use std::{num::NonZeroU32, time::Duration};

/// The caption of the rows.
const TAKEN: &str = "What would be taken";

/// Small plans are over by then, and their page says so at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn show(cx: Cx, Path(id): Path<String>) -> Response {
    let Some(plan) = cx.app.plans.get(&id, &cx.visitor.name) else { return gone(&cx) };
    let progress = plan.progress();
    let (work, rows, (word, done)) = (&plan.work, plan.work.rows(), plan.work.done());
    let title = match progress.stage {
        Stage::Waits => format!("{}?", work.told()),
        Stage::Runs => format!("{} of {rows} so far", progress.done()),
        Stage::Over => format!("{} of {rows} {done}", progress.results.get(word).copied().unwrap_or_default()),
    };
    let body = match progress.stage {
        Stage::Waits => question(&cx, &plan),
        Stage::Runs => html! {
            progress max=(work.len()) value=(progress.done()) aria-label=(title) {}
            form method="post" { (cx.csrf()) button name="do" value="stop" { "Stop" } }
            p.muted { "What was done stays done. It goes on if you leave this page." }
        },
        Stage::Over => html! {
            @for stopped in &progress.stopped {
                p.banner.bad role="alert" { strong { "It stopped early. " } (plain(stopped)) }
            }
            ul.plain {
                @for (result, n) in &progress.results { li { (n) " " (told(work, result)) } }
            }
            p { a href=(cx.url(work.page())) { @if matches!(work, Work::Held(..)) { "What is still held" }
                @else { "What is still in the outbox" } } " · "
                a href=(cx.url("/operations")) { "The record of this" } }
        },
    };
    let (command, sql) = (plan.command.clone(), plan.sql.clone());
    cx.page(&Head { title: &title, part: work.page(), command, sql, away: &plan.away }, body)
}

fn question(cx: &Cx, plan: &Plan) -> Markup {
    let work = &plan.work;
    let (effect, exactly) = match work {
        Work::Held(HeldAction::Discard, _) => (
            "They are given up. What waits behind them is handled, in order. This cannot be undone.",
            "one that was dealt with meanwhile, or was held anew, is left alone.",
        ),
        Work::Held(..) => (
            "They are handled again by the next running process of their endpoint.",
            "one that was dealt with meanwhile, or was held anew, is left alone.",
        ),
        Work::Outbox(sending, _) => (
            match sending {
                Sending::Now => "They are due now: the next running process of their endpoint sends them.",
                Sending::GiveUp => {
                    "They are never sent. A message that was to be handled again is journaled as discarded. \
                     This cannot be undone."
                }
                Sending::To(_) => "They go there, now. Events, timers and retries cannot, and are left alone.",
            },
            "one that was sent meanwhile, or is being sent, is left alone.",
        ),
    };
    let left_out = |shown: usize| work.len() - shown;
    let (rows, left_out) = match work {
        Work::Held(_, it) => {
            (held::table(cx, TAKEN, it.shown.iter().map(|(n, row)| (*n, row))), left_out(it.shown.len()))
        }
        Work::Outbox(_, it) => {
            (outbox::table(cx, TAKEN, it.shown.iter().map(|(n, row)| (*n, row))), left_out(it.shown.len()))
        }
    };
    html! {
        form.card.stack method="post" {
            (cx.csrf())
            p { (effect) " Exactly these are taken: " (exactly) }
            (cx.reason("reason"))
            label for="rate" { "At most so many a second (as fast as it goes, if empty)" }
            input id="rate" name="rate" type="number" min="1" step="1" autocomplete="off";
            div.buttons {
                button.danger[work.is_final()] name="do" value="run" { (work.told()) }
                a.button.quiet href=(cx.url(work.page())) { "Do nothing" }
            }
        }
        (rows)
        @if left_out > 0 { p.shown { "and " (left_out) " more" } }
        @if plan.beyond > 0 { p.shown { (plan.beyond) " others match: no more are taken at once. Then do it again." } }
    }
}

/// A result as people read it.
fn told(work: &Work, result: &str) -> String {
    match work {
        Work::Held(..) => told_of_held(result),
        Work::Outbox(..) if result == work.done().0 => work.done().1.into(),
        Work::Outbox(..) => left_alone(&OUTBOX_LEFT_ALONE, result),
    }
}

/// The same of a held message.
pub(super) fn told_of_held(result: &str) -> String {
    match result {
        "retried" => "will be handled again by the next running process of their endpoint".into(),
        "unchanged" => "had this body already: nothing was done".into(),
        other => left_alone(&HELD_LEFT_ALONE, other),
    }
}

fn left_alone(all: &[(&str, &str)], result: &str) -> String {
    let known = all.iter().find(|(word, _)| *word == result);
    known.map_or_else(|| plain(result), |(_, text)| (*text).to_owned())
}

pub(super) async fn act(cx: Cx, Path(id): Path<String>, Extension(fields): Extension<Params>) -> Response {
    let Some(plan) = cx.app.plans.get(&id, &cx.visitor.name) else { return gone(&cx) };
    if fields.get("do") == Some("stop") {
        plan.stop();
    } else {
        let Some(why) = fields.text("reason") else { return no_reason(&cx) };
        let Ok(rate) = fields.text("rate").map(|rate| rate.parse::<NonZeroU32>()).transpose() else {
            return refusal(&cx.app, StatusCode::BAD_REQUEST, "how many a second: a whole number above 0 was expected");
        };
        let running = tokio::spawn(plan.carry_out(cx.app.clone(), why, rate));
        let _ = tokio::time::timeout(PATIENCE, running).await; // else it goes on, and the page shows how far it is
    }
    Redirect::to(&cx.url(&format!("/plans/{id}"))).into_response()
}

/// What a filter finds in all databases, how many match, and the databases that did not answer.
pub(super) fn taken<T>(answers: Answers<Taken<T>>) -> (Vec<(usize, T)>, u64, Vec<Away>) {
    let there = answers.all.iter().map(|(_, taken)| taken.there).sum();
    let rows = answers.all.into_iter().map(|(n, taken)| (n, taken.rows)).collect();
    (crate::find::flat(rows), there, answers.away)
}

/// Why nothing is planned: no row was found. What is in databases that did not answer, nobody knows.
pub(super) fn nothing(cx: &Cx, away: &[Away], none: &str) -> Response {
    if away.is_empty() {
        return refusal(&cx.app, StatusCode::NOT_FOUND, none);
    }
    let away: Vec<String> = away.iter().map(|it| format!("{}: {}", it.name, plain(&it.error))).collect();
    let text = format!("nothing that could be read matches this filter; what does not answer: {}", away.join("; "));
    refusal(&cx.app, StatusCode::SERVICE_UNAVAILABLE, &text)
}

/// The command that does the same with all that a filter finds.
pub(super) fn command(of_filter: &Params, words: &str) -> String {
    let of_filter = if of_filter.is_empty() { of_filter.with_set("all") } else { of_filter.clone() };
    format!("{} --reason …", of_filter.command(words))
}

/// Keeps a plan and leads to its page, which says what it takes and which databases it does not reach, before anybody
/// confirms it.
pub(super) fn made(cx: &Cx, plan: Plan) -> Response {
    let plan = cx.app.plans.add(plan);
    Redirect::to(&cx.url(&format!("/plans/{}", plan.id))).into_response()
}

pub(super) fn no_deed(cx: &Cx) -> Response {
    refusal(&cx.app, StatusCode::BAD_REQUEST, "this form does not say what to do")
}

pub(super) fn no_reason(cx: &Cx) -> Response {
    refusal(&cx.app, StatusCode::BAD_REQUEST, "say why: it is recorded, and nothing is done without")
}

fn gone(cx: &Cx) -> Response {
    let text = "this plan is no longer known: choose its rows again. What was done is on the page of operations";
    refusal(&cx.app, StatusCode::NOT_FOUND, text)
}
