//! The check before a deployment, on the store in memory.

use super::*;
use crate::port::InstanceWrite;
use crate::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Opened {
    id: String,
}
#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.Tick")]
struct Tick {}

#[derive(Serialize, Deserialize)]
struct Kept {
    n: u32,
}

#[derive(Deserialize)]
struct KeptV1 {
    text: String,
}

impl Upcast<1> for Kept {
    type Old = KeptV1;
    fn upcast(old: KeptV1) -> Result<Self, String> {
        match old.text.as_str() {
            "panic" => panic!("no form for it"),
            text => Ok(Self { n: text.parse().map_err(|_| format!("`{text}` is no number"))? }),
        }
    }
}

#[states]
enum Case {
    #[was("Held")]
    Kept(Kept),
    #[done]
    Closed,
}

#[saga(name = "case", id = id: String, version = 2)]
impl Case {
    fn opened(_: Opened) -> (Kept, After<Tick>) {
        (Kept { n: 1 }, after(minutes(1), Tick {}))
    }
    fn tick(_: Kept, _: Tick) -> Closed {
        Closed
    }
}

fn row(saga: &str, id: &str, state: &str, version: i32, data: &str) -> InstanceWrite {
    let mut row = InstanceRow::new(InstanceKey { saga: saga.into(), id: id.into() }, state, data);
    (row.seq, row.version) = (1, version);
    InstanceWrite::new(row, 0)
}

async fn stored(store: &MemoryStore, instances: Vec<InstanceWrite>) {
    let mut unit = store.begin(&[], Duration::from_secs(30)).await.unwrap();
    let mut write = Write::new("cases", "me", Duration::from_secs(30));
    write.instances = instances;
    unit.write(&write).await.unwrap();
    unit.commit().await.unwrap();
}

fn builder(store: &MemoryStore) -> EndpointBuilder<MemoryStore> {
    Endpoint::builder("cases", Broker::new(), store.clone()).saga::<Case>()
}

#[tokio::test]
async fn s_076_a_check_lists_each_instance_that_this_program_cannot_read_and_writes_nothing() {
    let store = MemoryStore::new();
    let mut gone = Case::chart();
    gone.saga = "gone".into();
    let mut old = crate::port::Process::new("cases", "old");
    old.charts = vec![gone];
    store.register(&old).await.unwrap();
    let mut timed = row("case", "timed", "Kept", 2, r#"{"n":1}"#);
    timed.row.progress = Some(r#"{"timers":[{"type":"shop.Bell","number":1}]}"#.into());
    let mut broken = row("case", "progress", "Kept", 2, r#"{"n":1}"#);
    broken.row.progress = Some(r#"{"timers":1}"#.into());
    stored(
        &store,
        vec![
            row("case", "good", "Kept", 2, r#"{"n":1}"#),
            row("case", "renamed", "Held", 1, r#"{"text":"7"}"#),
            row("case", "done", "Closed", 1, "null"),
            row("case", "removed", "Waiting", 1, "{}"),
            row("case", "newer", "Elsewhere", 3, "{}"),
            row("case", "broken", "Kept", 2, r#"{"m":1}"#),
            row("case", "refused", "Held", 1, r#"{"text":"seven"}"#),
            row("case", "panics", "Held", 1, r#"{"text":"panic"}"#),
            row("gone", "7", "Kept", 2, "{}"),
            row("another-endpoint", "7", "Kept", 2, "{}"),
            timed,
            broken,
        ],
    )
    .await;
    let before = store.instances();
    let mut found = Vec::new();
    let checked = builder(&store).check(|instance| found.push(instance)).await.unwrap();
    assert_eq!((checked.instances, checked.unreadable), (11, 8), "{found:#?}");
    assert_eq!(checked.to_string(), "8 of 11 instances cannot be read");
    let of = |id: &str| {
        let it = found.iter().find(|it| it.id == id).unwrap_or_else(|| panic!("{id} is missing"));
        (it.kind, it.to_string())
    };
    use UnreadableKind::*;
    let gone = "gone/7 in state `Kept` of version 2: this program has no saga of this name [SB0057]";
    assert_eq!(of("7"), (Saga, gone.into()));
    let (kind, text) = of("removed");
    assert_eq!(kind, State);
    assert!(text.starts_with("case/removed in state `Waiting` of version 1: this program has no such state"), "{text}");
    assert_eq!(of("newer").0, Newer);
    let newer = "this program has version 2: it leaves the instance alone [SB0058]";
    assert!(of("newer").1.ends_with(newer), "{}", of("newer").1);
    assert!(of("broken").0 == Data && of("broken").1.contains("missing field `n`"), "{}", of("broken").1);
    assert!(of("refused").0 == Data && of("refused").1.contains("`seven` is no number"));
    assert!(of("panics").0 == Data && of("panics").1.contains("no form for it"), "{}", of("panics").1);
    assert!(of("timed").0 == Timer && of("timed").1.contains("shop.Bell"), "{}", of("timed").1);
    assert_eq!(of("progress").0, Data);
    assert_eq!(format!("{before:?}"), format!("{:?}", store.instances()), "nothing is touched");
    assert!(store.processes().iter().all(|process| process.process.owner == "old"), "it does not register");
}

#[tokio::test]
async fn a_check_reads_page_by_page_and_each_instance_once() {
    let store = MemoryStore::new();
    let rows = |n: u32| (0..n).map(|n| row("case", &n.to_string(), "Kept", 2, r#"{"n":1}"#)).collect();
    stored(&store, rows(1203)).await;
    let checked = builder(&store).check(|found| panic!("{found}")).await.unwrap();
    assert_eq!((checked.instances, checked.unreadable), (1203, 0));
    assert_eq!(checked.to_string(), "all 1203 instances can be read");
    let nothing = builder(&MemoryStore::new()).check(|found| panic!("{found}")).await.unwrap();
    assert_eq!(nothing.to_string(), "no instances are stored");
}
