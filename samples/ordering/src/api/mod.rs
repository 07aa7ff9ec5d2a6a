//! Ordering's HTTP interface.

mod order;
mod refusal;

use crate::{
    ledger::Ledger,
    saga::OrderFulfilment,
    services::{self, Placing, status_of},
};
use anyhow::Result;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::Stream;
use refusal::Refusal;
use sagabus::{
    Endpoint, Saga,
    endpoint::{DatabaseState, LinkState},
    port::InstanceKey,
};
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    future::IntoFuture,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::net::TcpListener;
use uuid::Uuid;

/// The largest body: an order with all its fields, and room for fields that we do not know.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The most lines of an order's history that are shown: more than any order has.
const HISTORY_LINES_MAX: i64 = 100;

/// How often a watched order is read.
const LOOK: Duration = Duration::from_millis(200);

struct Api<Db: Ledger> {
    /// Weak: a client that watches an order must not keep the endpoint from stopping.
    endpoint: Weak<Endpoint<Db>>,
    payment_timeout: Duration,
}

impl<Db: Ledger> Api<Db> {
    fn endpoint(&self) -> Result<Arc<Endpoint<Db>>, Refusal> {
        self.endpoint.upgrade().ok_or_else(Refusal::stopping)
    }
}

impl<Db: Ledger> Clone for Api<Db> {
    fn clone(&self) -> Self {
        Self { endpoint: self.endpoint.clone(), payment_timeout: self.payment_timeout }
    }
}

/// Serves until `stop`, and then for at most `end`.
pub(crate) async fn serve<Db: Ledger>(
    listener: TcpListener,
    endpoint: &Arc<Endpoint<Db>>,
    payment_timeout: Duration,
    stop: impl Future<Output = ()> + Send + 'static,
    end: Duration,
) -> Result<()> {
    let api = Api { endpoint: Arc::downgrade(endpoint), payment_timeout };
    let router = Router::new()
        .route("/orders", post(place::<Db>))
        .route("/orders/{id}", get(show::<Db>))
        .route("/orders/{id}/events", get(events::<Db>))
        .route("/health/live", get(|| async { Json(json!({ "live": true })) }))
        .route("/health/ready", get(ready::<Db>))
        .fallback(refusal::no_such_path)
        .method_not_allowed_fallback(refusal::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
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

async fn place<Db: Ledger>(
    State(api): State<Api<Db>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    order::check_content_type(&headers)?;
    let order = order::read(&body?, api.payment_timeout)?;
    let order_id = order.order_id;
    let endpoint = api.endpoint()?;
    let placing = async { services::place(endpoint.session().await?, order).await };
    match placing.await {
        Ok(Placing::New | Placing::Again) => {
            let location = [(header::LOCATION, format!("/orders/{order_id}"))];
            Ok((StatusCode::ACCEPTED, location, Json(json!({ "order_id": order_id }))).into_response())
        }
        Ok(Placing::Taken(field)) => {
            let reason = "another order was placed under this order_id: this field differs";
            Err(Refusal::new(StatusCode::CONFLICT, reason).about(field).of(order_id))
        }
        Err(error) => Err(Refusal::away("an order could not be placed", &error, order_id)),
    }
}

/// An order as the API shows it; `None` when there is none.
async fn view<Db: Ledger>(store: &Db, order_id: Uuid) -> Result<Option<(String, Value)>> {
    let Some(order) = store.order_by_id(order_id).await? else { return Ok(None) };
    let key = InstanceKey { saga: OrderFulfilment::NAME.into(), id: order_id.to_string() };
    let journal = store.journal(&key, HISTORY_LINES_MAX).await?;
    let handled = journal.iter().filter_map(|line| Some((line, line.to_state.as_deref()?)));
    let history: Vec<Value> = handled
        .map(|(line, state)| {
            let at = jiff::Timestamp::from_microsecond(line.handled_at_us).map(|at| at.to_string()).unwrap_or_default();
            json!({ "at": at, "state": status_of(state), "message": line.type_name })
        })
        .collect();
    let shown = json!({
        "order_id": order_id, "customer": order.customer, "address": order.address,
        "amount_cents": order.amount_cents, "status": &order.status, "history": history,
    });
    Ok(Some((order.status, shown)))
}

/// The id of an order that may exist.
fn id(path: Result<Path<String>, PathRejection>) -> Result<Uuid, Refusal> {
    let Path(id) = path.map_err(|rejection| Refusal::unknown(rejection.body_text()))?;
    id.parse().map_err(|_| Refusal::unknown(id))
}

/// An order that exists.
async fn known<Db: Ledger>(api: &Api<Db>, order_id: Uuid) -> Result<Value, Refusal> {
    match view(api.endpoint()?.store(), order_id).await {
        Ok(Some((_, order))) => Ok(order),
        Ok(None) => Err(Refusal::unknown(order_id)),
        Err(error) => Err(Refusal::away("an order could not be read", &error, order_id)),
    }
}

async fn show<Db: Ledger>(
    State(api): State<Api<Db>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Refusal> {
    known(&api, id(path)?).await.map(Json)
}

/// Server-sent events: the order after each change, until its end state or that of ordering.
async fn events<Db: Ledger>(
    State(api): State<Api<Db>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let order_id = id(path)?;
    known(&api, order_id).await?;
    Ok(Sse::new(changes(api, order_id)).keep_alive(KeepAlive::default()).into_response())
}

fn changes<Db: Ledger>(api: Api<Db>, order_id: Uuid) -> impl Stream<Item = Result<Event, Infallible>> {
    let start = Some((api, Value::Null));
    futures_util::stream::unfold(start, move |state| async move {
        let (api, last) = state?;
        loop {
            let store = api.endpoint().ok()?.store().clone();
            if let Ok(Some((status, order))) = view(&store, order_id).await
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

/// Ready means: orders can be accepted. That needs the database and a working endpoint. While the broker is away,
/// messages wait in the outbox.
async fn ready<Db: Ledger>(State(api): State<Api<Db>>) -> Result<Response, Refusal> {
    let endpoint = api.endpoint()?;
    let (works, broker) = match endpoint.link() {
        LinkState::Up => (true, "up".to_owned()),
        LinkState::Down(reason) => (true, format!("away: {reason}")),
        LinkState::Failed(reason) => (false, format!("no longer used, because the endpoint has failed: {reason}")),
        _ => (true, "unknown".to_owned()), // a state that a later version adds
    };
    let (answers, database) = match endpoint.database() {
        DatabaseState::Down(reason) => (false, format!("away: {reason}")),
        _ => (true, "up".to_owned()),
    };
    let ready = works && answers;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(json!({ "ready": ready, "database": database, "broker": broker }))).into_response())
}

#[cfg(test)]
pub(crate) mod tests;
