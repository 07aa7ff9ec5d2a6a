//! Crash points: places at which a test can make the process die.

use std::sync::atomic::{AtomicU64, Ordering};

/// A numbered step on the way of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrashPoint {
    /// 1: a delivery was received.
    Receive,
    /// 2: the batch's locks are held.
    Lock,
    /// 3: everything is written, nothing committed.
    BeforeCommit,
    /// 4: committed, nothing published.
    Commit,
    /// 5: handed to the dispatcher, not acknowledged.
    BeforeAck,
    /// 6: published, the confirm is not known.
    BeforeConfirm,
    /// 7: confirmed, the outbox row is still there.
    BeforeDelete,
}

impl CrashPoint {
    /// All, in order.
    pub const ALL: &'static [Self] = &[
        Self::Receive,
        Self::Lock,
        Self::BeforeCommit,
        Self::Commit,
        Self::BeforeAck,
        Self::BeforeConfirm,
        Self::BeforeDelete,
    ];
}

impl std::str::FromStr for CrashPoint {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.replace('-', "");
        let named = Self::ALL.iter().find(|point| format!("{point:?}").eq_ignore_ascii_case(&plain));
        named.copied().ok_or_else(|| format!("`{text}` is not a step; there are {:?}", Self::ALL))
    }
}

/// Where the process is to die. The default: nowhere.
#[derive(Debug, Default)]
pub struct Crashes(Plan);

#[derive(Debug, Default)]
enum Plan {
    #[default]
    Nowhere,
    At(CrashPoint, AtomicU64),
    #[cfg(feature = "simulation")]
    Simulated(std::sync::Arc<simulated::Mortal>),
}

impl Crashes {
    /// Aborts the process (as `kill -9` would) when `point` is reached for the `n`th time, counted from 1.
    pub fn at(point: CrashPoint, n: u64) -> Self {
        Self(Plan::At(point, AtomicU64::new(n)))
    }

    /// The process is one of a simulation: what dies are its tasks.
    #[cfg(feature = "simulation")]
    pub(crate) fn simulated(mortal: std::sync::Arc<simulated::Mortal>) -> Self {
        Self(Plan::Simulated(mortal))
    }

    pub(crate) fn reach(&self, point: CrashPoint) {
        match &self.0 {
            Plan::At(at, left) if *at == point && left.fetch_sub(1, Ordering::Relaxed) == 1 => {
                tracing::error!(?point, "the process crashes here, as ordered");
                std::process::abort();
            }
            Plan::Nowhere | Plan::At(..) => {}
            #[cfg(feature = "simulation")]
            Plan::Simulated(mortal) => mortal.reach(point),
        }
    }

    /// A task of the process has begun: it dies with it.
    pub(crate) fn began(&self, task: tokio::task::AbortHandle) {
        match &self.0 {
            Plan::Nowhere | Plan::At(..) => drop(task),
            #[cfg(feature = "simulation")]
            Plan::Simulated(mortal) => mortal.began(task),
        }
    }
}

/// A panic that a task has caught, to be treated as an error; but a simulated death goes on to the end of the task.
pub(crate) fn survived(panic: Box<dyn std::any::Any + Send>) -> Box<dyn std::any::Any + Send> {
    #[cfg(feature = "simulation")]
    if panic.is::<simulated::Death>() {
        std::panic::resume_unwind(panic);
    }
    panic
}

#[cfg(feature = "simulation")]
pub(crate) mod simulated {
    //! Death of one process among several that share a thread.

    use super::CrashPoint;
    use std::{
        fmt,
        sync::{Mutex, MutexGuard, PoisonError},
    };
    use tokio::{sync::Notify, task::AbortHandle};

    /// What unwinds the task in which a process dies.
    pub(super) struct Death;

    type Dies = Box<dyn Fn(CrashPoint) -> bool + Send + Sync>;

    /// The tasks of one process. When it dies, none of them takes another step: the one that reached the step unwinds,
    /// the others are dropped where they wait. So transactions roll back and deliveries go back, as they do when
    /// connections break.
    pub(crate) struct Mortal {
        dies: Dies,
        tasks: Mutex<Tasks>,
        died: Notify,
    }

    #[derive(Default)]
    struct Tasks {
        running: Vec<AbortHandle>,
        dead: bool,
    }

    impl fmt::Debug for Mortal {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Mortal").field("dead", &self.is_dead()).finish_non_exhaustive()
        }
    }

    impl Mortal {
        /// `dies` says at each step whether the process dies there.
        pub(crate) fn new(dies: impl Fn(CrashPoint) -> bool + Send + Sync + 'static) -> Self {
            Self { dies: Box::new(dies), tasks: Mutex::default(), died: Notify::new() }
        }

        fn tasks(&self) -> MutexGuard<'_, Tasks> {
            self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(super) fn began(&self, task: AbortHandle) {
            let mut tasks = self.tasks();
            if tasks.dead {
                task.abort();
            }
            tasks.running.retain(|task| !task.is_finished());
            tasks.running.push(task);
        }

        pub(super) fn reach(&self, point: CrashPoint) {
            if self.is_dead() || !(self.dies)(point) {
                return;
            }
            let mut tasks = self.tasks();
            tasks.dead = true;
            let running = std::mem::take(&mut tasks.running);
            drop(tasks);
            running.iter().for_each(AbortHandle::abort);
            self.died.notify_one();
            std::panic::resume_unwind(Box::new(Death)); // no panic hook prints it
        }

        pub(crate) fn is_dead(&self) -> bool {
            self.tasks().dead
        }

        /// Waits until it is dead.
        pub(crate) async fn died(&self) {
            self.died.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_by_its_name_in_any_case() {
        for point in CrashPoint::ALL {
            let name = format!("{point:?}");
            assert_eq!(name.parse(), Ok(*point));
            assert_eq!(name.to_lowercase().parse(), Ok(*point));
        }
        assert_eq!("before-commit".parse(), Ok(CrashPoint::BeforeCommit));
        let error = "nowhere".parse::<CrashPoint>().unwrap_err();
        assert!(error.contains("`nowhere` is not a step") && error.contains("BeforeAck"), "{error}");
    }
}
