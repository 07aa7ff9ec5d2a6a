//! RabbitMQ, PostgreSQL and Chromium as programs of this machine. Who starts one owns it: it may be stopped, killed,
//! frozen and started again, and it is gone with its files when its owner drops it or ends, however it ends.

mod broker;
mod browser;
mod database;
mod programs;
mod shell;

pub use broker::{Broker, managed};
pub use browser::{Chromium, INSTALL_BROWSER};
pub use database::{Server, Stop};
pub use programs::{INSTALL, Programs, can_install};
pub use shell::{free_port, is_root, run, succeeds, wait, when_we_are_gone};
