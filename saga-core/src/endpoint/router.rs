//! The router: hands each item of a delivery to the lane of its key.

use super::{
    admit::admit,
    item::{Item, Work},
    shared::Shared,
};
use crate::{CrashPoint, Delivery, Store};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The most deliveries that are routed together: a lane that got each by itself would begin with a batch of one.
const ROUTED_TOGETHER_MAX: usize = 256;

/// The lanes of an endpoint. Their channels are bounded by the transport's prefetch.
pub(crate) struct Lanes {
    /// For sagas, and for messages that nobody can handle.
    pub(crate) sagas: Vec<mpsc::UnboundedSender<Item>>,
    /// Each handler has its own lanes, so that a handler that fails or waits does not hold up another.
    pub(crate) handlers: Vec<Vec<mpsc::UnboundedSender<Item>>>,
}

impl Lanes {
    fn send(&self, item: Item) {
        let lanes = match item.work() {
            Work::Handler(handler) => &self.handlers[handler],
            Work::Saga | Work::Hold => &self.sagas,
        };
        let place = item.order_key().unsigned_abs() as usize % lanes.len();
        // a closed lane means that the endpoint stops: the dropped item gives its delivery back
        let _ = lanes[place].send(item);
    }
}

/// Runs until the link closes or `stop` is cancelled.
pub(crate) async fn run<Db: Store>(
    shared: Arc<Shared<Db>>,
    mut deliveries: mpsc::UnboundedReceiver<Delivery>,
    lanes: Lanes,
    stop: CancellationToken,
) {
    let mut came = Vec::new();
    let mut items = Vec::new();
    loop {
        let received = tokio::select! {
            received = deliveries.recv_many(&mut came, ROUTED_TOGETHER_MAX) => received,
            () = stop.cancelled() => 0,
        };
        if received == 0 {
            return;
        }
        for delivery in came.drain(..) {
            shared.crashes.reach(CrashPoint::Receive);
            admit(&shared, delivery, &mut items);
        }
        for item in items.drain(..) {
            lanes.send(item);
        }
    }
}
