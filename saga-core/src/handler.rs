//! Handlers: code with I/O that takes part in the endpoint's transaction.

use crate::{Command, Encoded, Envelope, Event, Message, Outcome, RESERVED_HEADERS, Store, StoreError, port::Unit};
use async_trait::async_trait;
use serde_json::Value;
use std::{any::Any, collections::BTreeMap, error::Error, fmt, marker::PhantomData, sync::Arc, time::Duration};
use uuid::Uuid;

/// Handles messages `M` on the database `Db`.
///
/// What it writes through [`Context::tx`] and what it publishes and returns commit together, once.
/// It may run more than once before that: after a failure, after a crash, beside another process; so effects elsewhere
/// (a call to a bank) need an idempotency key, for which [`Context::message_id`] is made.
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
    /// [`HandlerError`]: transient unless marked permanent; the endpoint's [`Retries`](crate::Retries) decide what follows.
    async fn handle(&self, message: M, cx: &mut Context<'_, Db>) -> Result<M::Outcome, HandlerError>;

    /// Its name in the inbox: give one when an endpoint has two handlers for the same event.
    fn name(&self) -> &'static str {
        M::TYPE
    }
}

/// Handles messages `M` that came together, in one call: for handlers whose rows can be written by one statement.
///
/// A batch is what was there, up to the endpoint's [`batch_messages_max`](crate::Settings::batch_messages_max); often one message.
/// When it fails, nothing of it has happened, and its messages are run one by one, as batches of one: only then does a failure
/// count as an attempt, and the policy of retries decides for that message alone.
///
/// ```text
/// #[async_trait]
/// impl HandleBatch<MakePayment, Postgres> for Payments {
///     async fn handle(&self, batch: Vec<MakePayment>, cx: &mut BatchContext<'_, Postgres>) -> Result<Vec<PaymentOutcome>, HandlerError> {
///         let (orders, amounts): (Vec<_>, Vec<_>) = batch.iter().map(|payment| (payment.order_id, payment.amount_cents)).unzip();
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
    /// Handles the messages, in the order in which they came. Returns one outcome for each, in the same order; an event's is `()`.
    ///
    /// # Errors
    /// [`HandlerError`]: as of [`Handle::handle`].
    async fn handle(&self, batch: Vec<M>, cx: &mut BatchContext<'_, Db>) -> Result<Vec<M::Outcome>, HandlerError>;

    /// Its name in the inbox.
    fn name(&self) -> &'static str {
        M::TYPE
    }
}

/// Why a handler failed. Any error becomes one by `?`, and is then transient.
pub struct HandlerError {
    error: Box<dyn Error + Send + Sync>,
    permanent: bool,
    retry_after: Option<Duration>,
}

impl HandlerError {
    /// Trying again may help.
    pub fn transient(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { error: error.into(), permanent: false, retry_after: None }
    }

    /// Trying again is no use: the message is held at once.
    pub fn permanent(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { error: error.into(), permanent: true, retry_after: None }
    }

    /// Not now, but after this time: one delayed retry, whatever the policy's own delays are.
    pub fn retry_after(error: impl Into<Box<dyn Error + Send + Sync>>, delay: Duration) -> Self {
        Self { error: error.into(), permanent: false, retry_after: Some(delay) }
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        !self.permanent
    }

    pub(crate) fn delay(&self) -> Option<Duration> {
        self.retry_after
    }

    pub(crate) fn source(&self) -> &(dyn Error + 'static) {
        &*self.error
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::transient(error)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        let mut source = self.error.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandlerError({self}, permanent: {})", self.permanent)
    }
}

/// A handler's surroundings: the message's properties, the transaction, and what goes out with it.
#[derive(Debug)]
pub struct Context<'a, Db: Store> {
    pub(crate) slot: &'a mut TxSlot<Db>,
    pub(crate) cause: &'a mut Cause,
}

impl<Db: Store> Context<'_, Db> {
    /// The connection of the endpoint's transaction. The first call opens it: do slow calls to others before.
    ///
    /// # Errors
    /// When the database cannot be reached. Hand it on with `?`: the endpoint waits for the database and counts no attempt.
    pub async fn tx(&mut self) -> Result<&mut Db::Tx, HandlerError> {
        self.slot.tx().await
    }

    /// Publishes an event when the transaction has committed.
    pub fn publish<E: Event>(&mut self, event: E) -> &mut Posted {
        self.cause.publish(event)
    }

    /// Sends a command when the transaction has committed.
    pub fn send<C: Command>(&mut self, command: C) -> &mut Posted {
        self.cause.send(command)
    }

    /// The id of the message being handled: the same on every retry and redelivery.
    pub fn message_id(&self) -> &str {
        self.cause.message_id()
    }

    /// The message with its properties and headers.
    pub fn envelope(&self) -> &Envelope {
        self.cause.envelope()
    }

    /// Runs of this message before this one that were counted: 0 at first.
    pub fn runs_before(&self) -> i64 {
        self.cause.runs_before()
    }
}

