//! `sagabus sagas resume` and `sagabus sagas cancel`.

use super::{operations, sagas_show};
use crate::{
    databases::Session,
    text::{count, plain},
};
use clap::Args;
use saga_core::{InstanceAction, InstanceKey};
use serde_json::json;

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

/// Acts on one instance.
pub(super) async fn run(
    session: &mut Session,
    action: InstanceAction,
    which: sagas_show::Arguments,
    why: &str,
) -> bool {
    let Some(found) = sagas_show::find(session, which).await else { return false };
    let [(n, instance)] = &found[..] else {
        session.failed("several databases have this instance: say which by --database".into());
        return false;
    };
    let key = InstanceKey { saga: instance.saga.clone(), id: instance.id.clone() };
    let store = &session.database(*n).store;
    let done = match action {
        InstanceAction::Cancel => store.saga_cancel(&key, &operations::who(), why).await,
        _ => store.saga_resume(&key, &operations::who(), why).await,
    };
    let done = match done {
        Ok(done) => done,
        Err(error) => {
            let name = session.database(*n).name.clone();
            session.failed(format!("{name}: {error}"));
            return false;
        }
    };
    let is_done = matches!(done.result.as_str(), "resumed" | "cancelled");
    if session.screen.json {
        session.screen.value(&json!({ "saga": key.saga, "id": key.id, "done": done }));
        return is_done;
    }
    let name = plain(&format!("{} {}", key.saga, key.id));
    let by = plain(done.paused_by.as_deref().unwrap_or_default());
    session.screen.line(match done.result.as_str() {
        "resumed" => format!("{name} goes on without message {by}, if that is still held: sagabus held show {by}"),
        "cancelled" => format!("{name} is over; {} discarded with it", count(done.discarded as i64, "held message")),
        "done" => format!("{name} is over already"),
        "gone" => format!("{name} is gone"),
        other => format!("{name} is {other}"),
    });
    is_done
}
