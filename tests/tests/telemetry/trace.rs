//! Traces: one goes through services, timers, retries and hold.

use crate::{
    services::{POISON, Services},
    subscriber::exported,
};
use opentelemetry::trace::{SpanKind, TraceContextExt, TraceId};
use opentelemetry_sdk::trace::SpanData;
use saga_core::{EndpointBuilder, Inspect, Store, Transport};
use sagabus::OpenTelemetry;
use std::sync::atomic::Ordering;
use tests::{
    endpoint_suite, eventually,
    house::{one_held, retry},
    link,
};
use tracing::{Instrument, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// What a web request begins.
fn web_request() -> (Span, TraceId) {
    exported();
    let span = info_span!(target: "web", "request");
    let trace = span.context().span().span_context().trace_id();
    (span, trace)
}

fn traced<Db: Store>(builder: EndpointBuilder<Db>) -> EndpointBuilder<Db> {
    builder.trace(OpenTelemetry)
}

fn attribute(span: &SpanData, name: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
    found.map(|attribute| attribute.value.to_string()).unwrap_or_default()
}

/// Waits until the trace has so many spans of each name, and returns all of them.
async fn trace(id: TraceId, names: &[(&str, usize)]) -> Vec<SpanData> {
    let what = format!("{names:?} in the trace");
    eventually(&what, || async {
        let spans = exported().get_finished_spans().expect("they are in memory").into_iter();
        let spans: Vec<SpanData> = spans.filter(|span| span.span_context.trace_id() == id).collect();
        let count = |name: &str| spans.iter().filter(|span| span.name == name).count();
        names.iter().all(|(name, expected)| count(name) == *expected).then_some(spans)
    })
    .await
}

/// Each receiver's parent is the span that sent it the message.
fn receivers_follow_senders(spans: &[SpanData]) {
    for received in spans.iter().filter(|span| span.span_kind == SpanKind::Consumer) {
        let parent = spans.iter().find(|span| span.span_context.span_id() == received.parent_span_id);
        let parent = parent.expect("the parent is in the same trace");
        let id = |span| attribute(span, "messaging.message.id");
        assert_eq!((&parent.span_kind, id(parent)), (&SpanKind::Producer, id(received)), "{received:?}");
    }
}

/// T-033: an order's trace is one, through three services, a timer and a retry.
async fn t_033_a_trace_goes_through_services_timers_and_retries<Db: Store + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let (request, id) = web_request();
    let services = Services::start(transport, stores, traced).await;
    services.place(1).instrument(request).await;
    services.shipped(1).await;
    let names = [
        ("request", 1),
        ("publish shop.Placed", 1),
        ("process shop", 3), // the event, the timer, the answer
        ("transition order", 3),
        ("send shop", 2), // the timer, the answer
        ("send bank", 1),
        ("process bank", 2), // it fails, and comes again
        ("publish shop.Shipped", 1),
        ("process mail", 1),
        ("commit mail", 1),
    ];
    let spans = trace(id, &names).await;
    receivers_follow_senders(&spans);
    let named = |name: &'static str| spans.iter().filter(move |span| span.name == name);
    let retry = named("process bank").next_back().expect("there are two");
    for (name, value) in [
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "bank"),
        ("sagabus.message.type", "bank.Pay"),
    ] {
        assert_eq!(attribute(retry, name), value, "{retry:?}");
    }
    let conversation = attribute(retry, "messaging.message.conversation_id");
    let conversations = spans.iter().filter(|span| span.span_kind == SpanKind::Consumer);
    assert!(
        conversations.map(|span| attribute(span, "messaging.message.conversation_id")).all(|it| it == conversation)
    );
    let runs: Vec<&SpanData> = spans.iter().filter(|span| span.name.starts_with("handle ")).collect();
    assert_eq!(runs.len(), 3, "two runs of the bank's handler, one of the mail's");
    let errors = runs.iter().filter(|run| format!("{:?}", run.status).contains("the line is busy")).count();
    assert_eq!(errors, 1, "{runs:?}");
    services.stop().await;
}

/// T-033: a message that was held goes on in its trace.
async fn t_033_a_trace_goes_through_hold<Db: Store + Inspect, T: Transport + Clone>(transport: T, stores: [Db; 3]) {
    let (request, id) = web_request();
    let services = Services::start(transport, stores, traced).await;
    services.place(POISON).instrument(request).await;
    let held = one_held(services.bank.store()).await;
    services.banking.repaired.store(true, Ordering::SeqCst);
    assert_eq!(retry(services.bank.store(), &held).await, 1);
    services.shipped(POISON).await;
    let names = [("send bank", 1), ("process bank", 2), ("process mail", 1), ("process shop", 3)];
    receivers_follow_senders(&trace(id, &names).await);
    services.stop().await;
}

/// T-033: without tracing no header is sent, and nothing fails.
async fn t_033_without_tracing_no_header_is_sent<Db: Store + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let (request, _) = web_request();
    let mut watcher = link::attach(&transport, "watcher", &["shop.Shipped"]).await;
    let services = Services::start(transport, stores, |builder| builder).await;
    services.place(1).instrument(request).await;
    services.shipped(1).await;
    let shipped = link::delivery(&mut watcher).await;
    assert!(shipped.envelope.headers.is_empty(), "{:?}", shipped.envelope.headers);
    shipped.ack.ack();
    link::close(watcher).await;
    services.stop().await;
}

endpoint_suite! {
    t_033_a_trace_goes_through_services_timers_and_retries
    t_033_a_trace_goes_through_hold
    t_033_without_tracing_no_header_is_sent
}
