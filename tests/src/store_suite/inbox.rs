//! Inbox rows, instances, and the unit that writes them.

use super::*;

/// A message is claimed once; a second claim is a conflict that changes nothing.
pub async fn o_001_a_message_is_claimed_once(store: &impl Lab) {
    write(store, crate::with!(writes(), claims = vec![inbox_row("m")])).await.unwrap();
    let again = crate::with!(
        writes(),
        claims = vec![inbox_row("n"), inbox_row("m")],
        outbox = vec![outbox_row("o", None, false)]
    );
    assert_eq!(kind(write(store, again).await), CONFLICT);
    let found = store.read(&keys(&["m", "n"])).await.unwrap();
    assert_eq!(found.inbox.iter().map(|row| row.message_id.as_str()).collect::<Vec<_>>(), ["m"]);
    assert_eq!(found.inbox[0].body_hash, envelope("m").body_hash());
    assert_eq!(store.count("outbox").await, 0, "the conflict must take everything with it");
}

/// O-011: ids are compared byte for byte.
pub async fn o_011_ids_are_compared_byte_for_byte(store: &impl Lab) {
    let long = "x".repeat(255);
    let ids = ["M", "m", "m ", "ünïcode 🦀", "a'b\"c%_", long.as_str()];
    for id in ids {
        let claim = || crate::with!(writes(), claims = vec![inbox_row(id)]);
        write(store, claim()).await.unwrap();
        assert_eq!(kind(write(store, claim()).await), CONFLICT, "{id}");
    }
    assert_eq!(store.read(&keys(&ids)).await.unwrap().inbox.len(), ids.len());
}

/// Rule 2: a waiting row is completed only by a run that knows its `attempts`.
pub async fn a_row_that_waits_is_completed_once(store: &impl Lab) {
    let waiting = crate::with!(inbox_row("m"), result = InboxResult::Retrying, attempts = 4);
    write(store, crate::with!(writes(), claims = vec![waiting])).await.unwrap();
    let done = |known| {
        let row = crate::with!(inbox_row("m"), attempts = 5);
        crate::with!(writes(), completes = vec![(row, known)])
    };
    assert_eq!(kind(write(store, done(3)).await), CONFLICT);
    write(store, done(4)).await.unwrap();
    assert_eq!(kind(write(store, done(5)).await), CONFLICT, "it is settled");
    let found = store.read(&keys(&["m"])).await.unwrap();
    assert_eq!((found.inbox[0].result, found.inbox[0].attempts), (InboxResult::Handled, 5));
}

/// O-055: a message that two receivers wait for, or two endpoints, is settled for each by itself.
pub async fn a_row_is_settled_for_one_receiver_at_one_endpoint(store: &impl Lab) {
    let row = |receiver: &str, result| {
        crate::with!(inbox_row("m"), receiver = receiver.into(), result = result, attempts = 4)
    };
    let (waits, done) = (InboxResult::Retrying, InboxResult::Handled);
    let at = |endpoint: &str| Write::new(endpoint, "me", LEASE);
    write(store, crate::with!(at("e"), claims = vec![row("r", waits), row("s", waits)])).await.unwrap();
    write(store, crate::with!(at("f"), claims = vec![row("r", waits)])).await.unwrap();
    let settle = |endpoint: &str| crate::with!(at(endpoint), completes = vec![(row("r", done), 4)]);
    let results = async |endpoint: &str| {
        let found = store.read(&crate::with!(keys(&["m"]), endpoint = endpoint.into())).await.unwrap().inbox;
        let mut results: Vec<_> = found.into_iter().map(|row| (row.receiver, row.result)).collect();
        results.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        results
    };
    write(store, settle("e")).await.unwrap();
    assert_eq!(results("e").await, [("r".into(), done), ("s".into(), waits)]);
    assert_eq!(results("f").await, [("r".into(), waits)], "another endpoint has yet to handle it");
    assert_eq!(kind(write(store, settle("e")).await), CONFLICT);
    write(store, settle("f")).await.unwrap();
    assert_eq!(results("f").await, [("r".into(), done)]);
}

/// A command that is taken back before it came is known by its hash alone: it and no other is a duplicate then.
pub async fn a_row_may_be_of_a_message_that_is_known_by_its_hash(store: &impl Lab) {
    let gone = |id: &str| crate::with!(inbox_row(id), body_hash = -7, note = Some("taken back".into()));
    let waiting = crate::with!(inbox_row("waits"), result = InboxResult::Retrying, attempts = 4);
    write(store, crate::with!(writes(), claims = vec![gone("new"), waiting])).await.unwrap();
    let completed = crate::with!(gone("waits"), result = InboxResult::Discarded, attempts = 4);
    write(store, crate::with!(writes(), completes = vec![(completed, 4)])).await.unwrap();
    let found = store.read(&keys(&["new", "waits"])).await.unwrap();
    assert_eq!(found.inbox.iter().map(|row| row.body_hash).collect::<Vec<_>>(), [-7, -7]);
}

