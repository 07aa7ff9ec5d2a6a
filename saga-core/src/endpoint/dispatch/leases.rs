//! The leases on what is being published, the reports on it, and destinations that take messages again.

use super::{REPORTS_MAX, Shared, reports::Accounts};
use crate::{
    Store,
    endpoint::trouble::Trouble,
    port::{LeaseUpdate, Report},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

/// Takes in reports on published rows, and renews the leases of the rest, until the transport ends.
pub(crate) async fn keep_leases<Db: Store>(shared: Arc<Shared<Db>>, mut reports: mpsc::UnboundedReceiver<Report>) {
    let dispatcher = &shared.dispatcher;
    let lease = shared.settings.lease;
    let (trouble, unpublished) = (Trouble::default(), Trouble::default());
    let mut renew_at = Instant::now() + lease / 3;
    let mut batch = Vec::new();
    let mut reopening: Vec<String> = Vec::new();
    // a task of its own: it may have the one connection that writes, for which the leases would wait here
    let mut step: JoinSet<Option<String>> = JoinSet::new();
    loop {
        let mut renew = Vec::new();
        if step.is_empty()
            && let Some(destination) = reopening.pop()
        {
            step.spawn(reopen(shared.clone(), destination));
        }
        // what is rarely ready first: reports that never end must not keep leases from being renewed
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(renew_at) => {
                renew = dispatcher.in_flight();
                renew_at = Instant::now() + lease / 3;
            }
            () = dispatcher.leases.notified() => {}
            n = reports.recv_many(&mut batch, REPORTS_MAX) => if n == 0 { return },
            Some(more) = step.join_next(), if !step.is_empty() => reopening.extend(more.ok().flatten()),
        }
        let came = batch.len();
        let Accounts { failed, reopened, is_published } = dispatcher.account(&mut batch, &shared.crashes);
        reopening.extend(reopened);
        // one that closed again meanwhile is entered anew when it opens
        reopening.retain(|destination| !dispatcher.is_closed(destination));
        if came > 0
            && is_published
            && let Some(lasted) = unpublished.ends()
        {
            tracing::info!(endpoint = shared.name, ?lasted, "messages are published again");
        }
        if failed.is_empty() && renew.is_empty() {
            continue;
        }
        if let Some(failure) = failed.iter().find(|failure| failure.tried && !failure.unroutable)
            && let Some(said) = unpublished.begins()
        {
            let (rows, error, unsaid) = (failed.len(), &failure.error, said.unsaid);
            tracing::warn!(endpoint = shared.name, rows, error, unsaid, "not published");
        }
        let update = LeaseUpdate { owner: shared.owner(), lease, renew: &renew, failed: &failed };
        let updated = shared.store.renew_and_fail(&update).await;
        dispatcher.failed();
        match updated {
            Ok(lost) => {
                dispatcher.lost(&lost);
                if let Some(lasted) = trouble.ends() {
                    tracing::info!(endpoint = shared.name, ?lasted, "leases are renewed again");
                }
            }
            // nothing is lost: the relay takes what has left the window
            Err(error) => {
                dispatcher.lose_sight();
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

/// A destination takes messages again: makes some of what waits for it due now. Gives it back if there may be more. A
/// million may wait, and reports and leases must not.
async fn reopen<Db: Store>(shared: Arc<Shared<Db>>, destination: String) -> Option<String> {
    match shared.store.reopen(&shared.name, &destination).await {
        Ok(0) => None,
        Ok(_) => {
            shared.dispatcher.due_in(Duration::ZERO);
            Some(destination)
        }
        Err(error) => {
            // without the bulk update they still go, each when it is due
            tracing::debug!(endpoint = shared.name, destination, %error, "not reopened");
            None
        }
    }
}
