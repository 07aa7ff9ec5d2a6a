#![doc = include_str!("lib.md")]

extern crate self as saga_core;
extern crate self as sagabus; // the derives write `::sagabus::__private`

mod ambient;
mod crash;
mod endpoint;
mod envelope;
mod error_code;
mod handler;
mod message;
mod panics;
pub mod port;
#[doc(hidden)] // the derives use it, by way of `__private`
pub(crate) mod probe;
mod project;
mod retries;
mod saga;
pub mod testing;

pub use crash::CrashPoint;
pub use crash::Crashes;
pub use endpoint::Checked;
pub use endpoint::DatabaseState;
pub use endpoint::Ended;
pub use endpoint::Endpoint;
pub use endpoint::EndpointBuilder;
pub use endpoint::HandlerOptions;
pub use endpoint::Limit;
pub use endpoint::Mistake;
pub use endpoint::Pending;
pub use endpoint::Request;
pub use endpoint::RequestError;
pub use endpoint::RequestErrorKind;
pub use endpoint::Requested;
pub use endpoint::Session;
pub use endpoint::StartError;
pub use endpoint::TraceContext;
pub use endpoint::TraceHeaders;
pub use endpoint::Unreadable;
pub use endpoint::UnreadableKind;
pub use endpoint::Wiring;
pub use endpoint::{Bundles, Settings};
pub use envelope::Envelope;
pub use envelope::SagaRef;
#[doc(hidden)]
pub use envelope::hash_of;
pub use error_code::ErrorCode;
pub use handler::Activity;
pub use handler::Batch;
pub use handler::BatchContext;
pub use handler::Context;
pub use handler::Handle;
pub use handler::HandleBatch;
pub use handler::HandleLater;
pub use handler::HandlerError;
pub use handler::HandlerErrorKind;
pub use handler::Handlers;
pub use handler::InBatch;
pub use handler::Irreversible;
pub use handler::Later;
pub use handler::OutgoingMessage;
pub use handler::Permanent;
pub use handler::Slip;
pub use handler::SlipEnd;
pub use handler::SlipFailure;
pub use handler::Stamp;
pub use message::Answer;
pub use message::Cancellable;
pub use message::Command;
pub use message::Encoded;
pub use message::Event;
pub use message::GiveUp;
pub use message::Message;
pub use message::MessageKind;
pub use message::Outcome;
pub use message::ReadError;
pub use message::ReadOutcome;
pub use message::Timer;
pub use port::Ack;
pub use port::ActionDone;
pub use port::AgeFilter;
pub use port::AliasesFound;
pub use port::Asked;
pub use port::Backoff;
pub use port::BundleSizes;
pub use port::COUNTED_MAX;
pub use port::Caused;
pub use port::Counted;
pub use port::Counts;
pub use port::DefinitionView;
pub use port::Delivery;
pub use port::Destination;
pub use port::DueAt;
pub use port::EffectView;
pub use port::EndpointStatus;
pub use port::Explained;
pub use port::Explanation;
pub use port::ExportedInstance;
pub use port::FIELD_BYTES_MAX;
pub use port::Fate;
pub use port::FieldIs;
pub use port::FieldName;
pub use port::FieldRow;
pub use port::Forked;
pub use port::FormCount;
pub use port::Found;
pub use port::GroupName;
pub use port::GroupNote;
pub use port::HELD_GROUPS_MAX;
pub use port::HeldAction;
pub use port::HeldCount;
pub use port::HeldFilter;
pub use port::HeldGroup;
pub use port::HeldIn;
pub use port::HeldKey;
pub use port::HeldOrder;
pub use port::HeldReason;
pub use port::HeldRef;
pub use port::HeldRow;
pub use port::HeldView;
pub use port::HeldWanted;
pub use port::InboxFound;
pub use port::InboxResult;
pub use port::InboxRow;
pub use port::Inspect;
pub use port::InstanceAction;
pub use port::InstanceCount;
pub use port::InstanceDone;
pub use port::InstanceFilter;
pub use port::InstanceKey;
pub use port::InstanceOrder;
pub use port::InstanceRow;
pub use port::InstanceSeen;
pub use port::InstanceView;
pub use port::InstanceWrite;
pub use port::JournalAfter;
pub use port::JournalView;
pub use port::KeptStep;
pub use port::KeptTimer;
pub use port::Keys;
pub use port::LeaseRequest;
pub use port::LeaseUpdate;
pub use port::Leased;
pub use port::LeasedRow;
pub use port::Link;
pub use port::LinkLimits;
pub use port::LinkState;
pub use port::Listing;
#[doc(hidden)]
pub use port::MASKED_HEADER;
pub use port::NameView;
pub use port::OPERATIONS_LOOKED_AT;
pub use port::ORDER_ROWS_MAX;
pub use port::OperationFilter;
pub use port::OperationItem;
pub use port::OperationView;
pub use port::OutboxAction;
pub use port::OutboxFilter;
pub use port::OutboxKind;
pub use port::OutboxOrder;
pub use port::OutboxRow;
pub use port::OutboxView;
pub use port::Outgoing;
pub use port::Process;
pub use port::ProcessReport;
pub use port::ProcessView;
pub use port::PublishFailed;
pub use port::Registered;
pub use port::Report;
pub use port::RowCount;
pub use port::RunningProcess;
pub use port::ServerView;
pub use port::StateCount;
pub use port::Status;
pub use port::Store;
pub use port::StoreError;
pub use port::StoreErrorKind;
pub use port::Story;
pub use port::SubscriptionView;
pub use port::Swept;
pub use port::TableView;
pub use port::TakenBack;
pub use port::TimerOut;
pub use port::Topology;
pub use port::TraceView;
pub use port::TracedMessage;
pub use port::TracedStep;
pub use port::TracedWait;
pub use port::Transport;
pub use port::TransportError;
pub use port::TransportErrorKind;
pub use port::Unit;
pub use port::Unroutable;
pub use port::UpkeepView;
pub use port::Waiting;
pub use port::Wanted;
pub use port::Write;
pub use port::explain;
#[doc(hidden)]
pub use port::masked_fields;
pub use project::Change;
pub use project::Project;
pub use retries::Decision;
pub use retries::Failure;
pub use retries::Retries;
pub use saga::Accepts;
pub use saga::After;
pub use saga::All;
pub use saga::Begin;
pub use saga::Cancels;
pub use saga::Chart;
pub use saga::ChartEdge;
pub use saga::ChartEffect;
pub use saga::ChartMessage;
pub use saga::ChartState;
pub use saga::Commands;
pub use saga::Deadline;
#[doc(hidden)]
pub use saga::Disposition;
pub use saga::Drawing;
pub use saga::Effect;
pub use saga::Either;
#[doc(hidden)]
pub use saga::Emit;
#[doc(hidden)]
pub use saga::Emits;
pub use saga::Gather;
pub use saga::Itinerary;
pub use saga::Moment;
pub use saga::Names;
pub use saga::On;
pub use saga::Parts;
pub use saga::Publishes;
pub use saga::Reenter;
pub use saga::Replies;
#[doc(hidden)]
pub use saga::Route;
#[doc(hidden)]
pub use saga::Rules;
pub use saga::Saga;
pub use saga::SagaId;
pub use saga::Sends;
pub use saga::SendsAny;
pub use saga::Starts;
pub use saga::State;
pub use saga::Stay;
pub use saga::Then;
pub use saga::Undo;
pub use saga::Upcast;
pub use saga::after;
#[doc(hidden)]
pub use saga::bare_edge;
pub use saga::cancel;
pub use saga::days;
pub use saga::deadline;
pub use saga::hours;
pub use saga::minutes;
pub use saga::publish;
pub use saga::reply;
pub use saga::seconds;
pub use saga::send;

