//! What a service's own code names: `use sagabus::prelude::*;`.

pub use saga_core::Answer;
pub use saga_core::Command;
pub use saga_core::Event;
pub use saga_core::GiveUp;
pub use saga_core::Message;
pub use saga_core::Outcome;
pub use saga_core::Reply;

pub use saga_core::After;
pub use saga_core::Cancels;
pub use saga_core::Deadline;
pub use saga_core::Either;
pub use saga_core::Moment;
pub use saga_core::On;
pub use saga_core::Publishes;
pub use saga_core::Reenter;
pub use saga_core::Replies;
pub use saga_core::Saga;
pub use saga_core::SagaId;
pub use saga_core::Sends;
pub use saga_core::Starts;
pub use saga_core::Stay;
pub use saga_core::Then;
pub use saga_core::Upcast;
pub use saga_core::after;
pub use saga_core::cancel;
pub use saga_core::days;
pub use saga_core::deadline;
pub use saga_core::hours;
pub use saga_core::minutes;
pub use saga_core::publish;
pub use saga_core::reply;
pub use saga_core::seconds;
pub use saga_core::send;

pub use saga_core::handlers;
pub use saga_core::saga;
pub use saga_core::states;

pub use saga_core::Batch;
pub use saga_core::BatchContext;
pub use saga_core::Context;
pub use saga_core::Handle;
pub use saga_core::HandleBatch;
pub use saga_core::HandlerError;
pub use saga_core::Later;
pub use saga_core::Limit;
pub use saga_core::Retries;
pub use saga_core::async_trait;

pub use saga_core::Change;
pub use saga_core::Project;

pub use saga_core::Endpoint;
pub use saga_core::Requested;
pub use saga_core::Session;
pub use saga_core::Settings;
pub use saga_core::port::Store;

#[cfg(feature = "sqlite")]
pub use outbox::Sqlite;
#[cfg(feature = "in-process")]
pub use transports::InProcess;

#[cfg(feature = "postgres")]
pub use outbox::Postgres;
#[cfg(feature = "rabbitmq")]
pub use transports::RabbitMq;
