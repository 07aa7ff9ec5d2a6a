//! How an endpoint takes part in routing slips: one handler before those of a command and of its undo.

use super::{
    Activity, Addressee, Context, Handle, HandlerError, Irreversible, OutgoingMessage, Slip, SlipFailure, Stamp, post,
    slip::Return,
};
use crate::{Command, EndpointBuilder, HandlerOptions, Message, MessageKind, Outcome, Store};
use async_trait::async_trait;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Handles the steps of slips by handlers that know nothing of them.
struct BySlip<H>(H);

#[async_trait]
impl<C: Activity, Db: Store, H: Handle<C, Db>> Handle<Slip<C>, Db> for BySlip<H> {
    async fn handle(&self, slip: Slip<C>, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        let Slip { command, mut route } = slip;
        let (outcome, variables) = run(&self.0, command, route.variables, cx).await?;
        route.variables = variables;
        let stamp = C::stamp(&outcome);
        publish(outcome, &mut cx.cause.posted);
        match stamp {
            Stamp::Done(undo) => {
                let leg = route.leg(Return::<C>::TYPE, Some(C::Undo::TO), &undo);
                if let Some(why) = route.refused {
                    return Err(HandlerError::permanent(why));
                }
                route.behind.extend(leg);
                route.onwards(&mut cx.cause.posted);
            }
            Stamp::Final => route.onwards(&mut cx.cause.posted),
            Stamp::Failed(reason) => {
                route.failure = Some(SlipFailure { at: C::TYPE.into(), reason });
                route.back(&mut cx.cause.posted);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl<C: Activity, Db: Store, H: Handle<C::Undo, Db>> Handle<Return<C>, Db> for BySlip<H> {
    async fn handle(&self, slip: Return<C>, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        let Return { command, mut route } = slip;
        let (outcome, variables) = run(&self.0, command, route.variables, cx).await?;
        route.variables = variables;
        if let Err(why) = C::undone(&outcome) {
            return Err(HandlerError::permanent(format!("{} is not undone: {why}", C::TYPE)));
        }
        publish(outcome, &mut cx.cause.posted);
        route.back(&mut cx.cause.posted);
        Ok(())
    }
}

/// Runs a handler with the slip's variables; its outcome, and the variables afterwards.
async fn run<M: Message, Db: Store>(
    handler: &impl Handle<M, Db>,
    message: M,
    variables: Map<String, Value>,
    cx: &mut Context<'_, Db>,
) -> Result<(M::Outcome, Map<String, Value>), HandlerError> {
    cx.cause.variables = variables;
    let outcome = handler.handle(message, cx).await?;
    Ok((outcome, std::mem::take(&mut cx.cause.variables)))
}

/// An outcome that is an event is everybody's; one that is a reply nobody has asked for.
fn publish(outcome: impl Outcome, posted: &mut Vec<OutgoingMessage>) {
    if let Some(event) = outcome.encode().filter(|it| it.kind == MessageKind::Event) {
        post(posted, Addressee::Subscribers, Ok(event));
    }
}

/// Handles the undo of the activity `C`. It is [`Handle`] with a text that knows of steps that cannot be undone.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle the undo of `{C}` on the database `{Db}`",
    label = "no handler of the command that undoes `{C}`",
    note = "if `{C}` cannot be undone, `type Undo = Irreversible`: add it with `.irreversible_activity::<{C}>(..)`",
    note = "else write a handler of its `Undo` in the `#[handlers] impl {Self}` block"
)]
pub trait HandleUndo<C: Activity, Db: Store>: Handle<C::Undo, Db> {}

#[diagnostic::do_not_recommend]
impl<C: Activity, Db: Store, H: Handle<C::Undo, Db>> HandleUndo<C, Db> for H {}

impl<Db: Store> EndpointBuilder<Db> {
    /// Takes part in routing slips: handles the command `C` as a step of a [`Slip`], and its undo on the way back, by
    /// the handlers of a block. To take `C` by itself as well, add the block with [`handlers`](Self::handlers).
    pub fn activity<C: Activity>(self, handler: impl Handle<C, Db> + HandleUndo<C, Db>) -> Self {
        self.activity_with::<C>(handler, |options| options)
    }

    /// The same with options, retries for example.
    pub fn activity_with<C: Activity>(
        self,
        handler: impl Handle<C, Db> + HandleUndo<C, Db>,
        options: impl FnOnce(HandlerOptions) -> HandlerOptions,
    ) -> Self {
        let (handler, options) = (Arc::new(BySlip(handler)), options(HandlerOptions::default()));
        let both = self.__handler::<Slip<C>>(handler.clone(), options.clone());
        both.__handler::<Return<C>>(handler, options)
    }

    /// The same for a step that cannot be undone.
    pub fn irreversible_activity<C: Activity<Undo = Irreversible>>(self, handler: impl Handle<C, Db>) -> Self {
        self.__handler::<Slip<C>>(BySlip(handler), HandlerOptions::default())
    }
}
