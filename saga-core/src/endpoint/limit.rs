//! Limits: how much a service behind handlers may be asked, whoever of them asks.
//!
//! A call is a run of a handler, or of a batch. Its place is free in this process; its time is given by the database,
//! so that all processes of the endpoint together keep to the rate. Times are taken for a quarter of a second at once,
//! so the database is asked four times a second at most.

use super::{breaker::Breaker, shared::Shared};
use crate::{Store, StoreError};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, Semaphore, SemaphorePermit},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Times are taken for so long in advance, and one that is so late is given up: no more calls than that come at once.
const AHEAD: Duration = Duration::from_millis(250);
/// What a lane keeps in memory is called within this time; the rest is put off.
const KEEP: Duration = Duration::from_secs(2);
/// The slowest rate: a call a day.
const SLOWEST: Duration = Duration::from_secs(86_400);

/// How much a service behind handlers may be asked. [`EndpointBuilder::limit`](super::EndpointBuilder::limit) gives it
/// a name, and handlers name it: `#[handler(limit = "bank")]`.
///
/// ```
/// use sagabus::prelude::*;
/// # fn of<Db: sagabus::port::Store>(builder: sagabus::endpoint::EndpointBuilder<Db>) {
/// builder.limit("bank", Limit::none().concurrent(5).per_second(20));
/// # }
/// ```
///
/// Handlers with one limit have one breaker too: what fails is the service behind them. What would wait longer than
/// about two seconds goes to the outbox until its turn comes, so that it does not stand before the messages of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    concurrent: Option<usize>,
    every: Option<Duration>,
}

impl Limit {
    /// No limit yet, but a breaker in common.
    pub fn none() -> Self {
        Self { concurrent: None, every: None }
    }

    /// So many calls at the same time, in each process.
    pub fn concurrent(self, calls: usize) -> Self {
        Self { concurrent: Some(calls), ..self }
    }

    /// So many calls a second, by all processes of the endpoint together; evenly, and without a burst after a pause.
    pub fn per_second(self, calls: u32) -> Self {
        self.rate(calls, Duration::from_secs(1))
    }

    /// So many calls in such a time, by all processes of the endpoint together; evenly.
    pub fn rate(self, calls: u32, time: Duration) -> Self {
        Self { every: Some(time.checked_div(calls).unwrap_or(Duration::MAX)), ..self }
    }

    /// What is wrong with it.
    fn fault(self) -> Option<&'static str> {
        match self {
            Self { concurrent: Some(0), .. } => Some("no call at the same time is none at all"),
            Self { every: Some(every), .. } if every > SLOWEST => Some("its rate is less than a call a day"),
            Self { every: Some(every), .. } if every < Duration::from_micros(1) => {
                Some("its rate is more than a call a microsecond")
            }
            _ => None,
        }
    }
}

/// A limit at work.
#[derive(Debug)]
pub(crate) struct Limiter {
    name: &'static str,
    places: Option<Semaphore>,
    every: Option<Duration>,
    times: Mutex<Times>,
    /// When the last message that was put off comes again.
    last_put_off: std::sync::Mutex<Instant>,
    pub(super) breaker: Arc<Breaker>,
}

/// Times of calls that the database has given.
#[derive(Debug)]
struct Times {
    next: Instant,
    left: u32,
}

impl Limiter {
    fn new(name: &'static str, limit: Limit) -> Self {
        let now = Instant::now();
        Self {
            name,
            places: limit.concurrent.map(|calls| Semaphore::new(calls.min(Semaphore::MAX_PERMITS))),
            every: limit.every,
            times: Mutex::new(Times { next: now, left: 0 }),
            last_put_off: std::sync::Mutex::new(now),
            breaker: Arc::default(),
        }
    }