/// The surroundings of a [`HandleBatch`]: the transaction, and each message's own by its place in the batch.
#[derive(Debug)]
pub struct BatchContext<'a, Db: Store> {
    pub(crate) slot: &'a mut TxSlot<Db>,
    pub(crate) causes: &'a mut [Cause],
}

impl<Db: Store> BatchContext<'_, Db> {
    /// The connection of the endpoint's transaction. The first call opens it: do slow calls to others before.
    ///
    /// # Errors
    /// As of [`Context::tx`].
    pub async fn tx(&mut self) -> Result<&mut Db::Tx, HandlerError> {
        self.slot.tx().await
    }

    /// The `n`th message, counted from 0: what is published and sent through it names it as its cause.
    ///
    /// # Panics
    /// When the batch has no `n`th message.
    pub fn of(&mut self, n: usize) -> &mut Cause {
        &mut self.causes[n]
    }
}

/// A message being handled, and what it causes.
#[derive(Debug)]
pub struct Cause {
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) posted: Vec<Posted>,
    pub(crate) runs_before: i64,
}

impl Cause {
    /// Publishes an event when the transaction has committed.
    pub fn publish<E: Event>(&mut self, event: E) -> &mut Posted {
        post(&mut self.posted, Target::Event, Encoded::of(&event))
    }

    /// Sends a command when the transaction has committed.
    pub fn send<C: Command>(&mut self, command: C) -> &mut Posted {
        post(&mut self.posted, Target::Endpoint(C::TO.into()), Encoded::of(&command))
    }

    /// The id of the message: the same on every retry and redelivery.
    pub fn message_id(&self) -> &str {
        &self.envelope.message_id
    }

    /// The message with its properties and headers.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Runs of this message before this one that were counted: 0 at first.
    pub fn runs_before(&self) -> i64 {
        self.runs_before
    }
}

pub(crate) fn post(posted: &mut Vec<Posted>, target: Target, message: Encoded) -> &mut Posted {
    posted.push(Posted { id: Uuid::now_v7(), target, message, delay: None, headers: BTreeMap::new(), refused: None });
    posted.last_mut().expect("one was pushed just now")
}

/// A message that leaves with the transaction.
#[derive(Debug)]
pub struct Posted {
    pub(crate) id: Uuid,
    pub(crate) target: Target,
    pub(crate) message: Encoded,
    pub(crate) delay: Option<Duration>,
    pub(crate) headers: BTreeMap<String, Value>,
    pub(crate) refused: Option<String>,
}

#[derive(Debug)]
pub(crate) enum Target {
    Event,
    Endpoint(String),
}

impl Posted {
    /// Sends it so much later, by the database's clock.
    pub fn delay(&mut self, delay: Duration) -> &mut Self {
        self.delay = Some(delay);
        self
    }

    /// Sets a header. Names that Sagabus uses itself make the handler fail, naming them.
    pub fn header(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        if RESERVED_HEADERS.contains(&name) {
            self.refused = Some(format!("header `{name}` of {} is reserved", self.message.type_name));
        } else {
            self.headers.insert(name.into(), value.into());
        }
        self
    }

    /// The id it will have.
    pub fn message_id(&self) -> Uuid {
        self.id
    }
}

/// The transaction of a batch of handlers: opened by the first that asks.
pub(crate) struct TxSlot<Db: Store> {
    pub(crate) store: Db,
    pub(crate) unit: Option<Db::Unit>,
    /// What the handler that runs now may have to undo.
    pub(crate) mark: Mark,
    /// Savepoints set so far.
    pub(crate) savepoints: usize,
    /// The transaction could not be opened, or is spoilt: the unit runs again, whatever the handler made of the error.
    pub(crate) failed: Option<StoreError>,
}

/// How far a handler has gone into the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It has not asked for it; `careful`: a savepoint is set when it does.
    Untouched { careful: bool },
    /// It has, and others wrote before it without a savepoint between.
    Mixed,
    /// It has, and nobody wrote before it.
    First,
    /// It has, behind a savepoint.
    Savepoint,
}

impl<Db: Store> fmt::Debug for TxSlot<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TxSlot").field("open", &self.unit.is_some()).finish()
    }
}

impl<Db: Store> TxSlot<Db> {
    /// The transaction for a handler.
    async fn tx(&mut self) -> Result<&mut Db::Tx, HandlerError> {
        if let Mark::Untouched { careful } = self.mark {
            let first = self.unit.is_none();
            self.open().await?;
            if !first && careful {
                self.savepoint().await?;
            }
            self.mark = match (first, careful) {
                (true, _) => Mark::First,
                (false, true) => Mark::Savepoint,
                (false, false) => Mark::Mixed,
            };
        }
        Ok(self.open().await?.tx())
    }

