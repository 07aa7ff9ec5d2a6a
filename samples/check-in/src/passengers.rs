//! Passengers, over HTTP: whoever gets no pass at once listens until it is pushed.

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

/// Passengers who check in at the same time.
const AT_A_TIME: usize = 8;

/// How a passenger got the answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// 200 or 409.
    AtOnce,
    /// 202, and pushed later.
    Pushed,
}

/// All check in; whoever has done so already begins nothing new.
pub(crate) async fn check_in(api: &str, passengers: u32) -> Result<Vec<Answer>> {
    let client = Client::new();
    let one = |n: u32| one(client.clone(), api, n);
    stream::iter(0..passengers).map(one).buffer_unordered(AT_A_TIME).try_collect().await
}

async fn one(client: Client, api: &str, n: u32) -> Result<Answer> {
    let look = format!("{api}/check-ins/{}", Uuid::from_u128(n.into()));
    let answer = client.put(&look).json(&json!({ "passenger": format!("passenger {n}") })).send().await?;
    match answer.status() {
        StatusCode::OK | StatusCode::CONFLICT => Ok(Answer::AtOnce),
        StatusCode::ACCEPTED => {
            let end = last(client.get(format!("{look}/events")).send().await?).await?;
            println!("pushed: {} {} {}", end["passenger"], end["state"], end["pass"]);
            Ok(Answer::Pushed)
        }
        other => bail!("{look} answers {other}: {}", answer.text().await?),
    }
}

/// Listens to the end; the last event.
async fn last(mut events: Response) -> Result<Value> {
    let mut text = String::new();
    while let Some(part) = events.chunk().await? {
        text += &String::from_utf8_lossy(&part);
    }
    let data = text.lines().rev().find_map(|line| line.strip_prefix("data: ")).context("an event was expected")?;
    Ok(serde_json::from_str(data)?)
}
