//! Applicants, and those who decide, over HTTP. What they do depends on the customer's number, so that every run is
//! alike.

use crate::messages::Role;
use anyhow::{Context, Result, ensure};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use std::{ops::Range, time::Duration};
use uuid::Uuid;

/// Somebody whom neither the clerk nor the manager finds time for.
pub(crate) const SLOW: u128 = 0;

/// Customers apply; whoever has applied already does nothing.
pub(crate) async fn apply(api: &str, numbers: Range<u32>) -> Result<()> {
    let client = Client::new();
    for n in numbers {
        let name = json!({ "name": format!("visitor {n}") });
        let url = format!("{api}/customers/{}", Uuid::from_u128(n.into()));
        client.put(url).json(&name).send().await?.error_for_status()?;
    }
    Ok(())
}

/// Decides for ever: two colleagues of the role click on each task, and one of them is first.
pub(crate) async fn decide(api: &str, role: Role) -> Result<()> {
    let client = Client::new();
    loop {
        let tasks: Value = client.get(format!("{api}/tasks?role={}", role.name())).send().await?.json().await?;
        for task in tasks.as_array().context("a list of tasks")? {
            let id: Uuid = task["id"].as_str().context("a task has an id")?.parse()?;
            let n = id.as_u128();
            let has_time = !matches!((role, n % 10), (Role::Clerk, 0 | 5) | (Role::Manager, 0));
            if has_time {
                let decision = json!({ "role": role, "approve": n % 7 < 6 });
                let click = || client.post(format!("{api}/tasks/{id}")).json(&decision).send();
                let (one, other) = tokio::join!(click(), click());
                let first = [one?, other?].iter().filter(|it| it.status() == StatusCode::OK).count();
                ensure!(first <= 1, "two colleagues were told that they decided task {id}");
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Tells where an application stands, live, until its end.
pub(crate) async fn watch(api: &str, n: u128) -> Result<()> {
    let mut events = reqwest::get(format!("{api}/customers/{}/events", Uuid::from_u128(n))).await?;
    let mut text = String::new();
    while let Some(part) = events.chunk().await? {
        text += &String::from_utf8_lossy(&part);
        while let Some((event, rest)) = text.split_once("\n\n") {
            if let Some(data) = event.strip_prefix("data: ") {
                let now: Value = serde_json::from_str(data)?;
                let after = now["history"].as_array().and_then(|it| it.last()).map(|it| it["after_ms"].to_string());
                let (name, state) = (&now["name"], &now["state"]);
                println!("live: {name} {state}, version {}, after {} ms", now["version"], after.unwrap_or_default());
            }
            text = rest.to_owned();
        }
    }
    Ok(())
}
