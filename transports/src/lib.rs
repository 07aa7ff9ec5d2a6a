//! The broker side of Sagabus: [`RabbitMq`], and [`InProcess`] for endpoints that live in one process.

mod in_process;
mod rabbitmq;

pub use in_process::InProcess;
pub use rabbitmq::RabbitMq;
