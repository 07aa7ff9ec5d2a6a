//! Handlers: code with I/O that takes part in the endpoint's transaction.

mod batch;
mod by_slip;
mod context;
mod error;
mod later;
pub(crate) mod logic;
mod outgoing;
mod slip;
pub(crate) mod transaction;

pub use batch::{Batch, InBatch};
pub(crate) use context::Cause;
pub use context::{BatchContext, Context};
pub use error::{HandlerError, HandlerErrorKind, Permanent};
pub use later::{HandleLater, Later};
pub use outgoing::OutgoingMessage;
pub(crate) use outgoing::{Addressee, post, request};
pub use slip::{Activity, Irreversible, Slip, SlipEnd, SlipFailure, Stamp};

use crate::{Either, EndpointBuilder, Message, Store};
use async_trait::async_trait;
use std::sync::Arc;

/// Handles messages `M` on the database `Db`, one at a time, each in a transaction of its own.
/// [`#[handlers]`](macro@crate::handlers) writes it for each function of a block.
///
/// What it writes through [`Context::tx`] and what it publishes and returns commit together, once. The handler may run
/// more than once before that: after a failure, after a crash, or at the same time as another process. So effects
/// elsewhere (a call to a bank) need an idempotency key: use [`Context::message_id`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle `{M}` on the database `{Db}`",
    label = "no handler of `{M}`",
    note = "write `async fn name(&self, message: {M}, cx: &mut Context<'_, ..>)` in a `#[handlers] impl {Self}` block"
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
/// [`#[handlers]`](macro@crate::handlers) writes it for a function that takes a [`Batch`].
///
/// A batch is all waiting messages, up to the endpoint's [`batch_messages_max`](crate::Settings::batch_messages_max);
/// often it is one message. When a batch fails, it is rolled back and its messages run one by one, as batches of one.
/// Only then does a failure count as an attempt, and the retry policy decides for that message alone.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle batches of `{M}` on the database `{Db}`",
    label = "no handler of batches of `{M}`",
    note = "in a `#[handlers]` block: `async fn name(&self, batch: &mut Batch<'_, {M}>, cx: &mut BatchContext<'_, ..>)`"
)]
#[async_trait]
pub trait HandleBatch<M: Message, Db: Store>: Send + Sync + 'static {
    /// Handles the messages and answers each command among them.
    ///
    /// # Errors
    /// [`HandlerError`]: see [`Handle::handle`].
    async fn handle(&self, batch: &mut Batch<'_, M>, cx: &mut BatchContext<'_, Db>) -> Result<(), HandlerError>;

    /// Its name in the inbox.
    fn name(&self) -> &'static str {
        M::TYPE
    }
}

/// A handler that several names share: a block of functions handles several messages.
#[async_trait]
impl<M: Message, Db: Store, H: Handle<M, Db>> Handle<M, Db> for Arc<H> {
    async fn handle(&self, message: M, cx: &mut Context<'_, Db>) -> Result<M::Outcome, HandlerError> {
        (**self).handle(message, cx).await
    }

    fn name(&self) -> &'static str {
        (**self).name()
    }
}

/// The same for batches.
#[async_trait]
impl<M: Message, Db: Store, H: HandleBatch<M, Db>> HandleBatch<M, Db> for Arc<H> {
    async fn handle(&self, batch: &mut Batch<'_, M>, cx: &mut BatchContext<'_, Db>) -> Result<(), HandlerError> {
        (**self).handle(batch, cx).await
    }

    fn name(&self) -> &'static str {
        (**self).name()
    }
}

/// The same for answers that come later.
#[async_trait]
impl<M: Message, Db: Store, H: HandleLater<M, Db>> HandleLater<M, Db> for Arc<H> {
    async fn handle(&self, message: M, cx: &mut Context<'_, Db>) -> Result<Either<M::Outcome, Later>, HandlerError> {
        (**self).handle(message, cx).await
    }

    fn name(&self) -> &'static str {
        (**self).name()
    }
}

/// A block of handlers, as [`#[handlers]`](macro@crate::handlers) writes it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no block of handlers on the database `{Db}`",
    label = "needs a `#[handlers] impl` on this database"
)]
pub trait Handlers<Db: Store>: Send + Sync + Sized + 'static {
    /// Adds each handler of the block.
    #[doc(hidden)]
    fn __add(self: Arc<Self>, builder: EndpointBuilder<Db>) -> EndpointBuilder<Db>;
}
