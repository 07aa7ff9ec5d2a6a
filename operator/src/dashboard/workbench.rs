//! Buttons of a program that shows the dashboard itself: they make things happen that the pages then show.

use super::{
    html::{Cx, refusal},
    params::Params,
};
use crate::text::plain;
use async_trait::async_trait;
use axum::{
    extract::Extension,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use std::sync::{Mutex, PoisonError};

/// What a program adds to its dashboard: buttons, as on a workbench.
///
/// They stand on the first page. Pressing one needs no reason and leaves no record, so they are for programs in which
/// nothing real happens.
#[async_trait]
pub trait Workbench: Send + Sync {
    /// The buttons as they are now: the name of each, and what stands on it.
    fn buttons(&self) -> Vec<(&'static str, String)>;

    /// Does what a button is for. Returns what there is to say about it, done or not.
    async fn press(&self, name: &str) -> String;
}

/// A workbench, and what was said last.
pub(super) struct Bench {
    pub(super) workbench: Box<dyn Workbench>,
    said: Mutex<String>,
}

impl Bench {
    pub(super) fn new(workbench: Box<dyn Workbench>) -> Self {
        Self { workbench, said: Mutex::default() }
    }
}

/// The buttons, where there are some.
pub(super) fn show(cx: &Cx) -> Markup {
    let Some(bench) = cx.app.bench.as_ref().filter(|_| cx.visitor.may_act()) else { return html! {} };
    let said = bench.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
    html! {
        form.card.buttons method="post" aria-label="Try it" {
            (cx.csrf())
            @for (name, label) in bench.workbench.buttons() { button.quiet name="press" value=(name) { (label) } }
            @if !said.is_empty() { p.said role="status" { (plain(&said)) } }
        }
    }
}

pub(super) async fn press(cx: Cx, Extension(fields): Extension<Params>) -> Response {
    let (Some(bench), Some(name)) = (&cx.app.bench, fields.get("press")) else {
        return refusal(&cx.app, StatusCode::NOT_FOUND, "there is no such button");
    };
    let said = bench.workbench.press(name).await;
    *bench.said.lock().unwrap_or_else(PoisonError::into_inner) = said;
    cx.app.live.changed();
    Redirect::to(&cx.url("/")).into_response()
}
