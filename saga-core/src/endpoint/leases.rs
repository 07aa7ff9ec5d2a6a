//! Leases: takes in reports on published rows, and renews the leases of the rest.

use super::{dispatch::Accounts, shared::Shared, trouble::Trouble};
use crate::{
    Store,
    port::{LeaseUpdate, Report},
};
use std::sync::Arc;
use tokio::{sync::mpsc, time::Instant};

/// The most reports that are taken in together.
const REPORTS_MAX: usize = 512;

/// Runs until the transport ends.
pub(crate) async fn run<Db: Store>(shared: Arc<Shared<Db>>, mut reports: mpsc::UnboundedReceiver<Report>) {
    let dispatcher = &shared.dispatcher;
    let lease = shared.settings.lease;
    let trouble = Trouble::default();
    let mut renew_at = Instant::now() + lease / 3;
    let mut batch = Vec::new();
    loop {
        let mut renew = Vec::new();
        tokio::select! {
            n = reports.recv_many(&mut batch, REPORTS_MAX) => if n == 0 { return },
            () = dispatcher.leases.notified() => {}
            () = tokio::time::sleep_until(renew_at) => {
                renew = dispatcher.in_flight();
                renew_at = Instant::now() + lease / 3;
            }
        }
        let Accounts { failed, reopened } = dispatcher.account(&mut batch, &shared.crashes);
        for destination in reopened {
            reopen(&shared, &destination).await;
        }
        if failed.is_empty() && renew.is_empty() {
            continue;
        }
        if let Some(failure) = failed.iter().find(|failure| failure.tried && !failure.unroutable) {
            tracing::warn!(endpoint = shared.name, rows = failed.len(), error = failure.error, "not published");
        }
        let update = LeaseUpdate { owner: shared.owner(), lease, renew: &renew, failed: &failed };
        match shared.store.renew_and_fail(&update).await {
            Ok(lost) => {
                dispatcher.lost(&lost);
                if let Some(lasted) = trouble.ends() {
                    tracing::info!(endpoint = shared.name, ?lasted, "leases are renewed again");
                }
            }
            // nothing is lost: the leases run out and a relay takes the rows
            Err(error) => {
                if trouble.begins().is_some() {
                    tracing::warn!(endpoint = shared.name, %error, "leases not renewed");
                }
            }
        }
        if let Some(delay) = failed.iter().map(|failure| failure.delay).min() {
            dispatcher.due_in(delay);
        }
    }
}

/// A destination takes messages again: makes what waits for it due now.
async fn reopen<Db: Store>(shared: &Shared<Db>, destination: &str) {
    loop {
        match shared.store.reopen(&shared.name, destination).await {
            Ok(0) => return,
            Ok(_) => shared.dispatcher.due_in(std::time::Duration::ZERO),
            Err(error) => {
                // without the bulk update they still go, each when it is due
                tracing::debug!(endpoint = shared.name, destination, %error, "not reopened");
                return;
            }
        }
    }
}
