//! Check-in over HTTP.
//!
//! | | |
//! |---|---|
//! | `PUT /check-ins/{booking}` `{"passenger": ".."}` | 200: the pass; 202: where to look for it; 409: there is none |
//! | `GET /check-ins/{booking}` | where the check-in stands, and the pass |
//! | `GET /check-ins/{booking}/events` | the same, pushed, as server-sent events |

use crate::{books::Books, messages::*};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures_util::Stream;
use sagabus::{Endpoint, Requested, port::InstanceFilter};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    error::Error,
    sync::{Arc, Weak},
    time::Duration,
};
use uuid::Uuid;

/// How often a watched check-in is read.
const LOOK: Duration = Duration::from_millis(100);

/// What the handlers of requests know.
#[derive(Clone)]
pub(crate) struct Api<Db: Books> {
    /// Weak: a client that watches must not keep the endpoint from stopping.
    web: Weak<Endpoint<Db>>,
    store: Db,
    times: Times,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// An HTTP client waits for its pass.
    pub(crate) fast: Duration,
    /// The counter opens.
    pub(crate) patience: Duration,
}

/// The routes.
pub(crate) fn router<Db: Books>(web: &Arc<Endpoint<Db>>, times: Times) -> Router {
    Router::new()
        .route("/check-ins/{booking}", get(show::<Db>).put(check_in::<Db>))
        .route("/check-ins/{booking}/events", get(events::<Db>))
        .with_state(Api { web: Arc::downgrade(web), store: web.store().clone(), times })
}

/// A request that was not fulfilled, and why.
pub(crate) struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "reason": self.1 }))).into_response()
    }
}

impl<E: Error> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, format!("try again: {error}"))
    }
}

#[derive(Deserialize)]
struct Passenger {
    passenger: String,
}

async fn check_in<Db: Books>(
    State(api): State<Api<Db>>,
    Path(booking): Path<Uuid>,
    Json(Passenger { passenger }): Json<Passenger>,
) -> Result<Response, Refusal> {
    let look = format!("/check-ins/{booking}");
    let later = (StatusCode::ACCEPTED, [(header::LOCATION, look.clone())], Json(json!({ "see": look })));
    let Some(web) = api.web.upgrade() else {
        return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "the service is stopping".into()));
    };
    let command = CheckIn { booking, passenger, patience: api.times.patience };
    Ok(match web.request(command).within(api.times.fast).await? {
        Requested::Answered(CheckInOutcome::Pass(pass)) => Json(pass).into_response(),
        Requested::Answered(CheckInOutcome::Refused(it)) => (StatusCode::CONFLICT, Json(it)).into_response(),
        Requested::Pending(_) => later.into_response(),
    })
}

/// Where a check-in stands; `None` while the process has not heard of it.
async fn view<Db: Books>(store: &Db, booking: Uuid) -> Result<Option<Value>, Refusal> {
    let of = InstanceFilter { saga: Some("check-in".into()), id: Some(booking.to_string()), ..Default::default() };
    let Some(it) = store.instances(&of, 1).await?.pop() else { return Ok(None) };
    let (passenger, pass) = (&it.data["data"]["passenger"], &it.data["state"]);
    let done = it.completed_at_us.is_some();
    Ok(Some(json!({ "passenger": passenger, "state": it.state, "done": done, "pass": pass })))
}

async fn show<Db: Books>(State(api): State<Api<Db>>, Path(booking): Path<Uuid>) -> Result<Json<Value>, Refusal> {
    let view = view(&api.store, booking).await?;
    view.map(Json).ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("nobody has checked in for {booking}")))
}

async fn events<Db: Books>(State(api): State<Api<Db>>, Path(booking): Path<Uuid>) -> impl IntoResponse {
    Sse::new(changes(api.store, booking)).keep_alive(KeepAlive::default())
}

/// The check-in after each change, until its end.
fn changes<Db: Books>(store: Db, booking: Uuid) -> impl Stream<Item = Result<Event, Infallible>> {
    futures_util::stream::unfold(Some((store, Value::Null)), move |state| async move {
        let (store, last) = state?;
        loop {
            if let Ok(Some(now)) = view(&store, booking).await
                && now != last
            {
                let event = Event::default().data(now.to_string());
                return Some((Ok(event), (now["done"] == false).then_some((store, now))));
            }
            tokio::time::sleep(LOOK).await;
        }
    })
}
