//! Telemetry: what endpoints measure, the traces that go through them, and what they log.

mod files;
mod logs;
mod metrics;
mod services;
mod subscriber;
mod trace;
