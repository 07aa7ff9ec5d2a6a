//! An operator's order about one instance: lock, read, write, record it in the journal and in the audit.

use super::{
    Params, Session, Tables, fork,
    order::{enter, give, unreadable, wake},
};
use saga_core::{
    Envelope, ErrorCode, HeldRef, InstanceAction, InstanceDone, InstanceKey, InstanceOrder, InstanceRow, InstanceSeen,
    OperationItem, StoreError, StoreErrorKind,
};
use serde::Deserialize;
use std::collections::BTreeSet;
use uuid::Uuid;

/// The statements of an order about an instance: the saga is the first parameter of each, the id the second.
pub(crate) struct Statements {
    /// The instance as a [`Found`].
    pub(super) find: &'static str,
    /// The fields of a message's type (2, in place of the id) that the saga's charts mask, one a row.
    pub(super) masked: &'static str,
    /// It is over in a state (3), without timers, and paused no longer.
    pub(super) end: &'static str,
    /// Deletes its timers.
    pub(super) timers: &'static str,
    /// Inbox rows of what is held for it become discarded, with a note (3).
    pub(super) discard: &'static str,
    /// Deletes what is held for it.
    pub(super) release: &'static str,
    /// Deletes its aliases: another instance may take them.
    pub(super) aliases: &'static str,
    /// A line of its journal: endpoint (3), message id (4), type (5), number of the transition (6), states before and
    /// after (7, 8), by whom (9), note (10), what is kept (11).
    pub(super) journal: &'static str,
}

/// An instance, under its lock.
#[derive(Deserialize)]
pub(super) struct Found {
    pub(super) state: String,
    pub(super) seq: i64,
    paused_by: Option<String>,
    done: bool,
    /// The endpoint of its saga; none when no process has registered the saga, and none has handled anything for it.
    endpoint: Option<String>,
    /// Messages that are held for it.
    held: u64,
    /// Those of them that go on by themselves.
    pub(super) waiting: u64,
}

impl Found {
    fn seen(&self) -> InstanceSeen {
        InstanceSeen { seq: self.seq, paused_by: self.paused_by.clone() }
    }
}

/// Carries out an order.
pub(super) async fn perform<T: Tables>(tables: &T, order: &InstanceOrder<'_>) -> Result<InstanceDone, StoreError> {
    let key = order.key;
    let mut session = tables.write().await?;
    // the step says which aliases a fork takes: whoever takes one has its lock
    let step = match order.action {
        InstanceAction::Fork { at, .. } => fork::steps::<T>(&mut session, key, [at]).await?.pop(),
        _ => None,
    };
    let aliases = step.iter().flat_map(|step| step.locks(key));
    let locks: BTreeSet<i64> = aliases.chain([key.lock()]).collect();
    T::lock(&mut session, &locks.into_iter().collect::<Vec<_>>()).await?;
    let Some(found) = session.rows(T::INSTANCE_ORDER.find, &params(key, &[])).await?.pop() else {
        return Ok(InstanceDone::new("gone"));
    };
    let found: Found = serde_json::from_str(&found).map_err(unreadable)?;
    let has_moved = order.seen.is_some_and(|seen| *seen != found.seen());
    let mut done = match (order.action, &found) {
        (InstanceAction::Resume, Found { paused_by: None, .. }) => return Ok(InstanceDone::new("not paused")),
        (InstanceAction::Cancel | InstanceAction::Send { .. }, Found { done: true, .. }) => {
            return Ok(InstanceDone::new("done"));
        }
        _ if has_moved => return Ok(InstanceDone::new("moved")),
        (InstanceAction::Resume, _) => InstanceDone::new("resumed"),
        (InstanceAction::Cancel, _) => InstanceDone::new("cancelled"),
        (InstanceAction::Send { .. }, _) => InstanceDone::new("sent"),
        (InstanceAction::Fork { .. }, _) => InstanceDone::new("forked"),
        (other, _) => return Err(StoreError::new(StoreErrorKind::Invalid, format!("{other:?} is not known here"))),
    };
    let Some(endpoint) = found.endpoint.as_deref() else {
        let text = format!("no endpoint of this database has registered saga `{}`", key.saga);
        return Err(StoreError::new(StoreErrorKind::Invalid, text).with_code(ErrorCode::NotFound));
    };
    let message_id = match order.action {
        InstanceAction::Send { type_name, body } => {
            let of_type = [Some(key.saga.clone()), Some(type_name.to_owned())];
            let masked = session.rows(T::INSTANCE_ORDER.masked, &of_type).await?;
            let message = Envelope::by_hand(key, type_name, body, &masked);
            give::<T>(&mut session, endpoint, key, &message).await?;
            done.message_id = Some(message.message_id.clone());
            message.message_id
        }
        InstanceAction::Resume => {
            let message_id = found.paused_by.clone().unwrap_or_default();
            session.rows(T::ORDER.unpause, &params(key, &[&message_id])).await?;
            wake::<T>(&mut session, endpoint, key).await?;
            message_id
        }
        InstanceAction::Fork { at, dry_run } => {
            let step = (at, step.as_ref());
            let (line, forked) = fork::perform::<T>(&mut session, endpoint, &found, step, order).await?;
            done.forked = Some(forked);
            if dry_run {
                done.result = "would be forked".into();
                return Ok(done); // without a commit
            }
            line
        }
        _ => {
            done.discarded = found.held;
            cancel::<T>(&mut session, endpoint, &found, order).await?
        }
    };
    done.paused_by = found.paused_by;
    let item = of_instance(endpoint, message_id, order, &done.result);
    enter::<T>(&mut session, [order.who, order.action.as_str(), order.why], &[item]).await?;
    session.commit().await?;
    Ok(done)
}

/// The parameters of a statement about an instance: its key, then the others.
pub(super) fn params(key: &InstanceKey, more: &[&str]) -> Params {
    [key.saga.as_str(), key.id.as_str()].iter().chain(more).map(|text| Some((*text).to_owned())).collect()
}

/// Ends the instance. Returns the id of the line in its journal.
async fn cancel<T: Tables>(
    session: &mut T::Session,
    endpoint: &str,
    found: &Found,
    order: &InstanceOrder<'_>,
) -> Result<String, StoreError> {
    let statements = &T::INSTANCE_ORDER;
    let and = |more: &[&str]| params(order.key, more);
    let note = format!("cancelled by {}: {}", order.who, order.why);
    let discarded = format!("discarded by {}, with the instance: {}", order.who, order.why);
    let line = Uuid::now_v7().to_string();
    let (seq, to) = ((found.seq + 1).to_string(), InstanceRow::CANCELLED);
    session.rows(statements.end, &and(&[to])).await?;
    session.rows(statements.timers, &and(&[])).await?;
    session.rows(statements.discard, &and(&[&discarded])).await?;
    session.rows(statements.release, &and(&[])).await?;
    session.rows(statements.aliases, &and(&[])).await?;
    let entry = [endpoint, &line, InstanceRow::CANCEL, &seq, &found.state, to, order.who, &note];
    let mut entry = and(&entry);
    entry.push(None); // nobody lets it stand here again
    session.rows(statements.journal, &entry).await?;
    Ok(line)
}

fn of_instance(endpoint: &str, message_id: String, order: &InstanceOrder<'_>, result: &str) -> OperationItem {
    let (saga, id) = (order.key.saga.clone(), order.key.id.clone());
    let message = HeldRef { endpoint: endpoint.into(), receiver: saga.clone(), message_id, arrival: 0 };
    message.done(result, Some(saga), Some(id))
}
