//! `ordering place`: a client.

use crate::{figures::counted, servers::Usage};
use anyhow::{Result, anyhow, bail};
use clap::Args;
use futures_util::{StreamExt, stream};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use url::Url;
use uuid::Uuid;

/// How long one request may take before it is repeated with the same id.
const REQUEST: Duration = Duration::from_secs(5);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The shortest time between two log lines about trouble.
const WORD: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Ordering's address, `http://127.0.0.1:8080`; several, separated by commas, are asked in turn
    #[arg(long, value_name = "URL", value_delimiter = ',', required = true)]
    api: Vec<String>,
    /// Orders to place
    #[arg(long, value_name = "N", default_value_t = 100)]
    orders: usize,
    /// Orders under way at a time
    #[arg(long, value_name = "N", default_value_t = 50)]
    in_flight: usize,
    /// How long the whole run may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    within: u64,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

struct Counter {
    client: Client,
    api: Vec<String>,
    until: Instant,
    /// When trouble was last logged.
    told: Mutex<Option<Instant>>,
}

/// What became of a request.
enum Answer<T> {
    Done(T),
    /// Ask again.
    NotYet,
    /// Ask again: there was no answer.
    Trouble,
    /// Do not ask again.
    Refused,
}

impl Place {
    pub(crate) async fn run(self) -> Result<bool> {
        for api in &self.api {
            let wrong = |why: String| Usage(format!("--api {api}: {why}; it looks like http://127.0.0.1:8080"));
            let url = Url::parse(api).map_err(|error| wrong(error.to_string()))?;
            if url.scheme() != "http" {
                return Err(wrong(format!("`{}` is not http", url.scheme())).into());
            }
        }
        let counter = Counter {
            client: Client::builder().timeout(REQUEST).build()?,
            api: self.api.iter().map(|api| api.trim_end_matches('/').to_owned()).collect(),
            until: Instant::now() + Duration::from_secs(self.within),
            told: Mutex::default(),
        };
        let began = Instant::now();
        let results: Vec<Result<String, (Uuid, anyhow::Error)>> = stream::iter(0..self.orders)
            .map(|n| counter.order(n))
            .buffer_unordered(self.in_flight.max(1))
            .collect()
            .await;
        let count =
            |status: &str| results.iter().filter(|result| matches!(result, Ok(known) if known == status)).count();
        let (shipped, cancelled) = (count("shipped"), count("cancelled"));
        let failed: Vec<(Uuid, String)> =
            results.iter().filter_map(|r| r.as_ref().err().map(|(id, error)| (*id, error.to_string()))).collect();
        if self.json {
            let failed: Vec<String> = failed.iter().map(|(id, error)| format!("order {id}: {error}")).collect();
            let elapsed_ms = began.elapsed().as_millis() as u64;
            let orders = self.orders;
            let summary = json!({
                "orders": orders, "shipped": shipped, "cancelled": cancelled, "failed": failed, "elapsed_ms": elapsed_ms
            });
            println!("{summary}");
        } else {
            println!(
                "{} in {:.1} s: {shipped} shipped, {cancelled} cancelled",
                counted(self.orders as i64, "order"),
                began.elapsed().as_secs_f64()
            );
            causes(&failed).iter().for_each(|cause| println!("FAILED: {cause}"));
        }
        Ok(failed.is_empty())
    }
}

/// One line for each cause, with the orders that failed for it.
fn causes(failed: &[(Uuid, String)]) -> Vec<String> {
    let mut causes: BTreeMap<&str, Vec<Uuid>> = BTreeMap::new();
    for (id, cause) in failed {
        causes.entry(cause).or_default().push(*id);
    }
    let line = |(cause, ids): (&str, Vec<Uuid>)| match ids.as_slice() {
        [id] => format!("order {id}: {cause}"),
        ids => format!("{}, such as {}: {cause}", counted(ids.len() as i64, "order"), ids[0]),
    };
    causes.into_iter().map(line).collect()
}

/// The cause at the bottom of an error; the layers above it only repeat the URL.
fn root(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {REQUEST:?}");
    }
    let mut error: &dyn Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

impl Counter {
    /// Places one order and waits for its end.
    async fn order(&self, n: usize) -> Result<String, (Uuid, anyhow::Error)> {
        let order_id = Uuid::now_v7();
        let order = json!({
            "order_id": order_id, "customer": format!("customer {n}"), "address": format!("{n} Main Street"),
            "amount_cents": 1000 + n,
        });
        let placed = self.insist(
            n,
            |api| self.client.post(format!("{api}/orders")).json(&order),
            |status, _| match status {
                StatusCode::ACCEPTED => Answer::Done(()),
                status if again(status) => Answer::Trouble,
                _ => Answer::Refused,
            },
        );
        placed.await.map_err(|error| (order_id, error))?;
        let ended = self.insist(
            n,
            |api| self.client.get(format!("{api}/orders/{order_id}")),
            |status, body| match (status, body["status"].as_str()) {
                (StatusCode::OK, Some(end @ ("shipped" | "cancelled"))) => Answer::Done(end.to_owned()),
                (StatusCode::OK, Some(_)) => Answer::NotYet,
                (status, _) if again(status) => Answer::Trouble,
                _ => Answer::Refused,
            },
        );
        ended.await.map_err(|error| (order_id, error))
    }

    /// Asks one address after another until there is an answer, with growing pauses.
    async fn insist<T>(
        &self,
        n: usize,
        request: impl Fn(&str) -> reqwest::RequestBuilder,
        judge: impl Fn(StatusCode, &Value) -> Answer<T>,
    ) -> Result<T> {
        let mut pause = Duration::from_millis(20);
        let mut last = String::new();
        for tries in 0.. {
            let api = &self.api[(n + tries) % self.api.len()];
            last = match request(api).send().await {
                Ok(response) => {
                    let status = response.status();
                    let body = response.json().await.unwrap_or(Value::Null);
                    match judge(status, &body) {
                        Answer::Done(answer) => return Ok(answer),
                        Answer::NotYet => format!("{api} says that it is {}", body["status"]),
                        Answer::Trouble => self.tell(said(api, status, &body)),
                        Answer::Refused => bail!("{}", said(api, status, &body)),
                    }
                }
                Err(error) => self.tell(format!("{api} cannot be reached: {}", root(&error))),
            };
            if Instant::now() + pause >= self.until {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Err(anyhow!("the order did not end in time: {last}"))
    }

    /// Logs trouble, but not for each order, and passes on the cause.
    fn tell(&self, cause: String) -> String {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= WORD) {
            *told = Some(Instant::now());
            tracing::warn!("{cause}; trying again");
        }
        cause
    }
}

/// An unexpected answer, in words.
fn said(api: &str, status: StatusCode, body: &Value) -> String {
    let field = body["field"].as_str().map(|field| format!("{field}: ")).unwrap_or_default();
    format!("{api} answers {status}: {field}{}", body["reason"].as_str().unwrap_or("no reason given"))
}

/// Whether another try may succeed.
fn again(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}
