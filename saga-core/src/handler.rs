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
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) slot: &'a mut TxSlot<Db>,
    pub(crate) posted: Vec<Posted>,
    pub(crate) runs_before: i64,
}

impl<Db: Store> Context<'_, Db> {
    /// The connection of the endpoint's transaction. The first call opens it: do slow calls to others before.
    ///
    /// # Errors
    /// When the database cannot be reached. Hand it on with `?`: the endpoint waits for the database and counts no attempt.
    pub async fn tx(&mut self) -> Result<&mut Db::Tx, HandlerError> {
        Ok(self.slot.open().await?.tx())
    }

    /// Publishes an event when the transaction has committed.
    pub fn publish<E: Event>(&mut self, event: E) -> &mut Posted {
        post(&mut self.posted, Target::Event, Encoded::of(&event))
    }

    /// Sends a command when the transaction has committed.
    pub fn send<C: Command>(&mut self, command: C) -> &mut Posted {
        post(&mut self.posted, Target::Endpoint(C::TO.into()), Encoded::of(&command))
    }

    /// The id of the message being handled: the same on every retry and redelivery.
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
    pub(crate) locks: Vec<i64>,
    pub(crate) unit: Option<Db::Unit>,
    /// A failed open: the batch must wait for the database, whatever the handler made of the error.
    pub(crate) unavailable: Option<String>,
}

impl<Db: Store> fmt::Debug for TxSlot<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TxSlot").field("open", &self.unit.is_some()).finish()
    }
}

impl<Db: Store> TxSlot<Db> {
    pub(crate) async fn open(&mut self) -> Result<&mut Db::Unit, StoreError> {
        if self.unit.is_none() {
            match self.store.begin(&self.locks).await {
                Ok(unit) => self.unit = Some(unit),
                Err(error) => {
                    self.unavailable = Some(error.to_string());
                    return Err(error);
                }
            }
        }
        Ok(self.unit.as_mut().expect("it was opened just now"))
    }
}

/// A handler without its types: what the endpoint keeps of each.
#[async_trait]
pub(crate) trait HandlerLogic<Db: Store>: Send + Sync {
    fn name(&self) -> &'static str;
    fn type_name(&self) -> &'static str;
    fn read(&self, body: &[u8]) -> Result<Box<dyn Any + Send>, String>;
    fn outcome_is_reply_only(&self) -> bool;
    async fn run(
        &self,
        message: Box<dyn Any + Send>,
        cx: &mut Context<'_, Db>,
    ) -> Result<Option<Encoded>, HandlerError>;
}

pub(crate) struct TypedHandler<M, H> {
    pub(crate) handler: H,
    pub(crate) message: PhantomData<fn() -> M>,
}

#[async_trait]
impl<M: Message, Db: Store, H: Handle<M, Db>> HandlerLogic<Db> for TypedHandler<M, H> {
    fn name(&self) -> &'static str {
        self.handler.name()
    }

    fn type_name(&self) -> &'static str {
        M::TYPE
    }

    fn read(&self, body: &[u8]) -> Result<Box<dyn Any + Send>, String> {
        let message = serde_json::from_slice::<M>(body).map_err(|error| format!("{}: {error}", M::TYPE))?;
        Ok(Box::new(message))
    }

    fn outcome_is_reply_only(&self) -> bool {
        M::Outcome::REPLY_ONLY
    }

    async fn run(
        &self,
        message: Box<dyn Any + Send>,
        cx: &mut Context<'_, Db>,
    ) -> Result<Option<Encoded>, HandlerError> {
        let message = message.downcast::<M>().map_err(|_| HandlerError::permanent("the message has another type"))?;
        Ok(self.handler.handle(*message, cx).await?.encode())
    }
}
