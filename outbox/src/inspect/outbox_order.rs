//! An operator's order about rows of the outbox: lock, read, decide, write, record it in the audit.

use super::{
    Session, Tables,
    order::{enter, release, unreadable},
};
use crate::rows::us;
use saga_core::{
    DueAt, Envelope, ErrorCode, InstanceKey, ORDER_ROWS_MAX, OperationItem, OutboxAction, OutboxKind, OutboxOrder,
    StoreError, StoreErrorKind,
};
use serde::Deserialize;
use std::collections::BTreeSet;

/// The statements of an order about outbox rows: the row's id is the first parameter of each.
pub(crate) struct Statements {
    /// It is due now, whatever it waited for.
    pub(super) now: &'static str,
    /// A timer is due at another time (2), as if it had never been tried: microseconds since 1970.
    pub(super) due: &'static str,
    /// The same, after some time (2) from now: microseconds.
    pub(super) later: &'static str,
    /// It goes elsewhere (2), now. If it was tried, that is not forgotten, but its time begins now.
    pub(super) reroute: &'static str,
    /// Deletes it.
    pub(super) delete: &'static str,
    /// A message that was to be handled again is discarded, with a note (4): endpoint, receiver, message id (1 to 3).
    pub(super) settle: &'static str,
}

/// A row as it was found.
#[derive(Deserialize)]
struct Found {
    id: String,
    endpoint: String,
    message_id: String,
    kind: String,
    #[serde(rename = "type")]
    type_name: String,
    destination: String,
    saga: Option<String>,
    saga_id: Option<String>,
    receiver: String,
    error: Option<String>,
    /// The instance that waits for this retry; the receiver is its saga.
    awaits: Option<String>,
    due_at_us: i64,
    /// A process is sending it.
    leased: bool,
}

impl Found {
    fn is(&self, kind: OutboxKind) -> bool {
        self.kind == kind.as_str()
    }

    /// The instance that it comes back to: as a timer, or as a message that is to be handled again.
    fn instance(&self) -> Option<InstanceKey> {
        let (saga, id) = match &self.awaits {
            Some(id) => (&self.receiver, id),
            None => self.saga.as_ref().zip(self.saga_id.as_ref()).filter(|_| self.is(OutboxKind::Timer))?,
        };
        Some(InstanceKey { saga: saga.clone(), id: id.clone() })
    }

    /// The lock under which units of work change that instance.
    fn lock(&self) -> Option<i64> {
        self.instance().map(|key| key.lock())
    }
}

/// Carries out an order.
pub(super) async fn perform<T: Tables>(tables: &T, order: &OutboxOrder<'_>) -> Result<Vec<OperationItem>, StoreError> {
    if order.rows.len() > ORDER_ROWS_MAX {
        let text = format!("an order takes at most {ORDER_ROWS_MAX} rows, not {}", order.rows.len());
        return Err(StoreError::new(StoreErrorKind::Invalid, text).with_code(ErrorCode::Usage));
    }
    let ids = [Some(serde_json::to_string(order.rows).map_err(unreadable)?)];
    let mut session = tables.write().await?;
    // the rows say which locks are needed; decisions rest on what is read again after locking
    let seen = read(session.rows(&T::outbox_by_id(false), &ids).await?)?;
    let locks: BTreeSet<i64> = seen.iter().filter_map(Found::lock).collect();
    T::lock(&mut session, &locks.into_iter().collect::<Vec<_>>()).await?;
    let found = read(session.rows(&T::outbox_by_id(true), &ids).await?)?;
    let mut items = Vec::new();
    for row in &found {
        let result = act::<T>(&mut session, row, order).await?;
        items.push(item(row, order.action, result));
    }
    let gone = order.rows.iter().filter(|id| !found.iter().any(|row| row.id == **id));
    items.extend(gone.map(|id| OperationItem::gone(id)));
    enter::<T>(&mut session, [order.who, order.action.as_str(), order.why], &items).await?;
    session.commit().await?;
    Ok(items)
}

async fn act<T: Tables>(
    session: &mut T::Session,
    row: &Found,
    order: &OutboxOrder<'_>,
) -> Result<&'static str, StoreError> {
    let statements = &T::OUTBOX_ORDER;
    if order.action.wants_timers() && !row.is(OutboxKind::Timer) {
        return Ok("not a timer");
    }
    if row.leased {
        return Ok("being sent");
    }
    let id = || Some(row.id.clone());
    match order.action {
        OutboxAction::SendNow | OutboxAction::FireTimer => session.rows(statements.now, &[id()]).await?,
        OutboxAction::MoveTimer { to: DueAt::Time(us) } => {
            session.rows(statements.due, &[id(), Some(us.to_string())]).await?
        }
        OutboxAction::MoveTimer { to: DueAt::After(time) } => {
            session.rows(statements.later, &[id(), Some(us(time).to_string())]).await?
        }
        OutboxAction::Reroute { to } => {
            if !row.is(OutboxKind::Command) && !row.is(OutboxKind::Reply) {
                return Ok("not possible");
            }
            session.rows(statements.reroute, &[id(), Some(to.to_owned())]).await?
        }
        OutboxAction::Discard | OutboxAction::CancelTimer => {
            if row.type_name == Envelope::WAKE {
                return Ok("not possible"); // what waits for the instance would wait for ever
            }
            if row.is(OutboxKind::Retry) {
                let note = format!("discarded by {}: {}", order.who, order.why);
                let inbox = [&row.endpoint, &row.receiver, &row.message_id, &note].map(|text| Some(text.clone()));
                session.rows(statements.settle, &inbox).await?;
                if let Some(key) = row.instance() {
                    release::<T>(session, &row.endpoint, &key, &row.message_id).await?;
                }
            }
            session.rows(statements.delete, &[id()]).await?
        }
        other => return Err(StoreError::new(StoreErrorKind::Invalid, format!("{other:?} is not known here"))),
    };
    Ok(OutboxAction::DONE)
}

fn item(row: &Found, action: OutboxAction<'_>, result: &str) -> OperationItem {
    let mut item = OperationItem::gone(&row.message_id);
    item.endpoint.clone_from(&row.endpoint);
    item.receiver.clone_from(&row.receiver);
    item.saga.clone_from(&row.saga);
    item.saga_id.clone_from(&row.saga_id);
    item.error.clone_from(&row.error);
    item.result = result.into();
    item.was = match action {
        OutboxAction::Reroute { .. } => Some(row.destination.clone()),
        OutboxAction::MoveTimer { .. } => Some(row.due_at_us.to_string()),
        _ => None,
    };
    item
}

fn read(rows: Vec<String>) -> Result<Vec<Found>, StoreError> {
    rows.iter().map(|row| serde_json::from_str(row).map_err(unreadable)).collect()
}
