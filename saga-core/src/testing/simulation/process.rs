//! The processes of a run: each endpoint starts, dies where the seed says so, and starts again.

use super::{Definition, broker::Broker, faults::Chance, trace::Trace};
use crate::{
    Crashes, Endpoint, StartError,
    crash::simulated::Mortal,
    testing::{MemoryStore, memory::Fault},
};
use std::{future::pending, sync::Arc, time::Duration};
use tokio::sync::watch;

/// What became of an endpoint that should run.
#[derive(Debug, Clone)]
pub(super) enum Running {
    Not,
    Yes(Arc<Endpoint<MemoryStore>>),
    /// It failed by itself: a bug.
    Failed(String),
}

/// One endpoint with its database.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) store: MemoryStore,
    pub(super) running: watch::Receiver<Running>,
}

/// What all processes of a run share.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) broker: Broker,
    pub(super) chance: Chance,
    pub(super) trace: Trace,
}

impl Service {
    /// Keeps the endpoint running.
    pub(super) fn begin(definition: &Definition, around: &Surroundings) -> Self {
        let store = MemoryStore::new();
        let chance = around.chance.clone();
        let (name, trace) = (definition.name.clone(), around.trace.clone());
        store.fault_while(move |operation| {
            let fault = chance.store_fault(operation)?;
            trace.note(&name, || match fault {
                Fault::Fails(kind) => format!("{operation:?} fails: {kind:?}"),
                Fault::Unknown { committed } => format!("the outcome of a commit is unknown, committed: {committed}"),
            });
            Some(fault)
        });
        let chance = around.chance.clone();
        store.pace(move || chance.pace());
        if around.trace.is_written() {
            let (name, trace) = (definition.name.clone(), around.trace.clone());
            store.on_commit(move |row| {
                let type_name = super::trace::short(&row.type_name);
                trace.note(&name, || match (&row.saga_id, &row.to_state) {
                    (Some(id), Some(to)) => {
                        let from = row.from_state.as_deref().unwrap_or("(start)");
                        format!("{type_name} [{}]: {from} → {to}", super::trace::short_id(id))
                    }
                    _ => format!("{type_name}: {}", row.result.as_str()),
                });
            });
        }
        let (tell, running) = watch::channel(Running::Not);
        tokio::spawn(keep(definition.clone(), store.clone(), around.clone(), tell));
        Self { name: definition.name.clone(), store, running }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(&*self.running.borrow(), Running::Yes(_))
    }

    pub(super) fn failure(&self) -> Option<String> {
        match &*self.running.borrow() {
            Running::Failed(why) => Some(format!("endpoint `{}`: {why}", self.name)),
            _ => None,
        }
    }

    /// Waits until it runs, or has failed for good.
    pub(super) async fn endpoint(&self) -> Arc<Endpoint<MemoryStore>> {
        let mut running = self.running.clone();
        let up = running.wait_for(|running| matches!(running, Running::Yes(_))).await.map(|running| running.clone());
        match up {
            Ok(Running::Yes(endpoint)) => endpoint,
            _ => pending().await, // it will never run: the run ends without it
        }
    }
}

async fn keep(definition: Definition, store: MemoryStore, around: Surroundings, tell: watch::Sender<Running>) {
    let Surroundings { broker, chance, trace, .. } = &around;
    let name = &definition.name;
    loop {
        let (dice, surroundings, at) = (chance.clone(), around.clone(), name.clone());
        let mortal = Arc::new(Mortal::new(move |point| {
            let dies = dice.dies_at(point);
            if dies {
                surroundings.trace.note(&at, || format!("dies at {point:?}"));
            }
            dies
        }));
        let builder = Endpoint::builder(name.clone(), broker.clone(), store.clone());
        let builder = (definition.build)(builder).crashes(Crashes::simulated(mortal.clone()));
        // small units as well: a lane then runs two beside each other
        let most = if chance.below(2) == 0 { u64::MAX } else { 1 + chance.below(4) };
        let builder = builder.settings(|settings| {
            settings.batch_messages_max = settings.batch_messages_max.min(usize::try_from(most).unwrap_or(usize::MAX));
        });
        let endpoint = match builder.start().await {
            Ok(endpoint) => Arc::new(endpoint),
            Err(error @ StartError::Definition(_)) => {
                tell.send_replace(Running::Failed(error.to_string()));
                return;
            }
            Err(error) => {
                trace.note(name, || format!("does not start: {error}"));
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        trace.note(name, || "starts".into());
        tell.send_replace(Running::Yes(endpoint.clone()));
        tokio::select! {
            biased;
            () = mortal.died() => {}
            ended = endpoint.ended() => {
                if !mortal.is_dead() {
                    tell.send_replace(Running::Failed(ended.to_string()));
                    return;
                }
            }
        }
        tell.send_replace(Running::Not);
        drop(endpoint);
        broker.died(name);
        tokio::time::sleep(Duration::from_millis(chance.below(10_000))).await;
    }
}
