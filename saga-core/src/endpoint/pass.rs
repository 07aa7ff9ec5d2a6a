//! What a run of a handler waits for: its turn while messages fail, and a call if the handler has a limit.

use super::{
    limit::{Call, Turn},
    router::Item,
    shared::{HandlerEntry, Shared},
};
use crate::{Store, StoreError};
use std::time::Duration;
use tokio::{sync::MutexGuard, time::Instant};
use tokio_util::sync::CancellationToken;

/// What a lane has before it runs a unit.
pub(super) struct Pass<'a> {
    /// While messages fail, one runs at a time.
    turn: Option<MutexGuard<'a, ()>>,
    /// With a limit: the call of one run.
    call: Option<Call<'a>>,
    is_limited: bool,
}

impl<'a> Pass<'a> {
    /// Waits until a unit may run. `None`: it has no call soon.
    pub(super) async fn wait<Db: Store>(shared: &'a Shared<Db>, handler: usize) -> Result<Option<Self>, StoreError> {
        let entry = &shared.handlers[handler];
        let turn = if entry.breaker.is_open() { Some(entry.breaker.turn().await) } else { None };
        let Some(limiter) = entry.limiter() else { return Ok(Some(Self { turn, call: None, is_limited: false })) };
        let call = limiter.call(shared).await?;
        Ok(call.map(|call| Self { turn, call: Some(call), is_limited: true }))
    }

    /// The same at a later time, that of a key's turn. Its place is free until then: others call meanwhile.
    pub(super) async fn until<Db: Store>(self, entry: &'a HandlerEntry<Db>, at: Instant) -> Self {
        if at <= Instant::now() {
            return self;
        }
        let Self { turn, call, is_limited } = self;
        let had_call = call.is_some();
        drop(call);
        tokio::time::sleep_until(at).await;
        let call = match entry.limiter() {
            Some(limiter) if had_call => Some(limiter.place().await),
            _ => None,
        };
        Self { turn, call, is_limited }
    }

    /// Whether messages fail, and one runs at a time.
    pub(super) fn is_slowed(&self) -> bool {
        self.turn.is_some()
    }

    /// The call of the next run; `None`: the lane must wait for another one.
    pub(super) fn call(&mut self) -> Option<Call<'a>> {
        if self.is_limited { self.call.take() } else { Some(Call::free()) }
    }
}

/// Whether a message may run again at once.
pub(super) enum Again<'a> {
    Runs(Call<'a>),
    /// Its turn does not come soon: after this time.
    Later(Duration),
    /// The endpoint stops.
    Stops,
}

impl<'a> Again<'a> {
    /// Waits for one more call for a message that has run.
    pub(super) async fn wait<Db: Store>(
        shared: &'a Shared<Db>,
        entry: &'a HandlerEntry<Db>,
        item: &Item,
        stop: &CancellationToken,
    ) -> Result<Self, StoreError> {
        if stop.is_cancelled() {
            return Ok(Self::Stops);
        }
        let Some(limiter) = entry.limiter() else { return Ok(Self::Runs(Call::free())) };
        let again = async {
            if let Some(key) = item.handler_key {
                match limiter.turn(shared, key, true).await? {
                    Turn::At(at) => tokio::time::sleep_until(at).await,
                    Turn::In(delay) => return Ok(Self::Later(delay)),
                }
            }
            let call = limiter.call(shared).await?;
            Ok(call.map_or_else(|| Self::Later(limiter.comes_in()), Self::Runs))
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(Self::Stops),
            again = again => again,
        }
    }
}
