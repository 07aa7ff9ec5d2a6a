//! An operator's order to a process, and what an operator notes.

use super::{Session, Tables, order::enter};
use saga_core::{OperationItem, StoreError};

/// Asks a process to finish and stop: it reads that with its next heartbeat.
pub(super) async fn drain<T: Tables>(
    tables: &T,
    owner: &str,
    who: &str,
    why: &str,
) -> Result<OperationItem, StoreError> {
    let mut session = tables.write().await?;
    let endpoint = session.rows(T::DRAIN, &[Some(owner.to_owned())]).await?.pop();
    let mut item = OperationItem::gone(owner);
    if let Some(endpoint) = endpoint {
        item.endpoint = endpoint;
        item.result = "asked".into();
    }
    enter::<T>(&mut session, [who, "process drain", why], std::slice::from_ref(&item)).await?;
    session.commit().await?;
    Ok(item)
}

/// Records what an operator did or noted that changes nothing else.
pub(super) async fn record<T: Tables>(
    tables: &T,
    action: &str,
    item: OperationItem,
    who: &str,
    why: &str,
) -> Result<(), StoreError> {
    let mut session = tables.write().await?;
    enter::<T>(&mut session, [who, action, why], &[item]).await?;
    session.commit().await.map(drop)
}
