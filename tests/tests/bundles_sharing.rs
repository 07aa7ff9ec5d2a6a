//! Bundles and handlers that take their time: what is shared with other processes, and what comes again.

use async_trait::async_trait;
use outbox::Postgres;
use saga_core::{Bundles, Context, Endpoint, EndpointBuilder, Handle, HandlerError};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tests::{
    Database, Vhost, eventually,
    link::{attach, outgoing, provision, send, to, with_envelope},
    model::{Effects, Work, WorkOutcome, Worked},
    plain::{Plain, bundle_body},
    works::{effects, everything_before_is_settled, nothing_is_left, work, works},
};
use tokio::sync::Semaphore;

/// Waits over one message until the test lets it go on.
#[derive(Clone)]
struct Slow {
    id: u64,
    permits: Arc<Semaphore>,
}

#[async_trait]
impl Handle<Work, Postgres> for Slow {
    async fn handle(&self, work: Work, cx: &mut Context<'_, Postgres>) -> Result<WorkOutcome, HandlerError> {
        if work.id == self.id {
            let _permit = self.permits.acquire().await.map_err(HandlerError::transient)?;
        }
        Postgres::effect(cx.tx().await?, work.id).await?;
        Ok(Worked { id: work.id }.into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_message_of_a_bundle_does_not_stop_the_others() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let store = database.store();
    store.create_effects().await;
    let slow = Slow { id: 0, permits: Arc::new(Semaphore::new(0)) };
    let worker = slow_worker(&vhost, store, &slow).start().await.expect("the worker starts");
    let plain = Plain::connect(&vhost.url()).await;
    plain.publish_bundle("worker", "b-1", &bundle_body(&works(0..100))).await;
    plain.publish_bundle("worker", "b-2", &bundle_body(&works(100..200))).await;
    // those behind it in its own lane wait, one of eight
    let done = || async { worker.store().effects().await };
    eventually("other messages to be handled", || async { (done().await.len() >= 150).then_some(()) }).await;
    for n in 200..300 {
        plain.publish_one("worker", &work(n, "")).await;
    }
    eventually("later messages to be handled", || async {
        (done().await.iter().filter(|id| **id >= 200).count() >= 70).then_some(())
    })
    .await;
    assert!(!done().await.contains(&0), "the slow one still waits");
    slow.permits.add_permits(1);
    effects(worker.store(), 0..300).await;
    nothing_is_left(&vhost, worker).await;
}

/// A worker that takes bundles although each of its messages has a transaction of its own.
fn slow_worker(vhost: &Vhost, store: Postgres, slow: &Slow) -> EndpointBuilder<Postgres> {
    Endpoint::builder("worker", vhost.transport(), store).handle::<Work>(slow.clone()).settings(|settings| {
        settings.bundles = Bundles::Always;
        settings.handler_lanes = 8;
    })
}

/// A process that stops, and one whose connection breaks, give a bundle back whole over one message; those that were
/// handled are not handled again.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_comes_again_is_handled_once() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    database.store().create_effects().await;
    let slow = Slow { id: 0, permits: Arc::new(Semaphore::new(0)) };
    let first =
        slow_worker(&vhost, database.store(), &slow).settings(|settings| settings.stop = Duration::from_secs(1));
    let first = first.start().await.expect("the worker starts");
    let plain = Plain::connect(&vhost.url()).await;
    plain.publish_bundle("worker", "b", &bundle_body(&works(0..100))).await;
    let done = async |at_least: usize| {
        eventually("other messages to be handled", || async {
            (database.store().effects().await.len() >= at_least).then_some(())
        })
        .await;
    };
    done(70).await;
    let _ = first.stop().await; // not an orderly end: a handler still runs
    let second = slow_worker(&vhost, database.store(), &slow).start().await.expect("the worker starts");
    done(70).await;
    vhost.close_connections().await;
    slow.permits.add_permits(1);
    effects(second.store(), 0..100).await;
    let _ = second.stop().await; // what came again may go back once more
    let third = slow_worker(&vhost, database.store(), &slow).start().await.expect("the worker starts");
    let plain = Plain::connect(&vhost.url()).await; // the first was closed with the others
    everything_before_is_settled(&plain, &third, 100).await;
    nothing_is_left(&vhost, third).await;
}

/// Counts its messages, and takes its time over each.
#[derive(Clone, Default)]
struct Clerk(Arc<AtomicUsize>);

#[async_trait]
impl Handle<Work, Postgres> for Clerk {
    async fn handle(&self, work: Work, _: &mut Context<'_, Postgres>) -> Result<WorkOutcome, HandlerError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await; // a bank, a carrier
        Ok(Worked { id: work.id }.into())
    }
}

/// A plain handler takes no bundles, and no process takes more in advance than it can handle soon.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_of_a_service_share_slow_commands_evenly() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    provision(&vhost.transport(), "worker", &[]).await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    let commands = (0..400_u64).map(|id| with_envelope(outgoing(id.into(), to("worker")), work(id, "")));
    send(&mut sender, commands).await;
    let clerks = [Clerk::default(), Clerk::default()];
    let start = |clerk: &Clerk| {
        Endpoint::builder("worker", vhost.transport(), database.store())
            .handle::<Work>(clerk.clone())
            .settings(|settings| settings.handler_lanes = 16)
            .start()
    };
    let (one, two) = tokio::join!(start(&clerks[0]), start(&clerks[1]));
    let endpoints = [one.expect("it starts"), two.expect("it starts")];
    let counts = || clerks.each_ref().map(|clerk| clerk.0.load(Ordering::SeqCst));
    eventually("400 commands", || async { (counts().iter().sum::<usize>() >= 400).then_some(()) }).await;
    let shares = counts();
    assert!(shares.iter().all(|share| (160..=240).contains(share)), "about 200 each were expected: {shares:?}");
    assert_eq!(shares.iter().sum::<usize>(), 400, "each once");
    for endpoint in endpoints {
        endpoint.stop().await.expect("an orderly end");
    }
}
