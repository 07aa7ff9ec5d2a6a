use super::*;

fn process(endpoint: &str, owner: &str, subscribes: &[&str]) -> Process {
    let subscribes = subscribes.iter().map(|event| (*event).to_owned()).collect();
    Process { endpoint: endpoint.into(), owner: owner.into(), subscribes, ..Process::default() }
}

#[tokio::test(start_paused = true)]
async fn an_event_is_dropped_when_no_living_process_subscribes_to_it() {
    let store = MemoryStore::new();
    let old = process("e", "old", &["a", "b"]);
    assert!(store.register(&old).await.unwrap().dropped.is_empty());
    store.register(&process("another", "other", &["c"])).await.unwrap();
    let new = process("e", "new", &["a"]);
    assert!(store.register(&new).await.unwrap().dropped.is_empty(), "the old process lives");
    tokio::time::advance(Duration::from_secs(60)).await;
    store.heartbeat(&old).await.unwrap();
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(store.register(&new).await.unwrap().dropped.is_empty(), "it was heard of a minute ago");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(store.register(&new).await.unwrap().dropped, ["b"]);
    assert!(store.register(&new).await.unwrap().dropped.is_empty(), "it is said once");
}

#[tokio::test]
async fn a_process_that_signs_off_is_gone_and_one_that_reports_is_entered_again() {
    let store = MemoryStore::new();
    let old = process("e", "old", &["a"]);
    store.register(&old).await.unwrap();
    store.sign_off("old").await.unwrap();
    assert!(store.processes().is_empty());
    assert_eq!(store.register(&process("e", "new", &[])).await.unwrap().dropped, ["a"]);
    store.heartbeat(&old).await.unwrap();
    assert_eq!(store.processes().len(), 2);
    assert!(store.register(&process("e", "new", &[])).await.unwrap().dropped.is_empty());
}

#[tokio::test]
async fn a_saga_of_another_endpoint_is_taken_and_nothing_is_entered() {
    let store = MemoryStore::new();
    let with = |endpoint: &str, owner: &str, version| Process {
        charts: vec![chart("saga", version)],
        ..process(endpoint, owner, &["a"])
    };
    store.register(&with("e", "one", 1)).await.unwrap();
    let registered = store.register(&with("f", "two", 1)).await.unwrap();
    assert_eq!(registered.taken, [("saga".to_owned(), "e".to_owned())]);
    assert_eq!((store.processes().len(), store.definitions().len()), (1, 1));
    assert!(store.register(&with("e", "three", 2)).await.unwrap().taken.is_empty());
    assert_eq!(store.definitions().len(), 2);
}