pub use async_trait::async_trait;
pub use saga_core_derive::Command;
pub use saga_core_derive::Event;
pub use saga_core_derive::Message;
pub use saga_core_derive::Outcome;
pub use saga_core_derive::Reply;
pub use saga_core_derive::Then;
pub use saga_core_derive::handlers;
pub use saga_core_derive::saga;
pub use saga_core_derive::states;

/// What the derives write into a user's crate. Not part of the API: it changes with the derives.
#[doc(hidden)]
pub mod __private {
    pub use crate::endpoint::{EndpointBuilder, HandlerOptions};
    pub use crate::handler::{
        Batch, BatchContext, Context, Handle, HandleBatch, HandleLater, HandlerError, Handlers, Later,
    };
    pub use crate::message::{
        Answer, AnswerOf, Cancellable, Command, Encoded, Event, GivesUp, Message, MessageKind, Outcome, ReadError,
        ReadOutcome, Timer, answer, gives_up, no_outcome,
    };
    pub use crate::port::Backoff; // for its own example
    pub use crate::port::Store;
    pub use crate::probe::*;
    pub use crate::saga::derived::*;
    pub use crate::saga::key::*;
    pub use crate::saga::needs::*; // where rustc names them in errors, their paths are short
    pub use crate::saga::{
        Accepts, Alias, Begin, Branch, Chart, ChartEdge, ChartState, Either, Emits, Field, Moment, Named, NamesAlias,
        NamesNone, On, Saga, Start, Starts, State, Then, Transition, Within, alias, bare_edge, branch, field,
        first_branch, start, start_with_data, transition,
    };
    pub use async_trait::async_trait;
    pub use saga_core_derive::__saga;
    pub use serde;
}
