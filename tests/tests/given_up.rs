//! A command that is given up: the saga that sent it goes on, and no person is needed.

use async_trait::async_trait;
use saga_core::{
    Command, Context, Endpoint, Event, GiveUp, Handle, HandlerError, Inspect, InstanceFilter, JournalView, Outcome,
    Reply, Retries, Sends, Store, Transport, saga, send, states,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{endpoint_suite, eventually, house::held, model::Effects};

#[derive(Command, Serialize, Deserialize)]
#[command(to = "labels", outcome = BarcodeOutcome, gives_up = BarcodeFailed)]
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

#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "labels")]
struct BarcodeFailed {
    parcel: u64,
    why: String,
}

impl GiveUp<MakeBarcode> for BarcodeFailed {
    fn give_up(command: MakeBarcode, failure: &str) -> Self {
        Self { parcel: command.parcel, why: failure.into() }
    }
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct ParcelPacked {
    parcel: u64,
}

#[states]
enum Parcel {
    #[waits]
    AwaitingBarcode,
    #[done]
    Labelled,
    #[done]
    WrittenByHand { why: String },
}

#[saga(name = "parcel", id = parcel: u64)]
impl Parcel {
    fn packed(it: ParcelPacked) -> (AwaitingBarcode, Sends<MakeBarcode>) {
        (AwaitingBarcode, send(MakeBarcode { parcel: it.parcel }))
    }
    fn made(_: AwaitingBarcode, _: BarcodeMade) -> Labelled {
        Labelled
    }
    fn failed(_: AwaitingBarcode, failed: BarcodeFailed) -> WrittenByHand {
        WrittenByHand { why: failed.why }
    }
}

/// Fails for odd parcels.
struct Printer;

#[async_trait]
impl<Db: Store> Handle<MakeBarcode, Db> for Printer {
    async fn handle(&self, it: MakeBarcode, _: &mut Context<'_, Db>) -> Result<BarcodeOutcome, HandlerError> {
        match it.parcel % 2 {
            0 => Ok(BarcodeMade { parcel: it.parcel }.into()),
            _ => Err(HandlerError::transient("no paper")),
        }
    }
}

async fn in_state(store: &impl Inspect, state: &str, expected: usize) {
    let filter = InstanceFilter { saga: Some("parcel".into()), state: Some(state.into()), ..Default::default() };
    eventually(&format!("{expected} parcels to be {state}"), || async {
        (store.instances_count(&filter).await.ok()? == expected as u64).then_some(())
    })
    .await;
}

/// Retries at once and later, then the answer; the journal of both sides shows it.
async fn f10_the_saga_gets_the_answer_when_the_retries_end<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    [first, second, _]: [Db; 3],
) {
    let retries = Retries::none().immediate(1).delayed([Duration::from_millis(200)]);
    let labels = Endpoint::builder("labels", transport.clone(), first).retries(retries).handle::<MakeBarcode>(Printer);
    let labels = labels.start().await.unwrap();
    let parcels = Endpoint::builder("parcels", transport, second).saga::<Parcel>().start().await.unwrap();
    let mut session = parcels.session().await.unwrap();
    (0..10).for_each(|parcel| _ = session.publish(ParcelPacked { parcel }));
    session.commit().await.unwrap();
    in_state(parcels.store(), "Labelled", 5).await;
    in_state(parcels.store(), "WrittenByHand", 5).await;
    for endpoint in [&labels, &parcels] {
        assert_eq!(held(endpoint.store()).await.len(), 0, "no person is needed");
    }
    let key = saga_core::InstanceKey { saga: "parcel".into(), id: "3".into() };
    let lines: Vec<JournalView> = parcels.store().journal(&key, 10).await.unwrap();
    let came: Vec<&str> = lines.iter().map(|line| line.type_name.as_str()).collect();
    assert_eq!(came, ["client.ParcelPacked", "labels.BarcodeFailed"]);
    for endpoint in [parcels, labels] {
        endpoint.stop().await.unwrap();
    }
}

endpoint_suite! {
    f10_the_saga_gets_the_answer_when_the_retries_end
}
