//! The commands: read from every database, print one listing.

use crate::{
    Database,
    show::{distance, json, pretty, table, time},
};
use anyhow::{Context, Result, bail};
use saga_core::{HeldView, InstanceFilter, InstanceView, OutboxView, Status};

fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".into())
}

fn of(database: &Database) -> String {
    format!("cannot read {}", database.url)
}

pub(crate) async fn status(databases: &[Database], as_json: bool) -> Result<bool> {
    let mut all = Status::default();
    for database in databases {
        let status = database.store.status().await.with_context(|| of(database))?;
        all.endpoints.extend(status.endpoints);
        all.instances.extend(status.instances);
    }
    if as_json {
        json(&all)?;
        return Ok(true);
    }
    let rows = all.endpoints.iter().map(|endpoint| {
        let held: Vec<String> = endpoint.held.iter().map(|held| format!("{} {}", held.count, held.reason)).collect();
        vec![
            endpoint.endpoint.clone(),
            endpoint.outbox.to_string(),
            endpoint.oldest_ms.map_or("-".into(), |ms| format!("{ms} ms")),
            endpoint.scheduled.to_string(),
            if held.is_empty() { "-".into() } else { held.join(", ") },
            endpoint.handled_last_minute.to_string(),
        ]
    });
    table(
        &["endpoint", "outbox", "oldest", "scheduled", "held", "handled/min"],
        rows.collect(),
        "no endpoint has started on these databases",
    );
    let rows = all.instances.iter().map(|state| {
        vec![
            state.saga.clone(),
            if state.done { format!("{} (done)", state.state) } else { state.state.clone() },
            state.count.to_string(),
            state.paused.to_string(),
        ]
    });
    table(&["saga", "state", "instances", "paused"], rows.collect(), "no saga instances");
    Ok(true)
}

pub(crate) async fn outbox_list(databases: &[Database], limit: i64, as_json: bool) -> Result<bool> {
    let mut all = Vec::new();
    for database in databases {
        all.extend(database.store.outbox(limit).await.with_context(|| of(database))?);
    }
    if as_json {
        json(&all)?;
        return Ok(true);
    }
    outbox_table(&all, "the outbox is empty");
    Ok(true)
}

fn outbox_table(rows: &[OutboxView], none: &str) {
    let now = now_us();
    let rows = rows.iter().map(|row| {
        vec![
            row.id.clone(),
            row.kind.clone(),
            row.type_name.clone(),
            row.destination.clone(),
            distance(row.due_at_us, now),
            row.attempts.to_string(),
            or_dash(
                row.last_error.clone().or_else(|| row.lease_owner.as_ref().map(|owner| format!("leased by {owner}"))),
            ),
        ]
    });
    table(&["id", "kind", "type", "to", "due", "tries", "last error"], rows.collect(), none);
}

pub(crate) async fn outbox_show(databases: &[Database], id: &str, as_json: bool) -> Result<bool> {
    for database in databases {
        let Some(row) = database.store.outbox_row(id).await.with_context(|| of(database))? else { continue };
        if as_json {
            json(&row)?;
            return Ok(true);
        }
        let now = now_us();
        println!("{} {} {} to {}", row.endpoint, row.kind, row.type_name, row.destination);
        println!("message    {}", row.message_id);
        println!("written    {} ({})", time(row.created_at_us), distance(row.created_at_us, now));
        println!("due        {} ({})", time(row.due_at_us), distance(row.due_at_us, now));
        if let (Some(owner), Some(until)) = (&row.lease_owner, row.lease_until_us) {
            println!("leased by  {owner}, until {} ({})", time(until), distance(until, now));
        }
        println!("tries      {}", row.attempts);
        if let Some(error) = &row.last_error {
            println!("last error {error}");
        }
        println!("headers    {}", row.headers);
        println!("{}", pretty(&row.body));
        return Ok(true);
    }
    bail!("there is no outbox row {id}: it may have been sent meanwhile")
}

pub(crate) async fn sagas_list(
    databases: &[Database],
    filter: &InstanceFilter,
    limit: i64,
    as_json: bool,
) -> Result<bool> {
    let mut all: Vec<InstanceView> = Vec::new();
    for database in databases {
        all.extend(database.store.instances(filter, limit).await.with_context(|| of(database))?);
    }
    if as_json {
        json(&all)?;
        return Ok(true);
    }
    let now = now_us();
    let rows = all.iter().map(|instance| {
        vec![
            instance.saga.clone(),
            instance.id.clone(),
            instance.state.clone(),
            instance.seq.to_string(),
            distance(instance.updated_at_us, now),
            or_dash(instance.paused_by.clone()),
        ]
    });
    table(&["saga", "id", "state", "seq", "changed", "paused by"], rows.collect(), "no such instances");
    Ok(true)
}

