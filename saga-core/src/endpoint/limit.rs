//! Limits: how much a service behind handlers may be asked, whoever of them asks.
//!
//! A call is a run of a handler, or of a batch. Its place is free in this process; its time is given by the database,
//! so that all processes of the endpoint together keep to the rate. Times are taken for a quarter of a second at once,
//! so the database is asked four times a second at most.
//!
//! A lane gets its call before its message runs, and never waits long for it: what has no turn soon stands in a line,
//! in the outbox, each message at the time of its turn. The end of the line is known in this process alone, so what
//! comes back may find its turn taken, and goes to the end.

mod line;

use super::{breaker::Breaker, shared::Shared};
use crate::{Store, StoreError};
pub(super) use line::Turn;
use line::{Key, Line, SOON, Times, at_once};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Mutex, Semaphore, SemaphorePermit},
    time::Instant,
};

/// What a lane keeps in memory is called within about this time; the rest is put off.
const KEEP: Duration = Duration::from_secs(2);
/// The slowest rate: a call a day. Nothing is put off longer.
const SLOWEST: Duration = Duration::from_secs(86_400);
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
    /// go on, and what comes meanwhile stands behind it. The database is asked for each key's turns.
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

/// A limit at work.
#[derive(Debug)]
pub(crate) struct Limiter {
    name: &'static str,
    places: Option<Semaphore>,
    every: Option<Duration>,
    /// Whoever waits for the next time has it: the lanes get theirs in the order in which they asked.
    times: Mutex<Times>,
    line: std::sync::Mutex<Line>,
    each: Option<Duration>,
    keys: std::sync::Mutex<HashMap<i64, Key>>,
    pub(super) breaker: Arc<Breaker>,
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
            line: std::sync::Mutex::new(Line::at(now)),
            each: limit.each,
            keys: std::sync::Mutex::default(),
            breaker: Arc::default(),
        }
    }

    /// Whether a run needs a call; else it is a breaker in common and no more.
    pub(super) fn limits_calls(&self) -> bool {
        self.places.is_some() || self.every.is_some() || self.each.is_some()
    }

    /// Whether each key has a limit of its own.
    pub(super) fn has_keys(&self) -> bool {
        self.each.is_some()
    }

    /// Waits until a call may be made, which ends when what is returned is dropped. `None`: its time does not come
    /// soon. Whoever waits no longer leaves the call to others.
    ///
    /// # Errors
    /// When the database that gives the times cannot be reached.
    pub(super) async fn call<Db: Store>(&self, shared: &Shared<Db>) -> Result<Option<Call<'_>>, StoreError> {
        let place = self.place().await;
        let is_time = match self.every {
            Some(every) => self.time(shared, every).await?,
            None => true,
        };
        Ok(is_time.then_some(place))
    }

    /// Waits for the place of a call, for which it is time.
    pub(super) async fn place(&self) -> Call<'_> {
        let place = match &self.places {
            Some(places) => Some(places.acquire().await.expect("it is never closed")),
            None => None,
        };
        Call { _place: place }
    }

    /// In what time a call may be made at the earliest, as far as it is known here.
    pub(super) fn comes_in(&self) -> Duration {
        self.line().not_before.saturating_duration_since(Instant::now())
    }

    /// Waits for the time of the next call, and takes it. Returns false if it does not come soon.
    async fn time<Db: Store>(&self, shared: &Shared<Db>, every: Duration) -> Result<bool, StoreError> {
        let mut times = self.times.lock().await;
        loop {
            let now = Instant::now();
            times.drop_late(every, now);
            if times.left == 0 {
                if self.line().not_before > now + KEEP {
                    return Ok(false);
                }
                let calls = at_once(every);
                let wait = shared.store.reserve_calls(&shared.name, self.name, calls, every, KEEP).await?;
                let next = Instant::now() + wait;
                if wait > KEEP {
                    self.line().not_before = next;
                    return Ok(false);
                }
                *times = Times { next, left: calls };
                self.line().not_before = next + every * calls;
            }
            if times.next <= Instant::now() {
                times.take(every);
                return Ok(true);
            }
            tokio::time::sleep_until(times.next).await;
        }
    }

    /// Takes the turn of the next call for a key, if it comes soon. A message that was not put off before stands behind
    /// those that were.
    ///
    /// # Errors
    /// When the database that gives the times cannot be reached.
    pub(super) async fn turn<Db: Store>(&self, shared: &Shared<Db>, key: i64, was: bool) -> Result<Turn, StoreError> {
        let Some(every) = self.each else { return Ok(Turn::At(Instant::now())) };
        if let Some(turn) = self.keys().get_mut(&key).and_then(|key| key.turn(every, was)) {
            return Ok(turn);
        }
        let (calls, name) = (at_once(every), format!("{}:{key:016x}", self.name));
        let wait = shared.store.reserve_calls(&shared.name, &name, calls, every, SOON).await?;
        let (now, mut keys) = (Instant::now(), self.keys());
        if keys.len() >= KEYS && keys.len() == keys.capacity() {
            keys.retain(|_, key| key.line.end > now);
        }
        let key = keys.entry(key).or_insert_with(|| Key::at(now));
        if wait > SOON {
            key.line.not_before = now + wait;
            return Ok(Turn::In(wait)); // whoever comes when it is free takes it
        }
        key.times = Times { next: now + wait, left: calls };
        key.line.not_before = now + wait + every * calls;
        Ok(Turn::At(key.times.take(every)))
    }

    /// Whether a message with this key has no turn soon, as far as it is known here.
    pub(super) fn is_far(&self, key: Option<i64>, was: bool) -> bool {
        let (Some(_), Some(key)) = (self.each, key) else { return false };
        self.keys().get(&key).is_some_and(|key| key.comes_in(Instant::now(), was).is_some())
    }

    /// How many messages of each of so many lanes may wait in memory; `None`: any number. `was`: for a message that was
    /// put off before. Where calls are so rare that not each lane has one soon, others stand behind the line: they
    /// would overtake it for ever.
    pub(super) fn keeps(&self, lanes: usize, was: bool) -> Option<usize> {
        let calls = KEEP.as_micros() / self.every?.as_micros().max(1) / lanes.max(1) as u128;
        let (line, soon) = (self.line(), Instant::now() + KEEP);
        let one = line.not_before <= soon && (was || line.end <= soon);
        Some(usize::try_from(calls).unwrap_or(usize::MAX).max(one.into()))
    }

    /// Puts a message at the end of the line, that of its key or that of all. Returns when it comes again.
    pub(super) fn put_off(&self, key: Option<i64>) -> Duration {
        let now = Instant::now();
        match key {
            None => {
                let (mut line, every) = (self.line(), self.every.unwrap_or_default());
                // before that come the calls for what stays in memory
                let next = line.not_before.max(now + KEEP.max(every));
                line.put_off(now, next, every, SLOWEST)
            }
            Some(key) => {
                let mut keys = self.keys();
                let key = keys.entry(key).or_insert_with(|| Key::at(now));
                key.line.put_off(now, key.next(), self.each.unwrap_or_default(), PUT_OFF_MAX)
            }
        }
    }

    /// A message was not put off after all: the database did not take it.
    pub(super) fn stays(&self, key: Option<i64>) {
        match key {
            None => self.line().leave(self.every.unwrap_or_default()),
            Some(key) => {
                if let Some(key) = self.keys().get_mut(&key) {
                    key.line.leave(self.each.unwrap_or_default());
                }
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<i64, Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that may be made.
pub(super) struct Call<'a> {
    _place: Option<SemaphorePermit<'a>>,
}

impl Call<'_> {
    /// One that nothing limits.
    pub(super) fn free() -> Self {
        Self { _place: None }
    }
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
