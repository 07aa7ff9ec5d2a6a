use super::*;
use crate::PublishFailed;

fn failed(id: Uuid, delay: Duration, unroutable: bool, tried: bool) -> [PublishFailed; 1] {
    [PublishFailed { id, error: "no route".into(), delay, unroutable, tried }]
}

fn ids(leased: &Leased) -> Vec<Uuid> {
    leased.rows.iter().map(|row| row.id).collect()
}

#[tokio::test(start_paused = true)]
async fn leases_keep_relays_apart() {
    let store = MemoryStore::new();
    let mine = OutboxRow { leased: true, ..outbox("mine") };
    let free = outbox("free");
    let later = OutboxRow { delay: Some(Duration::from_secs(5)), ..outbox("later") };
    let (mine_id, free_id, later_id) = (mine.id, free.id, later.id);
    write(&store, Write { outbox: vec![mine, free, later], ..writes() }).await.unwrap();
    let leased = lease(&store, "other").await;
    assert_eq!(ids(&leased), [free_id]);
    assert_eq!(leased.next_due, Some(Duration::from_secs(5)));
    assert!(lease(&store, "third").await.rows.is_empty());

    let renew = LeaseUpdate { owner: "third", lease: LEASE, renew: &[free_id], failed: &[] };
    assert_eq!(store.renew_and_fail(&renew).await.unwrap(), [free_id], "the lease of another cannot be renewed");
    tokio::time::advance(Duration::from_secs(20)).await;
    let renew = LeaseUpdate { owner: "other", lease: LEASE, renew: &[free_id], failed: &[] };
    assert!(store.renew_and_fail(&renew).await.unwrap().is_empty());
    tokio::time::advance(Duration::from_secs(20)).await;
    let taken = lease(&store, "heir").await;
    assert_eq!(ids(&taken), [mine_id, later_id], "the renewed one stays, the one whose lease ran out is taken over");
    assert_eq!(taken.rows.iter().map(|row| (row.attempts, row.expired)).collect::<Vec<_>>(), [(0, 1), (0, 0)]);
    assert_eq!(taken.next_due, None);
}

#[tokio::test]
async fn at_most_as_many_rows_as_asked_for_are_leased_oldest_due_first() {
    let store = MemoryStore::new();
    let rows: Vec<_> = (0..5).map(|n| outbox(&n.to_string())).collect();
    let expected: Vec<_> = rows.iter().map(|row| row.id).collect();
    write(&store, Write { outbox: rows.into_iter().rev().collect(), ..writes() }).await.unwrap();
    let mut request = LeaseRequest::new("e", "me", 0, LEASE, WEEK);
    assert!(store.lease(&request).await.unwrap().rows.is_empty());
    request.rows_max = 3;
    assert_eq!(ids(&store.lease(&request).await.unwrap()), expected[..3]);
    assert_eq!(ids(&store.lease(&request).await.unwrap()), expected[3..]);
}

#[tokio::test(start_paused = true)]
async fn what_failed_comes_back_later_and_only_a_try_is_counted() {
    let store = MemoryStore::new();
    let row = outbox("m");
    let id = row.id;
    write(&store, Write { outbox: vec![row], ..writes() }).await.unwrap();
    for (tried, attempts) in [(true, 1), (false, 1), (true, 2)] {
        assert_eq!(ids(&lease(&store, "me").await), [id]);
        let failed = failed(id, LEASE * 2, false, tried);
        let update = LeaseUpdate { owner: "me", lease: LEASE, renew: &[], failed: &failed };
        store.renew_and_fail(&update).await.unwrap();
        let leased = lease(&store, "me").await;
        assert!(leased.rows.is_empty());
        assert_eq!(leased.next_due, Some(LEASE * 2));
        let row = &store.outbox()[0];
        assert_eq!((row.attempts, row.expired, row.last_error.as_deref()), (attempts, 0, Some("no route")));
        tokio::time::advance(LEASE * 2).await;
    }
    let other = LeaseUpdate { owner: "another", lease: LEASE, renew: &[], failed: &failed(id, LEASE, false, true) };
    store.renew_and_fail(&other).await.unwrap();
    assert_eq!(store.outbox()[0].attempts, 2, "only the owner of the lease puts off");
}

