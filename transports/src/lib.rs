//! The broker side of Sagabus: [`RabbitMq`], and [`InProcess`] for endpoints that live in one process.

#[cfg(feature = "in-process")]
mod in_process;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;

#[cfg(feature = "in-process")]
pub use in_process::InProcess;
#[cfg(feature = "rabbitmq")]
pub use rabbitmq::{Fit, Look, QueueState, RabbitMq};
