//! Rows of the outbox: leases, time, destinations.

use super::*;
use crate::eventually;
use saga_core::{LeaseUpdate, PublishFailed, TimerOut};
use std::time::Instant;

fn failed(id: Uuid, delay: Duration) -> PublishFailed {
    PublishFailed::new(id, "no route", delay)
}

/// Reports rows as `owner`.
async fn report<S: Store>(store: &S, owner: &str, renew: &[Uuid], failed: &[PublishFailed]) -> Vec<Uuid> {
    store
        .renew_and_fail(&crate::with!(LeaseUpdate::new(owner, LEASE), renew = renew, failed = failed))
        .await
        .expect("leases are updated")
}

/// O-040: the relay sends what was written, to the byte.
pub async fn o_040_a_leased_row_is_what_was_written(store: &impl Lab) {
    let mut big = envelope("big");
    big.body = format!("{{\"text\":\"{}\"}}", "é".repeat(500_000)).into();
    let mut foreign = envelope("foreign");
    (foreign.sender, foreign.reply_to) = (None, Some("amq.gen-x".into()));
    foreign.content_type = Some("application/json; charset=utf-8".into());
    (foreign.receiver, foreign.attempt) = (Some("r".into()), 4);
    let mut raw = envelope("raw");
    raw.body = Bytes::from_static(&[0xff, 0x00, b'{', 0x80]);
    let rows = [envelope("plain"), big, foreign, raw]
        .map(|envelope| crate::with!(outbox_row("", None, false), envelope = Arc::new(envelope)));
    write(store, crate::with!(writes(), outbox = rows.to_vec())).await.unwrap();
    let leased = lease(store, "me").await;
    let (written, read): (Vec<_>, Vec<_>) =
        (rows.iter().map(|row| &row.envelope).collect(), leased.rows.iter().map(|row| &row.envelope).collect());
    assert!(written == read, "the rows differ from what was written, or their order does");
    assert_eq!(leased.rows[0].destination, Destination::Endpoint("there".into()));
}

/// Leases: a leased row is left alone, a due row goes once, a failed row comes back later.
pub async fn leases_keep_relays_apart(store: &impl Lab) {
    let rows = vec![
        outbox_row("mine", None, true),
        outbox_row("free", None, false),
        outbox_row("later", Some(Duration::from_secs(3600)), false),
    ];
    let (mine, free) = (rows[0].id, rows[1].id);
    write(store, crate::with!(writes(), outbox = rows)).await.unwrap();
    let leased = lease(store, "other").await;
    assert_eq!(leased.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [free]);
    let next = leased.next_due.expect("a row is due later");
    assert!(next > Duration::from_secs(3590) && next <= Duration::from_secs(3600), "{next:?}");
    for (seconds, named) in [(3000, false), (3700, true)] {
        let ahead = crate::with!(request("other"), ahead = Duration::from_secs(seconds));
        let next = store.lease(&ahead).await.unwrap().next_due;
        assert_eq!(next.is_some(), named, "{seconds} s ahead: {next:?}");
    }
    assert!(lease(store, "third").await.rows.is_empty(), "a leased row was leased again");

    assert_eq!(report(store, "third", &[free], &[]).await, [free], "a lease of somebody else cannot be renewed");
    assert!(report(store, "other", &[free], &[]).await.is_empty());
    report(store, "third", &[], &[failed(free, Duration::ZERO)]).await;
    assert!(lease(store, "third").await.rows.is_empty(), "somebody else's row cannot fail");
    report(store, "other", &[], &[failed(free, Duration::from_millis(1))]).await;
    let again = eventually("the failed row to be due", || async { lease(store, "other").await.rows.pop() }).await;
    assert_eq!((again.id, again.attempts, again.expired), (free, 1, 0));
    assert_eq!(store.column("outbox", "last_error", "free").await, [Some("no route".into())]);

    let mut gone = [mine, free, Uuid::nil()];
    gone.sort_unstable();
    store.delete_confirmed(&gone).await.unwrap();
    assert_eq!(store.count("outbox").await, 1, "sent rows go, the later one stays");
}

