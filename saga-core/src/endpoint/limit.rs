//! Limits: how much a service behind handlers may be asked, whoever of them asks.
//!
//! A call is a run of a handler, or of a batch. Its place is free in this process; its time is given by the database,
//! so that all processes of the endpoint together keep to the rate. Times are taken for a quarter of a second at once,
//! so the database is asked four times a second at most.

use super::{breaker::Breaker, shared::Shared};
use crate::{Store, StoreError};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError},
    time::Duration,
};
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
/// A lane waits so long for the turn of a key, and messages with other keys may wait for it. It is so long because what
/// was put off comes back a little late, and together.
const SOON: Duration = Duration::from_secs(1);
/// What waits for the turn of its key is looked at this often.
const PUT_OFF_MAX: Duration = Duration::from_secs(3600);
/// Keys that are remembered before those are forgotten for which nothing waits.
const KEYS: usize = 1000;
/// Why a message is put off.
pub(super) const WAITS: &str = "it waits for its turn: the handler has a limit";

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
    /// The same for each key.
    each: Option<Duration>,
}

impl Limit {
    /// No limit yet, but a breaker in common.
    pub fn none() -> Self {
        Self { concurrent: None, every: None, each: None }
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
        Self { every: Some(every(calls, time)), ..self }
    }

    /// So many calls in such a time for each key, by all processes of the endpoint together; evenly. Handlers say what
    /// their key is: `#[handler(limit = "bank", key = customer)]`. It may go with a rate for all keys together.
    ///
    /// A message whose turn does not come within a second goes to the outbox until then, so that those with other keys
    /// go on, and what comes meanwhile may get a turn before it. The database is asked for each key's turns.
    pub fn per_key(self, calls: u32, time: Duration) -> Self {
        Self { each: Some(every(calls, time)), ..self }
    }

    /// What is wrong with it.
    fn fault(self) -> Option<&'static str> {
        let rates = || [self.every, self.each].into_iter().flatten();
        if self.concurrent == Some(0) {
            Some("no call at the same time is none at all")
        } else if rates().any(|every| every > SLOWEST) {
            Some("its rate is less than a call a day")
        } else if rates().any(|every| every < Duration::from_micros(1)) {
            Some("its rate is more than a call a microsecond")
        } else {
            None
        }
    }
}

fn every(calls: u32, time: Duration) -> Duration {
    time.checked_div(calls).unwrap_or(Duration::MAX)
}

/// How many times of calls are taken at once.
fn at_once(every: Duration) -> u32 {
    u32::try_from(AHEAD.as_micros() / every.as_micros().max(1)).unwrap_or(u32::MAX).max(1)
}

/// A limit at work.
#[derive(Debug)]
pub(crate) struct Limiter {
    name: &'static str,
    places: Option<Semaphore>,
    every: Option<Duration>,
    times: Mutex<Times>,
    each: Option<Duration>,
    keys: std::sync::Mutex<HashMap<i64, Key>>,
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
    /// The name that its handlers give: what stands behind them.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    fn new(name: &'static str, limit: Limit) -> Self {
        let now = Instant::now();
        Self {
            name,
            places: limit.concurrent.map(|calls| Semaphore::new(calls.min(Semaphore::MAX_PERMITS))),
            every: limit.every,
            times: Mutex::new(Times { next: now, left: 0 }),
            each: limit.each,
            keys: std::sync::Mutex::default(),
            last_put_off: std::sync::Mutex::new(now),
            breaker: Arc::default(),
        }
    }

    /// Waits until a call may be made, not before `from`; it ends when what is returned is dropped. `None`: the
    /// endpoint stops.
    ///
    /// # Errors
    /// When the database that gives the times cannot be reached.
    pub(super) async fn call<Db: Store>(
        &self,
        shared: &Shared<Db>,
        stop: &CancellationToken,
        from: Option<Instant>,
    ) -> Result<Option<Call<'_>>, StoreError> {
        let turn = async {
            if let Some(from) = from {
                tokio::time::sleep_until(from).await;
            }
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
        times.drop_late(every, Instant::now());
        if times.left == 0 {
            let calls = at_once(every);
            let wait = shared.store.reserve_calls(&shared.name, self.name, calls, every, Duration::MAX).await?;
            *times = Times { next: Instant::now() + wait, left: calls };
        }
        Ok(times.take(every))
    }

    /// Takes the turn of the next call for a key, if it comes soon.
    ///
    /// # Errors
    /// When the database that gives the times cannot be reached.
    pub(super) async fn turn<Db: Store>(&self, shared: &Shared<Db>, key: i64) -> Result<Turn, StoreError> {
        let Some(every) = self.each else { return Ok(Turn::At(Instant::now())) };
        let keys = || self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = keys().get_mut(&key).and_then(|key| key.turn(every)) {
            return Ok(turn);
        }
        let (calls, name) = (at_once(every), format!("{}:{key:016x}", self.name));
        let wait = shared.store.reserve_calls(&shared.name, &name, calls, every, SOON).await?;
        let (now, mut keys) = (Instant::now(), keys());
        if keys.len() >= KEYS && keys.len() == keys.capacity() {
            keys.retain(|_, key| key.last > now);
        }
        let key =
            keys.entry(key).or_insert_with(|| Key { times: Times { next: now, left: 0 }, last: now, not_before: now });
        if wait > SOON {
            key.not_before = now + wait;
            return Ok(key.put_off(now, now + wait, every)); // whoever comes when it is free takes it
        }
        key.times = Times { next: now + wait, left: calls };
        Ok(key.turn(every).unwrap_or(Turn::At(now + wait)))
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

/// When a call for a key may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// At this time, which is soon: nobody else takes it.
    At(Instant),
    /// About after this time.
    In(Duration),
}

