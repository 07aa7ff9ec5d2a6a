//! Messages, a saga and handlers for tests.

use crate::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

#[derive(Event, Serialize, Deserialize)]
pub(super) struct Begin {
    pub(super) id: u64,
}
/// Counted in state `Here`; early before the start.
#[derive(Event, Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) id: u64,
    pub(super) n: u32,
}
/// Deferred in `Here`, counted in `There`.
#[derive(Event, Serialize, Deserialize)]
pub(super) struct Wait {
    pub(super) id: u64,
    pub(super) n: u32,
}
/// From `Here` to `There`.
#[derive(Event, Serialize, Deserialize)]
pub(super) struct Go {
    pub(super) id: u64,
}
/// Early in `Here`, counted in `There`.
#[derive(Event, Serialize, Deserialize)]
pub(super) struct Arrive {
    pub(super) id: u64,
    pub(super) n: u32,
}
/// The transition panics.
#[derive(Event, Serialize, Deserialize)]
pub(super) struct Boom {
    pub(super) id: u64,
}
#[derive(Event, Serialize, Deserialize)]
pub(super) struct Finish {
    pub(super) id: u64,
}
/// Has the instance ask the bank.
#[derive(Event, Serialize, Deserialize)]
pub(super) struct Buy {
    pub(super) id: u64,
}
/// Published by every step.
#[derive(Event, Serialize, Deserialize)]
pub(super) struct Stepped {
    pub(super) id: u64,
    pub(super) n: u32,
}
#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = Payment)]
pub(super) struct Pay {
    pub(super) id: u64,
}
#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "bank")]
pub(super) struct Paid {
    pub(super) id: u64,
}
#[derive(Outcome)]
pub(super) enum Payment {
    Paid(Paid),
}
#[derive(Message, Serialize, Deserialize)]
pub(super) struct Tired {}

/// Here: takes steps. There: takes what waited. Each publishes what it takes.
#[states]
pub(super) enum Walk {
    #[defers(Wait)]
    Here { steps: Vec<u32> },
    #[ignores(Step, Go, Boom)]
    There { steps: Vec<u32> },
    #[done]
    Over { steps: Vec<u32> },
}

fn one_more(mut steps: Vec<u32>, n: u32) -> Vec<u32> {
    steps.push(n);
    steps
}

#[saga(name = "walk", id = id: u64)]
impl Walk {
    fn begin(_: Begin) -> Here {
        Here { steps: Vec::new() }
    }

    fn step(state: Here, Step { id, n }: Step) -> (Here, Publishes<Stepped>) {
        (Here { steps: one_more(state.steps, n) }, publish(Stepped { id, n }))
    }

    fn go(state: Here, _: Go) -> There {
        There { steps: state.steps }
    }

    fn boom(_: Here, boom: Boom) -> Here {
        panic!("boom {}", boom.id)
    }

    fn buy(state: Here, buy: Buy) -> (Here, Sends<Pay>, After<Tired>) {
        (state, send(Pay { id: buy.id }), after(hours(1), Tired {}))
    }

    fn paid(state: Here, _: Paid) -> There {
        There { steps: state.steps }
    }

    fn tired(state: Here, _: Tired) -> Over {
        Over { steps: state.steps }
    }

    fn wait(state: There, wait: Wait) -> There {
        There { steps: one_more(state.steps, wait.n) }
    }

    fn arrive(state: There, arrive: Arrive) -> There {
        There { steps: one_more(state.steps, arrive.n) }
    }

    fn finish(self, _: Finish) -> Over {
        let (Walk::Here(Here { steps }) | Walk::There(There { steps }) | Walk::Over(Over { steps })) = self;
        Over { steps }
    }
}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "shop", outcome = Deed)]
pub(super) struct Do {
    pub(super) n: u64,
}
#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "shop")]
pub(super) struct Did {
    #[serde(rename = "number")] // larger than its command
    pub(super) n: u64,
}
#[derive(Outcome)]
pub(super) enum Deed {
    Did(Did),
}
#[derive(Event, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) n: f64,
}

/// What a run of a scripted handler does, after it has written its row.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Succeed,
    Fail,
    Refuse,
    Panic,
    Hang(Duration),
    RetryAfter(Duration),
    /// The database answers its statement with an error of this kind.
    Meets(StoreErrorKind),
    /// Another database does, and it never asks for the transaction.
    MeetsElsewhere(StoreErrorKind),
    /// Ends the transaction itself.
    EndTransaction,
    /// Publishes what JSON cannot say.
    PublishNan,
    /// Never asks for the transaction.
    Idle,
    /// Fails without having asked for the transaction.
    FailIdle,
}

/// A handler that follows a script: for each message the acts of its runs, in order; after the last it succeeds.
#[derive(Clone, Default)]
pub(super) struct Script(Arc<Mutex<Plan>>);

#[derive(Default)]
struct Plan {
    acts: HashMap<u64, Vec<Act>>,
    always: Option<Act>,
    /// Runs so far: the message, and how many earlier runs were counted.
    runs: Vec<(u64, i64)>,
    /// Sizes of the batches, when it handles batches.
    batches: Vec<usize>,
    outcomes_left_out: usize,
}

impl Script {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The next runs of message `n`.
    pub(super) fn plan(&self, n: u64, acts: impl IntoIterator<Item = Act>) -> &Self {
        self.0.lock().unwrap().acts.insert(n, acts.into_iter().collect());
        self
    }

