//! Pages are live by server-sent events. One task looks at the databases, however many browsers are open; an event only
//! says that something changed, and the browser fetches its page again. So there is one way to draw a page.

use super::{
    app::App,
    html::{self, Cx},
};
use axum::{
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::Stream;
use serde_json::Value;
use std::{
    convert::Infallible,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The most browsers that are told of changes at a time. A further one looks by itself, every half minute.
const CLIENTS_MAX: usize = 64;
/// How often the databases are looked at, while somebody watches.
const LOOK: Duration = Duration::from_secs(2);
/// A page is fetched again after this time even if no count changed: ages grow.
const AGAIN: Duration = Duration::from_secs(10);

/// Who watches, and what was seen last.
pub(super) struct Live {
    clients: Arc<Semaphore>,
    seen: watch::Sender<u64>,
}

impl Default for Live {
    fn default() -> Self {
        Self { clients: Arc::new(Semaphore::new(CLIENTS_MAX)), seen: watch::Sender::new(0) }
    }
}

impl Live {
    /// Something changed that a look at the databases may not show.
    pub(super) fn changed(&self) {
        self.seen.send_modify(|seen| *seen = seen.wrapping_add(1));
    }
}

/// The task that looks, ended when its handle is dropped.
pub(super) struct Looks(tokio::task::JoinHandle<()>);

impl Drop for Looks {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) fn look_again_and_again(app: Arc<App>) -> Looks {
    Looks(tokio::spawn(async move {
        let mut clock = tokio::time::interval(LOOK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = 0;
        loop {
            clock.tick().await;
            if app.live.seen.receiver_count() == 0 {
                continue; // nobody watches
            }
            let seen = look(&app).await;
            if seen != last {
                last = seen;
                app.live.changed();
            }
        }
    }))
}

/// A number for what the databases say.
async fn look(app: &App) -> u64 {
    let answers = app.each(|store| async move { store.status().await }).await;
    let mut hasher = DefaultHasher::new();
    for (n, status) in answers.all {
        (n, without_times(serde_json::to_value(status).unwrap_or_default()).to_string()).hash(&mut hasher);
    }
    answers.away.iter().for_each(|away| (&away.name, &away.error).hash(&mut hasher));
    hasher.finish()
}

/// Times and ages differ at every look.
fn without_times(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let lasting = fields.into_iter().filter(|(name, _)| !name.ends_with("_us") && !name.ends_with("_ms"));
            lasting.map(|(name, value)| (name, without_times(value))).collect()
        }
        Value::Array(values) => values.into_iter().map(without_times).collect(),
        value => value,
    }
}

pub(super) async fn events(cx: Cx) -> Response {
    let Ok(place) = cx.app.live.clients.clone().try_acquire_owned() else {
        return html::refusal(&cx.app, StatusCode::SERVICE_UNAVAILABLE, "too many browsers are watching");
    };
    Sse::new(changes(cx.app.live.seen.subscribe(), place)).keep_alive(KeepAlive::default()).into_response()
}

fn changes(seen: watch::Receiver<u64>, place: OwnedSemaphorePermit) -> impl Stream<Item = Result<Event, Infallible>> {
    futures_util::stream::unfold((seen, place), async |(mut seen, place)| {
        let event = match tokio::time::timeout(AGAIN, seen.changed()).await {
            Ok(Err(_)) => return None, // the dashboard ends
            Ok(Ok(())) => "change",
            Err(_) => "time",
        };
        Some((Ok(Event::default().event(event).data("look")), (seen, place))) // browsers drop an event without data
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_at_every_look_is_no_change() {
        let status = serde_json::json!({ "now_us": 5, "endpoints": [{ "due": { "count": 1, "oldest_ms": 7 } }] });
        assert_eq!(without_times(status), serde_json::json!({ "endpoints": [{ "due": { "count": 1 } }] }));
    }
}
