//! What the whole-system tests share: a virtual host and a database for each test, messages, a saga, and patience.

pub mod certificates;
pub mod clock;
mod databases;
pub mod dice;
pub mod history;
pub mod house;
pub mod link;
pub mod lists;
pub mod many;
pub mod model;
pub mod own;
pub mod plain;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod rolling;
mod services;
pub mod store_suite;
pub mod tables;
pub mod tool;
pub mod works;

pub use databases::{Database, File, PgBouncer, Role};
pub use services::{BrokerAt, Vhost};

use std::{future::Future, time::Duration};
use tokio::time::Instant;

/// How long a test waits for something that must happen. Long, because a busy machine is slow; a passing test needs
/// less.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Sets fields of a value, as `Type { field: value, ..base }` does. The types of the port may grow, so they
/// cannot be built that way outside saga-core.
#[macro_export]
macro_rules! with {
    ($base:expr $(, $field:ident = $value:expr)+ $(,)?) => {{
        let mut value = $base;
        $(value.$field = $value;)+
        value
    }};
}

/// Waits until `check` gives a value; if it never does, panics with what was expected.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub async fn eventually<T, F: Future<Output = Option<T>>>(expected: &str, mut check: impl FnMut() -> F) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < until, "expected within {PATIENCE:?}: {expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