/// Rule 4: a lease that is renewed lasts from then on, although the time of the first one is over.
pub async fn a_renewed_lease_lasts_from_then_on(store: &impl Lab) {
    let rows = [outbox_row("mine", None, true), outbox_row("lost", None, true)];
    let mine = rows[0].id;
    write(store, crate::with!(writes(), outbox = rows.to_vec())).await.unwrap();
    store.age("outbox", "lease_until", 2 * LEASE).await;
    assert!(report(store, &writes().owner, &[mine], &[]).await.is_empty(), "nobody has taken the row meanwhile");
    let taken: Vec<Uuid> = lease(store, "heir").await.rows.iter().map(|row| row.id).collect();
    assert_eq!(taken, [rows[1].id], "only the row whose lease was not renewed goes to another process");
}

/// The database's answer to a commit was lost: its rows have our lease, and we do not know of them.
pub async fn r_035_rows_under_our_own_lease_that_we_do_not_know_of_are_leased_again(store: &impl Lab) {
    let rows = [outbox_row("known", None, true), outbox_row("unknown", None, true), outbox_row("later", None, false)];
    let (known, mut wanted) = ([rows[0].id], [rows[1].id, rows[2].id]);
    let mut all = rows.each_ref().map(|row| row.id);
    wanted.sort_unstable();
    all.sort_unstable();
    write(store, crate::with!(writes(), outbox = rows.to_vec())).await.unwrap();
    let owner = writes().owner;
    let ids = |leased: Leased| leased.rows.iter().map(|row| row.id).collect::<Vec<_>>();
    let since = Some(Duration::from_secs(1));
    let leased = store.lease(&crate::with!(request(&owner), known = Some(&known[..]), since = since)).await.unwrap();
    assert!(leased.rows.iter().all(|row| row.expired == 0), "nobody died");
    let mut found = ids(leased);
    found.sort_unstable();
    assert_eq!(found, wanted, "what is under no lease, and what is under ours and unknown");
    let leased = store.lease(&crate::with!(request(&owner), known = Some(&all[..]))).await.unwrap();
    assert!(leased.rows.is_empty(), "all are known now");
    let leased = store.lease(&crate::with!(request("other"), known = Some(&[][..]))).await.unwrap();
    assert!(leased.rows.is_empty(), "the leases of others hold");
}

/// Rule 3: the rows of a process that died are taken over when their lease has run out; that does not count as a try.
pub async fn o_031_a_lease_that_ran_out_is_taken_over(store: &impl Lab) {
    let short = crate::with!(writes(), lease = Duration::from_millis(1), outbox = vec![outbox_row("m", None, true)]);
    write(store, short).await.unwrap();
    let row = eventually("the lease to run out", || async { lease(store, "heir").await.rows.pop() }).await;
    assert_eq!((row.attempts, row.expired), (0, 1));
}

/// What is due for longest goes first, however little may go: later rows of the same key must not overtake it.
pub async fn the_oldest_rows_are_leased_first(store: &impl Lab) {
    for id in ["first", "second", "third"] {
        write(store, crate::with!(writes(), outbox = vec![outbox_row(id, None, false)])).await.unwrap();
    }
    for id in ["first", "second", "third"] {
        let leased = store.lease(&crate::with!(request("me"), rows_max = 1)).await.unwrap();
        let ids: Vec<_> = leased.rows.iter().map(|row| row.envelope.message_id.as_str()).collect();
        assert_eq!(ids, [id]);
    }
}

/// O-033: a row that commits late, with an id below those already sent, is found.
pub async fn o_033_a_row_that_commits_late_is_found(store: &impl Lab) {
    let late = outbox_row("late", None, false);
    write(store, crate::with!(writes(), outbox = vec![outbox_row("early", None, false)])).await.unwrap();
    assert_eq!(lease(store, "me").await.rows.len(), 1);
    write(store, crate::with!(writes(), outbox = vec![late.clone()])).await.unwrap();
    assert_eq!(lease(store, "me").await.rows[0].id, late.id);
}

/// S-049, S-008: the timers that a unit names are deleted, and no others.
pub async fn s_049_timers_of_a_state_go_with_it(store: &impl Lab) {
    let timer = |number: i64| {
        let mut row = outbox_row("t", Some(Duration::from_secs(3600)), false);
        row.kind = OutboxKind::Timer;
        let mut envelope = envelope(&row.id.to_string());
        envelope.saga = Some(SagaRef { saga: "saga".into(), id: "7".into(), entered: None, timer: Some(number) });
        row.envelope = Arc::new(envelope);
        row
    };
    let outbox = vec![timer(1), timer(2), timer(3), outbox_row("c", None, false)];
    write(store, crate::with!(writes(), outbox = outbox)).await.unwrap();
    let out = |numbers: &[i64]| {
        let timers = numbers.iter().map(|number| TimerOut::new(key(), *number)).collect();
        crate::with!(writes(), timers_out = timers)
    };
    write(store, out(&[1])).await.unwrap();
    assert_eq!(store.count("outbox").await, 3, "the other two stay");
    write(store, out(&[2, 3, 9])).await.unwrap();
    assert_eq!(store.count("outbox").await, 1, "the command stays");
}