/// Calls for one key.
#[derive(Debug)]
struct Key {
    times: Times,
    /// When the last message comes again that was put off, and the one behind it.
    last: Instant,
    /// Nobody has a turn before: so the database has said.
    not_before: Instant,
}

impl Key {
    /// The next turn, if its time is known.
    fn turn(&mut self, every: Duration) -> Option<Turn> {
        let now = Instant::now();
        self.times.drop_late(every, now);
        if self.times.left == 0 {
            return (self.not_before > now + SOON).then(|| self.put_off(now, self.not_before, every));
        }
        if self.times.next <= now + SOON {
            return Some(Turn::At(self.times.take(every)));
        }
        Some(self.put_off(now, self.times.next, every))
    }

    /// Behind those that were put off before, and not before `next`.
    fn put_off(&mut self, now: Instant, next: Instant, every: Duration) -> Turn {
        let comes = self.last.max(next).min(now + PUT_OFF_MAX);
        self.last = comes + every;
        Turn::In(comes - now)
    }
}

impl Times {
    /// Gives up those that have passed.
    fn drop_late(&mut self, every: Duration, now: Instant) {
        while self.left > 0 && self.next + AHEAD < now {
            self.take(every);
        }
    }

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
    users: Vec<User>,
}

/// A handler that has a limit.
#[derive(Debug)]
pub(super) struct User {
    pub(super) handler: &'static str,
    pub(super) limit: &'static str,
    /// It has a key.
    pub(super) keyed: bool,
    /// It takes batches.
    pub(super) batches: bool,
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
    pub(super) fn used(&mut self, user: User) {
        self.users.push(user);
    }

    /// Limits that are used and not set, or set and not used, or that do not fit their handlers.
    pub(super) fn mistakes(&self) -> Vec<String> {
        let of_user = |User { handler, limit, keyed, batches }: &User| match self.set.get(limit)?.each {
            Some(_) if *batches => Some(format!(
                "handler `{handler}` takes batches, and its limit `{limit}` is for each key: a call has one key"
            )),
            Some(_) if !keyed => Some(format!(
                "handler `{handler}` has the limit `{limit}`, which is for each key, and no key: `#[handler(key = ..)]`"
            )),
            _ => None,
        };
        let unset = self.users.iter().filter(|user| !self.set.contains_key(user.limit));
        let unused = self.set.keys().filter(|name| !self.users.iter().any(|user| user.limit == **name));
        let unset = unset.map(|User { handler, limit, .. }| {
            format!("handler `{handler}` has the limit `{limit}`, which is not set: `.limit(\"{limit}\", Limit::..)`")
        });
        let unused = unused
            .map(|name| format!("no handler has the limit `{name}`: `#[handler(limit = \"{name}\")]`, or take it out"));
        unset.chain(unused).chain(self.users.iter().filter_map(of_user)).collect()
    }

    /// The limits at work, by the handlers that have them.
    pub(super) fn start(&self) -> BTreeMap<&'static str, Arc<Limiter>> {
        let started: BTreeMap<_, _> =
            self.set.iter().map(|(name, limit)| (*name, Arc::new(Limiter::new(name, *limit)))).collect();
        let of_user = |user: &User| Some((user.handler, started.get(user.limit)?.clone()));
        self.users.iter().filter_map(of_user).collect()
    }
}
