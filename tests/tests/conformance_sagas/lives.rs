//! One process: what an instance leaves in the tables, and how its messages find it.

use super::{sagas::*, *};
use saga_core::{Saga, saga, states};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

/// S-001: nobody ever sees a part of it.
pub(crate) async fn s_001_a_start_appears_with_its_timer_and_its_journal_in_one_commit<
    Db: Base,
    T: Transport + Clone,
>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<sound::Counter>()).await;
    let seen = "SELECT (SELECT count(*) FROM {s}saga WHERE id = '7') || ' ' ||
        (SELECT count(*) FROM {s}outbox WHERE saga_id = '7' AND kind = 'timer') || ' ' ||
        (SELECT count(*) FROM {s}inbox WHERE saga_id = '7' AND result = 'handled')";
    let watch = async {
        loop {
            match service.db().text(seen).await.as_str() {
                "0 0 0" => tokio::task::yield_now().await,
                all => break assert_eq!(all, "1 1 1", "row, timer and journal come together"),
            }
        }
    };
    let (_, watched) = tokio::join!(
        publish(&process, (0..20).map(|key| Opened { key })),
        tokio::time::timeout(tests::PATIENCE, watch)
    );
    watched.expect("the instance appears");
    let instance = service.reaches("counter", "7", "Open", 1).await;
    assert_eq!((instance.version, instance.data, instance.completed_at_us), (1, json!({ "added": [] }), None));
    let journal = service.journal("counter", "7").await;
    let lines: Vec<_> = journal.iter().map(|it| (it.from_state.as_deref(), it.to_state.as_deref(), it.seq)).collect();
    assert_eq!(lines, [(None, Some("Open"), Some(1))]);
    stop([process]).await;
}

macro_rules! keyed {
    ($($module:ident $name:literal $key:ident)*) => {$(
        mod $module {
            use super::*;

            #[derive(Event, Serialize, Deserialize)]
            #[event(from = $name)]
            pub(crate) struct Came { pub(crate) key: $key }
            #[derive(Event, Serialize, Deserialize)]
            #[event(from = $name)]
            pub(crate) struct Went { pub(crate) key: $key }

            #[states]
            pub(crate) enum Keyed {
                Here,
                #[done]
                Gone,
            }

            #[saga(name = $name, id = key: $key)]
            impl Keyed {
                fn came(_: Came) -> Here { Here }
                fn went(_: Here, _: Went) -> Gone { Gone }
            }
        }
    )*};
}
keyed! {
    by_uuid "by-uuid" Uuid
    by_i64 "by-i64" i64
    by_u64 "by-u64" u64
    by_text "by-text" String
}

/// The ids of the instances of a saga in a state after so many transitions, sorted.
async fn ids<Db: Base, T: Transport + Clone>(
    service: &Service<Db, T>,
    saga: &str,
    state: &str,
    seq: i64,
) -> Vec<String> {
    let filter = InstanceFilter { saga: Some(saga.into()), state: Some(state.into()), ..Default::default() };
    let found = service.db().instances(&filter, 1000).await.expect("the database answers");
    let mut ids: Vec<_> = found.into_iter().filter(|it| it.seq == seq).map(|it| it.id).collect();
    ids.sort_unstable();
    ids
}

macro_rules! there_and_gone {
    ($service:expr, $process:expr, $module:ident, $keys:expr) => {{
        let mut texts: Vec<String> = $keys.iter().map(ToString::to_string).collect();
        texts.sort_unstable();
        publish(&$process, $keys.iter().map(|key| $module::Came { key: key.clone() })).await;
        service_has(&$service, $module::Keyed::NAME, "Here", 1, &texts).await;
        // each finds its own, one at a time
        for (n, key) in $keys.iter().enumerate() {
            publish(&$process, [$module::Went { key: key.clone() }]).await;
            $service.reaches($module::Keyed::NAME, &key.to_string(), "Gone", 2).await;
            assert_eq!(ids(&$service, $module::Keyed::NAME, "Here", 1).await.len(), $keys.len() - n - 1, "{key}");
        }
        assert_eq!(ids(&$service, $module::Keyed::NAME, "Gone", 2).await, texts);
    }};
}

async fn service_has<Db: Base, T: Transport + Clone>(
    service: &Service<Db, T>,
    saga: &str,
    state: &str,
    seq: i64,
    texts: &[String],
) {
    service.count(saga, state, texts.len() as u64).await;
    assert_eq!(ids(service, saga, state, seq).await, texts);
}

