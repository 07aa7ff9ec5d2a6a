//! Coming in with a token, and leaving.

use super::{
    access::Login,
    app::App,
    html::{self, Cx},
    params::Params,
};
use axum::{
    extract::{Form, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};
use maud::html;
use std::sync::Arc;

type Pairs = Vec<(String, String)>;

pub(super) async fn show(
    State(app): State<Arc<App>>,
    query: Result<Query<Pairs>, axum::extract::rejection::QueryRejection>,
) -> Response {
    if !app.access.has_login() {
        return Redirect::to(&app.url("/")).into_response();
    }
    let next = query.map(|query| Params::of(query.0)).unwrap_or_default().text("next").unwrap_or_default();
    page(&app, StatusCode::OK, &next, None)
}

fn page(app: &App, status: StatusCode, next: &str, wrong: Option<&str>) -> Response {
    let body = html! {
        form.card.stack method="post" action=(app.url("/login")) {
            @if let Some(wrong) = wrong { p.banner.bad role="alert" { (wrong) } }
            label for="name" { "Your name, for the record of what is done" }
            input #name name="name" required maxlength="80" autocomplete="username";
            label for="token" { "Token" }
            input #token name="token" type="password" required autocomplete="current-password";
            input type="hidden" name="next" value=(next);
            button { "Log in" }
        }
    };
    html::outside(app, status, "Log in", body)
}

pub(super) async fn enter(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    form: Result<Form<Pairs>, axum::extract::rejection::FormRejection>,
) -> Response {
    let fields = match form {
        Ok(Form(fields)) => Params::of(fields),
        Err(error) => return html::refusal(&app, error.status(), &error.body_text()),
    };
    let next = fields.get("next").unwrap_or_default();
    let (token, name) = (fields.get("token").unwrap_or_default(), fields.get("name").unwrap_or_default());
    match app.access.login(token, name) {
        Login::In(cookie) => {
            let there = if is_ours(&app, next) { next.to_owned() } else { app.url("/") };
            // browsers say where a form was sent from
            let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
            let secure = if origin.is_some_and(|origin| origin.starts_with("https:")) { "; Secure" } else { "" };
            with_cookie(&app, &format!("{cookie}{secure}"), &there)
        }
        Login::WrongToken => page(&app, StatusCode::FORBIDDEN, next, Some("This is not the token.")),
        Login::NoName => page(&app, StatusCode::BAD_REQUEST, next, Some("A name of up to 80 characters is needed.")),
        Login::Later => {
            let text = "Too many wrong tokens were tried. Wait a minute.";
            page(&app, StatusCode::TOO_MANY_REQUESTS, next, Some(text))
        }
    }
}

pub(super) async fn leave(cx: Cx, headers: HeaderMap) -> Response {
    let cookie = cx.app.access.logout(&headers);
    with_cookie(&cx.app, &cookie, &cx.url(if cx.app.access.has_login() { "/login" } else { "/" }))
}

fn with_cookie(app: &App, cookie: &str, there: &str) -> Response {
    let path = if app.path.is_empty() { "/" } else { &app.path };
    (AppendHeaders([(header::SET_COOKIE, format!("{cookie}; Path={path}"))]), Redirect::to(there)).into_response()
}

/// Whether an address is a page of the dashboard, and not of another site: browsers read `//host` and `/\host` as one.
fn is_ours(app: &App, next: &str) -> bool {
    let is_plain = next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    is_plain && next.starts_with(&app.url("/")) && !next.starts_with("//")
}