/// S-049: an instance of another saga may have the same id, and a timer that came and was put off is a retry.
pub async fn s_049_what_is_not_the_timer_stays(store: &impl Lab) {
    let row = |saga: &str, kind| {
        let mut envelope = envelope(saga);
        envelope.saga = Some(SagaRef { saga: saga.into(), id: "7".into(), entered: None, timer: Some(1) });
        let row = outbox_row("", Some(Duration::from_secs(3600)), false);
        crate::with!(row, kind = kind, envelope = Arc::new(envelope))
    };
    let rows = [("saga", OutboxKind::Timer), ("saga", OutboxKind::Retry), ("another", OutboxKind::Timer)];
    let outbox = rows.map(|(saga, kind)| row(saga, kind)).to_vec();
    write(store, crate::with!(writes(), outbox = outbox)).await.unwrap();
    write(store, crate::with!(writes(), timers_out = vec![TimerOut::new(key(), 1)])).await.unwrap();
    assert_eq!(store.column("outbox", "kind", "saga").await, [Some("retry".into())]);
    assert_eq!(store.column("outbox", "kind", "another").await, [Some("timer".into())]);
}

/// B9: a message without a queue waits for its destination, and is due at once when that exists.
pub async fn b9_rows_without_a_way_wait_for_their_destination(store: &impl Lab) {
    let hour = Duration::from_secs(3600);
    let elsewhere = crate::with!(outbox_row("c", None, false), destination = Destination::Endpoint("elsewhere".into()));
    let rows = vec![outbox_row("a", None, false), outbox_row("b", None, false), elsewhere];
    write(store, crate::with!(writes(), outbox = rows.clone())).await.unwrap();
    let leased = lease(store, "me").await.rows;
    assert_eq!((leased.len(), leased.iter().filter(|row| row.wanted).count()), (3, 0));
    let lost: Vec<_> = rows.iter().map(|row| crate::with!(failed(row.id, hour), unroutable = true)).collect();
    report(store, "me", &[], &lost).await;
    assert_eq!(store.column("outbox", "waits_for", "a").await, [Some("there".into())]);
    assert!(lease(store, "me").await.rows.is_empty());
    assert_eq!(store.reopen("other", "there").await.unwrap(), 0, "another endpoint's rows are its own");
    assert_eq!(store.reopen("e", "there").await.unwrap(), 2);
    assert_eq!(store.reopen("e", "there").await.unwrap(), 0, "nothing waits any more");
    let open = eventually("the rows to be due", || async {
        let rows = lease(store, "me").await.rows;
        (!rows.is_empty()).then_some(rows)
    })
    .await;
    let order: Vec<_> = open.iter().map(|row| row.envelope.message_id.as_str()).collect();
    assert_eq!(order, ["a", "b"], "in the order in which they were written");
    assert!(open.iter().all(|row| row.wanted), "who reopened them wants them sent: {open:?}");
    assert!(open.iter().all(|row| row.attempts == 0), "no pause grows by tries while nobody was there: {open:?}");
    assert_eq!(store.column("outbox", "waits_for", "a").await, [None]);
    assert_eq!(store.column("outbox", "waits_for", "c").await, [Some("elsewhere".into())]);
}

/// A row that only waited behind another one is put off without being counted; a retry says why it was put off.
pub async fn a_row_that_only_waited_is_no_try(store: &impl Lab) {
    let retry = crate::with!(
        outbox_row("m", None, false),
        kind = OutboxKind::Retry,
        last_error = Some("the bank was away".into())
    );
    write(store, crate::with!(writes(), outbox = vec![retry.clone()])).await.unwrap();
    assert_eq!(store.column("outbox", "last_error", "m").await, [Some("the bank was away".into())]);
    lease(store, "me").await;
    report(store, "me", &[], &[crate::with!(failed(retry.id, Duration::ZERO), tried = false)]).await;
    let again = eventually("the row to be due", || async { lease(store, "me").await.rows.pop() }).await;
    assert_eq!((again.attempts, again.expired), (0, 0));
}

