//! Ordering's HTTP interface.

use crate::{
    ledger::Ledger,
    messages::OrderPlaced,
    saga::OrderFulfilment,
    services::{self, status_of},
};
use anyhow::Result;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::Stream;
use saga_core::{Endpoint, LinkState, Saga};
use serde_json::{Value, json};
use std::{convert::Infallible, future::IntoFuture, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use uuid::Uuid;

/// How often an order that somebody watches is looked at.
const LOOK: Duration = Duration::from_millis(200);

struct Api<Db: Ledger> {
    endpoint: Arc<Endpoint<Db>>,
    payment_timeout: Duration,
}

impl<Db: Ledger> Clone for Api<Db> {
    fn clone(&self) -> Self {
        Self { endpoint: self.endpoint.clone(), payment_timeout: self.payment_timeout }
    }
}

/// Serves until `stop`, and then for at most `end`.
pub(crate) async fn serve<Db: Ledger>(
    listener: TcpListener,
    endpoint: Arc<Endpoint<Db>>,
    payment_timeout: Duration,
    stop: impl Future<Output = ()> + Send + 'static,
    end: Duration,
) -> Result<()> {
    let api = Api { endpoint, payment_timeout };
    let router = Router::new()
        .route("/orders", post(place::<Db>))
        .route("/orders/{id}", get(show::<Db>))
        .route("/orders/{id}/events", get(events::<Db>))
        .route("/health/live", get(|| async { "live" }))
        .route("/health/ready", get(ready::<Db>))
        .with_state(api);
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let graceful = axum::serve(listener, router).with_graceful_shutdown(async move {
        stop.await;
        let _ = stopping.send(()); // the server is gone already
    });
    let mut server = tokio::spawn(graceful.into_future());
    tokio::select! {
        served = &mut server => served??,
        _ = async { let _ = stopped.await; tokio::time::sleep(end).await } => {
            server.abort(); // somebody watches an order, or is slow
            let _ = server.await;
        }
    }
    Ok(())
}

/// A refusal that names the field.
fn bad(field: &str, reason: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "field": field, "reason": reason }))).into_response()
}

fn away(what: &str, error: &dyn std::fmt::Display) -> Response {
    tracing::warn!(%error, what);
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "reason": "try again with the same order_id" }))).into_response()
}

async fn place<Db: Ledger>(State(api): State<Api<Db>>, body: Bytes) -> Response {
    let order = match order(&body, api.payment_timeout) {
        Ok(order) => order,
        Err((field, reason)) => return bad(field, &reason),
    };
    let order_id = order.order_id;
    let placed = async { services::place(api.endpoint.session().await?, order).await };
    match placed.await {
        Ok(_) => {
            let location = [(header::LOCATION, format!("/orders/{order_id}"))];
            (StatusCode::ACCEPTED, location, Json(json!({ "order_id": order_id }))).into_response()
        }
        Err(error) => away("an order could not be placed", &error),
    }
}

/// Reads an order, or says which field is wrong and why.
fn order(body: &[u8], payment_timeout: Duration) -> Result<OrderPlaced, (&'static str, String)> {
    let value: Value = serde_json::from_slice(body).map_err(|error| ("body", format!("is not JSON: {error}")))?;
    let Value::Object(fields) = &value else { return Err(("body", "must be a JSON object".into())) };
    let text = |field: &'static str| match fields.get(field) {
        None => Err((field, "is missing".to_owned())),
        Some(Value::String(text)) if text.trim().is_empty() => Err((field, "must not be empty".to_owned())),
        Some(Value::String(text)) if text.contains('\0') => Err((field, "must not contain U+0000".to_owned())),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err((field, "must be a text".to_owned())),
    };
    let order_id = match fields.get("order_id") {
        None | Some(Value::Null) => Uuid::now_v7(),
        Some(Value::String(text)) => text.parse().map_err(|_| ("order_id", format!("`{text}` is not a uuid")))?,
        Some(_) => return Err(("order_id", "must be a uuid".into())),
    };
    let amount_cents = match fields.get("amount_cents") {
        None => return Err(("amount_cents", "is missing".into())),
        Some(amount) => amount
            .as_i64()
            .filter(|amount| *amount > 0)
            .ok_or(("amount_cents", "must be an integer above 0".to_owned()))?,
    };
    Ok(OrderPlaced {
        order_id,
        customer: text("customer")?,
        address: text("address")?,
        amount_cents,
        payment_timeout_ms: payment_timeout.as_millis() as u64,
    })
}

