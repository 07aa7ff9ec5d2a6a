//! An operator's order, step by step: lock, read, decide, write, record it in the audit.

use super::{Params, Session, Tables};
use saga_core::{
    Envelope, ErrorCode, HeldAction, HeldOrder, HeldReason, HeldView, InstanceKey, ORDER_ROWS_MAX, OperationItem,
    OutboxKind, StoreError, StoreErrorKind, hash_of,
};
use std::collections::BTreeSet;
use uuid::Uuid;

/// The result of an edit.
const EDITED: &str = "edited";

/// The statements of an order. Times are the database's.
pub(crate) struct Statements {
    /// A held message becomes an outbox row: id (1), saga, saga id and timer of its sender (2 to 4), envelope (5);
    /// endpoint, receiver, message id (6 to 8).
    pub(super) send: &'static str,
    /// A wake-up becomes an outbox row: id (1), endpoint (2), message id (3), type (4), saga (5), saga id (6),
    /// envelope (7), body (8).
    pub(super) wake: &'static str,
    /// A held inbox row becomes one that waits for its retry: endpoint, receiver, message id (1 to 3), note (4).
    pub(super) put_off: &'static str,
    /// A held inbox row, or one that waits for its retry, becomes discarded; the same parameters.
    pub(super) discard: &'static str,
    /// Deletes a held inbox row: endpoint, receiver, message id.
    pub(super) forget: &'static str,
    /// Deletes an inbox row that waits for a retry: endpoint, receiver, message id (1 to 3), attempts (4).
    pub(super) forget_retry: &'static str,
    /// Such a row becomes discarded, with a note (5). Returns a row if it did.
    pub(super) settle: &'static str,
    /// Deletes a held row: endpoint, receiver, message id.
    pub(super) release: &'static str,
    /// The body of a held row: endpoint, receiver, message id (1 to 3), body (4).
    pub(super) edit: &'static str,
    /// The hash of type and body in such a row: endpoint, receiver, message id (1 to 3), hash (4).
    pub(super) rehash: &'static str,
    /// The instance that waits for the retry of a message: endpoint, receiver, message id.
    pub(super) awaits: &'static str,
    /// An instance (1, 2) no longer waits behind a message (3). Returns a row if it did.
    pub(super) unpause: &'static str,
    /// The audit: id, who, action, why, items (1 to 5).
    pub(super) enter: &'static str,
}

/// Carries out an order.
pub(super) async fn perform<T: Tables>(tables: &T, order: &HeldOrder<'_>) -> Result<Vec<OperationItem>, StoreError> {
    if order.rows.len() > ORDER_ROWS_MAX {
        let text = format!("an order takes at most {ORDER_ROWS_MAX} messages, not {}", order.rows.len());
        return Err(StoreError::new(StoreErrorKind::Invalid, text).with_code(ErrorCode::Usage));
    }
    let names = serde_json::to_string(order.rows).map_err(unreadable)?;
    let mut session = tables.write().await?;
    // the rows say which locks are needed; decisions rest on what is read again after locking
    let seen = held(session.rows(&T::held_by_name(false), &[Some(names.clone())]).await?)?;
    let mut locks: BTreeSet<i64> = BTreeSet::new();
    for row in &seen {
        locks.insert(awaited::<T>(&mut session, row).await?.map_or_else(|| own_lock(row), |key| key.lock()));
    }
    T::lock(&mut session, &locks.into_iter().collect::<Vec<_>>()).await?;
    let found = held(session.rows(&T::held_by_name(true), &[Some(names)]).await?)?;
    let mut items = Vec::new();
    for row in &found {
        let result = match order.action {
            HeldAction::Retry | HeldAction::Edit { .. } => retry::<T>(&mut session, row, order).await?,
            HeldAction::Discard => discard::<T>(&mut session, row, order).await?,
            other => return Err(StoreError::new(StoreErrorKind::Invalid, format!("{other:?} is not known here"))),
        };
        let mut item = row.row().done(result, row.saga.clone(), row.saga_id.clone());
        item.error.clone_from(&row.error);
        if let (HeldAction::Edit { old_body, .. }, EDITED) = (order.action, result) {
            item.old_body = Some(old_body.to_owned());
        }
        items.push(item);
    }
    let gone = order.rows.iter().filter(|name| !found.iter().any(|row| row.row() == **name));
    items.extend(gone.map(|name| name.done("gone", None, None)));
    enter::<T>(&mut session, [order.who, order.action.as_str(), order.why], &items).await?;
    session.commit().await?;
    Ok(items)
}