    /// Waits until a call may be made; it ends when what is returned is dropped. `None`: the endpoint stops.
    ///
    /// # Errors
    /// When the database that gives the times cannot be reached.
    pub(super) async fn call<Db: Store>(
        &self,
        shared: &Shared<Db>,
        stop: &CancellationToken,
    ) -> Result<Option<Call<'_>>, StoreError> {
        let turn = async {
            let place = match &self.places {
                Some(places) => Some(places.acquire().await.expect("it is never closed")),
                None => None,
            };
            if let Some(every) = self.every {
                tokio::time::sleep_until(self.time(shared, every).await?).await;
            }
            Ok(Call { _place: place })
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(None),
            call = turn => call.map(Some),
        }
    }

    /// The time of the next call.
    async fn time<Db: Store>(&self, shared: &Shared<Db>, every: Duration) -> Result<Instant, StoreError> {
        let mut times = self.times.lock().await;
        while times.left > 0 && times.next + AHEAD < Instant::now() {
            times.take(every);
        }
        if times.left == 0 {
            let calls = u32::try_from(AHEAD.as_micros() / every.as_micros().max(1)).unwrap_or(u32::MAX).max(1);
            let wait = shared.store.reserve_calls(&shared.name, self.name, calls, every).await?;
            *times = Times { next: Instant::now() + wait, left: calls };
        }
        Ok(times.take(every))
    }

    /// How many messages may wait in the memory of each of so many lanes; `None`: any number.
    pub(super) fn keeps(&self, lanes: usize) -> Option<usize> {
        let calls = KEEP.as_micros() / self.every?.as_micros().max(1) / lanes.max(1) as u128;
        Some(usize::try_from(calls).unwrap_or(usize::MAX).max(1))
    }

    /// When the next message that is put off comes again: as far behind the one before as its call will be.
    pub(super) fn put_off(&self) -> Duration {
        let now = Instant::now();
        let mut last = self.last_put_off.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *last = (*last).max(now + KEEP) + self.every.unwrap_or_default();
        *last - now
    }
}

impl Times {
    fn take(&mut self, every: Duration) -> Instant {
        let next = self.next + every;
        self.left -= 1;
        std::mem::replace(&mut self.next, next)
    }
}

/// A call that is being made.
pub(super) struct Call<'a> {
    _place: Option<SemaphorePermit<'a>>,
}

/// The limits of an endpoint that is being assembled.
#[derive(Debug, Default)]
pub(super) struct Limits {
    set: BTreeMap<&'static str, Limit>,
    /// The limit of each handler that has one.
    used: Vec<(&'static str, &'static str)>,
}

impl Limits {
    /// Sets one; or says why not.
    pub(super) fn set(&mut self, name: &'static str, limit: Limit) -> Result<(), String> {
        if let Some(fault) = limit.fault() {
            return Err(format!("limit `{name}`: {fault}"));
        }
        match self.set.insert(name, limit) {
            Some(_) => Err(format!("limit `{name}` is set twice: take one out")),
            None => Ok(()),
        }
    }

    /// A handler has a limit.
    pub(super) fn used(&mut self, handler: &'static str, limit: &'static str) {
        self.used.push((handler, limit));
    }

    /// Limits that are used and not set, or set and not used.
    pub(super) fn mistakes(&self) -> Vec<String> {
        let unset = self.used.iter().filter(|(_, limit)| !self.set.contains_key(limit));
        let unused = self.set.keys().filter(|name| !self.used.iter().any(|(_, limit)| limit == *name));
        let unset = unset.map(|(handler, limit)| {
            format!("handler `{handler}` has the limit `{limit}`, which is not set: `.limit(\"{limit}\", Limit::..)`")
        });
        let unused = unused
            .map(|name| format!("no handler has the limit `{name}`: `#[handler(limit = \"{name}\")]`, or take it out"));
        unset.chain(unused).collect()
    }

    /// The limits at work, by the handlers that have them.
    pub(super) fn start(&self) -> BTreeMap<&'static str, Arc<Limiter>> {
        let started: BTreeMap<_, _> =
            self.set.iter().map(|(name, limit)| (*name, Arc::new(Limiter::new(name, *limit)))).collect();
        self.used.iter().filter_map(|(handler, limit)| Some((*handler, started.get(limit)?.clone()))).collect()
    }
}
