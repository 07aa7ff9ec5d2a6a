//! `sagabus outbox` and `sagabus timers`: what an operator does with rows that wait to be sent.

use crate::{command, run, said};
use std::process::Stdio;
use tests::{
    clock::Clock,
    tables::{Held, Tables},
};

async fn count(tables: &Tables, rows: &str) -> u32 {
    let count = tables.one(&format!("SELECT CAST(count(*) AS text) FROM {{s}}{rows}")).await;
    count.expect("a count").parse().expect("a number")
}

async fn id_of(tables: &Tables, kind: &str) -> String {
    tables.one(&format!("SELECT CAST(id AS text) FROM {{s}}outbox WHERE kind = '{kind}'")).await.expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_are_listed_fired_moved_and_cancelled_and_nothing_else_is() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        tables.send("timer", "ordering", 60, "", "").await;
        tables.send("command", "payment", 60, "", "").await;
        let (timer, command) = (id_of(&tables, "timer").await, id_of(&tables, "command").await);
        let (code, out, err) = run(url, &["timers"]);
        assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 1), "{out}");
        assert!(out.starts_with(&format!("{timer}\torder\t7\tpayment.MakePayment\t")), "{out}");
        for filter in [["--saga", "order"], ["--endpoint", "ordering"], ["--type", "payment.MakePayment"]] {
            assert_eq!(run(url, &[&["timers", "list"][..], &filter].concat()).1.lines().count(), 1, "{filter:?}");
        }
        for filter in [vec!["--saga", "odrer"], vec!["--due"], vec!["--saga", "order", "--id", "8"]] {
            assert_eq!(run(url, &[&["timers", "list"][..], &filter].concat()).1, "", "{filter:?}");
        }
        assert_eq!(run(url, &["timers", "list", "--id", "7"]).0, 2, "an id is of a saga");

        let (code, _, err) = run(url, &["timers", "fire", &command]);
        assert!(code == 1 && err.contains("there is no timer"), "{err}");
        let (code, out, _) = run(url, &["timers", "move", "--all", "--in", "2h", "--dry-run"]);
        assert!(code == 0 && out.ends_with("1 timer would be moved\n"), "{out}");
        assert_eq!(count(&tables, "outbox WHERE due_at > {now} + 90 * {minute}").await, 0, "nothing was done");
        let (code, out, err) = run(url, &["timers", "move", &timer, "--in", "2h", "--reason", "a holiday"]);
        assert_eq!((code, out.as_str(), err.as_str()), (0, "1 of 1 timer moved\n", ""));
        let later = "outbox WHERE due_at > {now} + 119 * {minute} AND due_at < {now} + 121 * {minute}";
        assert_eq!(count(&tables, &format!("{later} AND kind = 'timer'")).await, 1);
        let (code, out, _) = run(url, &["timers", "move", &timer, "--at", "2099-01-01T00:00:00Z"]);
        assert_eq!((code, out.as_str()), (0, "1 of 1 timer moved\n"));
        let (code, out, _) = run(url, &["timers", "fire", &timer[..30]]);
        assert_eq!((code, out.as_str()), (0, "1 of 1 timer due now\n"));
        assert_eq!(count(&tables, "outbox WHERE due_at <= {now}").await, 1, "the timer, and the timer alone");
        assert_eq!(run(url, &["timers", "cancel", &timer]).0, 2, "a reason is asked for");
        let (code, out, _) = run(url, &["timers", "cancel", "--all", "--reason", "paid by phone"]);
        assert_eq!((code, out.as_str()), (0, "1 of 1 timer cancelled\n"));
        assert_eq!((count(&tables, "outbox").await, id_of(&tables, "command").await), (1, command));
        // each action is on the instance's page
        tables.instance("7", "Waiting", None).await;
        let page = run(url, &["sagas", "show", "order", "7"]).1;
        for action in ["timer fire\tdone", "timer move\tdone", "timer cancel\tdone", "a holiday", "paid by phone"] {
            assert!(page.contains(action), "{action}: {page}");
        }
    }
}