/// S-067: an instance that changed meanwhile is a conflict.
pub async fn s_067_an_instance_that_changed_is_a_conflict(store: &impl Lab) {
    let write_instance = async |seq, base_seq| {
        kind(write(store, crate::with!(writes(), instances = vec![instance(seq, base_seq)])).await)
    };
    assert_eq!(write_instance(1, 0).await, None);
    assert_eq!(write_instance(1, 0).await, CONFLICT, "it exists");
    assert_eq!(write_instance(3, 1).await, None);
    assert_eq!(write_instance(2, 1).await, CONFLICT);
    let found = read(store, &[]).await;
    assert_eq!(found.instances, [instance(3, 1).row]);
    let mut ended = instance(4, 3);
    ended.row.done = true;
    write(store, crate::with!(writes(), instances = vec![ended.clone()])).await.unwrap();
    assert_eq!(read(store, &[]).await.instances, [ended.row], "it is done");
}

/// A rolled back or dropped unit leaves nothing, and its connection is usable.
pub async fn a_unit_without_commit_leaves_nothing(store: &impl Lab) {
    for drop_it in [true, false] {
        let mut unit = store.begin(&[1], LIMIT).await.unwrap();
        unit.write(&crate::with!(writes(), claims = vec![inbox_row("m")])).await.unwrap();
        if drop_it { drop(unit) } else { unit.rollback().await.unwrap() }
    }
    assert!(store.read(&keys(&["m"])).await.unwrap().inbox.is_empty());
    // the dropped connection may still be on its way back
    crate::eventually("the locks of the dropped unit to be free", || async {
        let mut unit = store.begin(&[1], LIMIT).await.unwrap();
        let free = unit.read(&keys(&[])).await.unwrap().locked_elsewhere.is_empty();
        unit.rollback().await.unwrap();
        free.then_some(())
    })
    .await;
    write(store, crate::with!(writes(), claims = vec![inbox_row("m")])).await.unwrap();
}

/// A session that sends nothing still commits what its user wrote.
pub async fn m10_a_unit_without_writes_commits(store: &impl Lab) {
    for locks in [&[][..], &[1]] {
        let mut unit = store.begin(locks, LIMIT).await.unwrap();
        unit.write(&writes()).await.unwrap();
        unit.commit().await.unwrap();
    }
}

/// Rule 8: runs after crashes are counted before they begin, and end with the settlement.
pub async fn a_suspect_is_counted(store: &impl Lab) {
    let row = crate::with!(inbox_row("m"), result = InboxResult::Suspect, attempts = 0);
    for n in 1..=3 {
        assert_eq!(store.count_crash("e", "me", &row).await.unwrap(), Some(n));
    }
    write(store, crate::with!(writes(), completes = vec![(inbox_row("m"), 0)])).await.unwrap();
    assert_eq!(store.count_crash("e", "me", &row).await.unwrap(), None, "it is settled");
    let held = crate::with!(inbox_row("held"), result = InboxResult::Held, attempts = 2);
    write(store, crate::with!(writes(), claims = vec![held.clone()])).await.unwrap();
    let other = crate::with!(held.clone(), result = InboxResult::Suspect);
    assert_eq!(store.count_crash("e", "me", &other).await.unwrap(), None, "it came twice, and does not run");
    assert_eq!(store.count_crash("e", "me", &held).await.unwrap(), Some(1), "its turn has come");
    let found = store.read(&keys(&["held"])).await.unwrap().inbox;
    assert_eq!((found[0].result, found[0].attempts), (InboxResult::Held, 2), "it is held all the same");
}

/// M1: a message that ran after a crash, and one that was held before its instance was known, appear in the journal of
/// their instance like any other.
pub async fn m1_the_journal_names_the_instance_of_every_message(store: &impl Lab) {
    let row = |id: &str, saga_id: Option<&str>| {
        crate::with!(inbox_row(id), receiver = "saga".into(), saga_id = saga_id.map(Into::into))
    };
    store.count_crash("e", "me", &row("crashed", Some("7"))).await.unwrap();
    let keyless = crate::with!(row("keyless", None), result = InboxResult::Held);
    let mut handler = crate::with!(inbox_row("handler"), result = InboxResult::Retrying);
    write(store, crate::with!(writes(), claims = vec![keyless, handler.clone()])).await.unwrap();
    assert_eq!(store.column("inbox", "saga_id", "crashed").await, [Some("7".into())]);
    assert_eq!(store.column("inbox", "saga_id", "keyless").await, [None]);
    handler.result = InboxResult::Handled;
    let completes = vec![(row("crashed", Some("7")), 0), (row("keyless", Some("7")), 1), (handler, 1)];
    write(store, crate::with!(writes(), completes = completes)).await.unwrap();
    for id in ["crashed", "keyless"] {
        assert_eq!(store.column("inbox", "saga", id).await, [Some("saga".into())], "{id}");
        assert_eq!(store.column("inbox", "saga_id", id).await, [Some("7".into())], "{id}");
    }
    assert_eq!(store.column("inbox", "saga", "handler").await, [None], "a handler has no instance");
}