#[tokio::test]
async fn what_waits_for_a_destination_goes_when_it_takes_messages_again() {
    let store = MemoryStore::new();
    let rows = [outbox("a"), outbox("b")];
    let ids_of = rows.each_ref().map(|row| row.id);
    write(&store, Write { outbox: rows.to_vec(), ..writes() }).await.unwrap();
    lease(&store, "me").await;
    let hour = Duration::from_secs(3600);
    for (id, unroutable) in ids_of.into_iter().zip([true, false]) {
        let failed = failed(id, hour, unroutable, true);
        let update = LeaseUpdate { owner: "me", lease: LEASE, renew: &[], failed: &failed };
        store.renew_and_fail(&update).await.unwrap();
    }
    assert_eq!(store.outbox().iter().filter(|row| row.waits_for.as_deref() == Some("there")).count(), 1);
    assert_eq!(store.reopen("e", "elsewhere").await.unwrap(), 0);
    assert_eq!(store.reopen("another endpoint", "there").await.unwrap(), 0);
    assert_eq!(store.reopen("e", "there").await.unwrap(), 1);
    assert_eq!(store.reopen("e", "there").await.unwrap(), 0);
    assert_eq!(ids(&lease(&store, "me").await), [ids_of[0]], "what was put off for another reason waits on");
}

#[tokio::test]
async fn confirmed_rows_go_and_those_that_are_gone_are_no_error() {
    let store = MemoryStore::new();
    let (sent, kept) = (outbox("sent"), outbox("kept"));
    let mut gone = [sent.id, Uuid::now_v7()];
    gone.sort_unstable();
    write(&store, Write { outbox: vec![sent, kept.clone()], ..writes() }).await.unwrap();
    store.delete_confirmed(&gone).await.unwrap();
    assert_eq!(store.outbox().iter().map(|row| row.id).collect::<Vec<_>>(), [kept.id]);
}

#[tokio::test]
async fn a_row_that_a_unit_is_deleting_is_not_leased() {
    let store = MemoryStore::new();
    let timer = OutboxRow { delay: None, ..timer(1) };
    write(&store, Write { outbox: vec![timer], ..writes() }).await.unwrap();
    let mut unit = begin(&store).await;
    let out = crate::TimerOut { key: key(), number: 1 };
    unit.write(&Write { timers_out: vec![out], ..writes() }).await.unwrap();
    assert!(lease(&store, "me").await.rows.is_empty());
    unit.rollback().await.unwrap();
    assert_eq!(lease(&store, "me").await.rows.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn delays_and_leases_run_from_the_time_of_writing() {
    let store = MemoryStore::new();
    let mut unit = begin(&store).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    unit.write(&Write { outbox: vec![OutboxRow { leased: true, delay: Some(LEASE), ..outbox("m") }], ..writes() })
        .await
        .unwrap();
    let written = store.now_us();
    unit.commit().await.unwrap();
    let row = &store.outbox()[0];
    assert_eq!((row.created_at_us, row.due_at_us), (written, written + 30_000_000));
    assert_eq!((row.lease_until_us, row.lease_owner.as_deref()), (Some(written + 30_000_000), Some("me")));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_tried_again_is_not_reopened_under_the_hands_of_its_owner() {
    let store = MemoryStore::new();
    let row = outbox("m");
    let id = row.id;
    write(&store, Write { outbox: vec![row], ..writes() }).await.unwrap();
    lease(&store, "me").await;
    let failed = failed(id, LEASE, true, true);
    let update = LeaseUpdate { owner: "me", lease: LEASE, renew: &[], failed: &failed };
    store.renew_and_fail(&update).await.unwrap();
    tokio::time::advance(LEASE).await;
    assert_eq!(ids(&lease(&store, "me").await), [id], "the probe");
    assert_eq!(store.reopen("e", "there").await.unwrap(), 0);
    tokio::time::advance(LEASE * 2).await;
    assert_eq!(store.reopen("e", "there").await.unwrap(), 1, "its owner has died");
}