    /// All runs that are not scripted.
    pub(super) fn always(&self, act: Act) -> &Self {
        self.0.lock().unwrap().always = Some(act);
        self
    }

    /// The batch handler forgets this many outcomes.
    pub(super) fn forget_outcomes(&self, n: usize) {
        self.0.lock().unwrap().outcomes_left_out = n;
    }

    pub(super) fn runs(&self) -> Vec<(u64, i64)> {
        self.0.lock().unwrap().runs.clone()
    }

    pub(super) fn runs_of(&self, n: u64) -> usize {
        self.runs().iter().filter(|(of, _)| *of == n).count()
    }

    pub(super) fn batches(&self) -> Vec<usize> {
        self.0.lock().unwrap().batches.clone()
    }

    fn next(&self, n: u64, runs_before: i64) -> Act {
        let mut plan = self.0.lock().unwrap();
        plan.runs.push((n, runs_before));
        let planned = plan.acts.get_mut(&n).filter(|acts| !acts.is_empty()).map(|acts| acts.remove(0));
        planned.or_else(|| plan.always.clone()).unwrap_or(Act::Succeed)
    }
}

/// What a repository of the user's makes of an error of the database.
#[derive(Debug, thiserror::Error)]
#[error("the deed failed")]
struct DeedFailed(#[source] testing::MemoryError);

fn failed(kind: StoreErrorKind) -> HandlerError {
    DeedFailed(testing::MemoryError::new(kind, "a statement failed")).into()
}

async fn act(act: Act, tx: &mut testing::MemoryTx) -> Result<(), HandlerError> {
    match act {
        Act::Succeed | Act::PublishNan | Act::Idle | Act::FailIdle | Act::MeetsElsewhere(_) => Ok(()),
        Act::Fail => Err(HandlerError::transient("the handler fails")),
        Act::Refuse => Err(HandlerError::permanent("the handler refuses")),
        Act::Panic => panic!("the handler panics"),
        Act::Hang(time) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
        Act::RetryAfter(delay) => Err(HandlerError::retry_after("not yet", delay)),
        Act::Meets(kind) => Err(failed(kind)),
        Act::EndTransaction => {
            tx.end();
            Ok(())
        }
    }
}

#[async_trait]
impl Handle<Do, testing::MemoryStore> for Script {
    async fn handle(&self, Do { n }: Do, cx: &mut Context<'_, testing::MemoryStore>) -> Result<Deed, HandlerError> {
        let next = self.next(n, cx.runs_before());
        match next {
            Act::Idle => return Ok(Did { n }.into()),
            Act::FailIdle => return Err(HandlerError::transient("the handler fails")),
            Act::MeetsElsewhere(kind) => return Err(failed(kind)),
            Act::PublishNan => _ = cx.publish(Seen { n: f64::NAN }),
            _ => {}
        }
        let tx = cx.tx().await?;
        tx.insert("done", n)?;
        act(next, tx).await?;
        Ok(Did { n }.into())
    }
}

/// The same for batches.
#[derive(Clone, Default)]
pub(super) struct Batches(pub(super) Script);

#[async_trait]
impl HandleBatch<Do, testing::MemoryStore> for Batches {
    async fn handle(
        &self,
        batch: &mut Batch<'_, Do>,
        cx: &mut BatchContext<'_, testing::MemoryStore>,
    ) -> Result<(), HandlerError> {
        let answered = {
            let mut script = self.0.0.lock().unwrap();
            script.batches.push(batch.len());
            batch.len().saturating_sub(script.outcomes_left_out)
        };
        for (place, message) in batch.iter_mut().enumerate() {
            let n = message.n;
            let next = self.0.next(n, message.runs_before());
            let tx = cx.tx().await?;
            tx.insert("done", n)?;
            act(next, tx).await?;
            if place < answered {
                message.answer(Did { n });
            }
        }
        Ok(())
    }
}

/// Handles `Step` as an event, under another name.
#[async_trait]
impl Handle<Step, testing::MemoryStore> for Script {
    async fn handle(&self, step: Step, cx: &mut Context<'_, testing::MemoryStore>) -> Result<(), HandlerError> {
        let n = step.n.into();
        let next = self.next(n, cx.runs_before());
        let tx = cx.tx().await?;
        tx.insert("done", n)?;
        act(next, tx).await
    }

    fn name(&self) -> &'static str {
        "step watcher"
    }
}

/// A projection of `walk` that follows a script: one row for each change.
#[derive(Clone, Default)]
pub(super) struct Projection(pub(super) Script);

#[async_trait]
impl Project<Walk, testing::MemoryStore> for Projection {
    async fn project(&self, changes: &[Change<Walk>], tx: &mut testing::MemoryTx) -> Result<(), HandlerError> {
        for change in changes {
            let next = self.0.next(change.id.parse()?, 0);
            tx.insert("walks", format!("{} {}", change.id, change.after.state_name()))?;
            act(next, tx).await?;
        }
        Ok(())
    }
}

/// Takes [`Seen`], and does nothing with it.
pub(super) struct SeenBy;

#[async_trait]
impl Handle<Seen, testing::MemoryStore> for SeenBy {
    async fn handle(&self, _: Seen, _: &mut Context<'_, testing::MemoryStore>) -> Result<(), HandlerError> {
        Ok(())
    }
}
