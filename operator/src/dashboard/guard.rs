//! The one door: every request comes through here, and every answer leaves with the same headers.

use super::{access::Visitor, app::App, html, params::Params};
use axum::{
    RequestExt,
    extract::{Form, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use saga_core::ErrorCode;
use std::sync::Arc;

/// Nothing but what the dashboard itself serves, no inline script or style, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Ok(_permit) = app.requests.try_acquire() else {
        return html::refusal(&app, StatusCode::SERVICE_UNAVAILABLE, "too many requests at a time: try again");
    };
    let mut response = match admit(&app, request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal,
    };
    let headers = response.headers_mut();
    let mut set = |name, value| drop(headers.insert(name, HeaderValue::from_static(value)));
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    // not `no-referrer`: with that, browsers say of a form's origin only `null`
    set(header::REFERRER_POLICY, "same-origin");
    set(header::CACHE_CONTROL, "no-store");
    response
}

/// The request with its [`Visitor`] and, if it is a form, its fields; or why it is refused.
async fn admit(app: &App, mut request: Request) -> Result<Request, Response> {
    if !app.access.knows_host(request.headers()) {
        let text = "the dashboard does not answer under this name; --host NAME adds one";
        return Err(html::refusal(app, StatusCode::MISDIRECTED_REQUEST, text));
    }
    let (path, is_read) = (request.uri().path().to_owned(), matches!(*request.method(), Method::GET | Method::HEAD));
    if !is_read && is_of_another_site(request.headers()) {
        return Err(html::refusal(app, StatusCode::FORBIDDEN, "this form was sent by another site"));
    }
    let is_login = path == app.url("/login") && app.access.has_login();
    if is_login || (is_read && path.starts_with(&app.url("/assets/"))) {
        return Ok(request);
    }
    let Some(visitor) = app.access.visitor(request.headers()) else { return Err(stranger(app, &request, is_read)) };
    request.extensions_mut().insert(visitor.clone());
    if is_read { Ok(request) } else { form(app, request, &visitor, path == app.url("/logout")).await }
}

/// Whether the browser says that another site sent the request.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    !matches!(site, None | Some("same-origin" | "none"))
}

fn stranger(app: &App, request: &Request, is_read: bool) -> Response {
    if !app.access.has_login() {
        let text = ErrorCode::NotAllowed.told("the proxy in front of the dashboard did not say who you are");
        return html::refusal(app, StatusCode::UNAUTHORIZED, &text);
    }
    // a script that watches, unlike a person, has no use for a page
    let is_page = is_read && request.uri().path() != app.url("/live");
    if !is_page {
        return html::refusal(app, StatusCode::UNAUTHORIZED, "the login is over: log in again");
    }
    let there = request.uri().path_and_query().map_or("/", |there| there.as_str());
    let login = Params::default().with("next", there).href(&app.url("/login"));
    Redirect::to(&login).into_response()
}

/// A form of somebody who may act, with the token that only our pages know.
async fn form(app: &App, request: Request, visitor: &Visitor, anyone: bool) -> Result<Request, Response> {
    if !visitor.may_act() && !anyone {
        return Err(html::refusal(
            app,
            StatusCode::FORBIDDEN,
            &ErrorCode::NotAllowed.told("you may look, and not act"),
        ));
    }
    let (parts, body) = request.into_parts();
    let fields: Result<Form<Vec<(String, String)>>, _> = Request::from_parts(parts.clone(), body).extract().await;
    let fields = match fields {
        Ok(Form(fields)) => Params::of(fields),
        Err(error) => return Err(html::refusal(app, error.status(), &error.body_text())),
    };
    if !fields.get("csrf").is_some_and(|token| super::access::is_same(token, &visitor.csrf)) {
        let text = "this form is not from a page of this dashboard, or from one that is too old: open the page again";
        return Err(html::refusal(app, StatusCode::FORBIDDEN, text));
    }
    let mut request = Request::from_parts(parts, axum::body::Body::empty());
    request.extensions_mut().insert(fields);
    Ok(request)
}
