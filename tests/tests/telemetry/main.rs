//! Telemetry: what endpoints measure, and the traces that go through them.

mod metrics;
mod services;
