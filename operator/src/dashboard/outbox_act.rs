//! What can be done with a row of the outbox.

use super::{
    html::{Cx, refusal},
    message, outbox,
    params::{Params, encoded},
    plan,
    plans::{Plan, Sending, Work},
    sql,
};
use crate::{bulk, commands::WhichSent, text::plain};
use axum::{
    extract::{Extension, Path},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use saga_core::{DueAt, OutboxAction, OutboxFilter, OutboxView};

/// The form under a row.
pub(super) fn form(cx: &Cx, k: usize, n: usize, row: &OutboxView) -> Markup {
    let is_timer = row.kind == "timer";
    let (reason, after) = (format!("reason-{k}"), format!("after-{k}"));
    html! {
        form.stack method="post" action=(cx.url(&format!("/outbox/{}", encoded(&row.id)))) {
            (cx.csrf())
            input type="hidden" name="database" value=(cx.app.source(n).short);
            (cx.reason(&reason))
            @if is_timer {
                label for=(after) { "To move it: when from now (15m, 3h, 2d)" }
                input id=(after) name="in" maxlength="20" autocomplete="off";
            }
            div.buttons {
                @if is_timer {
                    button name="do" value="fire" { "Let it go off now" }
                    button name="do" value="move" { "Move it" }
                    button.danger name="do" value="cancel" { "Delete the timer" }
                } @else {
                    button name="do" value="send" { "Send it now" }
                    button.danger name="do" value="discard" { "Give it up" }
                }
            }
            p.muted {
                @if is_timer { "A deleted timer never goes off: the instance waits on, for a message or a person." }
                @else { "A row that is given up is never sent. This cannot be undone." }
            }
        }
    }
}

/// The form for all rows that the page's filter finds.
pub(super) fn of_filter(cx: &Cx, of_filter: &Params) -> Markup {
    let which = match (of_filter.is_set("kind"), of_filter.is_empty()) {
        (true, _) => "those of this filter",
        (false, true) => "all but timers",
        (false, false) => "those of this filter that are no timers",
    };
    html! {
        form.buttons method="post" action=(of_filter.href(&cx.url("/outbox"))) aria-label="Act on the filter" {
            (cx.csrf())
            button.quiet name="do" value="send" { "Send " (which) " now…" }
            button.quiet name="do" value="discard" { "Give " (which) " up…" }
            label for="new" { "To another endpoint or queue" }
            input id="new" name="new" maxlength="300" autocomplete="off";
            button.quiet name="do" value="reroute" { "Reroute…" }
            span.muted { "You see which before anything is done." }
        }
    }
}

/// Plans an action on all that a filter finds now.
pub(super) async fn plan(cx: Cx, Extension(fields): Extension<Params>) -> Response {
    let filter = match outbox::filter(&cx).await {
        Ok(filter) => filter,
        Err(text) => return refusal(&cx.app, StatusCode::BAD_REQUEST, &text),
    };
    let of_filter = cx.params.of_filter::<WhichSent>();
    let (sending, of_command) = match (fields.get("do"), fields.text("new")) {
        (Some("send"), _) => (Sending::Now, of_filter),
        (Some("discard"), _) => (Sending::GiveUp, of_filter),
        (Some("reroute"), Some(to)) => {
            let of_filter = if of_filter.is_empty() { of_filter.with_set("all") } else { of_filter };
            let of_command = of_filter.with("new", &to);
            (Sending::To(to), of_command)
        }
        (Some("reroute"), None) => {
            let text = "say where they are to go: to which endpoint or queue";
            return refusal(&cx.app, StatusCode::BAD_REQUEST, text);
        }
        _ => return plan::no_deed(&cx),
    };
    let answers = cx
        .app
        .each(|store| {
            let filter = filter.clone();
            async move { bulk::outbox(&*store, &filter).await }
        })
        .await;
    let (rows, there, away) = plan::taken(answers);
    if rows.is_empty() {
        let text = "no row of the outbox matches this filter; timers are taken only if it names their kind";
        return plan::nothing(&cx, &away, text);
    }
    let command = plan::command(&of_command, sending.action().as_str());
    let filter = OutboxFilter { no_timers: filter.kind.is_none(), ..filter };
    let plan = Plan::new(Work::on_outbox(sending, &rows), command, sql::outbox(&filter, None), &cx.visitor.name);
    plan::made(&cx, plan.without(away, there))
}

pub(super) async fn act(cx: Cx, Path(id): Path<String>, Extension(fields): Extension<Params>) -> Response {
    let Some(why) = fields.text("reason") else { return plan::no_reason(&cx) };
    let Some(n) = fields.get("database").and_then(|short| cx.app.number(short)) else {
        return refusal(&cx.app, StatusCode::BAD_REQUEST, "this form does not name a database");
    };
    let action = match fields.get("do") {
        Some("send") => OutboxAction::SendNow,
        Some("discard") => OutboxAction::Discard,
        Some("fire") => OutboxAction::FireTimer,
        Some("cancel") => OutboxAction::CancelTimer,
        Some("move") => match crate::commands::length(fields.get("in").unwrap_or_default().trim()) {
            Ok(after) => OutboxAction::MoveTimer { to: DueAt::After(after) },
            Err(text) => return refusal(&cx.app, StatusCode::BAD_REQUEST, &text),
        },
        _ => return plan::no_deed(&cx),
    };
    let (rows, who, why) = (&[id][..], &cx.visitor.name, &why);
    let done = cx.app.source(n).order(|store| async move {
        let done = store.outbox_act(action, rows, who, why).await;
        done.stopped.map_or_else(|| Ok(done.items), Err)
    });
    let items = match done.await {
        Ok(items) => items,
        Err(error) => return message::unreachable(&cx, n, &error),
    };
    match items.first().map(|item| item.result.as_str()) {
        Some(OutboxAction::DONE) => {
            cx.app.live.changed();
            Redirect::to(&cx.url("/operations")).into_response()
        }
        result => {
            let text = format!("Nothing was done: the row is {}.", plain(result.unwrap_or("gone")));
            refusal(&cx.app, StatusCode::CONFLICT, &text)
        }
    }
}
