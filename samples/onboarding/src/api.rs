//! The desk's HTTP interface: applications, where they stand, and tasks.
//!
//! | | |
//! |---|---|
//! | `PUT /customers/{id}` `{"name": ".."}` | applies; again with the same id, nothing happens |
//! | `GET /customers/{id}` | where the application stands, and how it came there |
//! | `GET /customers/{id}/events` | the same, live, as server-sent events |
//! | `GET /tasks?role=clerk` | what waits for a decision |
//! | `POST /tasks/{id}` `{"role": "clerk", "approve": true}` | decides; 409 if somebody else has, or nobody need |

use crate::{books::Books, messages::*};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::Stream;
use sagabus::{
    Endpoint,
    handler::Later,
    port::{InstanceFilter, InstanceKey},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    error::Error,
    sync::{Arc, Weak},
    time::Duration,
};
use uuid::Uuid;

/// How often a watched application is read.
const LOOK: Duration = Duration::from_millis(100);
/// The most tasks and lines of a history that are shown.
const LINES_MAX: i64 = 100;

/// What the handlers of requests know.
#[derive(Clone)]
pub(crate) struct Api<Db: Books> {
    /// Weak: a client that watches must not keep the endpoint from stopping.
    desk: Weak<Endpoint<Db>>,
    store: Db,
    patience: Duration,
}

/// The routes.
pub(crate) fn router<Db: Books>(desk: &Arc<Endpoint<Db>>, patience: Duration) -> Router {
    Router::new()
        .route("/customers/{id}", get(show::<Db>).put(apply::<Db>))
        .route("/customers/{id}/events", get(events::<Db>))
        .route("/tasks", get(tasks::<Db>))
        .route("/tasks/{id}", post(decide::<Db>))
        .with_state(Api { desk: Arc::downgrade(desk), store: desk.store().clone(), patience })
}

impl<Db: Books> Api<Db> {
    fn desk(&self) -> Result<Arc<Endpoint<Db>>, Refusal> {
        self.desk.upgrade().ok_or(Refusal(StatusCode::SERVICE_UNAVAILABLE, "the desk is closing".into()))
    }
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
struct Application {
    name: String,
}

async fn apply<Db: Books>(
    State(api): State<Api<Db>>,
    Path(customer): Path<Uuid>,
    Json(Application { name }): Json<Application>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let mut session = api.desk()?.session().await?;
    let insert = "INSERT INTO applicant (customer, name) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    if Db::run(session.tx(), insert, &[&customer.to_string(), &name]).await? == 1 {
        session.publish(Applied { customer, name, patience: api.patience });
    }
    session.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "see": format!("/customers/{customer}") }))))
}

/// Where an application stands; `None` while the process has not heard of it.
async fn view<Db: Books>(store: &Db, customer: Uuid) -> Result<Option<Value>, Refusal> {
    let of = InstanceFilter { saga: Some("onboarding".into()), id: Some(customer.to_string()), ..Default::default() };
    let Some(it) = store.instances(&of, 1).await?.pop() else { return Ok(None) };
    let journal = store.journal(&InstanceKey { saga: it.saga, id: it.id }, LINES_MAX).await?;
    let moved = journal.iter().filter(|line| line.to_state.is_some());
    let history: Vec<Value> = moved
        .map(|line| {
            let after_ms = (line.handled_at_us - it.created_at_us) / 1000;
            json!({ "after_ms": after_ms, "message": line.type_name, "state": line.to_state })
        })
        .collect();
    let name = &it.data["data"]["name"];
    Ok(Some(json!({
        "name": name, "state": it.state, "version": it.version, "done": it.completed_at_us.is_some(),
        "history": history,
    })))
}

async fn show<Db: Books>(State(api): State<Api<Db>>, Path(customer): Path<Uuid>) -> Result<Json<Value>, Refusal> {
    let view = view(&api.store, customer).await?;
    view.map(Json).ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("nobody has applied as {customer}")))
}

async fn events<Db: Books>(State(api): State<Api<Db>>, Path(customer): Path<Uuid>) -> impl IntoResponse {
    Sse::new(changes(api.store, customer)).keep_alive(KeepAlive::default())
}

/// The application after each change, until its end.
fn changes<Db: Books>(store: Db, customer: Uuid) -> impl Stream<Item = Result<Event, Infallible>> {
    futures_util::stream::unfold(Some((store, Value::Null)), move |state| async move {
        let (store, last) = state?;
        loop {
            // row and journal are read one after the other: skip what is between two states
            if let Ok(Some(now)) = view(&store, customer).await
                && now != last
                && now["history"]
                    .as_array()
                    .and_then(|lines| lines.last())
                    .is_some_and(|it| it["state"] == now["state"])
            {
                let event = Event::default().data(now.to_string());
                return Some((Ok(event), (now["done"] == false).then_some((store, now))));
            }
            tokio::time::sleep(LOOK).await;
        }
    })
}

#[derive(Deserialize)]
struct Of {
    role: Role,
}

async fn tasks<Db: Books>(State(api): State<Api<Db>>, Query(of): Query<Of>) -> Result<Json<Value>, Refusal> {
    let list = "SELECT customer, name, score FROM task WHERE role = $1 AND verdict = 'open'
        ORDER BY customer LIMIT 100";
    let rows = api.store.look(list, &[of.role.name()]).await?;
    let task = |row: &Vec<String>| json!({ "id": row[0], "name": row[1], "score": row[2] });
    Ok(Json(rows.iter().map(task).collect()))
}

#[derive(Deserialize)]
struct Decision {
    role: Role,
    approve: bool,
}

/// The row decides who was first; the answer leaves with its commit.
async fn decide<Db: Books>(
    State(api): State<Api<Db>>,
    Path(customer): Path<Uuid>,
    Json(Decision { role, approve }): Json<Decision>,
) -> Result<Json<Value>, Refusal> {
    let (id, verdict) = (customer.to_string(), if approve { "approved" } else { "declined" });
    let mut session = api.desk()?.session().await?;
    let mine = "UPDATE task SET verdict = $3 WHERE customer = $1 AND role = $2 AND verdict = 'open'";
    let is_mine = Db::run(session.tx(), mine, &[&id, role.name(), verdict]).await? == 1;
    let task = Db::find(session.tx(), "SELECT role, verdict, later FROM task WHERE customer = $1", &[&id]).await?;
    let Some([with, found, later]) = task.first().map(Vec::as_slice) else {
        return Err(Refusal(StatusCode::NOT_FOUND, format!("there is no task {id}")));
    };
    if !is_mine {
        let whose = if found == "open" { format!("the {with}'s") } else { found.clone() };
        return Err(Refusal(StatusCode::CONFLICT, format!("this task is {whose}")));
    }
    let later: Later = serde_json::from_str(later)?;
    let outcome: Verdict = if approve { Approved { customer }.into() } else { Declined { customer }.into() };
    session.answer::<Approve>(&later, outcome).await?;
    session.commit().await?;
    Ok(Json(json!({ "verdict": verdict })))
}
