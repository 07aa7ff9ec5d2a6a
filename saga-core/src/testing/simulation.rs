//! Whole services under everything that can go wrong, decided by a seed.
//!
//! - `faults`: what goes wrong, and when; `trace`: what happened
//! - `broker`: a simulated broker; `process`: endpoints that die and start again
//! - `world`: what stories and checks see; `report`: what came of all runs

mod broker;
mod faults;
mod process;
mod report;
#[cfg(test)]
mod tests;
mod trace;
mod world;

pub use faults::Faults;
pub use report::{Failure, Simulated};
pub use world::World;

use super::virtual_time::seeded;
use crate::{EndpointBuilder, panics, testing::MemoryStore};
use broker::Broker;
use faults::Chance;
use futures_util::{FutureExt, future::BoxFuture};
use process::{Service, Surroundings};
use std::{
    fmt,
    future::Future,
    ops::Range,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use trace::Trace;

type Builder = EndpointBuilder<MemoryStore>;

/// An endpoint, and how it is assembled at each start.
#[derive(Clone)]
struct Definition {
    name: String,
    build: Arc<dyn Fn(Builder) -> Builder + Send + Sync>,
}

type Story = Box<dyn Fn(World) -> BoxFuture<'static, ()> + Send + Sync>;
type Check = Box<dyn Fn(&World) -> bool + Send + Sync>;

/// Whole services, run many times while everything goes wrong that can: processes die at each step, messages come
/// twice, late and in another order, confirms and commits are lost, connections break, clocks jump.
///
/// The endpoints are the real ones, with your sagas and handlers, on a simulated broker; each has a
/// [`MemoryStore`]. A number, the seed, decides everything in a run. The same seed gives the same run, on every
/// machine. What is checked in every run:
///
/// - it comes to rest: no message waits for ever;
/// - no message is held;
/// - your own sentences ([`Simulation::in_the_end`]).
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// use sagabus::{prelude::*, testing::{MemoryStore, Simulation}};
///
/// # #[derive(Event, Serialize, Deserialize)]
/// # struct OrderPlaced { order_id: u64 }
/// # #[derive(Command, Serialize, Deserialize)]
/// # #[command(to = "payment", outcome = PaymentOutcome)]
/// # struct MakePayment { order_id: u64 }
/// # #[derive(Outcome)]
/// # enum PaymentOutcome { Completed(PaymentCompleted) }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct PaymentCompleted { order_id: u64 }
/// # #[states]
/// # enum OrderFulfilment { #[waits] AwaitingPayment, #[done] Paid }
/// # #[saga(name = "order", id = order_id: u64)]
/// # impl OrderFulfilment {
/// #     fn placed(placed: OrderPlaced) -> (AwaitingPayment, Sends<MakePayment>) {
/// #         (AwaitingPayment, send(MakePayment { order_id: placed.order_id }))
/// #     }
/// #     fn paid(_: AwaitingPayment, _: PaymentCompleted) -> Paid { Paid }
/// # }
/// # struct Payments;
/// # #[handlers]
/// # impl Payments {
/// #     async fn pay(
/// #         &self,
/// #         command: MakePayment,
/// #         cx: &mut Context<'_, MemoryStore>,
/// #     ) -> Result<PaymentOutcome, HandlerError> {
/// #         cx.tx().await?.insert("charges", command.order_id)?;
/// #         Ok(PaymentCompleted { order_id: command.order_id }.into())
/// #     }
/// # }
/// # fn main() {
/// Simulation::of("ordering", |it| it.saga::<OrderFulfilment>())
///     .and("payment", |it| it.handlers(Payments))
///     .story(|world| async move {
///         for order_id in 0..3 {
///             world.publish(OrderPlaced { order_id }).await;
///         }
///     })
///     .in_the_end("no order is lost", |world| {
///         let orders = world.instances("order");
///         orders.len() == 3 && orders.iter().all(|order| order.row.state == "Paid")
///     })
///     .in_the_end("nobody pays twice", |world| world.rows::<u64>("payment", "charges").len() == 3)
///     .seeds(20)
///     .run()
///     .expect_no_failure();
/// # }
/// ```
///
/// A failure prints the seed, a sequence diagram of its run, and the command that runs it again: `SAGABUS_SEED=4711`
/// before the command of the test. `SAGABUS_SEEDS=100000` runs more of them, `SAGABUS_SEEDS=5000..6000` others.
///
/// What your own code takes from the real world stays real. If a run is to be the same run again, ids of instances
/// come from the story, and no handler does more than wait, compute and use its transaction.
pub struct Simulation {
    endpoints: Vec<Definition>,
    story: Story,
    checks: Vec<(String, Check)>,
    faults: Faults,
    seeds: Range<u64>,
    rests_within: Duration,
    holds: bool,
    /// What is broken in the machine itself.
    #[cfg(test)]
    sabotage: Option<Sabotage>,
}

/// Breaks the machine, to see that it is found.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq)]
enum Sabotage {
    /// Commits leave no rows in the inbox.
    InboxForgets,
    /// A delivery is acknowledged before anything is committed.
    AcksFirst,
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("seeds", &self.seeds).field("faults", &self.faults).finish_non_exhaustive()
    }
}

impl Simulation {
    /// Begins with one endpoint; `build` adds its sagas and handlers, at each of its starts.
    pub fn of(name: impl Into<String>, build: impl Fn(Builder) -> Builder + Send + Sync + 'static) -> Self {
        let nothing = Self {
            endpoints: Vec::new(),
            story: Box::new(|_| async {}.boxed()),
            checks: Vec::new(),
            faults: Faults::default(),
            seeds: 0..1000,
            rests_within: Duration::from_secs(7 * 86_400),
            holds: false,
            #[cfg(test)]
            sabotage: None,
        };
        nothing.and(name, build)
    }

