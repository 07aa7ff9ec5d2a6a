//! What an endpoint takes from outside besides broker and database: the wall clock, fresh ids, chance, the machine.
//! Everything in this crate asks here. A test of whole services lays down an order for its thread
//! ([`scripted`](crate::testing::in_virtual_time)); then a seed decides all of it, and the same seed decides alike.

use uuid::Uuid;

/// When virtual time begins: 1 January 2026, in microseconds since 1970.
pub(crate) const EPOCH_US: i64 = 1_767_225_600_000_000;

/// Microseconds since 1970 by this process's clock: good enough for `sent-at`, but never to decide anything.
pub(crate) fn now_us() -> i64 {
    #[cfg(feature = "simulation")]
    if let Some(now) = scripted::ask(|script| script.now_us()) {
        return now;
    }
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// An id that nobody else has, sorted by time (v7).
pub(crate) fn fresh_id() -> Uuid {
    #[cfg(feature = "simulation")]
    if let Some(id) = scripted::ask(scripted::Script::fresh_id) {
        return id;
    }
    Uuid::now_v7()
}

/// A byte by chance.
pub(crate) fn byte() -> u8 {
    #[cfg(feature = "simulation")]
    if let Some(byte) = scripted::ask(scripted::Script::byte) {
        return byte;
    }
    Uuid::new_v4().as_bytes()[0]
}

/// A suffix that tells this start of an endpoint from all others.
pub(crate) fn process_name() -> String {
    #[cfg(feature = "simulation")]
    if let Some(id) = scripted::ask(scripted::Script::fresh_id) {
        return format!("0-{}", &id.simple().to_string()[24..]);
    }
    format!("{}-{}", std::process::id(), &Uuid::new_v4().simple().to_string()[..8])
}

/// The machine's name, for people.
pub(crate) fn host() -> String {
    #[cfg(feature = "simulation")]
    if scripted::ask(|_| ()).is_some() {
        return "simulated".into();
    }
    let named = || ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| std::env::var(name).ok());
    let read = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(named);
    read.unwrap_or_default().trim().to_owned()
}

/// The program's file name, for people.
pub(crate) fn program() -> String {
    #[cfg(feature = "simulation")]
    if scripted::ask(|_| ()).is_some() {
        return "simulated".into();
    }
    let path = std::env::current_exe().unwrap_or_default();
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Cores of the machine.
pub(crate) fn cores() -> usize {
    #[cfg(feature = "simulation")]
    if scripted::ask(|_| ()).is_some() {
        return 2;
    }
    std::thread::available_parallelism().map_or(2, usize::from)
}

#[cfg(feature = "simulation")]
pub(crate) mod scripted {
    //! The order that a test lays down for its thread.

    use super::EPOCH_US;
    use std::{cell::RefCell, time::Duration};
    use tokio::time::Instant;
    use uuid::{Builder, Uuid};

    thread_local! {
        static SCRIPT: RefCell<Option<Script>> = const { RefCell::new(None) };
    }

    pub(crate) struct Script {
        chance: fastrand::Rng,
        began: Instant,
        ids: u64,
    }

    impl Script {
        pub(super) fn now_us(&self) -> i64 {
            let since = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
            EPOCH_US.saturating_add(since)
        }

        pub(super) fn byte(&mut self) -> u8 {
            self.chance.u8(..)
        }

        /// Ids of one millisecond count on, as those of `Uuid::now_v7` do.
        pub(super) fn fresh_id(&mut self) -> Uuid {
            self.ids += 1;
            let mut rest = [0; 10]; // version and variant leave 4, 8, 6 and 8 bits free in the four that count
            for (byte, shift) in rest.iter_mut().zip([22, 14, 8, 0]) {
                *byte = (self.ids >> shift).to_le_bytes()[0];
            }
            self.chance.fill(&mut rest[4..]);
            let ms = Duration::from_micros(self.now_us().unsigned_abs()).as_millis();
            Builder::from_unix_timestamp_millis(u64::try_from(ms).unwrap_or(u64::MAX), &rest).into_uuid()
        }
    }

    /// What the script of this thread says, if there is one.
    pub(super) fn ask<T>(ask: impl FnOnce(&mut Script) -> T) -> Option<T> {
        SCRIPT.with_borrow_mut(|script| script.as_mut().map(ask))
    }

    /// The script of this thread, until it is dropped.
    pub(crate) struct Laid(());

    impl Laid {
        /// # Panics
        /// When this thread has a script already: one run inside another.
        pub(crate) fn down(seed: u64) -> Self {
            let script = Script { chance: fastrand::Rng::with_seed(seed), began: Instant::now(), ids: 0 };
            let before = SCRIPT.replace(Some(script));
            assert!(before.is_none(), "one run in virtual time begins inside another: a thread has one clock");
            Self(())
        }
    }

    impl Drop for Laid {
        fn drop(&mut self) {
            SCRIPT.set(None);
        }
    }
}

#[cfg(all(test, feature = "simulation"))]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_script_decides_and_ids_are_sorted_by_time_and_number() {
        let run = || {
            let _laid = scripted::Laid::down(7);
            let ids: Vec<Uuid> = (0..10_000).map(|_| fresh_id()).collect();
            (ids, byte(), process_name(), now_us())
        };
        let (ids, ..) = run();
        assert!(ids.is_sorted_by(|a, b| a < b), "ids do not count on");
        assert!(ids.iter().all(|id| id.get_version_num() == 7), "another version than 7");
        assert_eq!(run(), run());
        let _laid = scripted::Laid::down(7);
        let before = (now_us(), fresh_id());
        tokio::time::advance(std::time::Duration::from_secs(3600)).await;
        assert_eq!(now_us() - before.0, 3_600_000_000);
        assert!(fresh_id() > before.1);
    }

    #[test]
    fn without_a_script_chance_decides() {
        assert_ne!(fresh_id(), fresh_id());
        assert_ne!(process_name(), process_name());
    }
}
