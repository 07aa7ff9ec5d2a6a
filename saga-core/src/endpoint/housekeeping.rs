//! Housekeeping: deletes old rows, offers messages that waited for this version, writes the process's heartbeat, and
//! counts for the metrics.

use super::{
    breaker::Breaker,
    metrics::{COUNT_EVERY, COUNTED_ROWS_MAX},
    shared::Shared,
    supervisor::Links,
    trouble::Trouble,
};
use crate::{
    LinkState, Store, StoreError, ambient,
    port::{Asked, Swept},
};
use serde_json::json;
use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// How often old inbox rows and done instances are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How often messages that wait for a version are offered: an older process of the endpoint may take one and hold it
/// again.
const RELEASE_EVERY: Duration = Duration::from_secs(10);
/// How often the process writes its heartbeat.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

/// Deletes what is older than the retention, in small steps, and ends the wait of messages whose time is up.
pub(crate) async fn sweep<Db: Store>(shared: Arc<Shared<Db>>, stop: CancellationToken) {
    let step = || async {
        let swept = shared.store.sweep(&shared.name, shared.settings.retention).await?;
        says(&shared.name, &swept);
        Ok(swept.rows)
    };
    every(&shared.name, SWEEP_EVERY, "old rows are not deleted", &stop, step).await;
}

/// Says what concerns people: a line for each reason, with how many.
fn says(endpoint: &str, swept: &Swept) {
    let Swept { rows: _, discarded, without_instance, without_version, stranded } = *swept;
    for (messages, what) in [
        (discarded, "discarded: early events for which no instance came in time"),
        (without_instance, "held for a person: early answers and commands for which no instance came in time"),
        (without_version, "held for a person: no process came in time that knows their type or version"),
        (stranded, "held for a person: first sent long ago and never confirmed, they may have arrived"),
    ] {
        if messages > 0 {
            tracing::warn!(endpoint, messages, "{what}");
        }
    }
}

/// Offers messages that waited for a process that knows their type or version.
pub(crate) async fn release<Db: Store>(shared: Arc<Shared<Db>>, stop: CancellationToken) {
    let step = || async {
        let released = shared.store.release(&shared.process).await?;
        if released > 0 {
            tracing::info!(endpoint = shared.name, released, "messages that waited for this version are handled now");
            shared.dispatcher.due_in(Duration::ZERO);
        }
        Ok(released)
    };
    every(&shared.name, RELEASE_EVERY, "messages that wait for this version are not offered", &stop, step).await;
}

/// Keeps this process's row up to date, with its report for operators, and reads there what an operator asks of it.
pub(crate) async fn heartbeat<Db: Store>(
    shared: Arc<Shared<Db>>,
    links: Links,
    stop: CancellationToken,
    drain: CancellationToken,
) {
    let step = || async {
        let open = open_breakers(&shared);
        let now = ambient::now_us();
        let since = |breaker: &Breaker| now - i64::try_from(breaker.lasts().as_micros()).unwrap_or_default();
        let since: BTreeMap<&str, i64> = open.map(|(breaker, name)| (name, since(breaker))).collect();
        let breakers: Vec<&str> = since.keys().copied().collect();
        let limited = shared.handlers.iter().filter_map(|it| Some((it.description.name, it.limit.as_ref()?.name())));
        let behind: BTreeMap<&str, &str> = limited.filter(|(handler, _)| since.contains_key(handler)).collect();
        let link = match links.state() {
            LinkState::Up => "up".to_owned(),
            LinkState::Down(why) | LinkState::Failed(why) => why,
        };
        let mut report = shared.process.report.clone();
        report["link"] = link.into();
        report["breakers"] = json!(breakers);
        report["breakers_since_us"] = json!(since);
        report["breakers_behind"] = json!(behind);
        let process = crate::port::Process { report, ..shared.process.clone() };
        shared.held_log.over(&shared.name);
        let lives = shared.store.heartbeat(&process).await;
        match &lives {
            Ok(_) => _ = shared.polled.ends(),
            Err(error) => _ = shared.polled.begins_with(error),
        }
        if lives? == Asked::Drain && !drain.is_cancelled() {
            tracing::warn!(endpoint = shared.name, "an operator asks this process to finish and stop");
            drain.cancel();
        }
        Ok(0)
    };
    every(&shared.name, HEARTBEAT_EVERY, "the process cannot say that it lives", &stop, step).await;
}

/// Handlers and projections that are slowed down.
fn open_breakers<Db: Store>(shared: &Shared<Db>) -> impl Iterator<Item = (&Breaker, &'static str)> {
    let handlers = shared.handlers.iter().map(|entry| (&*entry.breaker, entry.description.name));
    let projections = shared.sagas.iter().map(|entry| (&entry.breaker, entry.logic.name()));
    handlers.chain(projections).filter(|(breaker, _)| breaker.is_open())
}

/// Counts what the database holds, and says how the process is, for the metrics.
pub(crate) async fn count<Db: Store>(shared: Arc<Shared<Db>>, links: Links, stop: CancellationToken) {
    let sagas: Vec<String> = shared.sagas.iter().map(|saga| saga.chart.saga.clone()).collect();
    let step = || async {
        let open: Vec<&str> = open_breakers(&shared).map(|(_, name)| name).collect();
        shared.metrics.state(links.state() == LinkState::Up, &open);
        shared.metrics.counted(&shared.store.counts(&shared.name, &sagas, COUNTED_ROWS_MAX).await?);
        Ok(0)
    };
    every(&shared.name, COUNT_EVERY, "the metrics do not say what the database holds", &stop, step).await;
}

/// Repeats a bounded step until there is nothing to do, then runs it once every interval.
async fn every<F: Future<Output = Result<u64, StoreError>>>(
    endpoint: &str,
    pause: Duration,
    what: &str,
    stop: &CancellationToken,
    step: impl Fn() -> F,
) {
    let trouble = Trouble::default();
    while !stop.is_cancelled() {
        match until_done(endpoint, stop, &step).await {
            Ok(()) => {
                if let Some(lasted) = trouble.ends() {
                    tracing::info!(endpoint, ?lasted, "housekeeping goes on");
                }
            }
            Err(error) => {
                if trouble.begins().is_some() {
                    tracing::warn!(endpoint, %error, "{what}; tried again later");
                }
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn until_done<F: Future<Output = Result<u64, StoreError>>>(
    endpoint: &str,
    stop: &CancellationToken,
    step: &impl Fn() -> F,
) -> Result<(), StoreError> {
    while !stop.is_cancelled() {
        match step().await? {
            0 => break,
            rows => tracing::debug!(endpoint, rows, "housekeeping"),
        }
    }
    Ok(())
}
