//! What goes wrong in a run, and when: a seed decides.

use crate::{
    CrashPoint, StoreErrorKind,
    testing::{Operation, memory::Fault},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How often each kind of trouble may happen in one run of a [`Simulation`](super::Simulation), at most: each run has
/// fewer, or none, by its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Faults {
    /// A process dies at a [`CrashPoint`], and starts again after a while. Default: 2.
    pub crashes: u32,
    /// The broker delivers a message twice. Default: 3.
    pub duplicates: u32,
    /// A message is delivered before one that another endpoint sent earlier, or a returned one comes last. Default: 4.
    pub overtakings: u32,
    /// The broker has the message, but the sender is not told. Default: 2.
    pub lost_confirms: u32,
    /// A message is lost on its way to the broker; the sender learns that its fate is unknown. Default: 2.
    pub lost_publishes: u32,
    /// The connection to the broker breaks for up to 20 s. Default: 2.
    pub link_losses: u32,
    /// The database cannot be reached, or asks to run the transaction again. Default: 4.
    pub store_errors: u32,
    /// A commit succeeds, or does not, and nobody is told which. Default: 2.
    pub lost_commits: u32,
    /// The clock of a database is set forward or back by up to an hour. Default: 1.
    pub clock_jumps: u32,
    /// In one run of four, databases take up to 4 ms for an answer, so that transactions overlap. Default: true.
    pub slow_stores: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            crashes: 2,
            duplicates: 3,
            overtakings: 4,
            lost_confirms: 2,
            lost_publishes: 2,
            link_losses: 2,
            store_errors: 4,
            lost_commits: 2,
            clock_jumps: 1,
            slow_stores: true,
        }
    }
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self {
            crashes: 0,
            duplicates: 0,
            overtakings: 0,
            lost_confirms: 0,
            lost_publishes: 0,
            link_losses: 0,
            store_errors: 0,
            lost_commits: 0,
            clock_jumps: 0,
            slow_stores: false,
        }
    }
}

/// A kind of trouble at the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    Duplicate,
    Overtaking,
    LostConfirm,
    LostPublish,
    LinkLoss,
    StoreError,
    LostCommit,
}

/// How often, and how soon.
#[derive(Debug, Clone, Copy)]
struct Odds {
    left: u32,
    one_in: u32,
}

struct Dice {
    rng: fastrand::Rng,
    /// Nothing goes wrong before everybody has started once.
    began: bool,
    odds: [Odds; 7],
    crashes: u32,
    /// The next crash: the step, and how often it is passed before.
    crash: Option<(CrashPoint, u32)>,
    jumps: u32,
    slow_stores: bool,
}

/// The chance of one run. A clone throws the same dice.
#[derive(Clone)]
pub(super) struct Chance(Arc<Mutex<Dice>>);

impl Chance {
    pub(super) fn new(seed: u64, faults: &Faults) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5a6a_b005);
        let Faults { duplicates, overtakings, lost_confirms, lost_publishes, link_losses, .. } = *faults;
        let of_broker = [duplicates, overtakings, lost_confirms, lost_publishes, link_losses];
        let mut most = of_broker.into_iter().chain([faults.store_errors, faults.lost_commits]);
        let odds = std::array::from_fn(|_| Odds {
            left: rng.u32(0..=most.next().unwrap_or_default()),
            one_in: [2, 6, 20, 60][rng.usize(..4)],
        });
        let (crashes, jumps) = (rng.u32(0..=faults.crashes), rng.u32(0..=faults.clock_jumps));
        let slow_stores = faults.slow_stores && rng.u32(..4) == 0;
        let mut dice = Dice { rng, began: false, odds, crashes, crash: None, jumps, slow_stores };
        dice.plan_crash();
        Self(Arc::new(Mutex::new(dice)))
    }

    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody has started.
    pub(super) fn begin(&self) {
        self.dice().began = true;
    }

    pub(super) fn strikes(&self, mishap: Mishap) -> bool {
        let mut dice = self.dice();
        if !dice.began {
            return false;
        }
        let Odds { left, one_in } = dice.odds[mishap as usize];
        let strikes = left > 0 && dice.rng.u32(..one_in) == 0;
        dice.odds[mishap as usize].left -= u32::from(strikes);
        strikes
    }

    /// Whether a process that reaches this step dies there.
    pub(super) fn dies_at(&self, point: CrashPoint) -> bool {
        let mut dice = self.dice();
        let began = dice.began;
        match &mut dice.crash {
            Some((at, passed)) if began && *at == point => match passed.checked_sub(1) {
                Some(left) => {
                    *passed = left;
                    false
                }
                None => {
                    dice.plan_crash();
                    true
                }
            },
            _ => false,
        }
    }

    /// How an operation of a store fails.
    pub(super) fn store_fault(&self, operation: Operation) -> Option<Fault> {
        if operation == Operation::Commit && self.strikes(Mishap::LostCommit) {
            return Some(Fault::Unknown { committed: self.below(2) == 0 });
        }
        if matches!(operation, Operation::Migrate | Operation::Register) || !self.strikes(Mishap::StoreError) {
            return None;
        }
        let conflicts = matches!(operation, Operation::Write | Operation::Commit) && self.below(2) == 0;
        Some(Fault::Fails(if conflicts { StoreErrorKind::Conflict } else { StoreErrorKind::Unavailable }))
    }

    /// The next jump of a clock: after which time, forward or not, and how far. None when there were enough.
    pub(super) fn jump(&self) -> Option<(Duration, bool, Duration)> {
        let mut dice = self.dice();
        dice.jumps = dice.jumps.checked_sub(1)?;
        let mut span = || {
            let span =
                [Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(3600)][dice.rng.usize(..3)];
            span.mul_f64(dice.rng.f64())
        };
        let (after, by) = (span(), span()); // among the messages of the beginning, or among timers later on
        Some((after, dice.rng.bool(), by))
    }

    /// How long the next answer of a database takes.
    pub(super) fn pace(&self) -> Duration {
        let mut dice = self.dice();
        if dice.slow_stores { Duration::from_millis(dice.rng.u64(..=4)) } else { Duration::ZERO }
    }

    pub(super) fn below(&self, end: u64) -> u64 {
        self.dice().rng.u64(..end.max(1))
    }

    /// The time that something takes on a network: none as often as not.
    pub(super) async fn pause(&self) {
        let ms = self.below(12).saturating_sub(6);
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }
}

impl Dice {
    fn plan_crash(&mut self) {
        self.crash = self.crashes.checked_sub(1).map(|left| {
            self.crashes = left;
            let point = CrashPoint::ALL[self.rng.usize(..CrashPoint::ALL.len())];
            let passed = [1, 4, 12][self.rng.usize(..3)];
            (point, self.rng.u32(..passed))
        });
    }
}