    /// One more endpoint.
    pub fn and(mut self, name: impl Into<String>, build: impl Fn(Builder) -> Builder + Send + Sync + 'static) -> Self {
        self.endpoints.push(Definition { name: name.into(), build: Arc::new(build) });
        self
    }

    /// What happens in each run: what clients send, and when. It begins when all endpoints have started.
    pub fn story<F: Future<Output = ()> + Send + 'static>(
        mut self,
        story: impl Fn(World) -> F + Send + Sync + 'static,
    ) -> Self {
        self.story = Box::new(move |world| story(world).boxed());
        self
    }

    /// When a run has come to rest, this is so.
    pub fn in_the_end(mut self, what: &str, is_so: impl Fn(&World) -> bool + Send + Sync + 'static) -> Self {
        self.checks.push((what.into(), Box::new(is_so)));
        self
    }

    /// Changes what goes wrong.
    pub fn faults(mut self, change: impl FnOnce(&mut Faults)) -> Self {
        change(&mut self.faults);
        self
    }

    /// How many seeds are run, from 0. 1000 unless said otherwise; `SAGABUS_SEEDS` says otherwise.
    pub fn seeds(mut self, number: u64) -> Self {
        self.seeds = 0..number;
        self
    }

    /// How long a run may take until it rests, in its own time. 7 days unless said otherwise.
    pub fn rests_within(mut self, limit: Duration) -> Self {
        self.rests_within = limit;
        self
    }

    /// Messages may be held in the end: the story sends some that nobody can handle.
    pub fn may_hold(mut self) -> Self {
        self.holds = true;
        self
    }

    /// Runs all seeds, on all cores, until one fails.
    ///
    /// # Panics
    /// When `SAGABUS_SEED` or `SAGABUS_SEEDS` cannot be read.
    pub fn run(self) -> Simulated {
        let began = Instant::now();
        let seeds = report::seeds_asked_for().unwrap_or_else(|| self.seeds.clone());
        let next = AtomicU64::new(seeds.start);
        let failed = AtomicBool::new(false);
        let failing = Mutex::new(Vec::new());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| {
                    while !failed.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end {
                            break;
                        }
                        if !self.one(seed, false).0.is_empty() {
                            failed.store(true, Ordering::Relaxed);
                            failing.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
                        }
                    }
                });
            }
        });
        let mut failing = failing.into_inner().unwrap_or_else(PoisonError::into_inner);
        failing.sort_unstable();
        let runs = next.into_inner().min(seeds.end) - seeds.start;
        let failures = failing.into_iter().map(|seed| self.failure(seed)).collect();
        Simulated { runs, failures, took: began.elapsed() }
    }

    /// What happens in the run of a seed: a line for each message and each event, with its time. The same seed gives
    /// the same text.
    pub fn trace(&self, seed: u64) -> String {
        self.one(seed, true).1.text()
    }

    fn failure(&self, seed: u64) -> Failure {
        let (wrong, trace) = self.one(seed, true);
        let names: Vec<String> = self.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
        Failure { seed, wrong, trace: trace.text(), diagram: trace.diagram(&names) }
    }

    /// One run. Returns what is wrong in the end.
    fn one(&self, seed: u64, traced: bool) -> (Vec<String>, Trace) {
        seeded(seed, async {
            let chance = Chance::new(seed, &self.faults);
            let trace = Trace::new(traced);
            let broker = Broker::new(chance.clone(), trace.clone());
            #[cfg(test)]
            broker.acks_first(self.sabotage == Some(Sabotage::AcksFirst));
            let around = Surroundings { broker, chance, trace: trace.clone() };
            let run = AssertUnwindSafe(self.play(seed, around)).catch_unwind().await;
            let wrong = run.unwrap_or_else(|panic| vec![format!("it panicked: {}", panics::text(&*panic))]);
            (wrong, trace)
        })
    }

    async fn play(&self, seed: u64, around: Surroundings) -> Vec<String> {
        let services: Arc<[Service]> =
            self.endpoints.iter().map(|definition| Service::begin(definition, &around)).collect();
        #[cfg(test)]
        if self.sabotage == Some(Sabotage::InboxForgets) {
            services.iter().for_each(|service| service.store.forget_inbox());
        }
        let world = World { seed, services, around };
        while !world.services.iter().all(Service::is_up) {
            if let Some(why) = world.services.iter().find_map(Service::failure) {
                return vec![why];
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        world.around.chance.begin();
        tokio::spawn(jump(world.clone()));
        let story = tokio::time::timeout(self.rests_within, (self.story)(world.clone())).await;
        if story.is_err() {
            return vec![format!("the story is not over after {:?}", self.rests_within)];
        }
        if let Err(why) = world.rest(self.rests_within).await {
            return vec![why];
        }
        let mut wrong = if self.holds { Vec::new() } else { world.wrong() };
        let broken = self.checks.iter().filter(|(_, is_so)| !is_so(&world));
        wrong.extend(broken.map(|(what, _)| format!("not so in the end: {what}")));
        wrong
    }
}

/// Clocks of databases are set.
async fn jump(world: World) {
    while let Some((after, forward, by)) = world.around.chance.jump() {
        tokio::time::sleep(after).await;
        let place = world.random(world.services.len() as u64) as usize;
        let Service { name, store, .. } = &world.services[place];
        let way = if forward { "forward" } else { "back" };
        world.around.trace.note(name, || format!("the database's clock is set {way} by {} s", by.as_secs()));
        store.jump(forward, by);
    }
}
