//! Commands that a saga takes back, over two endpoints: what waits at the handler's side, and what waits on the way.

use async_trait::async_trait;
use saga_core::{
    Cancels, Command, Context, Endpoint, Event, Handle, HandlerError, Inspect, InstanceFilter, Outcome, Reply, Retries,
    Sends, Store, Transport, cancel, saga, send, states,
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tests::{endpoint_suite, eventually, house::held, model::Effects, store_suite::Base};

#[derive(Command, Serialize, Deserialize)]
#[command(to = "labels", outcome = BarcodeOutcome)]
struct MakeBarcode {
    parcel: u64,
}

#[derive(Outcome)]
enum BarcodeOutcome {
    Made(BarcodeMade),
}

#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "labels")]
struct BarcodeMade {
    parcel: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct ParcelPacked {
    parcel: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct ParcelKept {
    parcel: u64,
}

#[states]
enum Parcel {
    #[waits]
    AwaitingBarcode,
    #[waits]
    Labelled,
    #[done]
    Kept { labelled: bool },
}

#[saga(name = "parcel", id = parcel: u64)]
impl Parcel {
    fn packed(it: ParcelPacked) -> (AwaitingBarcode, Sends<MakeBarcode>) {
        (AwaitingBarcode, send(MakeBarcode { parcel: it.parcel }))
    }
    fn made(_: AwaitingBarcode, _: BarcodeMade) -> Labelled {
        Labelled
    }
    fn kept(_: AwaitingBarcode, _: ParcelKept) -> (Kept, Cancels<MakeBarcode>) {
        (Kept { labelled: false }, cancel())
    }
    fn kept_in_vain(_: Labelled, _: ParcelKept) -> (Kept, Cancels<MakeBarcode>) {
        (Kept { labelled: true }, cancel())
    }
    fn made_too_late(_: Kept, _: BarcodeMade) -> Kept {
        Kept { labelled: true }
    }
}

/// Of three parcels it makes the first, fails for a while with the second and for good with the third.
#[derive(Clone, Default)]
struct Printer(Arc<Mutex<Vec<u64>>>);

impl Printer {
    fn runs(&self) -> Vec<u64> {
        let mut runs = self.0.lock().expect("nobody panics with this lock").clone();
        runs.sort_unstable();
        runs
    }
}

#[async_trait]
impl<Db: Store> Handle<MakeBarcode, Db> for Printer {
    async fn handle(&self, it: MakeBarcode, _: &mut Context<'_, Db>) -> Result<BarcodeOutcome, HandlerError> {
        self.0.lock().expect("nobody panics with this lock").push(it.parcel);
        match it.parcel {
            0 => Ok(BarcodeMade { parcel: 0 }.into()),
            1 => Err(HandlerError::transient("no paper")),
            _ => Err(HandlerError::permanent("no such parcel")),
        }
    }
}

async fn publish<Db: Store, E: Event>(endpoint: &Endpoint<Db>, events: impl IntoIterator<Item = E>) {
    let mut session = endpoint.session().await.expect("a session opens");
    events.into_iter().for_each(|event| _ = session.publish(event));
    session.commit().await.expect("the session commits");
}

async fn rows<Db: Base>(store: &Db, what: &str, rows: &str, expected: u64) {
    let sql = format!("SELECT CAST(count(*) AS text) FROM {rows}");
    eventually(what, || async { (store.text(&sql).await == expected.to_string()).then_some(()) }).await;
}

async fn all_kept(store: &impl Inspect, expected: u64) {
    let filter = InstanceFilter { saga: Some("parcel".into()), state: Some("Kept".into()), ..Default::default() };
    eventually("the parcels to be kept", || async {
        (store.instances_count(&filter).await.ok()? == expected).then_some(())
    })
    .await;
}

/// One was handled, one waits for its retry, one is held.
async fn what_waits_at_the_handlers_side_is_settled<Db: Effects + Base, T: Transport + Clone>(
    transport: T,
    [first, second, _]: [Db; 3],
) {
    let printer = Printer::default();
    let retries = Retries::none().delayed([Duration::from_secs(3600)]);
    let labels = Endpoint::builder("labels", transport.clone(), first).retries(retries);
    let labels = labels.handle::<MakeBarcode>(printer.clone()).start().await.unwrap();
    let parcels = Endpoint::builder("parcels", transport, second).saga::<Parcel>().start().await.unwrap();
    publish(&parcels, (0..3).map(|parcel| ParcelPacked { parcel })).await;
    let (db, there) = (parcels.store(), labels.store());
    for (what, result) in [("one to be handled", "handled"), ("one to be put off", "retrying"), ("one held", "held")] {
        rows(there, what, &format!("{{s}}inbox WHERE endpoint = 'labels' AND result = '{result}'"), 1).await;
    }
    rows(db, "the answer to come", "{s}inbox WHERE endpoint = 'parcels' AND type = 'labels.BarcodeMade'", 1).await;
    publish(&parcels, (0..3).map(|parcel| ParcelKept { parcel })).await;
    all_kept(db, 3).await;
    let settled = "{s}inbox WHERE endpoint = 'labels' AND result = 'discarded' AND note LIKE 'taken back by parcel/%'";
    rows(there, "two to be taken back", settled, 2).await;
    let asked = "{s}inbox WHERE endpoint = 'labels' AND type = 'sagabus.TakeBack' AND result = 'handled'";
    rows(there, "nothing went after the one that was answered", asked, 2).await;
    assert_eq!(held(there).await.len(), 0, "no person is needed");
    // the hour passes: the retry comes, and is a duplicate
    there.age("outbox", "due_at", Duration::from_secs(3600)).await;
    for store in [db, there] {
        rows(store, "an empty outbox", "{s}outbox", 0).await;
    }
    for endpoint in [parcels, labels] {
        endpoint.stop().await.unwrap();
    }
    assert_eq!(printer.runs(), [0, 1, 2]);
}

/// The endpoint of the command does not exist yet.
async fn what_waits_in_the_outbox_never_runs<Db: Effects + Base, T: Transport + Clone>(
    transport: T,
    [first, second, _]: [Db; 3],
) {
    let printer = Printer::default();
    let parcels = Endpoint::builder("parcels", transport.clone(), second).saga::<Parcel>().start().await.unwrap();
    let db = parcels.store();
    publish(&parcels, [ParcelPacked { parcel: 0 }]).await;
    let waits = "{s}outbox WHERE type = 'labels.MakeBarcode' AND waits_for = 'labels' AND lease_until IS NULL";
    rows(db, "the command to wait for a queue", waits, 1).await;
    publish(&parcels, [ParcelKept { parcel: 0 }]).await;
    all_kept(db, 1).await;
    rows(db, "the command to be gone", "{s}outbox WHERE type = 'labels.MakeBarcode'", 0).await;
    let labels = Endpoint::builder("labels", transport, first).handle::<MakeBarcode>(printer.clone());
    let labels = labels.start().await.unwrap();
    // nothing was sure when it was taken back, so a message goes after it: the queue is there now
    db.age("outbox", "due_at", Duration::from_secs(600)).await;
    rows(labels.store(), "the mark to be written", "{s}inbox WHERE endpoint = 'labels' AND result = 'discarded'", 1)
        .await;
    rows(db, "an empty outbox", "{s}outbox", 0).await;
    for endpoint in [parcels, labels] {
        endpoint.stop().await.unwrap();
    }
    assert_eq!(printer.runs(), [] as [u64; 0]);
}

endpoint_suite! {
    what_waits_at_the_handlers_side_is_settled
    what_waits_in_the_outbox_never_runs
}
