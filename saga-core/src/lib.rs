#![doc = include_str!("lib.md")]

extern crate self as saga_core;

mod endpoint;
mod envelope;
mod fault;
mod handler;
mod message;
mod port;
mod project;
mod retry;
mod saga;

pub use endpoint::Endpoint;
pub use endpoint::EndpointBuilder;
pub use endpoint::Named;
pub use endpoint::Session;
pub use endpoint::Settings;
pub use endpoint::StartError;
pub use endpoint::StopError;
pub use envelope::Envelope;
pub use envelope::RESERVED_HEADERS;
pub use envelope::SagaRef;
pub use envelope::hash_of;
pub use fault::Faults;
pub use fault::Step;
pub use handler::BatchContext;
pub use handler::Cause;
pub use handler::Context;
pub use handler::Handle;
pub use handler::HandleBatch;
pub use handler::HandlerError;
pub use handler::Posted;
pub use message::Command;
pub use message::Encoded;
pub use message::Event;
pub use message::Message;
pub use message::MessageKind;
pub use message::Outcome;
pub use port::*;
pub use project::Change;
pub use project::Project;
pub use retry::Decision;
pub use retry::Failure;
pub use retry::Retries;
pub use saga::*;

pub use async_trait::async_trait;
pub use saga_core_derive::Command;
pub use saga_core_derive::Event;
pub use saga_core_derive::Message;
pub use saga_core_derive::Outcome;
pub use saga_core_derive::Saga;
pub use saga_core_derive::Then;
