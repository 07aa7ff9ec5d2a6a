//! Options of one handler, its key among them.

use crate::{Message, Retries, hash_of, panics::caught};
use std::{
    any::{Any, TypeId},
    sync::Arc,
};

/// Options of one handler.
///
/// ```no_run
/// use sagabus::{endpoint::HandlerOptions, handler::Retries};
/// use std::time::Duration;
///
/// let slow_bank = |options: HandlerOptions| {
///     options.retries(Retries::none().delayed([60, 600, 3600].map(Duration::from_secs)))
/// };
/// ```
#[derive(Debug, Clone, Default)]
pub struct HandlerOptions {
    pub(super) retries: Option<Retries>,
    pub(super) shares_transactions: bool,
    pub(super) limit: Option<&'static str>,
    pub(super) key: Option<KeyOf>,
}

impl HandlerOptions {
    /// Uses this retry policy for this handler alone, instead of the endpoint's.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = Some(retries);
        self
    }

    /// Lets messages of one batch share a transaction, though each is handled by itself. This saves commits for
    /// handlers that only write rows. The next message sees what an earlier one sets in the transaction (`SET LOCAL`,
    /// advisory locks, temporary tables), and rows stay locked until the last message has run. When one message fails,
    /// the whole transaction is rolled back, and each message runs again in its own transaction.
    pub fn shares_transactions(mut self) -> Self {
        self.shares_transactions = true;
        self
    }

    /// Runs the handler no more often than [`EndpointBuilder::limit`](super::EndpointBuilder::limit) of this name
    /// allows.
    pub fn limit(mut self, name: &'static str) -> Self {
        self.limit = Some(name);
        self
    }

    /// Runs the handler for messages with the same key one after another, in the order in which they come, in each
    /// process. [`Limit::per_key`](super::Limit::per_key) limits the calls for each key.
    pub fn key<M: Message, K: ToString>(mut self, key: impl Fn(&M) -> K + Send + Sync + 'static) -> Self {
        self.key = Some(KeyOf::new(key));
        self
    }
}

type Read = dyn Fn(&dyn Any) -> Option<String> + Send + Sync;

/// How a handler's key is read from a message.
#[derive(Clone)]
pub(crate) struct KeyOf {
    message: TypeId,
    read: Arc<Read>,
}

impl KeyOf {
    pub(super) fn new<M: Message, K: ToString>(key: impl Fn(&M) -> K + Send + Sync + 'static) -> Self {
        let read = move |message: &dyn Any| message.downcast_ref().map(|message| key(message).to_string());
        Self { message: TypeId::of::<M>(), read: Arc::new(read) }
    }

    /// Whether it reads this type.
    pub(super) fn reads<M: Message>(&self) -> bool {
        self.message == TypeId::of::<M>()
    }

    /// The hash of a message's key; a user's `Display` may panic.
    pub(super) fn of(&self, message: &dyn Any) -> Result<i64, String> {
        let key = caught(|| (self.read)(message))?;
        Ok(hash_of([key.unwrap_or_default().as_bytes()]))
    }
}

impl std::fmt::Debug for KeyOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyOf")
    }
}
