//! A process whose wall clock is wrong; what the service `src/bin/clock.rs` and its test say to each other; and the
//! clock itself (`clock.c`, which the build script compiles where there is a C compiler: `cfg(clock)`).

use crate::File;
use saga_core::{Command, Event};
use serde::{Deserialize, Serialize};

/// Sets an alarm, which rings after [`RINGS_AFTER`] seconds.
#[derive(Event, Serialize, Deserialize)]
#[event(from = "test")]
pub struct Set {
    /// Which.
    pub id: u64,
}

/// Every fourth is handled at the second try, [`RETRIED_AFTER`] seconds after the first.
#[derive(Command, Serialize, Deserialize)]
#[command(to = "clock")]
pub struct Try {
    /// Which.
    pub id: u64,
}

/// It was handled.
#[derive(Event, Serialize, Deserialize)]
#[event(from = "clock")]
pub struct Tried {
    /// Which.
    pub id: u64,
}

/// Seconds until an alarm rings.
pub const RINGS_AFTER: u64 = 3;
/// Seconds until the second try.
pub const RETRIED_AFTER: u64 = 2;
/// The table that the service writes: one row for each try, by the database's clock and by its own.
pub const TABLE: &str =
    "CREATE TABLE try (id bigint, at timestamptz DEFAULT clock_timestamp(), process_at timestamptz)";

/// A wall clock that is wrong.
#[derive(Debug)]
pub struct Clock {
    folder: File,
}

impl Clock {
    /// One that differs by these seconds.
    pub fn wrong_by(seconds: i64) -> Self {
        let clock = Self { folder: File::create() };
        clock.step_to(seconds);
        clock
    }

    /// From now on it differs by these seconds.
    ///
    /// # Panics
    /// When the folder for temporary files cannot be written.
    pub fn step_to(&self, seconds: i64) {
        // renamed, so that nobody reads half of it
        let (file, new) = (self.folder.folder.join("clock"), self.folder.folder.join("new"));
        std::fs::write(&new, seconds.to_ne_bytes()).expect("the folder can be written");
        std::fs::rename(new, file).expect("the folder can be written");
    }

    /// Gives a process this clock.
    pub fn set(&self, process: &mut std::process::Command) {
        process.env("LD_PRELOAD", env!("CLOCK")).env("SAGABUS_TEST_CLOCK", self.folder.folder.join("clock"));
    }
}
