//! Spans, by OpenTelemetry's conventions for messaging: what they are called, and where trace context goes from a
//! message to a span and from a span to a message. docs/book/telemetry.md shows them.
//!
//! ```text
//! process ENDPOINT          a delivery for one receiver, until it is settled; its parent is in the message
//!   handle RECEIVER         a run of the handler (of a batch: the others are linked)
//!     send DESTINATION      a message that leaves with the commit; what it carries on names this span
//!   transition SAGA         what an instance decided
//!     publish EVENT
//!   commit ENDPOINT         the write and the commit (of several messages: the others are linked)
//! ```

use crate::{
    Envelope, InstanceKey,
    port::{Destination, OutboxRow},
};
use std::sync::Arc;
use tracing::{Span, field::Empty, info_span};

/// The target of all these spans, for filters.
const TARGET: &str = "sagabus::trace";

/// Trace context, as W3C writes it into headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceHeaders {
    /// `traceparent`: the trace, the span, and whether it is sampled.
    pub traceparent: String,
    /// `tracestate`: what vendors add.
    pub tracestate: Option<String>,
}

impl TraceHeaders {
    /// Without what vendors add.
    pub fn new(traceparent: impl Into<String>) -> Self {
        Self { traceparent: traceparent.into(), tracestate: None }
    }

    /// Those of a message. A stranger's may be anything: what is too long or no text is left out.
    fn of(envelope: &Envelope) -> Option<Self> {
        let headers = envelope.trace();
        let text = |name| headers.get(name)?.as_str().map(str::to_owned);
        Some(Self { traceparent: text("traceparent")?, tracestate: text("tracestate") })
    }

    fn stamp(self, envelope: &mut Envelope) {
        envelope.headers.remove("tracestate"); // that of another span
        envelope.headers.extend(self.tracestate.map(|state| ("tracestate".into(), state.into())));
        envelope.headers.insert("traceparent".into(), self.traceparent.into());
    }
}

/// What knows the trace context of `tracing`'s spans: `sagabus::OpenTelemetry` (feature `opentelemetry`), or `()` for
/// spans alone, without context in messages. [`EndpointBuilder::trace`](crate::EndpointBuilder::trace) takes it.
///
/// Nothing here may fail or wait: an endpoint works the same with and without it.
pub trait TraceContext: Send + Sync + 'static {
    /// Makes the span that a message's headers name the parent of `span`, which was not entered yet.
    fn set_parent(&self, span: &Span, parent: &TraceHeaders);

    /// The context of a span; `None` if it is in no trace.
    fn headers(&self, span: &Span) -> Option<TraceHeaders>;

    /// Adds a link from `span` to another one.
    fn link(&self, span: &Span, other: &Span);
}

impl TraceContext for () {
    fn set_parent(&self, _: &Span, _: &TraceHeaders) {}

    fn headers(&self, _: &Span) -> Option<TraceHeaders> {
        None
    }

    fn link(&self, _: &Span, _: &Span) {}
}

/// The tracing of an endpoint; without a [`TraceContext`] there are no spans.
#[derive(Clone, Default)]
pub(crate) struct Trace {
    context: Option<Arc<dyn TraceContext>>,
    /// `messaging.system`.
    system: &'static str,
}

impl Trace {
    pub(super) fn new(context: Option<Arc<dyn TraceContext>>, system: &'static str) -> Self {
        Self { context, system }
    }

    /// Who knows the context, if anybody listens to spans.
    fn on(&self) -> Option<&dyn TraceContext> {
        self.context.as_deref().filter(|_| tracing::enabled!(target: TARGET, tracing::Level::INFO))
    }

    /// A message for one receiver, from here until the span's last clone is dropped.
    pub(super) fn process(&self, endpoint: &str, receiver: &str, envelope: &Envelope) -> Span {
        let Some(context) = self.on() else { return Span::none() };
        let span = info_span!(
            target: TARGET,
            parent: None,
            "process",
            otel.name = format!("process {endpoint}"),
            otel.kind = "consumer",
            messaging.system = self.system,
            messaging.operation.name = "process",
            "messaging.operation.type" = "process",
            messaging.destination.name = endpoint,
            messaging.message.id = envelope.message_id,
            messaging.message.conversation_id = envelope.conversation_id,
            messaging.message.body.size = envelope.body.len(),
            "sagabus.message.type" = envelope.type_name,
            sagabus.receiver = receiver,
        );
        if let Some(parent) = TraceHeaders::of(envelope) {
            context.set_parent(&span, &parent);
        }
        span
    }

    /// A run of a handler on these messages.
    pub(super) fn handle<'a>(&self, receiver: &str, mut messages: impl Iterator<Item = &'a Span>) -> Span {
        let (Some(context), Some(first)) = (self.on(), messages.next()) else { return Span::none() };
        let span = info_span!(
            target: TARGET,
            parent: first,
            "handle",
            otel.name = format!("handle {receiver}"),
            otel.status_code = Empty,
            otel.status_description = Empty,
            sagabus.receiver = receiver,
        );
        messages.for_each(|other| context.link(&span, other));
        span
    }

    /// An instance's transition because of this message.
    pub(super) fn transition(&self, message: &Span, key: &InstanceKey, from: Option<&str>, to: &str) -> Span {
        if self.on().is_none() {
            return Span::none();
        }
        info_span!(
            target: TARGET,
            parent: message,
            "transition",
            otel.name = format!("transition {}", key.saga),
            sagabus.saga = key.saga,
            sagabus.saga.id = key.id,
            sagabus.state.from = from,
            sagabus.state.to = to,
        )
    }

    /// The write and the commit of what these messages did.
    pub(super) fn commit(&self, endpoint: &str, messages: &[Span]) -> Span {
        let (Some(context), [first, others @ ..]) = (self.on(), messages) else { return Span::none() };
        let span = info_span!(
            target: TARGET,
            parent: first,
            "commit",
            otel.name = format!("commit {endpoint}"),
            messaging.batch.message_count = messages.len(),
        );
        others.iter().for_each(|other| context.link(&span, other));
        span
    }

    /// A message leaves with the commit: its headers name a span of its own, below the current one.
    pub(super) fn send(&self, row: &mut OutboxRow) {
        if self.on().is_some() {
            let envelope = Arc::make_mut(&mut row.envelope);
            self.send_to(&row.destination, envelope);
        }
    }

    /// The same for a message that has no row.
    pub(super) fn send_to(&self, destination: &Destination, envelope: &mut Envelope) {
        let Some(context) = self.on() else { return };
        let operation = if matches!(destination, Destination::Event(_)) { "publish" } else { "send" };
        let span = info_span!(
            target: TARGET,
            "send",
            otel.name = format!("{operation} {}", destination.name()),
            otel.kind = "producer",
            messaging.system = self.system,
            messaging.operation.name = operation,
            "messaging.operation.type" = "send",
            messaging.destination.name = destination.name(),
            messaging.message.id = envelope.message_id,
            messaging.message.conversation_id = envelope.conversation_id,
            messaging.message.body.size = envelope.body.len(),
            "sagabus.message.type" = envelope.type_name,
        );
        if let Some(headers) = context.headers(&span) {
            headers.stamp(envelope);
        }
    }
}

/// A handler's run failed.
pub(super) fn failed(handle: &Span, error: &str) {
    handle.record("otel.status_code", "ERROR");
    handle.record("otel.status_description", error);
}