pub(crate) async fn sagas_show(databases: &[Database], saga: &str, id: &str, as_json: bool) -> Result<bool> {
    for database in databases {
        let store = &database.store;
        let Some(instance) = store.instance(saga, id).await.with_context(|| of(database))? else { continue };
        let timers = store.timers(saga, id).await?;
        let held: Vec<HeldView> = store
            .held(10_000)
            .await?
            .into_iter()
            .filter(|held| held.receiver == saga && held.saga_id.as_deref() == Some(id))
            .collect();
        let journal = store.journal(saga, id).await?;
        if as_json {
            json(&serde_json::json!({ "instance": instance, "timers": timers, "held": held, "journal": journal }))?;
            return Ok(true);
        }
        let now = now_us();
        println!("{saga} {id}: {} (seq {}, version {})", instance.state, instance.seq, instance.version);
        println!(
            "started {}, changed {} ({})",
            time(instance.created_at_us),
            time(instance.updated_at_us),
            distance(instance.updated_at_us, now)
        );
        if let Some(done) = instance.completed_at_us {
            println!("done    {}", time(done));
        }
        if let Some(message) = &instance.paused_by {
            println!("PAUSED by message {message}: `sagabus held show {message}`, then `sagabus held retry {message}`");
        }
        println!("{}", pretty(&instance.data));
        outbox_table(&timers, "no timers");
        if !held.is_empty() {
            held_table(&held);
        }
        let rows = journal.iter().map(|line| {
            let states = match (&line.from_state, &line.to_state) {
                (None, Some(to)) => format!("→ {to}"),
                (Some(from), Some(to)) => format!("{from} → {to}"),
                (from, None) => format!("({}) {}", line.result, from.clone().unwrap_or_default()),
            };
            let effects = line.effects.as_array().map(|effects| {
                effects.iter().filter_map(|effect| effect["type"].as_str()).collect::<Vec<_>>().join(", ")
            });
            vec![time(line.handled_at_us), line.type_name.clone(), states, effects.unwrap_or_default()]
        });
        table(&["at", "message", "transition", "sent"], rows.collect(), "no journal: its retention is over");
        return Ok(true);
    }
    bail!("there is no instance {id} of saga {saga}")
}

fn held_table(held: &[HeldView]) {
    let now = now_us();
    let rows = held.iter().map(|held| {
        vec![
            held.message_id.clone(),
            held.receiver.clone(),
            held.type_name.clone(),
            held.reason.clone(),
            distance(held.held_at_us, now),
            held.attempts.to_string(),
            or_dash(held.error.clone()),
        ]
    });
    table(&["message", "receiver", "type", "reason", "held", "runs", "error"], rows.collect(), "nothing is held");
}

pub(crate) async fn held_list(databases: &[Database], limit: i64, as_json: bool) -> Result<bool> {
    let mut all = Vec::new();
    for database in databases {
        all.extend(database.store.held(limit).await.with_context(|| of(database))?);
    }
    if as_json {
        json(&all)?;
    } else {
        held_table(&all);
    }
    Ok(true)
}

async fn held(databases: &[Database], id: &str) -> Result<Vec<HeldView>> {
    let mut all = Vec::new();
    for database in databases {
        all.extend(database.store.held_messages(id).await.with_context(|| of(database))?);
    }
    if all.is_empty() {
        bail!("no message {id} is held: it may have been dealt with already");
    }
    Ok(all)
}

pub(crate) async fn held_show(databases: &[Database], id: &str, as_json: bool) -> Result<bool> {
    let all = held(databases, id).await?;
    if as_json {
        json(&all)?;
        return Ok(true);
    }
    let now = now_us();
    for held in all {
        println!("{} {} at {} ({})", held.type_name, held.message_id, held.endpoint, held.receiver);
        println!(
            "held    {} ({}), {} after {} runs",
            time(held.held_at_us),
            distance(held.held_at_us, now),
            held.reason,
            held.attempts
        );
        println!("error   {}", or_dash(held.error));
        println!("headers {}", held.headers);
        println!("{}", pretty(&held.body));
    }
    Ok(true)
}

pub(crate) async fn held_retry(
    databases: &[Database],
    id: &str,
    reason: &str,
    dry_run: bool,
    as_json: bool,
) -> Result<bool> {
    let found = held(databases, id).await?;
    let mut retried = 0;
    if !dry_run {
        let who = std::env::var("USER").unwrap_or_else(|_| "an operator".into());
        for database in databases {
            retried += database.store.held_retry(id, &who, reason).await.with_context(|| of(database))?;
        }
    }
    if as_json {
        json(&serde_json::json!({ "message_id": id, "held": found.len(), "retried": retried, "dry_run": dry_run }))?;
    } else if dry_run {
        println!("{} would be retried", found.len());
    } else {
        println!("{retried} will be handled again by the next running process of its endpoint");
    }
    Ok(dry_run || retried > 0)
}
