//! The style sheet and the script. Nothing else is served as a file, so no path leads to one.

use super::html;
use axum::{
    http::header,
    response::{IntoResponse, Response},
};

pub(super) async fn style() -> Response {
    let own = include_str!("assets/style.css");
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], format!("{}\n{own}", html::chart_style())).into_response()
}

pub(super) async fn script() -> Response {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("assets/live.js")).into_response()
}
