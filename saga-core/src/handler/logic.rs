//! Handlers without their types, as the endpoint keeps them.

use super::{
    Batch, BatchContext, Cause, Context, Handle, HandleBatch, HandleLater, HandlerError, transaction::LazyTransaction,
};
use crate::{
    Either, Encoded, Message, Outcome, Store,
    message::{GivesUp, answers_to},
};
use async_trait::async_trait;
use std::{any::Any, marker::PhantomData};

/// A message whose type its handler knows.
pub(crate) type Decoded = Box<dyn Any + Send>;

/// What the endpoint knows about a handler without its types.
#[derive(Clone, Copy)]
pub(crate) struct Description {
    pub(crate) name: &'static str,
    pub(crate) type_name: &'static str,
    /// Fields that operators do not see.
    pub(crate) masked: &'static [&'static str],
    /// Its messages come from the queue for commands that can wait.
    pub(crate) can_wait: bool,
    pub(crate) decode: fn(&[u8]) -> Result<Decoded, String>,
    /// What answers a command that is given up.
    pub(crate) give_up: Option<GivesUp>,
    /// What may answer it, by logical name.
    pub(crate) answers: fn() -> Vec<&'static str>,
    /// Whether it takes more than one message at a time.
    pub(crate) takes_batches: bool,
}

impl Description {
    fn of<M: Message>(name: &'static str, takes_batches: bool) -> Self {
        let (can_wait, decode, answers) = (M::CAN_WAIT, decode::<M>, answers_to::<M>);
        Self {
            name,
            type_name: M::TYPE,
            masked: M::MASKED,
            can_wait,
            decode,
            give_up: M::GIVES_UP,
            answers,
            takes_batches,
        }
    }
}

fn decode<M: Message>(body: &[u8]) -> Result<Decoded, String> {
    let message = crate::message::decode::<M>(body).map_err(|error| error.0)?;
    Ok(Box::new(message))
}

/// A handler without its types.
#[async_trait]
pub(crate) trait HandlerLogic<Db: Store>: Send + Sync {
    fn description(&self) -> Description;

    /// Runs messages; `causes` has one element for each, and so has the result.
    async fn run(
        &self,
        messages: Vec<Decoded>,
        transaction: &mut LazyTransaction<Db>,
        causes: &mut [Cause],
    ) -> Result<Vec<Option<Encoded>>, HandlerError>;
}

pub(crate) struct TypedHandler<M, H> {
    pub(crate) handler: H,
    pub(crate) message: PhantomData<fn() -> M>,
}

fn typed<M: Message>(message: Decoded) -> Result<M, HandlerError> {
    let message = message.downcast::<M>().map_err(|_| HandlerError::permanent("the message has another type"))?;
    Ok(*message)
}

#[async_trait]
impl<M: Message, Db: Store, H: Handle<M, Db>> HandlerLogic<Db> for TypedHandler<M, H> {
    fn description(&self) -> Description {
        Description::of::<M>(self.handler.name(), false)
    }

    async fn run(
        &self,
        messages: Vec<Decoded>,
        transaction: &mut LazyTransaction<Db>,
        causes: &mut [Cause],
    ) -> Result<Vec<Option<Encoded>>, HandlerError> {
        let mut outcomes = Vec::with_capacity(messages.len());
        for (message, cause) in messages.into_iter().zip(causes) {
            let mut cx = Context { transaction: &mut *transaction, cause };
            outcomes.push(self.handler.handle(typed::<M>(message)?, &mut cx).await?.encode());
        }
        Ok(outcomes)
    }
}

/// Of commands whose answer may come later.
pub(crate) struct TypedLaterHandler<M, H> {
    pub(crate) handler: H,
    pub(crate) message: PhantomData<fn() -> M>,
}

#[async_trait]
impl<M: Message, Db: Store, H: HandleLater<M, Db>> HandlerLogic<Db> for TypedLaterHandler<M, H> {
    fn description(&self) -> Description {
        Description::of::<M>(self.handler.name(), false)
    }

    async fn run(
        &self,
        messages: Vec<Decoded>,
        transaction: &mut LazyTransaction<Db>,
        causes: &mut [Cause],
    ) -> Result<Vec<Option<Encoded>>, HandlerError> {
        let mut outcomes = Vec::with_capacity(messages.len());
        for (message, cause) in messages.into_iter().zip(causes) {
            let mut cx = Context { transaction: &mut *transaction, cause };
            outcomes.push(match self.handler.handle(typed::<M>(message)?, &mut cx).await? {
                Either::A(outcome) => outcome.encode(),
                Either::B(_) => None,
            });
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
    fn description(&self) -> Description {
        Description::of::<M>(self.handler.name(), true)
    }

    async fn run(
        &self,
        messages: Vec<Decoded>,
        transaction: &mut LazyTransaction<Db>,
        causes: &mut [Cause],
    ) -> Result<Vec<Option<Encoded>>, HandlerError> {
        let messages = messages.into_iter().map(typed::<M>).collect::<Result<Vec<M>, _>>()?;
        let mut batch = Batch::new(messages, causes);
        self.handler.handle(&mut batch, &mut BatchContext { transaction }).await?;
        let of = batch.len();
        match batch.answers() {
            Ok(answers) => Ok(answers.into_iter().map(Outcome::encode).collect()),
            Err(missing) => {
                let text = format!("the handler left {missing} of {of} messages {} without an answer", M::TYPE);
                Err(HandlerError::permanent(text))
            }
        }
    }
}
