#![doc = include_str!("lib.md")]

extern crate self as saga_core;
extern crate self as sagabus; // the derives write `::sagabus::__private`

mod crash;
mod endpoint;
mod envelope;
mod handler;
mod message;
mod panics;
pub mod port;
mod project;
mod retries;
mod saga;
pub mod testing;

pub use crash::CrashPoint;
pub use crash::Crashes;
pub use endpoint::Ended;
pub use endpoint::Endpoint;
pub use endpoint::EndpointBuilder;
pub use endpoint::HandlerOptions;
pub use endpoint::Session;
pub use endpoint::Settings;
pub use endpoint::StartError;
pub use envelope::Envelope;
pub use envelope::SagaRef;
#[doc(hidden)]
pub use envelope::hash_of;
pub use handler::BatchContext;
pub use handler::Cause;
pub use handler::Context;
pub use handler::Handle;
pub use handler::HandleBatch;
pub use handler::HandlerError;
pub use handler::HandlerErrorKind;
pub use handler::OutgoingMessage;
pub use message::Answer;
pub use message::Command;
pub use message::Encoded;
pub use message::Event;
pub use message::Message;
pub use message::MessageKind;
pub use message::Outcome;
pub use port::*;
pub use project::Change;
pub use project::Project;
pub use retries::Decision;
pub use retries::Failure;
pub use retries::Retries;
pub use saga::*;

pub use async_trait::async_trait;
pub use saga_core_derive::Command;
pub use saga_core_derive::Event;
pub use saga_core_derive::Message;
pub use saga_core_derive::Outcome;
pub use saga_core_derive::Reply;
pub use saga_core_derive::Saga;
pub use saga_core_derive::Then;

/// What the derives write into a user's crate. Not part of the API: it changes with the derives.
#[doc(hidden)]
pub mod __private {
    pub use crate::message::{
        Answer, AnswerOf, BodyFor, Command, Encoded, Event, Message, MessageKind, Outcome, answer, body,
    };
    pub use crate::port::Backoff; // for its own example
    pub use crate::saga::derived::*;
    pub use crate::saga::{Accepts, Chart, ChartEdge, Emits, Keeps, Moment, ReadError, Saga, State, Then, bare_edge};
}