/// S-010: what comes for one of them leaves the other alone.
pub(crate) async fn s_010_two_sagas_with_one_id_are_two_instances<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<by_i64::Keyed>().saga::<by_u64::Keyed>()).await;
    publish(&process, [by_i64::Came { key: 7 }]).await;
    publish(&process, [by_u64::Came { key: 7 }]).await;
    let before = service.reaches("by-i64", "7", "Here", 1).await;
    service.reaches("by-u64", "7", "Here", 1).await;
    publish(&process, [by_u64::Went { key: 7 }]).await;
    service.reaches("by-u64", "7", "Gone", 2).await;
    assert_eq!(service.journaled("by-u64", "7", 2).await.len(), 2);
    let other = service.reaches("by-i64", "7", "Here", 1).await;
    assert_eq!((other.updated_at_us, service.journal("by-i64", "7").await.len()), (before.updated_at_us, 1));
    assert_eq!(service.db().count("saga").await, 2);
    stop([process]).await;
}

/// S-014: the same instance is found, and its id in the tables is exact.
pub(crate) async fn s_014_numbers_and_uuids_are_exact_as_text<Db: Base, T: Transport + Clone>(service: Service<Db, T>) {
    let build =
        |builder: EndpointBuilder<Db>| builder.saga::<by_uuid::Keyed>().saga::<by_i64::Keyed>().saga::<by_u64::Keyed>();
    let process = service.start(0, build).await;
    let uuid = "6b62b01b-0a1c-4c2e-9c64-3f0c4d1f9a77".parse().expect("it is a uuid");
    there_and_gone!(service, process, by_uuid, [Uuid::nil(), Uuid::max(), uuid]);
    there_and_gone!(service, process, by_i64, [0, -1, i64::MIN, i64::MAX, 1 << 31, -(1 << 40)]);
    there_and_gone!(service, process, by_u64, [0, (1 << 53) + 1, (1 << 53) + 2, u64::MAX]);
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}

/// S-015: whatever a text has in it.
pub(crate) async fn s_015_texts_that_differ_in_one_byte_are_different_instances<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<by_text::Keyed>()).await;
    let (long, longer) = ("x".repeat(255), format!("{}y", "x".repeat(254)));
    let odd =
        ["a", "A", "a ", " a", "a'b", "a\"b", "a%", "a_", "ab", "a\\", "ä", "Ä", "a\u{308}", "🚚", "🚛", "%", "_"];
    let keys: Vec<String> = odd.iter().map(|key| (*key).to_owned()).chain([long, longer]).collect();
    there_and_gone!(service, process, by_text, keys);
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}

/// S-013: a transition that waits for its own event would never end.
pub(crate) async fn s_013_an_event_of_its_own_comes_back_after_the_commit<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<bell::Bell>()).await;
    publish(&process, [Entered { key: 1 }]).await;
    service.reaches("bell", "1", "Silent", 4).await;
    let journal = service.journal("bell", "1").await;
    let seqs: Vec<_> = journal.iter().map(|line| line.seq).collect();
    assert_eq!(seqs, [Some(1), Some(2), Some(3), Some(4)]);
    for pair in journal.windows(2) {
        assert_eq!(pair[1].causation_id.as_deref(), Some(pair[0].message_id.as_str()), "an ordinary message");
        assert!(pair[1].handled_at_us > pair[0].handled_at_us, "after the commit of the one before");
    }
    stop([process]).await;
}

/// S-034: the process that has the first half is gone when the second one comes.
pub(crate) async fn s_034_half_a_join_survives_a_restart<Db: Base, T: Transport + Clone>(service: Service<Db, T>) {
    let process = service.start(0, |builder| builder.saga::<meeting::Meeting>()).await;
    publish(&process, [Labelled { key: 1 }]).await;
    publish(&process, [Invoiced { key: 2 }]).await;
    for id in ["1", "2"] {
        service.reaches("meeting", id, "Half", 1).await;
    }
    stop([process]).await;
    let process = service.start(1, |builder| builder.saga::<meeting::Meeting>()).await;
    publish(&process, [Invoiced { key: 1 }]).await;
    publish(&process, [Labelled { key: 2 }]).await;
    for id in ["1", "2"] {
        service.reaches("meeting", id, "Whole", 2).await;
        let journal = service.journal("meeting", id).await;
        assert_ne!(journal[0].handled_by, journal[1].handled_by, "another process has joined them");
    }
    stop([process]).await;
}

/// S-068: a batch has messages of many keys, and each key keeps its order.
pub(crate) async fn s_068_each_key_is_handled_in_the_order_of_the_queue<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<sound::Counter>()).await;
    publish(&process, (0..20).map(|key| Opened { key })).await;
    service.count("counter", "Open", 20).await;
    publish(&process, (0..1000).map(|n| Added { key: n * 7 % 20, n })).await;
    for key in 0..20_u64 {
        let instance = service.reaches("counter", &key.to_string(), "Open", 51).await;
        let expected: Vec<u64> = (0..1000).filter(|n| n * 7 % 20 == key).collect();
        assert_eq!(instance.data["added"], json!(expected), "{key}");
    }
    stop([process]).await;
}
