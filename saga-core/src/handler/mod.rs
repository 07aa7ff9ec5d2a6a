//! Handlers: code with I/O that takes part in the endpoint's transaction.

mod context;
mod error;
pub(crate) mod logic;
mod outgoing;
pub(crate) mod transaction;

pub use context::{BatchContext, Cause, Context};
pub use error::{HandlerError, HandlerErrorKind};
pub use outgoing::OutgoingMessage;
pub(crate) use outgoing::{Addressee, post};

use crate::{Message, Store};
use async_trait::async_trait;

/// Handles messages `M` on the database `Db`, one at a time, each in a transaction of its own.
///
/// What it writes through [`Context::tx`] and what it publishes and returns commit together, once. The handler may run
/// more than once before that: after a failure, after a crash, or at the same time as another process. So effects
/// elsewhere (a call to a bank) need an idempotency key: use [`Context::message_id`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle `{M}` on the database `{Db}`",
    label = "no `impl Handle<{M}, ..> for {Self}`",
    note = "write `#[async_trait] impl Handle<{M}, {Db}> for {Self}`"
)]
#[async_trait]
pub trait Handle<M: Message, Db: Store>: Send + Sync + 'static {
    /// Handles one message. A command's handler returns its outcome, an event's `()`.
    ///
    /// # Errors
    /// [`HandlerError`]: transient unless marked permanent. The endpoint's [`Retries`](crate::Retries) decide what
    /// follows.
    async fn handle(&self, message: M, cx: &mut Context<'_, Db>) -> Result<M::Outcome, HandlerError>;

    /// Its name in the inbox: give one when an endpoint has two handlers for the same event.
    fn name(&self) -> &'static str {
        M::TYPE
    }
}

/// Handles a batch of messages `M` in one call and one transaction: for handlers whose rows one statement can write.
///
/// A batch is all waiting messages, up to the endpoint's [`batch_messages_max`](crate::Settings::batch_messages_max);
/// often it is one message. When a batch fails, it is rolled back and its messages run one by one, as batches of one.
/// Only then does a failure count as an attempt, and the retry policy decides for that message alone.
///
/// ```text
/// #[async_trait]
/// impl HandleBatch<MakePayment, Postgres> for Payments {
///     async fn handle(
///         &self,
///         batch: Vec<MakePayment>,
///         cx: &mut BatchContext<'_, Postgres>,
///     ) -> Result<Vec<PaymentOutcome>, HandlerError> {
///         let (orders, amounts): (Vec<_>, Vec<_>) = batch.iter().map(|p| (p.order_id, p.amount_cents)).unzip();
///         sqlx::query("INSERT INTO charge SELECT * FROM unnest($1::uuid[], $2::bigint[])")
///             .bind(&orders).bind(&amounts).execute(cx.tx().await?).await?;
///         Ok(orders.into_iter().map(|order_id| PaymentCompleted { order_id }.into()).collect())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle batches of `{M}` on the database `{Db}`",
    label = "no `impl HandleBatch<{M}, ..> for {Self}`",
    note = "write `#[async_trait] impl HandleBatch<{M}, {Db}> for {Self}`"
)]
#[async_trait]
pub trait HandleBatch<M: Message, Db: Store>: Send + Sync + 'static {
    /// Handles the messages, in order of arrival. Returns one outcome for each, in the same order; an event's is `()`.
    ///
    /// # Errors
    /// [`HandlerError`]: see [`Handle::handle`].
    async fn handle(&self, batch: Vec<M>, cx: &mut BatchContext<'_, Db>) -> Result<Vec<M::Outcome>, HandlerError>;

    /// Its name in the inbox.
    fn name(&self) -> &'static str {
        M::TYPE
    }
}
