//! Commands that can wait (`#[command(.., priority = low)]`): a queue of their own beside the endpoint's, on any
//! broker. A process has few of their messages in hand, however many wait, so that they never stand before the others.

use super::{router, router::Lanes, shared::Shared};
use crate::{
    Store, Transport, TransportError,
    port::{Link, LinkLimits, Topology},
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What the name of the queue ends with; the derive has it too.
pub(super) const SUFFIX: &str = ".low";
/// Of what a process has in hand, one part of so many may be commands that can wait.
const SHARE: u16 = 8;

/// The queue of an endpoint for commands that can wait.
pub(crate) fn queue(endpoint: &str) -> String {
    format!("{endpoint}{SUFFIX}")
}

/// Attaches the endpoint to it.
pub(super) async fn attach(
    transport: &dyn Transport,
    of: Topology,
    limits: LinkLimits,
) -> Result<Link, TransportError> {
    let topology = Topology { endpoint: queue(&of.endpoint), subscribes: Vec::new(), dropped: Vec::new(), ..of };
    let (prefetch, prefetch_bytes) = (limits.prefetch.div_ceil(SHARE), limits.prefetch_bytes / usize::from(SHARE));
    transport.attach(topology, LinkLimits { prefetch, prefetch_bytes, ..limits }).await
}

/// Routes what comes from it until `stop`.
pub(super) async fn run<Db: Store>(shared: Arc<Shared<Db>>, link: Link, lanes: Arc<Lanes>, stop: CancellationToken) {
    // nothing is sent over it; it closes when it is dropped and its last delivery is settled
    let Link { deliveries, outgoing: _outgoing, reports: _reports, .. } = link;
    router::run(shared, deliveries, lanes, stop).await;
}
