//! One process: what an instance leaves in the tables, and how its messages find it.

use super::{sagas::*, *};
use saga_core::{After, Message, Saga, after, saga, states};
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
    by_i32 "by-i32" i32
    by_u32 "by-u32" u32
    by_text "by-text" String
}

/// An id of three fields, one of which is a text that may contain whatever stands between them.
mod by_parts {
    use super::*;

    pub(crate) type Parts = (String, i32, Uuid);

    #[derive(Event, Serialize, Deserialize)]
    #[event(from = "by-parts")]
    pub(crate) struct Came {
        pub(crate) tenant: String,
        pub(crate) number: i32,
        pub(crate) part: Uuid,
    }
    /// Names the instance in fields of other names.
    #[derive(Event, Serialize, Deserialize)]
    #[event(from = "by-parts")]
    pub(crate) struct Went {
        pub(crate) of: Came,
    }
    #[derive(Message, Serialize, Deserialize)]
    #[message(name = "by-parts.Late")]
    pub(crate) struct Late {}

    #[states]
    pub(crate) enum Keyed {
        Here,
        There,
        #[done]
        Gone,
    }

    #[saga(
        name = "by-parts",
        id = (tenant: String, number: i32, part: Uuid),
        by(Went = (of.tenant, of.number, of.part))
    )]
    impl Keyed {
        fn came(_: Came) -> Here {
            Here
        }
        fn went(_: Here, _: Went) -> (There, After<Late>) {
            (There, after(Duration::ZERO, Late {}))
        }
        fn late(_: There, _: Late) -> Gone {
            Gone
        }
    }
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
    let build = |builder: EndpointBuilder<Db>| {
        let builder = builder.saga::<by_uuid::Keyed>().saga::<by_i64::Keyed>().saga::<by_u64::Keyed>();
        builder.saga::<by_i32::Keyed>().saga::<by_u32::Keyed>()
    };
    let process = service.start(0, build).await;
    let uuid = "6b62b01b-0a1c-4c2e-9c64-3f0c4d1f9a77".parse().expect("it is a uuid");
    there_and_gone!(service, process, by_uuid, [Uuid::nil(), Uuid::max(), uuid]);
    there_and_gone!(service, process, by_i64, [0, -1, i64::MIN, i64::MAX, 1 << 31, -(1 << 40)]);
    there_and_gone!(service, process, by_u64, [0, (1 << 53) + 1, (1 << 53) + 2, u64::MAX]);
    there_and_gone!(service, process, by_i32, [0, -1, i32::MIN, i32::MAX]);
    there_and_gone!(service, process, by_u32, [0, 1, u32::MAX]);
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}

/// S-014: a message, one that names the fields otherwise, and a timer find the instance by its fields together.
pub(crate) async fn s_014_ids_of_several_fields_are_told_apart<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<by_parts::Keyed>()).await;
    let part = Uuid::from_u128(7);
    let keys: [by_parts::Parts; 6] = [
        ("a".into(), 1, part),
        ("a".into(), -1, part),
        ("a/1".into(), 1, part),
        ("a%2F1".into(), 1, part),
        ("a".into(), 1, Uuid::max()),
        ("".into(), i32::MIN, Uuid::nil()),
    ];
    let came = |(tenant, number, part): by_parts::Parts| by_parts::Came { tenant, number, part };
    let (named, nameless) = keys.split_at(5);
    publish(&process, named.iter().cloned().map(came)).await;
    let mut texts = [
        format!("a/1/{part}"),
        format!("a/-1/{part}"),
        format!("a%2F1/1/{part}"),
        format!("a%252F1/1/{part}"),
        format!("a/1/{}", Uuid::max()),
    ];
    texts.sort_unstable();
    service_has(&service, "by-parts", "Here", 1, &texts).await;
    for (n, key) in named.iter().enumerate() {
        publish(&process, [by_parts::Went { of: came(key.clone()) }]).await;
        service.reaches("by-parts", &saga_core::SagaId::to_text(key), "Gone", 3).await;
        assert_eq!(ids(&service, "by-parts", "Here", 1).await.len(), named.len() - n - 1, "{key:?}");
    }
    assert_eq!(service.held().await.len(), 0);
    publish(&process, nameless.iter().cloned().map(came)).await;
    let error = eventually("a message whose id has an empty part to be held", || async {
        service.held().await.pop().map(|held| held.error.unwrap_or_default())
    })
    .await;
    let fault = "by-parts.Came: `tenant, number, part`, the id of saga `by-parts`, has an empty part";
    assert!(error.starts_with(fault), "{error}");
    stop([process]).await;
}

