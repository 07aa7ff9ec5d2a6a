//! A plan: what would be done, then how far it is, then what was done.

use super::{
    held,
    html::{Cx, Head, refusal},
    params::Params,
    plans::{Deed, Plan, Stage},
};
use crate::text::count;
use axum::{
    extract::{Extension, Path},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use std::time::Duration;

/// Small plans are over by then, and their page says so at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn show(cx: Cx, Path(id): Path<String>) -> Response {
    let Some(plan) = cx.app.plans.get(&id, &cx.visitor.name) else { return gone(&cx) };
    let progress = plan.progress();
    let messages = count(plan.rows.len() as i64, "message");
    let title = match (progress.stage, plan.deed) {
        (Stage::Waits, Deed::Retry) => format!("Retry {messages}?"),
        (Stage::Waits, Deed::Discard) => format!("Discard {messages}?"),
        (Stage::Runs, _) => format!("{} of {messages} so far", progress.done()),
        (Stage::Over, _) => {
            let done = progress.results.get(plan.deed.done()).copied().unwrap_or_default();
            format!("{done} of {messages} {}", plan.deed.done())
        }
    };
    let body = match progress.stage {
        Stage::Waits => question(&cx, &plan),
        Stage::Runs => html! {
            progress max=(plan.rows.len()) value=(progress.done()) aria-label=(title) {}
            form method="post" { (cx.csrf()) button name="do" value="stop" { "Stop" } }
            p.muted { "What was done stays done. It goes on if you leave this page." }
        },
        Stage::Over => html! {
            @for stopped in &progress.stopped {
                p.banner.bad role="alert" { strong { "It stopped early. " } (crate::text::plain(stopped)) }
            }
            ul.plain {
                @for (result, n) in &progress.results { li { (n) " " (told(result)) } }
            }
            p { a href=(cx.url("/held")) { "What is still held" } " · "
                a href=(cx.url("/operations")) { "The record of this" } }
        },
    };
    cx.page(&Head { title: &title, part: "/held", command: plan.command.clone(), away: &plan.away }, body)
}

fn question(cx: &Cx, plan: &Plan) -> Markup {
    let left_out = plan.rows.len() - plan.shown.len();
    html! {
        form.card.stack method="post" {
            (cx.csrf())
            p {
                @match plan.deed {
                    Deed::Retry => "They are handled again by the next running process of their endpoint.",
                    Deed::Discard =>
                        "They are given up. What waits behind them is handled, in order. This cannot be undone.",
                }
                " Exactly these are taken: one that was dealt with meanwhile, or was held anew, is left alone."
            }
            (cx.reason("reason"))
            div.buttons {
                button.danger[plan.deed == Deed::Discard] name="do" value="run" {
                    (if plan.deed == Deed::Retry { "Retry " } else { "Discard " })
                        (count(plan.rows.len() as i64, "message"))
                }
                a.button.quiet href=(cx.url("/held")) { "Do nothing" }
            }
        }
        (held::table(cx, "What would be taken", plan.shown.iter().map(|(n, row)| (*n, row))))
        @if left_out > 0 { p.shown { "and " (left_out) " more" } }
        @if plan.beyond { p.shown { "There may be others that match: no more are taken at once. Then do it again." } }
    }
}

/// A result as people read it.
pub(super) fn told(result: &str) -> String {
    match result {
        "retried" => "will be handled again by the next running process of their endpoint".into(),
        "discarded" => "discarded".into(),
        "edited" => "will be handled with its new body by the next running process of its endpoint".into(),
        "unchanged" => "had this body already: nothing was done".into(),
        "gone" => "dealt with meanwhile, or held anew since they were listed: left alone".into(),
        "waits" => "wait behind another message of their instance, which must go first: left alone".into(),
        "unreadable" => "have an envelope that this program cannot read: left alone, a newer one may".into(),
        other => crate::text::plain(other),
    }
}

pub(super) async fn act(cx: Cx, Path(id): Path<String>, Extension(fields): Extension<Params>) -> Response {
    let Some(plan) = cx.app.plans.get(&id, &cx.visitor.name) else { return gone(&cx) };
    if fields.get("do") == Some("stop") {
        plan.stop();
    } else {
        let Some(why) = fields.text("reason") else { return no_reason(&cx) };
        let running = tokio::spawn(plan.carry_out(cx.app.clone(), why));
        let _ = tokio::time::timeout(PATIENCE, running).await; // else it goes on, and the page shows how far it is
    }
    Redirect::to(&cx.url(&format!("/plans/{id}"))).into_response()
}

pub(super) fn no_reason(cx: &Cx) -> Response {
    refusal(&cx.app, StatusCode::BAD_REQUEST, "say why: it is recorded, and nothing is done without")
}

fn gone(cx: &Cx) -> Response {
    let text = "this plan is no longer known: choose the messages again. What was done is on the page of operations";
    refusal(&cx.app, StatusCode::NOT_FOUND, text)
}
