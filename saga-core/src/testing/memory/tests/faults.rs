use super::*;

#[tokio::test]
async fn ordered_failures_come_in_order_and_once() {
    let store = MemoryStore::new();
    store.fail_next(Operation::Begin, StoreErrorKind::Unavailable);
    store.fail_next(Operation::Begin, StoreErrorKind::Schema);
    assert_eq!(kind(store.begin(&[], LIMIT).await), UNAVAILABLE);
    assert_eq!(kind(store.begin(&[], LIMIT).await), Some(StoreErrorKind::Schema));
    assert_eq!(kind(store.begin(&[], LIMIT).await), None);
}

#[tokio::test]
async fn failures_last_while_the_test_says_so() {
    let store = MemoryStore::new();
    store.fail_while(|operation| (operation == Operation::Lease).then_some(StoreErrorKind::Unavailable));
    let request = LeaseRequest::new("e", "me", 1, LEASE, WEEK);
    for _ in 0..2 {
        assert_eq!(kind(store.lease(&request).await), UNAVAILABLE);
    }
    assert_eq!(kind(store.delete_confirmed(&[]).await), None);
    store.heal();
    assert_eq!(kind(store.lease(&request).await), None);
}

#[tokio::test]
async fn a_failure_inside_a_unit_leaves_nothing_to_commit() {
    let store = MemoryStore::new();
    for operation in [Operation::Read, Operation::Held, Operation::Write] {
        let mut unit = begin(&store).await;
        unit.write(&Write { claims: vec![handled("m")], ..writes() }).await.unwrap();
        store.fail_next(operation, StoreErrorKind::Unavailable);
        let done = match operation {
            Operation::Read => kind(unit.read(&keys(&[])).await),
            Operation::Held => kind(unit.held("e", &[], 1, i64::MAX).await),
            _ => kind(unit.write(&writes()).await),
        };
        assert_eq!(done, UNAVAILABLE);
        assert_eq!(kind(unit.commit().await), REJECTED);
        assert!(store.inbox().is_empty());
    }
}

#[tokio::test]
async fn a_commit_fails_or_nobody_knows_what_became_of_it() {
    let store = MemoryStore::new();
    let row = |id: &str| Write { claims: vec![handled(id)], ..writes() };
    store.fail_next(Operation::Commit, StoreErrorKind::Rejected);
    assert_eq!(kind(write(&store, row("a")).await), REJECTED);
    store.lose_next_commit(false);
    assert_eq!(kind(write(&store, row("b")).await), UNAVAILABLE);
    assert!(store.inbox().is_empty());
    store.lose_next_commit(true);
    assert_eq!(kind(write(&store, row("c")).await), UNAVAILABLE);
    assert_eq!(store.inbox().len(), 1);
    write(&store, row("d")).await.unwrap();
}

#[tokio::test]
async fn an_error_of_user_code_is_recognised() {
    let store = MemoryStore::new();
    let mut unit = begin(&store).await;
    store.fail_next(Operation::Insert, StoreErrorKind::Unavailable);
    let error = unit.tx().insert("orders", 1).unwrap_err();
    assert_eq!(store.recognise(&error).map(|error| error.kind()), UNAVAILABLE);
    assert!(store.recognise(&fmt::Error).is_none());
}