/// S-034: what a state has gathered is in its row; the rest finds it there.
pub(crate) async fn s_034_what_a_state_has_gathered_survives_a_restart<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let build = |builder: EndpointBuilder<Db>| builder.saga::<quotes::Quotes>().saga::<meal::Meal>();
    let process = service.start(0, build).await;
    let request = |key, asked, enough| Requested { key, asked, enough };
    publish(&process, [request(1, 0, 0), request(2, 3, 2), request(3, 3, 3), request(4, 2, 9)]).await;
    publish(&process, [2, 3, 4].map(|key| Quoted { key, cents: 40 + key })).await;
    publish(&process, [Cooked { key: 1, dish: "pizza".into() }, Cooked { key: 2, dish: "soup".into() }]).await;
    let none = service.reaches("quotes", "1", "Chosen", 1).await;
    assert_eq!(none.data, json!({ "cents": [] }), "where nobody is asked, nobody is waited for");
    for id in ["2", "3", "4"] {
        service.reaches("quotes", id, "Gathering", 2).await;
    }
    for id in ["1", "2"] {
        service.reaches("meal", id, "Preparing", 1).await;
    }
    stop([process]).await;
    let process = service.start(1, build).await;
    publish(&process, [2, 4].map(|key| Quoted { key, cents: 30 + key })).await;
    publish(&process, [Driven { key: 1, courier: 9 }]).await;
    publish(&process, [Cooked { key: 2, dish: "salad".into() }]).await;
    let enough = service.reaches("quotes", "2", "Chosen", 3).await;
    assert_eq!(enough.data, json!({ "cents": [42, 32] }), "two are enough, in the order in which they came");
    let all = service.reaches("quotes", "4", "Chosen", 3).await;
    assert_eq!(all.data, json!({ "cents": [44, 34] }), "more than were asked are not waited for");
    let served = service.reaches("meal", "1", "Served", 2).await;
    assert_eq!(served.data, json!({ "dish": "pizza", "courier": 9 }));
    service.reaches("meal", "2", "Preparing", 2).await;
    publish(&process, [Driven { key: 2, courier: 8 }]).await;
    let served = service.reaches("meal", "2", "Served", 3).await;
    assert_eq!(
        served.data,
        json!({ "dish": "salad", "courier": 8 }),
        "the second of a kind takes the place of the first"
    );
    service.later(Duration::from_secs(7200)).await;
    let stragglers = service.reaches("quotes", "3", "Chosen", 3).await;
    assert_eq!(stragglers.data, json!({ "cents": [43] }), "the timer takes what has come");
    publish(&process, [Quoted { key: 3, cents: 1 }]).await;
    let journal = service.journaled("quotes", "3", 4).await;
    assert_eq!(journal[3], ("service.Quoted".into(), "ignored".into()), "a straggler");
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

/// S-061, S-062: who is to be answered is in the child's row, through other messages and another process.
pub(crate) async fn s_061_s_062_a_child_answers_the_very_parent_after_a_restart<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let build = |builder: EndpointBuilder<Db>| builder.saga::<family::Parent>().saga::<family::Child>();
    let process = service.start(0, build).await;
    publish(&process, (1..=3).map(|key| Entered { key })).await;
    service.count("child", "Small", 3).await;
    publish(&process, (0..5).map(|n| Added { key: 102, n })).await;
    service.reaches("child", "102", "Small", 6).await;
    stop([process]).await;
    let process = service.start(1, build).await;
    publish(&process, [Left { key: 102 }]).await;
    let child = service.reaches("child", "102", "Big", 7).await;
    assert_eq!(child.data, json!({ "meals": 5 }));
    service.reaches("parent", "2", "Alone", 2).await;
    service.count("parent", "Waiting", 2).await;
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}

/// S-043, S-044, S-045: what a state says of messages, as the tables show it.
pub(crate) async fn s_043_s_044_s_045_a_state_decides_what_becomes_of_messages<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<picky::Picky>()).await;
    publish(&process, [Opened { key: 1 }]).await;
    publish(&process, [Added { key: 1, n: 1 }]).await;
    publish(&process, [Labelled { key: 1 }, Labelled { key: 1 }]).await;
    publish(&process, [Invoiced { key: 1 }]).await;
    let result = |name: &str, result: &str| (format!("service.{name}"), result.to_owned());
    let lines = service.journaled("picky", "1", 2).await;
    assert_eq!(lines.iter().filter(|line| line.1 == "ignored").collect::<Vec<_>>(), [&result("Added", "ignored")]);
    let held =
        eventually("three held messages", || async { Some(service.held().await).filter(|held| held.len() == 3) }).await;
    let mut reasons: Vec<&str> = held.iter().map(|row| row.reason.as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["deferred", "deferred", "rejected"]);
    let rejected = held.iter().find(|row| row.reason == "rejected").expect("it was counted");
    let text = "state `First` rejects service.Invoiced";
    assert_eq!((rejected.error.as_deref(), rejected.attempts), (Some(text), 1));
    assert_eq!(service.reaches("picky", "1", "First", 1).await.paused_by, None, "it pauses nobody");
    publish(&process, [Left { key: 1 }]).await;
    let second = service.reaches("picky", "1", "Second", 4).await;
    assert_eq!(second.data, json!({ "labels": 2 }), "what was deferred follows in the same commit");
    let held = service.held().await;
    assert_eq!(held.iter().map(|row| row.reason.as_str()).collect::<Vec<_>>(), ["rejected"], "that is a person's");
    stop([process]).await;
}

/// S-008, S-038: nothing waits for an instance that is done.
pub(crate) async fn s_008_s_038_what_waits_for_an_instance_goes_when_it_is_done<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<picky::Picky>()).await;
    publish(&process, [Opened { key: 1 }]).await;
    service.reaches("picky", "1", "First", 1).await;
    assert_eq!(service.timers().await.len(), 1);
    publish(&process, [Labelled { key: 1 }]).await;
    publish(&process, [Closed { key: 1 }]).await;
    eventually("two held messages", || async { (service.held().await.len() == 2).then_some(()) }).await;
    publish(&process, [Ended { key: 1 }]).await;
    let done = service.reaches("picky", "1", "Done", 2).await;
    assert!(done.completed_at_us.is_some());
    assert_eq!((service.held().await.len(), service.timers().await.len()), (0, 0), "in the commit that ends it");
    let mut ignored = service.journaled("picky", "1", 4).await;
    ignored.retain(|(_, result)| result == "ignored");
    ignored.sort_unstable();
    let expected = ["Closed", "Labelled"].map(|name| (format!("service.{name}"), "ignored".to_owned()));
    assert_eq!(ignored, expected);
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