    async fn savepoint(&mut self) -> Result<(), StoreError> {
        self.savepoints += 1;
        match self.open().await?.savepoint().await {
            Ok(()) => Ok(()),
            Err(error) => {
                // not this handler's doing: one before it left the transaction aborted, say
                let text = error.to_string();
                self.failed = Some(error);
                Err(StoreError::Rejected(text))
            }
        }
    }

    pub(crate) async fn open(&mut self) -> Result<&mut Db::Unit, StoreError> {
        if self.unit.is_none() {
            match self.store.begin(&[]).await {
                Ok(unit) => self.unit = Some(unit),
                Err(error) => {
                    self.failed = Some(StoreError::Unavailable(error.to_string()));
                    return Err(error);
                }
            }
        }
        Ok(self.unit.as_mut().expect("it was opened just now"))
    }
}

/// A message whose type its handler knows.
type Decoded = Box<dyn Any + Send>;

/// What the endpoint knows of a handler whose types are gone.
#[derive(Clone, Copy)]
pub(crate) struct About {
    pub(crate) name: &'static str,
    pub(crate) type_name: &'static str,
    pub(crate) read: fn(&[u8]) -> Result<Decoded, String>,
    pub(crate) outcome_is_reply_only: bool,
    /// Whether it takes more than one message at a time.
    pub(crate) takes_batches: bool,
}

impl About {
    fn of<M: Message>(name: &'static str, takes_batches: bool) -> Self {
        let outcome_is_reply_only = M::Outcome::REPLY_ONLY;
        Self { name, type_name: M::TYPE, read: decode::<M>, outcome_is_reply_only, takes_batches }
    }
}

/// A handler without its types.
#[async_trait]
pub(crate) trait HandlerLogic<Db: Store>: Send + Sync {
    fn about(&self) -> About;
    /// Runs messages with their causes, as many of the one as of the other; returns as many outcomes.
    async fn run(
        &self,
        messages: Vec<Decoded>,
        slot: &mut TxSlot<Db>,
        causes: &mut [Cause],
    ) -> Result<Vec<Option<Encoded>>, HandlerError>;
}

pub(crate) struct TypedHandler<M, H> {
    pub(crate) handler: H,
    pub(crate) message: PhantomData<fn() -> M>,
}

fn decode<M: Message>(body: &[u8]) -> Result<Decoded, String> {
    let message = serde_json::from_slice::<M>(body).map_err(|error| format!("{}: {error}", M::TYPE))?;
    Ok(Box::new(message))
}

fn typed<M: Message>(message: Decoded) -> Result<M, HandlerError> {
    let message = message.downcast::<M>().map_err(|_| HandlerError::permanent("the message has another type"))?;
    Ok(*message)
}

#[async_trait]
impl<M: Message, Db: Store, H: Handle<M, Db>> HandlerLogic<Db> for TypedHandler<M, H> {
    fn about(&self) -> About {
        About::of::<M>(self.handler.name(), false)
    }

    async fn run(
        &self,
        messages: Vec<Decoded>,
        slot: &mut TxSlot<Db>,
        causes: &mut [Cause],
    ) -> Result<Vec<Option<Encoded>>, HandlerError> {
        let mut outcomes = Vec::with_capacity(messages.len());
        for (message, cause) in messages.into_iter().zip(causes) {
            let mut cx = Context { slot: &mut *slot, cause };
            outcomes.push(self.handler.handle(typed::<M>(message)?, &mut cx).await?.encode());
        }
        Ok(outcomes)
    }
}

pub(crate) struct TypedBatchHandler<M, H> {
    pub(crate) handler: H,
    pub(crate) message: PhantomData<fn() -> M>,
}

#[async_trait]
impl<M: Message, Db: Store, H: HandleBatch<M, Db>> HandlerLogic<Db> for TypedBatchHandler<M, H> {
    fn about(&self) -> About {
        About::of::<M>(self.handler.name(), true)
    }

    async fn run(
        &self,
        messages: Vec<Decoded>,
        slot: &mut TxSlot<Db>,
        causes: &mut [Cause],
    ) -> Result<Vec<Option<Encoded>>, HandlerError> {
        let expected = messages.len();
        let messages = messages.into_iter().map(typed::<M>).collect::<Result<Vec<M>, _>>()?;
        let outcomes = self.handler.handle(messages, &mut BatchContext { slot, causes }).await?;
        if outcomes.len() != expected {
            let text =
                format!("the handler returned {} outcomes for {expected} messages of {}", outcomes.len(), M::TYPE);
            return Err(HandlerError::permanent(text));
        }
        Ok(outcomes.into_iter().map(Outcome::encode).collect())
    }
}
