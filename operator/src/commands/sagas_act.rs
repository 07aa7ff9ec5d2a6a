//! `sagabus sagas resume`, `sagabus sagas cancel`, `sagabus sagas fork` and `sagabus sagas send`.

use super::{held_edit, operations, sagas_show};
use crate::{
    databases::Session,
    find,
    text::{count, plain, quoted},
};
use clap::Args;
use saga_core::{ErrorCode, Forked, InstanceAction, InstanceDone, InstanceKey, InstanceView, StoreError};
use serde_json::json;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    pub(super) which: sagas_show::Arguments,
    /// Why: recorded with who and when
    #[arg(long, value_name = "TEXT", default_value = operations::NO_REASON, allow_hyphen_values = true)]
    pub(super) reason: String,
}

#[derive(Args)]
pub(crate) struct Cancel {
    #[command(flatten)]
    pub(super) which: sagas_show::Arguments,
    /// Why: recorded with who and when
    #[arg(long, value_name = "TEXT", value_parser = operations::reason, allow_hyphen_values = true)]
    pub(super) reason: String,
}

#[derive(Args)]
pub(crate) struct Fork {
    #[command(flatten)]
    pub(super) which: sagas_show::Arguments,
    /// The step, by its number
    #[arg(long, value_name = "STEP")]
    pub(super) at: i64,
    /// Only print what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Why: recorded with who and when
    #[arg(long, value_name = "TEXT", default_value = operations::NO_REASON, allow_hyphen_values = true)]
    pub(super) reason: String,
}

#[derive(Args)]
pub(crate) struct Send {
    #[command(flatten)]
    which: sagas_show::Arguments,
    /// The message's type, by logical name and whatever its case: one that the saga takes
    #[arg(value_name = "TYPE")]
    type_name: String,
    /// Its body
    #[arg(long, value_name = "JSON", allow_hyphen_values = true, required_unless_present = "body_file")]
    body: Option<String>,
    /// A file with its body; - is stdin
    #[arg(long, value_name = "PATH", conflicts_with = "body")]
    body_file: Option<PathBuf>,
    /// Why: recorded with who and when
    #[arg(long, value_name = "TEXT", value_parser = operations::reason, allow_hyphen_values = true)]
    reason: String,
}

/// The one instance that is meant, and the number of its database.
async fn one(session: &mut Session, which: sagas_show::Arguments) -> Option<(usize, InstanceView)> {
    let id = which.id.clone();
    let mut found = sagas_show::find(session, which).await?;
    if found.len() > 1 {
        session.refused(ErrorCode::Ambiguous, "several databases have this instance: say which by --database");
        return None;
    }
    let (_, instance) = found.first()?;
    if let Some(text) = find::unsure(&id, &instance.id, session.is_clean()) {
        session.refused(ErrorCode::Ambiguous, text);
        return None;
    }
    found.pop()
}

/// Gives an instance a message.
pub(super) async fn send(session: &mut Session, arguments: Send) -> bool {
    let Send { which, type_name, body, body_file, reason } = arguments;
    let Some((n, key)) = one(session, which).await.map(|(n, instance)| (n, instance.key())) else { return false };
    let store = &session.database(n).store;
    let known = match store.definitions().await {
        Ok(definitions) => definitions,
        Err(error) => {
            session.failed(error.to_string());
            return false;
        }
    };
    let of_it = known.iter().filter(|definition| definition.saga == key.saga);
    let types: Vec<String> =
        of_it.flat_map(|definition| &definition.chart.messages).map(|message| message.type_name.clone()).collect();
    let unfit = |error: anyhow::Error| ErrorCode::InputUnfit.told(format_args!("{error:#}"));
    let read = || body_file.as_deref().map(held_edit::read).transpose().map_err(unfit);
    let message = find::name(&type_name, &types, "message of the saga")
        .and_then(|type_name| Ok((type_name, body.map_or_else(read, |body| Ok(Some(body)))?.unwrap_or_default())));
    let (type_name, body) = match message {
        Ok(message) => message,
        Err(text) => {
            session.refused(ErrorCode::NotFound, text);
            return false;
        }
    };
    let store = &session.database(n).store;
    let done = store.saga_send(&key, (&type_name, &body), &operations::who(), &reason).await;
    told(session, n, &key, done)
}

