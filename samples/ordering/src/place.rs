//! `ordering place`: a client.

use anyhow::{Result, bail};
use clap::Args;
use futures_util::{StreamExt, stream};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// One request may take so long before it is asked again with the same id.
const REQUEST: Duration = Duration::from_secs(5);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);

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
    /// How long all of it may take
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
}

impl Place {
    pub(crate) async fn run(self) -> Result<bool> {
        let counter = Counter {
            client: Client::builder().timeout(REQUEST).build()?,
            api: self.api.iter().map(|api| api.trim_end_matches('/').to_owned()).collect(),
            until: Instant::now() + Duration::from_secs(self.within),
        };
        let began = Instant::now();
        let results: Vec<Result<String>> = stream::iter(0..self.orders)
            .map(|n| counter.order(n))
            .buffer_unordered(self.in_flight.max(1))
            .collect()
            .await;
        let count =
            |status: &str| results.iter().filter(|result| matches!(result, Ok(known) if known == status)).count();
        let (shipped, cancelled) = (count("shipped"), count("cancelled"));
        let failed: Vec<String> =
            results.iter().filter_map(|result| result.as_ref().err().map(ToString::to_string)).collect();
        if self.json {
            let elapsed_ms = began.elapsed().as_millis() as u64;
            let orders = self.orders;
            println!(
                "{}",
                json!({ "orders": orders, "shipped": shipped, "cancelled": cancelled, "failed": failed, "elapsed_ms": elapsed_ms })
            );
        } else {
            println!(
                "{} orders in {:.1} s: {shipped} shipped, {cancelled} cancelled",
                self.orders,
                began.elapsed().as_secs_f64()
            );
            failed.iter().for_each(|error| println!("FAILED: {error}"));
        }
        Ok(failed.is_empty())
    }
}

impl Counter {
    /// Places one order and waits for its end.
    async fn order(&self, n: usize) -> Result<String> {
        let order_id = Uuid::now_v7();
        let order = json!({
            "order_id": order_id, "customer": format!("customer {n}"), "address": format!("{n} Main Street"), "amount_cents": 1000 + n,
        });
        self.insist(
            n,
            order_id,
            |api| self.client.post(format!("{api}/orders")).json(&order),
            |status, body| match status {
                StatusCode::ACCEPTED => Ok(Some(())),
                StatusCode::BAD_REQUEST => bail!("order {order_id} was refused: {body}"),
                _ => Ok(None),
            },
        )
        .await?;
        self.insist(
            n,
            order_id,
            |api| self.client.get(format!("{api}/orders/{order_id}")),
            |status, body| {
                let ended = |status: &&str| matches!(*status, "shipped" | "cancelled");
                match status {
                    StatusCode::OK => Ok(body["status"].as_str().filter(ended).map(str::to_owned)),
                    StatusCode::NOT_FOUND => bail!("order {order_id} was accepted, but is unknown"),
                    _ => Ok(None),
                }
            },
        )
        .await
    }

    /// Asks until there is an answer, each time another address, with growing pauses.
    async fn insist<T>(
        &self,
        n: usize,
        order_id: Uuid,
        request: impl Fn(&str) -> reqwest::RequestBuilder,
        judge: impl Fn(StatusCode, &Value) -> Result<Option<T>>,
    ) -> Result<T> {
        let mut pause = Duration::from_millis(20);
        for tries in 0.. {
            if Instant::now() >= self.until {
                break;
            }
            if let Ok(response) = request(&self.api[(n + tries) % self.api.len()]).send().await {
                let status = response.status();
                if let Some(answer) = judge(status, &response.json().await.unwrap_or(Value::Null))? {
                    return Ok(answer);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        bail!("order {order_id} did not come to its end in time")
    }
}
