//! An operator's order to a process.

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