/// On SQLite the program's clock is the database's.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(clock), ignore = "there is no C compiler")]
async fn a_timer_moves_by_the_databases_clock_whatever_the_operators_says() {
    let tables = Tables::postgres().await;
    tables.send("timer", "ordering", 60, "", "").await;
    let clock = Clock::wrong_by(-3 * 3600);
    let mut moving = command(&[&tables.url], &["timers", "move", "--all", "--in", "2h"]);
    clock.set(&mut moving);
    let (code, out, err) = said(&moving.output().unwrap());
    assert_eq!((code, out.as_str(), err.as_str()), (0, "1 of 1 timer moved\n", ""));
    let later = "outbox WHERE due_at > {now} + 119 * {minute} AND due_at < {now} + 121 * {minute}";
    assert_eq!(count(&tables, later).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_sent_now_rerouted_and_discarded() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        tables.send("command", "warehouse", 60, ", waits_for, attempts", ", 'warehouse', 4").await;
        tables.send("event", "ordering.Placed", 60, "", "").await;
        tables.send("timer", "ordering", 60, "", "").await;
        let (command, event) = (id_of(&tables, "command").await, id_of(&tables, "event").await);
        // they were written a minute ago
        for (filter, rows) in [(["--older-than", "30s"], 3), (["--newer-than", "30s"], 0), (["--newer-than", "1h"], 3)]
        {
            let listed = run(url, &[&["outbox", "list"][..], &filter].concat()).1;
            assert_eq!(listed.lines().count(), rows, "{filter:?}: {listed}");
        }
        assert_eq!(run(url, &["outbox", "discard", "--older-than", "1h", "--reason", "old"]).0, 1, "there is none");
        let (code, out, err) = run(url, &["outbox", "reroute", "--all", "--new", "store", "--reason", "renamed"]);
        assert_eq!(code, 1, "{err}");
        assert!(out.starts_with("1 of 2 rows rerouted") && out.contains("1 of a kind with which this"), "{out}");
        let row = format!("outbox WHERE CAST(id AS text) = '{command}' AND destination = 'store'");
        assert_eq!(count(&tables, &format!("{row} AND waits_for IS NULL AND due_at <= {{now}}")).await, 1);
        let was = tables.sql("SELECT CAST(items AS text) FROM {s}operation").await;
        assert!(was[0].as_ref().is_some_and(|items| items.contains(r#""was":"warehouse""#)), "{was:?}");
        let (code, out, _) = run(url, &["outbox", "send-now", &event]);
        assert_eq!(code, 0, "{out}");
        assert_eq!(count(&tables, "outbox WHERE due_at <= {now}").await, 2, "not the timer");
        let (code, out, _) = run(url, &["outbox", "discard", "--kind", "EVENT", "--reason", "nobody wants it"]);
        assert_eq!((code, out.as_str()), (0, "1 of 1 row discarded\n"));
        assert_eq!(count(&tables, "outbox").await, 2);
        // what a process is sending is left to it
        tables.sql("UPDATE {s}outbox SET lease_until = {now} + {minute}, lease_owner = 'p'").await;
        let (code, out, _) = run(url, &["outbox", "discard", &command, "--reason", "late"]);
        assert!(code == 1 && out.contains("1 being sent by a running process"), "{out}");
        let (code, out, _) = run(url, &["timers", "cancel", "--all", "--reason", "late"]);
        assert!(code == 1 && out.starts_with("0 of 1 timer cancelled"), "{out}");
        assert_eq!(count(&tables, "outbox").await, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_discarded_settles_its_message_and_a_wake_up_is_left_alone() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        tables.hold(&Held { message_id: "charge-1", receiver: "charge", saga_id: None, ..Held::default() }).await;
        assert_eq!(run(url, &["held", "retry", "charge-1"]).0, 0);
        let anew = "inbox WHERE result = 'retrying' AND claimed_at > {now} - {minute} / 2";
        assert_eq!(count(&tables, anew).await, 1, "how long it was tried before does not count any more");
        let (code, out, err) = run(url, &["outbox", "discard", "charge-1", "--reason", "paid by hand"]);
        assert_eq!((code, out.as_str(), err.as_str()), (0, "1 of 1 row discarded\n", ""));
        let inbox = "SELECT result || ' ' || note FROM {s}inbox";
        assert_eq!(tables.one(inbox).await.as_deref(), Some("discarded discarded by ann: paid by hand"));
        assert_eq!(count(&tables, "outbox").await, 0);
        tables.instance("7", "Waiting", Some("m")).await;
        tables.hold(&Held::default()).await;
        assert_eq!(run(url, &["held", "discard", "m", "--reason", "why"]).0, 0);
        let (code, out, _) = run(url, &["outbox", "discard", "--all", "--reason", "why"]);
        assert!(code == 1 && out.contains("1 of a kind with which this is not possible"), "{out}");
        assert_eq!(count(&tables, "outbox").await, 1, "what waits for the instance is still offered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_goes_on_when_the_retry_that_paused_it_is_discarded() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        tables.instance("7", "Waiting", Some("m")).await;
        tables.hold(&Held::default()).await;
        assert_eq!(run(url, &["held", "retry", "m"]).0, 0);
        let (code, out, err) = run(url, &["outbox", "discard", "m", "--reason", "why"]);
        assert_eq!((code, out.as_str(), err.as_str()), (0, "1 of 1 row discarded\n", ""));
        assert_eq!(count(&tables, "saga WHERE paused_by IS NOT NULL").await, 0, "nothing comes that it could wait for");
        assert_eq!(count(&tables, "outbox WHERE type = 'sagabus.Wake'").await, 1, "what waits behind it is offered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_in_the_outbox_twice_is_acted_on_by_the_id_of_a_row() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        tables.send("command", "payment", 60, "", "").await;
        tables.send("retry", "ordering", 60, "", "").await;
        tables.sql("UPDATE {s}outbox SET message_id = 'twice'").await;
        let (command, retry) = (id_of(&tables, "command").await, id_of(&tables, "retry").await);
        let (code, out, err) = run(url, &["outbox", "discard", "twice", "--reason", "why"]);
        assert!(code == 1 && out.is_empty() && err.contains("twice is there 2 times, say which: "), "{out}{err}");
        for told in [format!("command to payment of ordering ({command})"), format!("ordering of ordering ({retry})")] {
            assert!(err.contains(&told), "{told}: {err}");
        }
        let (code, out, err) = run(url, &["outbox", "discard", &command, "--reason", "why"]);
        assert_eq!((code, out.as_str(), err.as_str()), (0, "1 of 1 row discarded\n", ""));
        assert_eq!(count(&tables, "outbox WHERE kind = 'retry'").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_action_is_interrupted_between_two_orders_and_taken_up_again() {
    let tables = Tables::sqlite().await;
    let url = &[tables.url.as_str()];
    for n in 0..30 {
        let id = format!("m{n:02}");
        tables.hold(&Held { message_id: &id, receiver: "charge", saga_id: None, ..Held::default() }).await;
    }
    let order = ["held", "retry", "--receiver", "charge", "--rate", "5"];
    let mut slow = command(url, &order);
    let slow = slow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tests::eventually("it to begin", || async { (count(&tables, "operation").await > 0).then_some(()) }).await;
    let kill = std::process::Command::new("kill").args(["-INT", &slow.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let (code, out, err) = said(&slow.wait_with_output().unwrap());
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("was interrupted after") && err.contains("of 30; what was done stays done"), "{err}");
    let done = count(&tables, "outbox").await;
    assert!(out.starts_with(&format!("{done} of 30 messages")), "{done}: {out}");
    assert!(done > 0 && done < 30 && done % 5 == 0, "{done}");
    assert_eq!(run(url, &["held", "retry", "--receiver", "charge"]).0, 0);
    assert_eq!((count(&tables, "outbox").await, count(&tables, "held").await), (30, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_action_leaves_the_other_databases_alone() {
    let (one, two) = (Tables::sqlite().await, Tables::sqlite().await);
    for tables in [&one, &two] {
        for id in ["m1", "m2", "m3", "m4", "m5"] {
            tables.hold(&Held { message_id: id, receiver: "charge", saga_id: None, ..Held::default() }).await;
        }
    }
    let mut slow = command(&[&one.url, &two.url], &["held", "retry", "--receiver", "charge", "--rate", "1"]);
    let slow = slow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tests::eventually("it to begin", || async { (count(&one, "operation").await > 0).then_some(()) }).await;
    let kill = std::process::Command::new("kill").args(["-INT", &slow.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let (code, out, err) = said(&slow.wait_with_output().unwrap());
    assert!(code == 1 && err.contains("was interrupted after") && err.lines().count() == 1, "{out}{err}");
    assert!(count(&one, "held").await < 5, "{out}");
    assert_eq!((count(&two, "held").await, count(&two, "operation").await), (5, 0), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_lead_from_one_database_to_another_and_back_are_acted_on_once() {
    let (one, two) = (Tables::sqlite().await, Tables::postgres().await);
    for (tables, message_id) in [(&one, "a1"), (&two, "b1"), (&one, "a2")] {
        tables.hold(&Held { message_id, receiver: "charge", saga_id: None, ..Held::default() }).await;
    }
    let urls = &[one.url.as_str(), two.url.as_str()];
    let (code, out, err) = run(urls, &["held", "retry", "a1", "b1", "a2"]);
    assert_eq!((code, out.lines().count(), err.as_str()), (0, 1, ""), "{out}");
    assert!(out.starts_with("3 of 3 messages will be handled again"), "{out}");
    assert_eq!((count(&one, "operation").await, count(&two, "operation").await), (1, 1));
    let (code, out, err) = run(urls, &["outbox", "send-now", "a1", "b1", "a2"]);
    assert_eq!((code, out.lines().count(), err.as_str()), (0, 1, ""), "{out}");
    assert!(out.starts_with("3 of 3 rows due now"), "{out}");
    assert_eq!((count(&one, "operation").await, count(&two, "operation").await), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_on_a_filter_sees_past_all_timers_and_says_what_it_leaves() {
    let tables = Tables::sqlite().await;
    let url = &[tables.url.as_str()];
    tables.send("command", "payment", 60, "", "").await;
    tables
        .sql(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
             INSERT INTO {s}outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id, envelope, body,
                created_at, due_at)
             SELECT printf('01997a10-0000-7000-8000-%012x', i), 'ordering', 'm' || i, 'timer', 't', 'ordering', 'order',
                '7', '{}', {body}, {now}, {now} FROM n",
        )
        .await;
    let send_now = ["outbox", "send-now", "--all", "--dry-run"];
    let (code, out, err) = run(url, &send_now);
    assert!(code == 0 && out.lines().last().is_some_and(|line| line.starts_with("1 row would be")), "{out}{err}");
    tables.sql("UPDATE {s}outbox SET kind = 'command'").await;
    let (code, out, err) = run(url, &send_now);
    assert!(out.lines().last().is_some_and(|line| line.starts_with("100000 rows would be")), "{err}");
    assert!(code == 1 && err.contains("100000 of 100002 that match are taken: run it again for the rest"), "{err}");
}
