//! Trace context between messages and the spans of `tracing-opentelemetry`.

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use saga_core::{TraceContext, TraceHeaders};
use std::str::FromStr;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Trace context of the spans that a layer of `tracing-opentelemetry` 0.34 exports, for
/// [`EndpointBuilder::trace`](crate::endpoint::EndpointBuilder::trace): a message carries the context of the span that
/// sent it, as W3C's `traceparent` and `tracestate`, and what its receiver does is below that span.
///
/// Without such a layer nothing is sent and nothing fails.
///
/// ```no_run
/// # fn of<Db: sagabus::port::Store>(builder: sagabus::endpoint::EndpointBuilder<Db>) {
/// builder.trace(sagabus::OpenTelemetry);
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenTelemetry;

impl TraceContext for OpenTelemetry {
    fn set_parent(&self, span: &Span, parent: &TraceHeaders) {
        if let Some(parent) = read(parent) {
            // fails without a layer: then nobody asks for the parent
            let _ = span.set_parent(Context::new().with_remote_span_context(parent));
        }
    }

    fn headers(&self, span: &Span) -> Option<TraceHeaders> {
        let context = of(span);
        context.is_valid().then(|| write(&context))
    }

    fn link(&self, span: &Span, other: &Span) {
        span.add_link(of(other));
    }
}

fn of(span: &Span) -> SpanContext {
    span.context().span().span_context().clone()
}

/// Version 00 of `traceparent`, or what a later version has in its place. `None`: not one.
fn read(headers: &TraceHeaders) -> Option<SpanContext> {
    let mut parts = headers.traceparent.split('-');
    let mut part = |length: usize| {
        parts.next().filter(|part| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let more = parts.next().is_some();
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = headers.tracestate.as_deref().map(TraceState::from_str).and_then(Result::ok).unwrap_or_default();
    let context = SpanContext::new(TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?, flags, true, state);
    (context.is_valid() && version != "ff" && !(version == "00" && more)).then_some(context)
}

fn write(context: &SpanContext) -> TraceHeaders {
    let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags().to_u8());
    let mut headers = TraceHeaders::new(format!("00-{trace}-{span}-{flags:02x}"));
    headers.tracestate = Some(context.trace_state().header()).filter(|state| !state.is_empty());
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_033_trace_context_is_read_and_written_as_w3c_says() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = TraceHeaders::new(text);
        headers.tracestate = Some("vendor=1,other=2".into());
        assert_eq!(write(&read(&headers).expect("it is one")), headers);
        let later = read(&TraceHeaders::new(format!("cc{}-more", &text[2..]))).expect("a later version has more");
        assert_eq!(write(&later).traceparent, text);
        for wrong in
            ["", "00", &text[1..], &format!("{text}-more"), &text.replace("0af", "xyz"), &text.replace('7', "é")]
        {
            assert_eq!(read(&TraceHeaders::new(wrong)), None, "`{wrong}`");
        }
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        assert_eq!(read(&TraceHeaders::new(zero)), None, "zero is no trace");
    }
}