/// Rule 7: a message whose first publish is older than the receivers' memory is held for a person.
pub async fn rule_7_what_was_first_sent_long_ago_is_held(store: &impl Lab) {
    let sent = outbox_row("sent", None, true);
    let outbox = vec![sent.clone(), outbox_row("new", None, false)];
    write(store, crate::with!(writes(), lease = Duration::ZERO, outbox = outbox)).await.unwrap();
    assert_eq!(store.sweep("e", WEEK).await.unwrap().rows, 0, "nothing is old yet");
    store.age("outbox", "first_attempt_at", WEEK + LEASE).await;
    let leased = lease(store, "me").await;
    assert_eq!(leased.rows.len(), 1, "the old row is left alone");
    assert_eq!(leased.rows[0].envelope.message_id, "new");
    eventually("the old row to be held", || async {
        (store.sweep("e", WEEK).await.unwrap().stranded == 1).then_some(())
    })
    .await;
    assert_eq!(store.column("held", "reason", "sent").await, [Some("stranded".into())]);
    assert_eq!(store.column("held", "receiver", "sent").await, [Some(format!("outbox {}", sent.id))]);
    assert_eq!(store.column("held", "kind", "sent").await, [Some("command".into())]);
    assert_eq!(store.column("held", "destination", "sent").await, [Some("there".into())]);
    assert_eq!(store.count("outbox").await, 1);

    let outbox = vec![outbox_row("in flight", None, true)];
    write(store, crate::with!(writes(), outbox = outbox)).await.unwrap();
    store.age("outbox", "first_attempt_at", WEEK + LEASE).await;
    assert_eq!(store.sweep("e", WEEK).await.unwrap().stranded, 0, "somebody has it in hand: the broker may confirm it");
}

/// Rule 7: the first try stays the first, however often a row is tried again: else it would be sent for ever.
pub async fn rule_7_the_first_try_stays_the_first(store: &impl Lab) {
    let row = outbox_row("m", None, false);
    write(store, crate::with!(writes(), outbox = vec![row.clone()])).await.unwrap();
    for _ in 0..2 {
        eventually("the row to be due", || async { lease(store, "me").await.rows.pop() }).await;
        report(store, "me", &[], &[failed(row.id, Duration::ZERO)]).await;
        store.age("outbox", "first_attempt_at", WEEK - LEASE).await;
    }
    assert!(lease(store, "me").await.rows.is_empty(), "it was first sent nearly two weeks ago");
    assert_eq!(store.sweep("e", WEEK).await.unwrap().stranded, 1);
}

/// B13: a row that is not due was not sent: it is not held, however far in the future it is due.
pub async fn b13_a_parked_timer_is_never_stranded(store: &impl Lab) {
    let parked = outbox_row("parked", Some(2 * WEEK), false);
    write(store, crate::with!(writes(), outbox = vec![parked])).await.unwrap();
    store.age("outbox", "created_at", 2 * WEEK).await;
    assert_eq!(store.sweep("e", WEEK).await.unwrap().rows, 0);
    assert_eq!(store.count("outbox").await, 1);
}