/// An order as the API shows it; `None` when there is none.
async fn view<Db: Ledger>(api: &Api<Db>, order_id: Uuid) -> Result<Option<(String, Value)>> {
    let store = api.endpoint.store();
    let Some(status) = store.status_of(order_id).await? else { return Ok(None) };
    let journal = store.journal(OrderFulfilment::NAME, &order_id.to_string()).await?;
    let handled = journal.iter().filter_map(|line| Some((line, line.to_state.as_deref()?)));
    let history: Vec<Value> = handled
        .map(|(line, state)| {
            let at = jiff::Timestamp::from_microsecond(line.handled_at_us).map(|at| at.to_string()).unwrap_or_default();
            json!({ "at": at, "state": status_of(state), "message": line.type_name })
        })
        .collect();
    let shown = json!({ "order_id": order_id, "status": &status, "history": history });
    Ok(Some((status, shown)))
}

fn unknown(id: &str) -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "reason": format!("there is no order {id}") }))).into_response()
}

async fn show<Db: Ledger>(State(api): State<Api<Db>>, Path(id): Path<String>) -> Response {
    let Ok(order_id) = id.parse() else { return unknown(&id) };
    match view(&api, order_id).await {
        Ok(Some((_, order))) => Json(order).into_response(),
        Ok(None) => unknown(&id),
        Err(error) => away("an order could not be read", &error),
    }
}

/// Server-sent events: the order after each change, until its end state.
async fn events<Db: Ledger>(State(api): State<Api<Db>>, Path(id): Path<String>) -> Response {
    let Ok(order_id) = id.parse::<Uuid>() else { return unknown(&id) };
    match view(&api, order_id).await {
        Ok(Some(_)) => Sse::new(changes(api, order_id)).keep_alive(KeepAlive::default()).into_response(),
        Ok(None) => unknown(&id),
        Err(error) => away("an order could not be read", &error),
    }
}

fn changes<Db: Ledger>(api: Api<Db>, order_id: Uuid) -> impl Stream<Item = Result<Event, Infallible>> {
    let start = Some((api, Value::Null));
    futures_util::stream::unfold(start, move |state| async move {
        let (api, last) = state?;
        loop {
            if let Ok(Some((status, order))) = view(&api, order_id).await
                && order != last
            {
                let ended = matches!(status.as_str(), "shipped" | "cancelled");
                let event = Event::default().event("order").data(order.to_string());
                return Some((Ok(event), (!ended).then_some((api, order))));
            }
            tokio::time::sleep(LOOK).await;
        }
    })
}

async fn ready<Db: Ledger>(State(api): State<Api<Db>>) -> Response {
    if let LinkState::Down(reason) = api.endpoint.link() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ready": false, "reason": reason }))).into_response();
    }
    match api.endpoint.store().status_of(Uuid::nil()).await {
        Ok(_) => Json(json!({ "ready": true })).into_response(),
        Err(error) => {
            let reason = format!("the database: {error}");
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ready": false, "reason": reason }))).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_orders_are_refused_with_the_field_and_the_reason() {
        for (body, field, reason) in [
            ("[", "body", "is not JSON"),
            ("[]", "body", "must be a JSON object"),
            (r#"{"customer":"a","address":"b"}"#, "amount_cents", "is missing"),
            (r#"{"customer":"a","address":"b","amount_cents":0}"#, "amount_cents", "above 0"),
            (r#"{"customer":"a","address":"b","amount_cents":1.5}"#, "amount_cents", "above 0"),
            (r#"{"address":"b","amount_cents":1}"#, "customer", "is missing"),
            (r#"{"customer":7,"address":"b","amount_cents":1}"#, "customer", "must be a text"),
            (r#"{"customer":"a","address":" ","amount_cents":1}"#, "address", "must not be empty"),
            (r#"{"order_id":"x","customer":"a","address":"b","amount_cents":1}"#, "order_id", "is not a uuid"),
        ] {
            let (found, why) = order(body.as_bytes(), Duration::from_secs(1)).expect_err(body);
            assert_eq!(found, field, "{body}");
            assert!(why.contains(reason), "{body}: {why}");
        }
    }
}
