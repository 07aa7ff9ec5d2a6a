//! Read models: a user's rows written in the transaction of the transitions they follow.

use crate::{HandlerError, Saga, Store};
use async_trait::async_trait;

/// Writes your own rows about a saga's instances, in the same transaction as their transitions.
///
/// It is called once per batch with all instances that changed, so that one multi-row statement can write them:
/// a statement per instance would cost a round trip each.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not project the saga `{S}` on the database `{Db}`",
    label = "no `impl Project<{S}, ..> for {Self}`"
)]
#[async_trait]
pub trait Project<S: Saga, Db: Store>: Send + Sync + 'static {
    /// Writes what the changes mean.
    ///
    /// # Errors
    /// Any error. The endpoint waits while the database is away; it holds the message when the data is to blame.
    async fn project(&self, changes: &[Change<S>], tx: &mut Db::Tx) -> Result<(), HandlerError>;
}

/// An instance that changed within a batch.
pub struct Change<S: Saga> {
    /// The instance.
    pub id: String,
    /// The state before the batch; `None` when the instance started in this batch.
    pub before: Option<String>,
    /// The state after the batch.
    pub after: S,
    /// What every state knows, after the batch.
    pub data: S::Data,
}