/// What was never given to the broker is taken back for sure; what is being published stays. A rollback brings it back.
pub async fn what_nobody_publishes_is_taken_back(store: &impl Lab) {
    let later = outbox_row("later", Some(Duration::from_secs(3600)), false);
    let (tried, leased) = (outbox_row("tried", None, false), outbox_row("leased", None, true));
    let (free, other) = (outbox_row("free", None, false), outbox_row("other", None, false));
    let all = [&later, &tried, &leased, &free].map(|row| row.id);
    write(store, crate::with!(writes(), outbox = vec![later, tried.clone(), leased.clone()])).await.unwrap();
    assert_eq!(lease(store, "me").await.rows.len(), 1);
    report(store, "me", &[], &[crate::with!(failed(tried.id, Duration::from_secs(60)), unroutable = true)]).await;
    write(store, crate::with!(writes(), outbox = vec![free, other])).await.unwrap();
    let take_back = async |commit: bool| {
        let mut unit = store.begin(&[], LIMIT).await.unwrap();
        let mut gone = unit.take_back(&[&all[..], &[Uuid::nil()]].concat()).await.unwrap();
        gone.sort_unstable_by_key(|gone| (gone.tried, gone.row));
        assert!(unit.take_back(&all).await.unwrap().is_empty(), "a row is taken back once");
        unit.write(&writes()).await.unwrap();
        if commit {
            unit.commit().await.unwrap()
        } else {
            unit.rollback().await.unwrap()
        }
        gone.iter().map(|gone| (gone.row, gone.tried)).collect::<Vec<_>>()
    };
    let free = [(all[0], false), (all[3], false), (all[1], true)];
    assert_eq!(take_back(false).await, free);
    assert_eq!(store.count("outbox").await, 5, "nothing has happened");
    assert_eq!(take_back(true).await, free);
    assert_eq!(store.count("outbox").await, 2);
    let left = lease(store, "other").await.rows;
    assert_eq!(left.iter().map(|row| row.envelope.message_id.as_str()).collect::<Vec<_>>(), ["other"]);
    assert!(report(store, "me", &[leased.id], &[]).await.is_empty(), "what is being published keeps its lease");
}

/// A timer that leaves for the first time tells how late it is; nothing else does.
pub async fn a_timer_tells_by_how_much_it_is_late(store: &impl Lab) {
    let timer = crate::with!(outbox_row("timer", Some(Duration::from_secs(3600)), false), kind = OutboxKind::Timer);
    let rows = vec![timer, outbox_row("command", None, false)];
    write(store, crate::with!(writes(), outbox = rows)).await.unwrap();
    store.age("outbox", "due_at", Duration::from_secs(3610)).await;
    let rows = lease(store, "me").await.rows;
    let late = |id: &str| rows.iter().find(|row| row.envelope.message_id == id).expect("it is due").late;
    let of_timer = late("timer").expect("it is a timer").as_secs();
    assert!((10..60).contains(&of_timer), "{of_timer} s");
    assert_eq!(late("command"), None);
}

/// Counts for the metrics: of one endpoint and its sagas, and of no more rows than asked.
pub async fn what_waits_and_lives_is_counted(store: &impl Lab) {
    let none = store.counts("e", &["saga".into()], 100).await.unwrap();
    assert_eq!((none.outbox, none.outbox_oldest, none.unroutable, none.instances.len()), (0, None, 0, 0));
    let later = outbox_row("later", Some(Duration::from_secs(3600)), false);
    let rows = vec![outbox_row("one", None, false), outbox_row("two", None, false), later];
    let mut paused = instance(1, 0);
    paused.row.paused_by = Some("m".into());
    let mut other = instance(1, 0);
    other.row.key.id = "8".into();
    let mut another = instance(1, 0);
    another.row.key.saga = "another".into();
    let held = vec![held_in("f", HeldReason::Failed), held_in("e", HeldReason::Early)];
    let instances = vec![paused, other, another];
    write(store, crate::with!(writes(), outbox = rows, instances = instances, held_in = held)).await.unwrap();
    let leased = lease(store, "me").await.rows;
    let away = crate::with!(failed(leased[0].id, Duration::from_secs(60)), unroutable = true);
    report(store, "me", &[], &[away]).await;
    store.age("outbox", "first_attempt_at", Duration::from_secs(30)).await;

    let counts = store.counts("e", &["saga".into()], 100).await.unwrap();
    assert_eq!((counts.outbox, counts.unroutable), (2, 1), "what waits for its time does not count");
    let oldest = counts.outbox_oldest.expect("there is one").as_secs();
    assert!((30..90).contains(&oldest), "{oldest} s");
    let held: Vec<_> = counts.held.iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(held, [&(HeldReason::Early, 1), &(HeldReason::Failed, 1)]);
    let instances: Vec<_> = counts.instances.iter().map(|it| (&*it.saga, &*it.state, it.count, it.paused)).collect();
    assert_eq!(instances, [("saga", "S", 2, 1)]);
    assert_eq!(store.counts("e", &[], 1).await.unwrap().outbox, 1, "it reads no more rows than it may");
    let others = store.counts("other", &[], 100).await.unwrap();
    assert_eq!((others.outbox, others.unroutable, others.instances.len()), (0, 0, 0));
}