/// Records what was done: by whom, which action, why.
pub(super) async fn enter<T: Tables>(
    session: &mut T::Session,
    said: [&str; 3],
    items: &[OperationItem],
) -> Result<(), StoreError> {
    let items = serde_json::to_string(items).map_err(unreadable)?;
    let entry = [Uuid::now_v7().to_string()].into_iter().chain(said.map(str::to_owned)).chain([items]);
    session.rows(T::ORDER.enter, &entry.map(Some).collect::<Vec<_>>()).await.map(drop)
}

async fn retry<T: Tables>(
    session: &mut T::Session,
    row: &HeldView,
    order: &HeldOrder<'_>,
) -> Result<&'static str, StoreError> {
    if row.reason == HeldReason::Paused.as_str() {
        return Ok("waits"); // it would come back behind those that came after it
    }
    let Ok(mut envelope) = serde_json::from_value::<Envelope>(row.envelope.clone()) else { return Ok("unreadable") };
    let mut done = "retried";
    if let HeldAction::Edit { body, .. } = order.action {
        let hash = hash_of([row.type_name.as_bytes(), body.as_bytes()]);
        session.rows(T::ORDER.edit, &with(key(row), body.into())).await?;
        session.rows(T::ORDER.rehash, &with(inbox_key(row), hash.to_string())).await?;
        done = EDITED;
    }
    let never_left = row.kind.is_some();
    if !never_left && row.receiver.is_empty() {
        // it had no receiver: those that listen now judge it anew
        envelope.receiver = None;
        envelope.attempt = 0;
        session.rows(T::ORDER.forget, &key(row)).await?;
        if let Some(retry) = strayed(row) {
            session.rows(T::ORDER.forget_retry, &retry).await?; // else it would take the message for a duplicate
        }
    } else if !never_left {
        envelope.receiver = Some(row.receiver.clone());
        envelope.attempt = row.attempts;
        session.rows(T::ORDER.put_off, &with(key(row), note(done, order))).await?;
    }
    let from = envelope.saga.as_ref();
    let mut params = vec![
        Some(Uuid::now_v7().to_string()),
        from.map(|saga| saga.saga.clone()),
        from.map(|saga| saga.id.clone()),
        from.and_then(|saga| saga.timer).map(|timer| timer.to_string()),
        Some(serde_json::to_string(&envelope).map_err(unreadable)?),
    ];
    params.extend(key(row));
    session.rows(T::ORDER.send, &params).await?;
    session.rows(T::ORDER.release, &key(row)).await?;
    Ok(done)
}

async fn discard<T: Tables>(
    session: &mut T::Session,
    row: &HeldView,
    order: &HeldOrder<'_>,
) -> Result<&'static str, StoreError> {
    if row.type_name == Envelope::WAKE {
        return Ok("not possible"); // what waits for the instance would wait for ever
    }
    let instance = awaited::<T>(session, row).await?;
    let note = note("discarded", order);
    session.rows(T::ORDER.discard, &with(inbox_key(row), note.clone())).await?;
    session.rows(T::ORDER.release, &key(row)).await?;
    let awaited = match strayed(row) {
        Some(retry) => !session.rows(T::ORDER.settle, &with(retry, note)).await?.is_empty(),
        None => true,
    };
    if let Some(key) = instance.filter(|_| awaited) {
        release::<T>(session, &row.endpoint, &key, &row.message_id).await?;
    }
    Ok("discarded")
}

/// An instance no longer waits behind a message, if it did: what waits behind it is offered.
pub(super) async fn release<T: Tables>(
    session: &mut T::Session,
    endpoint: &str,
    key: &InstanceKey,
    message_id: &str,
) -> Result<(), StoreError> {
    let paused = [&key.saga, &key.id, message_id].map(|text| Some(text.to_owned()));
    if session.rows(T::ORDER.unpause, &paused).await?.is_empty() {
        return Ok(());
    }
    wake::<T>(session, endpoint, key).await
}

