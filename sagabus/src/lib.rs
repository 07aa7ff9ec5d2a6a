#![cfg_attr(all(feature = "in-process", feature = "sqlite"), doc = include_str!("lib.md"))]
#![cfg_attr(
    not(all(feature = "in-process", feature = "sqlite")),
    doc = "Sagas, outbox, inbox, timers and retries for Rust services. The front page needs the default features."
)]

pub mod prelude;

pub use saga_core::Answer;
pub use saga_core::Command;
pub use saga_core::Endpoint;
pub use saga_core::Event;
pub use saga_core::GiveUp;
pub use saga_core::Message;
pub use saga_core::MessageKind;
pub use saga_core::Outcome;
pub use saga_core::Reply;
pub use saga_core::Requested;
pub use saga_core::Saga;
pub use saga_core::Session;

#[cfg(feature = "opentelemetry")]
mod trace_context;
#[cfg(feature = "sqlite")]
pub use outbox::Sqlite;
#[cfg(feature = "opentelemetry")]
pub use trace_context::OpenTelemetry;
#[cfg(feature = "in-process")]
pub use transports::InProcess;

#[cfg(feature = "postgres")]
pub use outbox::Postgres;
#[cfg(feature = "rabbitmq")]
pub use transports::RabbitMq;

pub use saga_core::async_trait;
pub use saga_core::handlers;
pub use saga_core::saga;
pub use saga_core::states;
/// The database library, in the version that the stores use: `cx.tx()` hands out its connections.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use sqlx;

#[doc(hidden)]
pub use saga_core::__private;

/// Sagas: states, transitions, their effects, and the chart.
///
/// See [`#[saga]`](macro@crate::saga) for the form and an example of all attributes, and
/// [`Then`](crate::saga::Then) for what a transition returns.
pub mod saga {
    pub use saga_core::After;
    pub use saga_core::All;
    pub use saga_core::Cancels;
    pub use saga_core::Deadline;
    pub use saga_core::Either;
    pub use saga_core::Gather;
    pub use saga_core::Itinerary;
    pub use saga_core::Moment;
    pub use saga_core::On;
    pub use saga_core::Publishes;
    pub use saga_core::Reenter;
    pub use saga_core::Replies;
    pub use saga_core::Saga;
    pub use saga_core::SagaId;
    pub use saga_core::Sends;
    pub use saga_core::SendsAny;
    pub use saga_core::Starts;
    pub use saga_core::Stay;
    pub use saga_core::Then;
    pub use saga_core::Undo;
    pub use saga_core::Upcast;

    pub use saga_core::after;
    pub use saga_core::cancel;
    pub use saga_core::deadline;
    pub use saga_core::publish;
    pub use saga_core::reply;
    pub use saga_core::send;

    pub use saga_core::days;
    pub use saga_core::hours;
    pub use saga_core::minutes;
    pub use saga_core::seconds;

    pub use saga_core::Change;
    pub use saga_core::Project;

    pub use saga_core::Chart;
    pub use saga_core::ChartEdge;
    pub use saga_core::ChartEffect;
    pub use saga_core::ChartMessage;
    pub use saga_core::ChartState;
    pub use saga_core::Drawing;

    pub use saga_core::Accepts;
    pub use saga_core::Begin;
    pub use saga_core::Effect;
    pub use saga_core::Parts;
    pub use saga_core::ReadError;
    pub use saga_core::State;
}

/// Handlers: code with a database transaction, for messages that do not belong to a saga.
pub mod handler {
    pub use saga_core::Activity;
    pub use saga_core::Batch;
    pub use saga_core::BatchContext;
    pub use saga_core::Context;
    pub use saga_core::Handle;
    pub use saga_core::HandleBatch;
    pub use saga_core::HandleLater;
    pub use saga_core::HandlerError;
    pub use saga_core::HandlerErrorKind;
    pub use saga_core::Handlers;
    pub use saga_core::InBatch;
    pub use saga_core::Irreversible;
    pub use saga_core::Later;
    pub use saga_core::OutgoingMessage;
    pub use saga_core::Permanent;
    pub use saga_core::Slip;
    pub use saga_core::SlipEnd;
    pub use saga_core::SlipFailure;
    pub use saga_core::Stamp;

    pub use saga_core::Decision;
    pub use saga_core::Failure;
    pub use saga_core::Retries;
}

/// Endpoints: what a service starts, sends from and stops.
pub mod endpoint {
    pub use saga_core::Bundles;
    pub use saga_core::Checked;
    pub use saga_core::DatabaseState;
    pub use saga_core::Ended;
    pub use saga_core::Endpoint;
    pub use saga_core::EndpointBuilder;
    pub use saga_core::Envelope;
    pub use saga_core::ErrorCode;
    pub use saga_core::HandlerOptions;
    pub use saga_core::LinkState;
    pub use saga_core::Mistake;
    pub use saga_core::Pending;
    pub use saga_core::ReadOutcome;
    pub use saga_core::Request;
    pub use saga_core::RequestError;
    pub use saga_core::RequestErrorKind;
    pub use saga_core::Requested;
    pub use saga_core::SagaRef;
    pub use saga_core::Session;
    pub use saga_core::Settings;
    pub use saga_core::StartError;
    pub use saga_core::TraceContext;
    pub use saga_core::TraceHeaders;
    pub use saga_core::Unreadable;
    pub use saga_core::UnreadableKind;
    pub use saga_core::Wiring;
}

/// What brokers and databases implement, and what operators read.
pub mod port {
    pub use saga_core::port::*;
}

/// For tests of services: a store in memory, and crashes at numbered steps.
pub mod testing {
    pub use saga_core::CrashPoint;
    pub use saga_core::Crashes;
    pub use saga_core::testing::*;
}

#[cfg(test)]
mod tests {
    /// The program in the README, without its first line, which names the file.
    fn program_of_the_readme() -> String {
        // in the repository the README lies beside this package, on crates.io inside it
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut places = ["../README.md", "README.md"].map(|name| folder.join(name)).into_iter();
        let readme = places.find_map(|path| std::fs::read_to_string(path).ok()).expect("there is a README");
        let (_, program) = readme.split_once("```rust\n// src/main.rs\n").expect("the README shows src/main.rs");
        program.split_once("```").expect("the block ends").0.to_owned()
    }

    #[test]
    fn the_front_page_runs_the_readmes_program() {
        let (_, page) = include_str!("lib.md").split_once("```\nuse ").expect("the page shows a program");
        let program = page.split_once("```").expect("the block ends").0;
        let shown: String = program.split_inclusive('\n').filter(|line| !line.starts_with("#   ")).collect();
        assert_eq!(format!("use {shown}"), program_of_the_readme());
    }
}