/// Acts on one instance.
pub(super) async fn run(
    session: &mut Session,
    action: InstanceAction<'_>,
    which: sagas_show::Arguments,
    why: &str,
) -> bool {
    let Some((n, instance)) = one(session, which).await else { return false };
    let (key, seen, who) = (instance.key(), instance.seen(), operations::who());
    let store = &session.database(n).store;
    let done = match action {
        InstanceAction::Cancel => store.saga_cancel(&key, &seen, &who, why).await,
        InstanceAction::Fork { at, dry_run } => store.saga_fork(&key, (at, dry_run), &seen, &who, why).await,
        _ => store.saga_resume(&key, &seen, &who, why).await,
    };
    told(session, n, &key, done)
}

/// Says what became of it.
fn told(session: &mut Session, n: usize, key: &InstanceKey, done: Result<InstanceDone, StoreError>) -> bool {
    let done = match done {
        Ok(done) => done,
        Err(error) => {
            let name = session.database(n).name.clone();
            session.failed(format!("{name}: {error}"));
            return false;
        }
    };
    let is_done = done.is_done();
    if session.screen.json {
        session.screen.value(&json!({ "saga": key.saga, "id": key.id, "done": done }));
        return is_done;
    }
    let name = plain(&format!("{} {}", key.saga, key.id));
    let by = done.paused_by.as_deref().unwrap_or_default();
    if let Some(forked) = &done.forked {
        told_of_fork(session, key, forked, done.result == "forked");
        return true;
    }
    session.screen.line(match done.result.as_str() {
        "resumed" => format!(
            "{name} goes on without message {}, if that is still held: sagabus held show {}",
            plain(by),
            quoted(by)
        ),
        "cancelled" => format!("{name} is over; {} discarded with it", count(done.discarded as i64, "held message")),
        "sent" => {
            let message = quoted(done.message_id.as_deref().unwrap_or_default());
            format!("{name} gets message {message} from the next running process: sagabus explain {message}")
        }
        "done" => format!("{name} is over already"),
        "gone" => format!("{name} is gone"),
        "moved" => {
            let show = format!("sagabus sagas show {} {}", quoted(&key.saga), quoted(&key.id));
            format!("{name} has moved on since it was read: nothing was done, look again: {show}")
        }
        other => format!("{name} is {other}"),
    });
    is_done
}

/// Says where an instance stands again, or would.
fn told_of_fork(session: &mut Session, key: &InstanceKey, forked: &Forked, is_done: bool) {
    let name = plain(&format!("{} {}", key.saga, key.id));
    let Forked { at, seq, state, timers_kept, timers_set, timers_deleted, .. } = forked;
    let stands = if is_done { "stands again" } else { "would stand again" };
    session.screen.line(format!("{name} {stands} where step {at} left it: {} (seq {seq})", plain(state)));
    session.screen.line(format!(
        "timers: {timers_kept} as they were, {timers_set} set again, {timers_deleted} deleted; aliases and fields are \
         those of then"
    ));
    if let Some(stays) = stays_sent(forked) {
        session.screen.line(stays);
    }
    if forked.offered > 0 {
        let waiting = count(forked.offered as i64, "waiting message");
        session.screen.line(format!("{waiting}: those that the state takes go on"));
    }
    if is_done && !forked.over {
        let (saga, id) = (quoted(&key.saga), quoted(&key.id));
        session.screen.line(format!("nothing was sent; give it what it needs: sagabus sagas send {saga} {id} TYPE …"));
    }
}

/// What a fork does not take back.
fn stays_sent(forked: &Forked) -> Option<String> {
    let stays = if forked.stays_sent == 1 { "stays" } else { "stay" };
    let messages = count(forked.stays_sent as i64, "message");
    (forked.stays_sent > 0).then(|| format!("{messages} that it sent after step {} {stays} sent", forked.at))
}
