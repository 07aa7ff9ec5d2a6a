//! What this program's endpoints trace and log, for all its tests: there is one subscriber in a process.

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use std::{
    io::{self, Write},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};
use tracing::Level;
use tracing_subscriber::{EnvFilter, Layer, filter::Targets, fmt, layer::SubscriberExt};

/// As the samples filter, and more of our own.
const LOGGED: &str = "info,lapin=off,sqlx=warn,sagabus_core=debug,sagabus_outbox=debug,sagabus_transports=debug";

/// The spans that have ended: each test looks at its own trace.
pub(crate) fn exported() -> &'static InMemorySpanExporter {
    static EXPORTED: OnceLock<InMemorySpanExporter> = OnceLock::new();
    EXPORTED.get_or_init(|| {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let spans = Targets::new().with_target("sagabus::trace", Level::INFO).with_target("web", Level::INFO);
        let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer("tests")).with_filter(spans);
        let logs = fmt::layer().json().with_writer(|| Log).with_filter(EnvFilter::new(LOGGED));
        let subscriber = tracing_subscriber::registry().with(traces).with(logs);
        tracing::subscriber::set_global_default(subscriber).expect("nobody else listens");
        exporter
    })
}

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn lines() -> MutexGuard<'static, Vec<u8>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was logged.
pub(crate) fn logged() -> String {
    String::from_utf8_lossy(&lines()).into_owned()
}

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lines().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
