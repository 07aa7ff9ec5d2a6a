//! The consuming side of a link: its queue, on one channel after another.

use super::{
    keep::{Life, Line, Parted},
    subscription::Subscription,
    topology::Admin,
    trouble::Trouble,
};
use lapin::Connection;
use saga_core::{Delivery, LinkLimits, Topology};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};

pub(super) struct Consumer {
    topology: Arc<Topology>,
    /// The exchange for bundles.
    bundles: String,
    limits: LinkLimits,
    deliveries: mpsc::UnboundedSender<Delivery>,
    /// Asks to look for what is missing at the broker.
    look: Arc<Notify>,
    /// Whether the topology was declared on this connection already: `attach` did so on the first one.
    is_declared: bool,
    /// Something of it is missing.
    missing: Trouble,
    /// It cannot be completed.
    refused: Trouble,
}

impl Consumer {
    pub(super) fn new(
        topology: Arc<Topology>,
        bundles: String,
        limits: LinkLimits,
        deliveries: mpsc::UnboundedSender<Delivery>,
        look: Arc<Notify>,
    ) -> Self {
        let (is_declared, missing, refused) = (true, Trouble::default(), Trouble::default());
        Self { topology, bundles, limits, deliveries, look, is_declared, missing, refused }
    }
}

impl Life for Consumer {
    const WHAT: &'static str = "consuming";

    async fn live(&mut self, connection: &Connection, line: &mut Line) -> Option<Parted> {
        let mut admin = Admin::new(connection, &self.bundles);
        if !std::mem::take(&mut self.is_declared) {
            // a temporary queue went with its connection: that it is missing is no news
            let restored = match self.topology.temporary {
                true => Ok(()),
                false => admin.restore(&self.topology, &mut self.missing).await,
            };
            let restored = match restored {
                Ok(()) => admin.declare(&self.topology).await,
                failed => failed,
            };
            if let Err(error) = restored {
                return Some(error.into());
            }
        }
        let mut subscription = match Subscription::open(connection, &self.topology, &self.limits).await {
            Ok(subscription) => subscription,
            Err(parted) => return Some(parted),
        };
        line.health.up();
        tokio::select! {
            ended = subscription.run(&self.deliveries, line) => ended.err(),
            () = admin.keep(&self.topology, &self.look, &mut self.missing, &mut self.refused) => None, // never ends
        }
    }

    fn is_done(&self) -> bool {
        self.deliveries.is_closed()
    }
}
