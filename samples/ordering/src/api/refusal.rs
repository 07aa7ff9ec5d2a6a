//! How the API refuses: a status, and JSON with the reason.

use axum::{
    Json,
    extract::rejection::BytesRejection,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::fmt::Display;
use uuid::Uuid;

/// A request that was not fulfilled, and why.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    reason: String,
    field: Option<&'static str>,
    order_id: Option<Uuid>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), field: None, order_id: None }
    }

    /// The database is away, or refuses. The log has the cause; the client has the id under which to ask again.
    pub(super) fn away(what: &str, error: &dyn Display, order_id: Uuid) -> Self {
        tracing::warn!(%error, %order_id, "{what}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "try again with the same order_id").of(order_id)
    }

    pub(super) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ordering is stopping: try again")
    }

    pub(super) fn unknown(id: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no order {id}"))
    }

    /// Names the field that is wrong.
    pub(super) fn about(self, field: &'static str) -> Self {
        Self { field: Some(field), ..self }
    }

    /// Names the order.
    pub(super) fn of(self, order_id: Uuid) -> Self {
        Self { order_id: Some(order_id), ..self }
    }

    /// The body.
    pub(super) fn shown(&self) -> Value {
        let mut shown = json!({ "reason": self.reason });
        if let Some(field) = self.field {
            shown["field"] = field.into();
        }
        if let Some(order_id) = self.order_id {
            shown["order_id"] = order_id.to_string().into();
        }
        shown
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.shown())).into_response()
    }
}

/// A body that is too large or incomplete.
impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text()).about("body")
    }
}

pub(super) async fn no_such_path(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing under {}", uri.path()))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} cannot be used on {}", uri.path()))
}
