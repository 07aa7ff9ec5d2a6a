//! What an operator does: retry, discard, edit, resume, cancel.

use crate::{command, json, run, said};
use saga_core::hash_of;
use sqlx::{Connection, Executor, PgConnection};
use std::process::Stdio;
use tests::tables::{Held, Tables};

#[tokio::test(flavor = "multi_thread")]
async fn held_messages_are_retried_and_discarded_by_id_and_by_filter() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        tables.instance("7", "AwaitingShipment", Some("a8e8-1")).await;
        tables.hold(&Held { message_id: "a8e8-1", reason: "undecodable", ..Held::default() }).await;
        tables.hold(&Held { message_id: "a8e8-2", reason: "paused", ..Held::default() }).await;
        for n in 0..5 {
            tables
                .hold(&Held { message_id: &format!("f{n}"), receiver: "charge", saga_id: None, ..Held::default() })
                .await;
        }
        let (code, _, err) = run(url, &["held", "retry", "a8e8"]);
        assert_eq!((code, err.as_str()), (1, "sagabus: 2 ids begin with a8e8: a8e8-1, a8e8-2 [SB0074]\n"));
        let (code, _, err) = run(url, &["held", "discard", "f1", "nope", "--reason", "why"]);
        assert!(code == 1 && err.contains("no message nope is held"), "{err}");
        let (code, _, _) = run(url, &["held", "retry"]);
        assert_eq!(code, 2, "neither an id nor a filter");
        let (code, _, _) = run(url, &["held", "retry", "f1", "--all"]);
        assert_eq!(code, 2, "an id and a filter");
        let (code, _, err) = run(url, &["held", "retry", "--reason-is", "lost"]);
        assert!(code == 2 && err.contains("undecodable"), "{err}");

        let (code, out, _) = run(url, &["held", "retry", "--all", "--dry-run"]);
        assert!(code == 0 && out.ends_with("6 messages would be retried\n"), "what is paused is not counted: {out}");
        let (_, out, _) = run(url, &["held", "list"]);
        assert_eq!(out.lines().count(), 7, "nothing was done: {out}");

        let page = run(url, &["sagas", "show", "ORDER", "7"]).1;
        assert!(page.contains("sagabus held discard a8e8-1") && page.contains("sagabus held retry a8e8-1"), "{page}");
        let (code, out, err) = run(url, &["held", "discard", "a8e8-1", "--reason", "not a label"]);
        assert_eq!((code, out.as_str(), err.as_str()), (0, "1 of 1 message discarded\n", ""));
        let page = run(url, &["sagas", "show", "order", "7"]).1;
        assert!(
            !page.contains("PAUSED") && page.contains("\tann\theld discard\tdiscarded\ta8e8-1\tnot a label"),
            "{page}"
        );
        let (code, page, _) = run(url, &["held", "show", "a8e8-1"]);
        assert!(code == 0 && page.contains("is not held now") && page.contains("not a label"), "{page}");
        assert!(run(url, &["outbox", "list"]).1.contains("sagabus.Wake"), "what waits behind it is told to go on");

        let (code, out, _) = run(url, &["--json", "held", "retry", "--receiver", "charge", "--error", "NO TABLE"]);
        let done = json(&out);
        assert_eq!((code, &done["found"], &done["retried"]), (0, &5.into(), &5.into()), "{done}");
        let (code, _, err) = run(url, &["held", "retry", "--receiver", "charge"]);
        assert!(code == 1 && err.contains("no held message matches"), "{err}");
        let (code, out, _) = run(url, &["held", "retry", "a8e8-2"]);
        assert!(code == 1 && out.starts_with("0 of 1 message") && out.contains("must go first"), "{out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_on_an_id_takes_one_of_the_receivers_that_hold_it() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        tables.instance("7", "AwaitingShipment", Some("m")).await;
        tables.hold(&Held::default()).await;
        tables.hold(&Held { receiver: "charge", saga_id: None, reason: "rejected", ..Held::default() }).await;
        let told = "sagabus: m is there 2 times, say which: receiver order at ordering, failed (--receiver order); \
                    receiver charge at ordering, rejected (--receiver charge) [SB0074]\n";
        for arguments in [
            &["held", "retry", "m"][..],
            &["held", "retry", "m", "--endpoint", "ordering", "--dry-run"],
            &["held", "discard", "m", "--reason", "why"],
            &["held", "edit", "m", "--body", "{}"],
        ] {
            assert_eq!(run(url, arguments), (1, String::new(), told.to_owned()), "{arguments:?}");
        }
        let page = run(url, &["sagas", "show", "order", "7"]).1;
        let commands = ["held retry m --receiver order\n", "held discard m --receiver order --reason TEXT\n"];
        assert!(commands.iter().all(|command| page.contains(command)), "{page}");
        let page = run(url, &["held", "show", "m"]).1;
        assert!(page.contains("on this one by --receiver charge,"), "{page}");
        let (code, _, err) = run(url, &["held", "retry", "m", "--receiver", "stock"]);
        let told = "no message m is held by receiver stock; who holds it: sagabus held show m";
        assert!(code == 1 && err.contains(told), "{err}");
        assert_eq!(run(url, &["held", "retry", "m", "--type", "payment.Paid"]).0, 2, "an id and a filter");
        // each receiver has its own masks
        let envelope = r#"{"message_id":"m","type":"payment.Paid","headers":{"sagabus-masked":["a"]}}"#;
        tables.sql(&format!("UPDATE {{s}}held SET envelope = '{envelope}' WHERE receiver = 'charge'")).await;
        let edit = |receiver: &str| {
            let mut edit = command(url, &["held", "edit", "m", "--receiver", receiver]);
            said(&edit.env_remove("VISUAL").env("EDITOR", "true").output().unwrap())
        };
        let (code, _, err) = edit("charge");
        assert!(code == 1 && err.contains("has masked fields (a)"), "{err}");
        assert_eq!(edit("order"), (0, "m has this body already: nothing was done\n".into(), String::new()));
        let (code, out, err) = run(url, &["held", "discard", "m", "--receiver", "CHARGE", "--reason", "why"]);
        assert_eq!((code, out.as_str(), err.as_str()), (0, "1 of 1 message discarded\n", ""));
        let (code, out, err) = run(url, &["held", "retry", "m"]);
        assert!(code == 0 && out.starts_with("1 of 1 message will be handled again"), "the only one: {out}{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_on_an_id_takes_one_of_the_databases_that_hold_it() {
    let (one, two) = (Tables::postgres().await, Tables::sqlite().await);
    for tables in [&one, &two] {
        tables.hold(&Held { receiver: "charge", saga_id: None, ..Held::default() }).await;
    }
    let discard = |urls: &[&str]| run(urls, &["held", "discard", "m", "--receiver", "charge", "--reason", "why"]);
    let (code, out, err) = discard(&[&one.url, &two.url]);
    assert!(code == 1 && out.is_empty() && err.matches("(--database URL)").count() == 2, "{out}{err}");
    assert_eq!(discard(&[&two.url]).0, 0);
    let held = run(&[&one.url, &two.url], &["--json", "held", "list"]).1;
    assert_eq!(json(&held).as_array().map(Vec::len), Some(1), "that of the other database: {held}");
}

/// R-024: a filter finds what still waits, so an order that was killed is given once more.
#[tokio::test(flavor = "multi_thread")]
async fn r_024_an_order_that_was_killed_half_way_is_given_again_and_retries_each_message_once() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        let numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)";
        let receiver = "CASE WHEN i < 400 THEN 'charge' ELSE 'order' END";
        let json = if tables.url.starts_with("sqlite:") { "" } else { "::json" };
        tables
            .sql(&format!(
                "{numbers} INSERT INTO {{s}}held (endpoint, receiver, message_id, reason, error, attempts, held_at,
                     type, envelope, body)
                 SELECT 'ordering', {receiver}, 'm' || i, 'failed', 'no', 1, {{now}}, 't',
                     ('{{\"message_id\":\"m' || i || '\",\"type\":\"t\"}}'){json}, {{body}} FROM n"
            ))
            .await;
        tables
            .sql(&format!(
                "{numbers} INSERT INTO {{s}}inbox (endpoint, receiver, message_id, body_hash, type, result,
                     conversation_id, claimed_at, handled_at, handled_by, attempts)
                 SELECT 'ordering', {receiver}, 'm' || i, 1, 't', 'held', 'c', {{now}}, {{now}}, 'p', 1 FROM n"
            ))
            .await;
        let count = async |rows: &str| {
            let count = tables.one(&format!("SELECT CAST(count(*) AS text) FROM {{s}}{rows}")).await;
            count.expect("a count").parse::<u32>().expect("a number")
        };
        let order = ["held", "retry", "--receiver", "charge"];
        let (code, out, _) = run(url, &[&order[..], &["--dry-run"]].concat());
        assert!(code == 0 && out.ends_with("400 messages would be retried\n"), "{out}");
        assert_eq!((count("held").await, count("outbox").await, count("operation").await), (1000, 0, 0));

        let mut killed = command(url, &order).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tests::eventually("it to begin", || async { (count("operation").await > 0).then_some(()) }).await;
        killed.kill().unwrap();
        killed.wait().unwrap();
        let (code, _, err) = run(url, &order);
        assert!(code == 0 || err.contains("no held message matches"), "{err}"); // it may have been too quick
        assert_eq!((count("held").await, count("outbox").await), (600, 400));
        let distinct = "(SELECT DISTINCT message_id FROM {s}outbox) AS sent";
        let sent = tables.one(&format!("SELECT CAST(count(*) AS text) FROM {distinct}")).await;
        assert_eq!(sent.as_deref(), Some("400"), "each once");
        assert_eq!(count("inbox WHERE result = 'retrying'").await, 400);
        assert_eq!(count("held WHERE receiver = 'order'").await, 600);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r_025_a_held_message_is_edited_by_argument_by_file_and_in_an_editor() {
    let tables = Tables::sqlite().await;
    let url = &[tables.url.as_str()];
    for id in ["argument", "file", "editor"] {
        tables.hold(&Held { message_id: id, receiver: "charge", saga_id: None, ..Held::default() }).await;
    }
    let (code, _, err) = run(url, &["held", "edit", "argument", "--body", "{'a':2}"]);
    assert!(code == 1 && err.contains("the new body is not JSON") && err.contains("line 1 column 2"), "{err}");
    let (code, out, _) = run(url, &["held", "edit", "argument", "--body", r#"{"a":1}"#]);
    assert!(code == 0 && out.contains("has this body already: nothing was done"), "{out}");
    assert_eq!(run(url, &["held", "list"]).1.lines().count(), 3, "nothing was done");
    let (code, out, err) = run(url, &["held", "edit", "arg", "--body", r#"{"a":2}"#, "--reason", "off by one"]);
    assert!(code == 0 && out.contains("argument will be handled with its new body"), "{out}{err}");
    let page = run(url, &["--json", "held", "show", "argument"]).1;
    let item = &json(&page)["operations"][0]["items"][0];
    assert_eq!((&item["result"], &item["old_body"]), (&"edited".into(), &r#"{"a":1}"#.into()), "{page}");
    assert_eq!(item["error"], "no table", "why it was held until then: {page}");

    let folder = std::env::temp_dir().join(format!("sagabus-edit-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("body of it.json");
    std::fs::write(&file, r#"{"a":3}"#).unwrap();
    let (code, out, err) = run(url, &["held", "edit", "file", "--body-file", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, _, err) = run(url, &["held", "edit", "editor", "--body-file", "/nowhere.json"]);
    assert!(code == 1 && err.contains("cannot read /nowhere.json"), "{err}");

    let editing = |editor: &str| {
        let mut edit = command(url, &["held", "edit", "editor"]);
        said(&edit.env_remove("VISUAL").env("EDITOR", editor).env("TMPDIR", &folder).output().unwrap())
    };
    let (code, _, err) = editing("");
    assert!(code == 1 && err.contains("set EDITOR"), "{err}");
    let (code, out, _) = editing("true");
    assert!(code == 0 && out.contains("nothing was done"), "{out}");
    let (code, _, err) = editing("false");
    assert!(code == 1 && err.contains("the editor ended with"), "{err}");
    let (code, out, err) = editing("sed -i s/1/4/");
    assert_eq!(code, 0, "{out}{err}");
    let bodies = tables.sql("SELECT CAST(body AS text) FROM {s}outbox ORDER BY message_id").await;
    let expected = [r#"{"a":2}"#, r#"{"a":4}"#, r#"{"a":3}"#];
    assert_eq!(bodies.iter().flatten().collect::<Vec<_>>(), expected, "of argument, editor and file");
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [file], "what the editor had is removed");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn r_026_what_cannot_be_undone_needs_a_reason() {
    let tables = Tables::sqlite().await;
    let url = &[tables.url.as_str()];
    tables.instance("7", "Waiting", None).await;
    tables.hold(&Held::default()).await;
    for arguments in [&["held", "discard", "m"][..], &["held", "discard", "--all"], &["sagas", "cancel", "order", "7"]]
    {
        let (code, _, err) = run(url, arguments);
        assert!(code == 2 && err.contains("--reason"), "{arguments:?}: {code} {err}");
        let (code, _, err) = run(url, &[arguments, &["--reason", " "]].concat());
        assert!(code == 2 && err.contains("this cannot be undone"), "{arguments:?}: {code} {err}");
    }
    assert_eq!(tables.one("SELECT result FROM {s}inbox").await.as_deref(), Some("held"));
    assert_eq!(run(url, &["held", "discard", "m", "--reason", "sent twice"]).0, 0);
    let settled = tables.one("SELECT result || ': ' || note FROM {s}inbox").await;
    assert_eq!(settled.as_deref(), Some("discarded: discarded by ann: sent twice"));
}

#[tokio::test(flavor = "multi_thread")]
async fn r_031_an_instance_is_resumed_and_cancelled() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        tables.instance("7", "Waiting", Some("poison")).await;
        tables.instance("8", "Waiting", None).await;
        for (message_id, reason) in [("poison", "failed"), ("behind", "paused"), ("ahead", "early")] {
            tables.hold(&Held { message_id, reason, ..Held::default() }).await;
        }
        tables.hold(&Held { message_id: "elsewhere", saga_id: Some("8"), ..Held::default() }).await;
        tables.send("timer", "ordering", 5, "", "").await;
        tables.send("command", "payment", 5, "", "").await;
        let (code, out, err) = run(url, &["sagas", "resume", "ORDER", "8"]);
        assert_eq!((code, out.as_str(), err.as_str()), (1, "order 8 is not paused\n", ""));
        let (code, _, err) = run(url, &["sagas", "resume", "order", "9"]);
        assert!(code == 1 && err.contains("there is no instance 9"), "{err}");
        let (code, out, _) = run(url, &["sagas", "resume", "order", "7", "--reason", "the bank called"]);
        assert!(code == 0 && out.starts_with("order 7 goes on without message poison"), "{out}");
        let page = run(url, &["sagas", "show", "order", "7"]).1;
        let shown = !page.contains("PAUSED") && page.contains("\tsaga resume\tresumed\tpoison\tthe bank called");
        assert!(shown && page.contains("held messages"), "{page}");
        assert!(run(url, &["held", "show", "poison"]).1.contains("because  failed"), "it is left held");
        assert!(run(url, &["outbox", "list"]).1.contains("sagabus.Wake"), "what waits behind it is told to go on");

        let (code, out, _) = run(url, &["sagas", "cancel", "order", "7", "--reason", "by phone"]);
        assert_eq!((code, out.as_str()), (0, "order 7 is over; 3 held messages discarded with it\n"));
        let page = run(url, &["sagas", "show", "order", "7"]).1;
        assert!(page.starts_with("order 7: sagabus.Cancelled (seq 3,") && page.contains("\ndone    "), "{page}");
        assert!(page.contains("no timers") && page.contains("payment.MakePayment"), "what it sent stays: {page}");
        assert!(page.contains("sagabus.Cancel\tWaiting → sagabus.Cancelled"), "{page}");
        assert!(page.contains("cancelled by ann: by phone"), "{page}");
        assert_eq!(page.matches("discarded by ann, with the instance: by phone").count(), 3, "{page}");
        assert!(page.contains("\tsaga cancel\tcancelled\t"), "{page}");
        assert_eq!(run(url, &["held", "list"]).1.lines().count(), 1, "that of another instance");
        let (code, out, _) = run(url, &["--json", "sagas", "cancel", "order", "7", "--reason", "again"]);
        assert_eq!((code, &json(&out)["done"]["result"]), (1, &"done".into()));
        let status = json(&run(url, &["--json", "status"]).1);
        let of = |state: &str| {
            status["instances"].as_array().unwrap().iter().find(|found| found["state"] == state).unwrap().clone()
        };
        assert_eq!((&of("sagabus.Cancelled")["done"], &of("Waiting")["paused"]), (&1.into(), &0.into()), "{status}");
    }
}

/// A unit of work of a running endpoint has the instance: the action waits for the unit, and leaves alone what is not
/// what it read.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_moves_on_between_the_look_and_the_act_is_left_alone() {
    let tables = Tables::postgres().await;
    tables.instance("7 b", "Waiting", Some("poison")).await;
    tables.hold(&Held { message_id: "poison", saga_id: Some("7 b"), ..Held::default() }).await;
    let lock = hash_of([b"order".as_slice(), b"7 b"]);
    for (arguments, moved) in [
        (&["sagas", "resume", "order", "7 b"][..], "paused_by = 'other'"),
        (&["sagas", "cancel", "order", "7 b", "--reason", "why"], "seq = seq + 1"),
        (&["sagas", "fork", "order", "7 b", "--at", "1"], "seq = seq + 1"),
    ] {
        let mut unit = PgConnection::connect(&tables.url).await.unwrap();
        unit.execute(&*format!("BEGIN; SELECT pg_advisory_xact_lock({lock})")).await.unwrap();
        let mut act = command(&[&tables.url], arguments);
        let act = act.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        tests::eventually("the action to wait for the lock", || async {
            let waits = "SELECT 'waits' FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            tables.sql(waits).await.pop()
        })
        .await;
        unit.execute(&*format!("UPDATE sagabus.saga SET {moved}; COMMIT")).await.unwrap();
        let (code, out, err) = said(&act.wait_with_output().unwrap());
        assert_eq!((code, err.as_str()), (1, ""), "{out}");
        assert!(out.starts_with("order 7 b has moved on since it was read: nothing was done"), "{out}");
        assert!(out.ends_with("sagabus sagas show order '7 b'\n"), "the command can be pasted: {out}");
    }
    let page = run(&[&tables.url], &["sagas", "show", "order", "7 b"]).1;
    assert!(page.contains("PAUSED by message other") && !page.contains("what operators did"), "{page}");
    assert!(page.contains("sagabus sagas resume order '7 b'\n"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn held_messages_are_counted_by_reason_type_and_error_and_bear_notes() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        let (code, out, err) = run(url, &["held", "groups"]);
        assert_eq!((code, out.as_str(), err.as_str()), (0, "", "nothing is held\n"));
        for n in 0..3 {
            tables.hold(&Held { message_id: &format!("f{n}"), error: "no table charge", ..Held::default() }).await;
        }
        tables.hold(&Held { message_id: "other", error: "no money", ..Held::default() }).await;
        tables.hold(&Held { message_id: "early", reason: "early", error: "", ..Held::default() }).await;
        let note = |more: &[&str]| run(url, &[&["held", "note", "--reason-is", "FAILED", "--type"], more].concat());
        let (code, _, err) = note(&["payment.Lost", "a note"]);
        assert!(code == 1 && err.contains("no held message matches"), "{err}");
        assert_eq!(note(&["payment.Paid", " "]).0, 2, "a blank note says nothing");
        let (code, out, err) = note(&["payment.Paid", "--error", "NO TABLE", "the deployment is on its way"]);
        assert_eq!((code, out.as_str(), err.as_str()), (0, "noted\n", ""));
        let (_, out, _) = run(url, &["held", "groups"]);
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].starts_with("3\tfailed\tpayment.Paid\t"), "{out}");
        assert!(
            lines[0].contains("no table charge | ann, ") && lines[0].ends_with("the deployment is on its way"),
            "{out}"
        );
        assert!(lines[1].starts_with("1\tfailed") && !lines[1].contains("deployment"), "{out}");
        assert!(lines[2].starts_with("1\tearly"), "what goes on by itself comes last: {out}");
        let page = run(url, &["held", "show", "f1"]).1;
        assert!(page.contains("\nnoted    ann, ") && page.contains(": the deployment is on its way\n"), "{page}");
        assert!(!run(url, &["held", "show", "other"]).1.contains("\nnoted "), "that is about another error");
        let groups = json(&run(url, &["--json", "held", "groups", "--needs-person"]).1);
        assert_eq!((groups.as_array().unwrap().len(), &groups[0]["notes"][0]["who"]), (2, &"ann".into()), "{groups}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_given_a_message_that_its_saga_takes_and_no_other() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        tables.instance("7", "AwaitingPayment", None).await;
        let message = r#"[{"type_name":"payment.Paid","kind":"reply","starts":false}]"#;
        let chart = format!(r#"{{"saga":"order","version":1,"states":[],"messages":{message},"edges":[]}}"#);
        tables
            .sql(&format!(
                "INSERT INTO {{s}}definition (saga, version, chart, endpoint, registered_at)
                 VALUES ('order', 1, '{chart}', 'ordering', {{now}})"
            ))
            .await;
        let send = |more: &[&str]| run(url, &[&["sagas", "send", "order", "7"], more].concat());
        assert_eq!(send(&["payment.Paid", "--body", "{}"]).0, 2, "a reason is needed");
        let (code, _, err) = send(&["payment.Lost", "--body", "{}", "--reason", "why"]);
        assert!(code == 1 && err.contains("there are: payment.Paid"), "{err}");
        let (code, _, err) = send(&["payment.paid", "--body", "{", "--reason", "why"]);
        assert!(code == 1 && err.contains("not JSON"), "{err}");
        let (code, out, err) = send(&["payment.paid", "--body", "{\"cents\":5}", "--reason", "by fax"]);
        assert!(code == 0 && out.contains("order 7 gets message "), "{out}{err}");
        let row = &json(&run(url, &["--json", "outbox", "list"]).1)[0];
        assert_eq!((&row["type"], &row["destination"]), (&"payment.Paid".into(), &"ordering".into()), "{row}");
        let page = run(url, &["sagas", "show", "order", "7"]).1;
        assert!(page.contains("\tann\tsaga send\tsent\t") && page.contains("by fax"), "{page}");
    }
}