/// When the wake-up comes, a running endpoint offers what waits for the instance, in order.
pub(super) async fn wake<T: Tables>(
    session: &mut T::Session,
    endpoint: &str,
    key: &InstanceKey,
) -> Result<(), StoreError> {
    give::<T>(session, endpoint, key, &Envelope::wake(key)).await
}

/// An outbox row that takes a message to an instance of the endpoint itself.
pub(super) async fn give<T: Tables>(
    session: &mut T::Session,
    endpoint: &str,
    key: &InstanceKey,
    message: &Envelope,
) -> Result<(), StoreError> {
    let params = [
        Uuid::now_v7().to_string(),
        endpoint.to_owned(),
        message.message_id.clone(),
        message.type_name.clone(),
        key.saga.clone(),
        key.id.clone(),
        serde_json::to_string(message).map_err(unreadable)?,
        String::from_utf8_lossy(&message.body).into_owned(),
    ];
    session.rows(T::ORDER.wake, &params.map(Some)).await.map(drop)
}

/// The instance that may wait for the message: its own, or that of a retry which never left or has strayed.
async fn awaited<T: Tables>(session: &mut T::Session, row: &HeldView) -> Result<Option<InstanceKey>, StoreError> {
    if let (Some(saga), Some(id)) = (&row.saga, &row.saga_id) {
        return Ok(Some(InstanceKey { saga: saga.clone(), id: id.clone() }));
    }
    let retry = strayed(row).map(|retry| retry[..3].to_vec());
    let Some(retry) = retry.or_else(|| retried_by(row).map(|_| inbox_key(row))) else { return Ok(None) };
    let found = session.rows(T::ORDER.awaits, &retry).await?;
    let saga = retry[1].clone().unwrap_or_default();
    Ok(found.into_iter().next().map(|id| InstanceKey { saga, id }))
}

/// A retry that a process held which does not know its receiver. The receiver's inbox row still waits for it, with so
/// many attempts.
fn strayed(row: &HeldView) -> Option<Params> {
    let receiver = row.envelope["receiver"].as_str().filter(|_| row.receiver.is_empty())?;
    let attempts = row.envelope["attempt"].as_i64().unwrap_or_default().to_string();
    Some([&row.endpoint, receiver, &row.message_id, &attempts].map(|text| Some(text.to_owned())).into())
}

/// Who is to handle the message again, if it is a retry that never left.
fn retried_by(row: &HeldView) -> Option<&str> {
    row.envelope["receiver"].as_str().filter(|_| row.kind.as_deref() == Some(OutboxKind::Retry.as_str()))
}

/// The lock of a message for which no instance waits.
fn own_lock(row: &HeldView) -> i64 {
    hash_of([row.endpoint.as_bytes(), row.message_id.as_bytes()])
}

fn key(row: &HeldView) -> Params {
    [&row.endpoint, &row.receiver, &row.message_id].map(|text| Some(text.clone())).into()
}

/// Where the inbox has the message. A retry that never left is held under its outbox row; its receiver still has it.
fn inbox_key(row: &HeldView) -> Params {
    [row.endpoint.as_str(), retried_by(row).unwrap_or(&row.receiver), &row.message_id]
        .map(|text| Some(text.to_owned()))
        .into()
}

fn with(mut params: Params, last: String) -> Params {
    params.push(Some(last));
    params
}

fn note(what: &str, order: &HeldOrder<'_>) -> String {
    format!("{what} by {}: {}", order.who, order.why)
}

fn held(rows: Vec<String>) -> Result<Vec<HeldView>, StoreError> {
    rows.iter().map(|row| serde_json::from_str(row).map_err(unreadable)).collect()
}

pub(super) fn unreadable(error: serde_json::Error) -> StoreError {
    StoreError::new(StoreErrorKind::Schema, format!("a held row cannot be read by this binary: {error}"))
        .with_source(error)
}
