//! Orders that keep coming, and when each ended.

use crate::system::connect;
use anyhow::{Context, Result};
use serde_json::json;
use sqlx::PgConnection;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

/// How long one request may take before it is repeated with the same id.
const REQUEST: Duration = Duration::from_secs(2);
/// The pause before a request is repeated.
const AGAIN: Duration = Duration::from_millis(200);
/// How often somebody looks for orders that ended.
const LOOK: Duration = Duration::from_millis(10);
/// The longest time that a look may take: the server may be frozen.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// Orders under way at a time; while a fault lasts, no more are placed.
const OPEN_MAX: usize = 100;

/// Orders of one row.
#[derive(Debug)]
pub(crate) struct Load {
    state: Arc<State>,
    tasks: Vec<AbortHandle>,
}

#[derive(Debug, Default)]
struct State {
    /// Where ordering listens.
    ports: Mutex<Vec<u16>>,
    /// Orders that have not ended, and when each was begun.
    open: Mutex<HashMap<Uuid, Open>>,
    ended: Mutex<Vec<Ended>>,
    begun: AtomicUsize,
    paused: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    begun: Instant,
    accepted: bool,
}

#[derive(Debug, Clone, Copy)]
struct Ended {
    begun: Instant,
    ended: Instant,
}

impl Load {
    /// Begins to place so many orders a second; `database` is ordering's.
    pub(crate) fn start(ports: Vec<u16>, database: String, per_second: u32) -> Result<Self> {
        let state = Arc::new(State { ports: Mutex::new(ports), ..State::default() });
        let client = reqwest::Client::builder().timeout(REQUEST).build()?;
        let placing = tokio::spawn(place_all(state.clone(), client, Duration::from_secs(1) / per_second));
        let looking = tokio::spawn(look(state.clone(), database));
        Ok(Self { state, tasks: vec![placing.abort_handle(), looking.abort_handle()] })
    }

    /// Ordering listens elsewhere.
    pub(crate) fn ports(&self, ports: Vec<u16>) {
        *lock(&self.state.ports) = ports;
    }

    /// Places no more orders, or goes on.
    pub(crate) fn pause(&self, paused: bool) {
        self.state.paused.store(paused, Ordering::SeqCst);
    }

    /// Orders placed so far, with those that are not accepted yet.
    pub(crate) fn begun(&self) -> usize {
        self.state.begun.load(Ordering::SeqCst)
    }

    /// Orders under way.
    pub(crate) fn open(&self) -> usize {
        lock(&self.state.open).len()
    }

    /// Orders that ended.
    pub(crate) fn ended(&self) -> usize {
        lock(&self.state.ended).len()
    }

    /// When the next order ended that was begun after a moment, if one has.
    pub(crate) fn next_after(&self, moment: Instant) -> Option<Instant> {
        lock(&self.state.ended).iter().filter(|order| order.begun > moment).map(|order| order.ended).min()
    }

    /// Accepted orders that have not ended, and orders that were never accepted.
    pub(crate) fn unfinished(&self) -> (Vec<Uuid>, usize) {
        let open = lock(&self.state.open);
        let accepted: Vec<Uuid> = open.iter().filter(|(_, order)| order.accepted).map(|(id, _)| *id).collect();
        let refused = open.len() - accepted.len();
        (accepted, refused)
    }

    /// The longest time in which no order ended.
    pub(crate) fn longest_stall(&self) -> Duration {
        let mut times: Vec<Instant> = lock(&self.state.ended).iter().map(|order| order.ended).collect();
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn place_all(state: Arc<State>, client: reqwest::Client, pause: Duration) {
    let mut tick = tokio::time::interval(pause);
    for n in 0.. {
        tick.tick().await;
        while state.paused.load(Ordering::SeqCst) || lock(&state.open).len() >= OPEN_MAX {
            sleep(LOOK).await;
            tick.reset();
        }
        let id = Uuid::new_v4();
        lock(&state.open).insert(id, Open { begun: Instant::now(), accepted: false });
        state.begun.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(place(state.clone(), client.clone(), id, n));
    }
}

/// Places one order, at one process after the other, until one takes it.
async fn place(state: Arc<State>, client: reqwest::Client, id: Uuid, n: usize) {
    let order = json!({
        "order_id": id, "customer": format!("customer {n}"), "address": format!("{n} Main Street"),
        "amount_cents": 1000 + n,
    });
    for tries in 0.. {
        let port = {
            let ports = lock(&state.ports);
            ports[(n + tries) % ports.len()]
        };
        let answer = client.post(format!("http://127.0.0.1:{port}/orders")).json(&order).send().await;
        if answer.is_ok_and(|answer| answer.status() == reqwest::StatusCode::ACCEPTED) {
            if let Some(open) = lock(&state.open).get_mut(&id) {
                open.accepted = true;
            }
            return;
        }
        if Arc::strong_count(&state) == 1 {
            return; // the row is over
        }
        sleep(AGAIN).await;
    }
}

/// Looks for orders that ended.
async fn look(state: Arc<State>, database: String) {
    let mut connection = None;
    loop {
        sleep(LOOK).await;
        match timeout(LOOK_MAX, look_once(&state, &database, &mut connection)).await {
            Ok(Ok(())) => {}
            // the server is away, as somebody wants it
            _ => connection = None,
        }
    }
}

async fn look_once(state: &State, database: &str, kept: &mut Option<PgConnection>) -> Result<()> {
    let connection = match kept {
        Some(connection) => connection,
        None => kept.insert(connect(database).await?),
    };
    let open: Vec<Uuid> = lock(&state.open).keys().copied().collect();
    let sql = "SELECT order_id FROM orders WHERE order_id = ANY($1) AND status IN ('shipped', 'cancelled')";
    let done: Vec<Uuid> = sqlx::query_scalar(sql).bind(open).fetch_all(connection).await.context("a look")?;
    let now = Instant::now();
    for id in done {
        if let Some(Open { begun, .. }) = lock(&state.open).remove(&id) {
            lock(&state.ended).push(Ended { begun, ended: now });
        }
    }
    Ok(())
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