/// A limit's times are given once, whichever process asks, and none that has passed.
pub async fn calls_are_given_one_time_each(store: &impl Lab) {
    let (every, second) = (Duration::from_millis(500), Duration::from_secs(1));
    let took = Instant::now();
    let first = store.reserve_calls("e", "bank", 4, every, Duration::MAX).await.unwrap();
    let then = store.reserve_calls("e", "bank", 1, every, Duration::MAX).await.unwrap();
    let last = store.reserve_calls("e", "bank", 1, every, Duration::MAX).await.unwrap();
    let took = took.elapsed();
    assert!(first <= took, "the first call may be made at once: {first:?}");
    for (wait, after) in [(then, 2 * second), (last, 2 * second + every)] {
        // a clock that runs by the system's time may be slowed down meanwhile
        let least = after - Duration::from_millis(1);
        assert!(wait <= after && wait + took >= least, "after {after:?} was expected, less at most {took:?}: {wait:?}");
    }
    for (endpoint, limit) in [("other", "bank"), ("e", "post")] {
        let wait = store.reserve_calls(endpoint, limit, 1, every, Duration::MAX).await.unwrap();
        assert!(wait < every, "{limit} of {endpoint} is another limit: {wait:?}");
    }
    store.age("rate_limit", "next_at", 60 * second).await;
    let wait = store.reserve_calls("e", "bank", 1, every, Duration::MAX).await.unwrap();
    assert_eq!(wait, Duration::ZERO, "no calls are saved up, and none is owed");
    let wait = store.reserve_calls("e", "bank", 1, every, Duration::MAX).await.unwrap();
    assert!(wait <= every, "{wait:?}");
    // a time that is too far away is left to others
    store.reserve_calls("e", "far", 1, 60 * second, Duration::MAX).await.unwrap();
    for _ in 0..3 {
        let wait = store.reserve_calls("e", "far", 1, 60 * second, second).await.unwrap();
        assert!(wait > 50 * second && wait <= 60 * second, "a time in a minute was expected: {wait:?}");
    }
    store.age("rate_limit", "next_at", 59 * second).await;
    let wait = store.reserve_calls("e", "far", 1, 60 * second, 2 * second).await.unwrap();
    assert!(wait <= second, "{wait:?}");
    let wait = store.reserve_calls("e", "far", 1, 60 * second, 2 * second).await.unwrap();
    assert!(wait > 50 * second, "the time was taken: {wait:?}");
    // the rate of all processes together, however slow
    let hour = 3600 * second;
    for calls in 0..4 {
        let wait = store.reserve_calls("e", "slow", 1, hour, Duration::MAX).await.unwrap();
        assert!(wait <= calls * hour && wait + 60 * second > calls * hour, "after {calls} hours, not {wait:?}");
    }
}

/// A limit for which nobody waits is forgotten.
pub async fn limits_are_swept_when_their_next_call_may_be_made(store: &impl Lab) {
    let second = Duration::from_secs(1);
    store.reserve_calls("e", "bank:1", 1, second, Duration::MAX).await.unwrap();
    store.reserve_calls("other", "bank:1", 1, second, Duration::MAX).await.unwrap();
    assert_eq!(store.sweep("e", 3600 * second).await.unwrap().rows, 0, "its time has not passed");
    store.age("rate_limit", "next_at", 120 * second).await;
    assert_eq!(store.sweep("e", 3600 * second).await.unwrap().rows, 1, "that of another endpoint stays");
}

/// The clock of the database is set back by a day.
pub async fn a_clock_that_was_set_back_stops_no_calls_for_long(store: &impl Lab) {
    store.reserve_calls("e", "bank", 200_000, Duration::from_secs(1), Duration::MAX).await.unwrap();
    for _ in 0..2 {
        let wait = store.reserve_calls("e", "bank", 1, Duration::from_millis(1), Duration::MAX).await.unwrap();
        assert!(wait <= Duration::from_millis(60_010), "{wait:?}");
    }
    // whoever takes no time that is far away does not wait for a day either
    let second = Duration::from_secs(1);
    store.reserve_calls("e", "post", 200_000, second, Duration::MAX).await.unwrap();
    let wait = store.reserve_calls("e", "post", 1, second, second).await.unwrap();
    assert!(wait > second && wait <= 60 * second, "{wait:?}");
    store.age("rate_limit", "next_at", 60 * second).await;
    let wait = store.reserve_calls("e", "post", 1, second, second).await.unwrap();
    assert!(wait <= second, "after the minute its time has come: {wait:?}");
}