/// The inbox knows how often a message was put off, and when it was first claimed.
pub async fn a_row_tells_its_round_and_since_when(store: &impl Lab) {
    let row =
        |result, attempts, round| crate::with!(inbox_row("m"), result = result, attempts = attempts, round = round);
    write(store, crate::with!(writes(), claims = vec![row(InboxResult::Retrying, 1, 1)])).await.unwrap();
    store.age("inbox", "claimed_at", Duration::from_secs(60)).await;
    let first = store.read(&keys(&["m"])).await.unwrap();
    assert!(first.now_us - first.inbox[0].since_us >= 60_000_000, "{first:?}");
    assert_eq!(first.inbox[0].round, 1);
    write(store, crate::with!(writes(), completes = vec![(row(InboxResult::Retrying, 2, 2), 1)])).await.unwrap();
    let second = store.read(&keys(&["m"])).await.unwrap();
    assert_eq!((second.inbox[0].round, second.inbox[0].attempts), (2, 2));
    assert_eq!(second.inbox[0].since_us, first.inbox[0].since_us, "it is known since its claim");
}

/// What waited in the line of a limit has been tried since its first run that counts, not since it came.
pub async fn a_message_is_tried_since_its_first_run(store: &impl Lab) {
    let row = |attempts| crate::with!(inbox_row("m"), result = InboxResult::Retrying, attempts = attempts);
    write(store, crate::with!(writes(), claims = vec![row(0)])).await.unwrap();
    store.age("inbox", "claimed_at", Duration::from_secs(60)).await;
    write(store, crate::with!(writes(), completes = vec![(row(0), 0)])).await.unwrap();
    let in_line = store.read(&keys(&["m"])).await.unwrap();
    assert!(in_line.now_us - in_line.inbox[0].since_us >= 60_000_000, "it did not run: {in_line:?}");
    write(store, crate::with!(writes(), completes = vec![(row(1), 0)])).await.unwrap();
    let ran = store.read(&keys(&["m"])).await.unwrap();
    assert!(ran.now_us - ran.inbox[0].since_us < 50_000_000, "it counts the time in line: {ran:?}");
}

/// M8, B25: the longest duration means "for ever", wherever a store takes one.
pub async fn m8_for_ever_is_a_time_like_any_other(store: &impl Lab) {
    let ever = Duration::MAX;
    let held = crate::with!(held_in("held", HeldReason::Early), expires = Some(ever));
    let outbox = vec![outbox_row("later", Some(ever), false), outbox_row("mine", None, true)];
    write(store, crate::with!(writes(), lease = ever, outbox = outbox, held_in = vec![held])).await.unwrap();
    write(store, crate::with!(writes(), outbox = vec![outbox_row("now", None, false)])).await.unwrap();
    let request = crate::with!(request("me"), lease = ever, retention = ever);
    let leased = store.lease(&request).await.unwrap();
    assert_eq!(leased.rows.iter().map(|row| row.envelope.message_id.as_str()).collect::<Vec<_>>(), ["now"]);
    assert!(leased.next_due.is_some_and(|due| due > Duration::from_secs(99 * 365 * 86_400)), "{:?}", leased.next_due);
    let id = leased.rows[0].id;
    let failed = [saga_core::PublishFailed::new(id, "why", ever)];
    let update = crate::with!(saga_core::LeaseUpdate::new("me", ever), renew = &[], failed = &failed);
    store.renew_and_fail(&update).await.unwrap();
    assert_eq!(store.sweep("e", ever).await.unwrap().rows, 0);
    let unit = store.begin(&[1], ever).await.unwrap();
    unit.commit().await.unwrap();
}

/// M16: an error of user code becomes a note, whatever it contains.
pub async fn m16_an_error_text_may_contain_anything(store: &impl Lab) {
    let text = || Some("a\0b".to_owned());
    let claims = vec![crate::with!(inbox_row("m"), result = InboxResult::Retrying, note = text())];
    let held = crate::with!(held_in("m", HeldReason::Failed), error = text());
    let retry = crate::with!(outbox_row("m", None, false), last_error = text());
    let id = retry.id;
    write(store, crate::with!(writes(), claims = claims, held_in = vec![held], outbox = vec![retry])).await.unwrap();
    let completes = vec![(crate::with!(inbox_row("m"), note = text()), 1)];
    write(store, crate::with!(writes(), completes = completes)).await.unwrap();
    for (table, column) in [("inbox", "note"), ("held", "error"), ("outbox", "last_error")] {
        let stored = store.column(table, column, "m").await.pop().flatten().unwrap_or_default();
        assert!(stored.starts_with('a') && stored.ends_with('b'), "{table}.{column}: {stored:?}");
    }
    lease(store, "me").await;
    let delay = Duration::ZERO;
    let failed = [crate::with!(saga_core::PublishFailed::new(id, "c\0d", delay), unroutable = true)];
    let update = crate::with!(saga_core::LeaseUpdate::new("me", LEASE), renew = &[], failed = &failed);
    store.renew_and_fail(&update).await.unwrap();
}
