//! `sagabus` as an operator meets it: the program itself, its two outputs and its exit codes. Tables for terminals are
//! tested by golden files in the package `operator`.

mod actions;
mod broker;
mod explain;
mod fork;
mod masked;
mod names;
mod outbox;
mod pooler;
mod processes;

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};
use tests::{
    tables::{Held, Tables},
    tool::{command, json, run, said},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_does_not_hide_the_others() {
    let (one, two) = (Tables::postgres().await, Tables::sqlite().await);
    one.hold(&Held { message_id: "in-one", ..Held::default() }).await;
    two.hold(&Held { message_id: "in-two", ..Held::default() }).await;
    for dead in [
        "postgres://u:s3cret@127.0.0.1:1/gone",
        "postgres://127.0.0.1:1/gone?user=u&password=s3cret",
        "sqlite:/nowhere.db",
        "mysql://u:s3cret@127.0.0.1/gone",
    ] {
        let (code, out, err) = run(&[dead, &one.url, &two.url], &["held", "list"]);
        assert_eq!(code, 1, "{err}");
        assert!(out.contains("in-one") && out.contains("in-two"), "{out}{err}");
        let cause = ["refused", "there is no file", "is not a database"].iter().any(|cause| err.contains(cause));
        assert!(cause && !err.contains("s3cret") && !err.contains("pool"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    // a database that could not be read is not reported as empty or as well
    for arguments in [&["status"], &["held"], &["sagas"], &["outbox"]] {
        let (code, out, err) = run(&["sqlite:/nowhere.db"], arguments);
        assert!(code == 1 && out.is_empty() && err.lines().count() == 1, "{arguments:?}: {out}{err}");
    }
    for arguments in
        [&["held", "retry", "--reason-is", "crashes"][..], &["held", "retry", "nope"], &["held", "show", "x"]]
    {
        let (code, _, err) = run(&[&one.url, "sqlite:/nowhere.db"], arguments);
        assert!(code == 1 && err.contains("sagabus: in what could be read, no "), "{arguments:?}: {err}");
    }
    let (_, out, _) = run(&[&one.url, &two.url], &["--json", "held", "list"]);
    let databases: Vec<String> = json(&out).as_array().unwrap().iter().map(|row| row["database"].to_string()).collect();
    assert_eq!(databases.len(), 2);
    assert_ne!(databases[0], databases[1], "each row says where it is");
    // several in the environment are separated by spaces: a path with spaces is given as an argument
    let output =
        command(&[], &["held", "list"]).env("SAGABUS_DATABASE_URL", format!("{} sqlite:/nowhere.db", one.url)).output();
    let (code, out, err) = said(&output.expect("the program runs"));
    assert!(code == 1 && out.contains("in-one") && err.contains("there is no file /nowhere.db"), "{code} {out} {err}");
}

/// S-076, without the program that has the saga.
#[tokio::test(flavor = "multi_thread")]
async fn s_076_the_operator_finds_states_and_versions_that_no_definition_has() {
    let state = |name: &str, was: &str| serde_json::json!({ "name": name, "done": false, "was": [was] });
    let chart = |version: u32, states: &[Value]| {
        let none = [(); 0];
        serde_json::json!({ "saga": "order", "version": version, "states": states, "messages": none, "edges": none })
    };
    let registered = chart(1, &[state("Waiting", "Asking"), state("Paying", "x")]).to_string();
    let next = chart(1, &[state("Waiting", "Asking"), state("Settling", "x")]).to_string();
    let file = std::env::temp_dir().join(format!("sagabus-chart-{}.json", std::process::id()));
    std::fs::write(&file, next).unwrap();
    let file = file.to_str().unwrap();
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let (code, out, _) = run(&[&tables.url], &["check"]);
        assert_eq!((code, out.as_str()), (0, ""), "nothing is stored");
        for (id, state) in [("1", "Waiting"), ("2", "Asking"), ("3", "Paying"), ("4", "Paying")] {
            tables.instance(id, state, None).await;
        }
        let (code, out, _) = run(&[&tables.url], &["check"]);
        assert!(code == 1 && out.contains("no process has registered a saga of this name"), "{out}");
        let define = format!(
            "INSERT INTO {{s}}definition (saga, version, chart, endpoint, registered_at)
             VALUES ('order', 1, '{registered}', 'ordering', {{now}})"
        );
        tables.sql(&define).await;
        let (code, out, err) = run(&[&tables.url], &["check"]);
        assert_eq!((code, out.lines().count(), err.as_str()), (0, 3, ""), "all fit what runs: {out}");

        let (code, out, err) = run(&[&tables.url], &["check", "--chart", file]);
        assert_eq!(code, 1, "{err}");
        let listed = |text: &str| out.lines().filter(|line| line.contains(text)).count();
        assert_eq!(listed("the program has no state `Paying`"), 1, "{out}");
        assert_eq!(
            (listed("order\t3\tPaying\t1"), listed("order\t4\tPaying\t1"), listed("order\t1\t")),
            (1, 1, 0),
            "{out}"
        );
        assert_eq!(listed("state `Paying` is gone"), 1, "what it means is told: {out}");
        let (code, out, _) = run(&[&tables.url], &["--json", "check", "--chart", file]);
        let told = json(&out);
        let ids: Vec<&str> = told["unreadable"].as_array().unwrap().iter().filter_map(|it| it["id"].as_str()).collect();
        assert_eq!((code, ids.len(), told["definitions"][0]["endpoint"].as_str()), (1, 2, Some("ordering")), "{told}");
        assert_eq!(
            told["forms"].as_array().unwrap().iter().filter(|form| !form["fault"].is_null()).count(),
            1,
            "{told}"
        );
        tables.sql("UPDATE {s}saga SET version = 2 WHERE id = '1'").await;
        let (code, out, _) = run(&[&tables.url], &["check"]);
        assert!(code == 1 && out.contains("the newest program has version 1: it leaves them alone"), "{out}");
        let (code, _, err) = run(&[&tables.url], &["check", "--chart", "/nowhere.json"]);
        assert!(code == 1 && err.contains("cannot read /nowhere.json"), "{err}");
    }
    let _ = std::fs::remove_file(file);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_says_how_many_it_leaves_out_and_a_closed_pipe_ends_it_quietly() {
    let tables = Tables::sqlite().await;
    let error = "relation charge does not exist ".repeat(64);
    for n in 0..60 {
        tables.hold(&Held { message_id: &format!("m{n:02}"), error: &error, ..Held::default() }).await;
    }
    let (code, out, err) = run(&[&tables.url], &["held", "list"]);
    assert_eq!((code, out.lines().count(), err.as_str()), (0, 50, "50 of 60 shown\n"));
    assert!(out.lines().all(|line| line.split('\t').count() == 7), "each row has its columns and its error: {out}");
    let (_, out, err) = run(&[&tables.url], &["held", "list", "--all"]);
    assert_eq!((out.lines().count(), err.as_str()), (60, ""));
    let (_, out, err) = run(&[&tables.url], &["--json", "--limit", "7", "held", "list"]);
    assert_eq!((json(&out).as_array().unwrap().len(), err.as_str()), (7, "7 of 60 shown\n"));
    for arguments in [vec!["held", "list", "--all"], vec!["--json", "held", "list", "--all"]] {
        let mut child =
            command(&[&tables.url], &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap(); // and it goes away
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""), "{arguments:?}: {first}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_match_whatever_their_case_and_a_wrong_one_tells_what_there_is() {
    let tables = Tables::postgres().await;
    let url = &[tables.url.as_str()];
    tables.instance("-5", "AwaitingPayment", None).await;
    tables.instance("71", "Cancelled", None).await;
    tables.instance("72", "Cancelled", None).await;
    assert_eq!(run(url, &["sagas", "list", "--state", "cancelled"]).1.lines().count(), 2);
    assert_eq!(run(url, &["sagas", "list", "--older-than", "1h"]).1, "");
    let (code, _, err) = run(url, &["sagas", "list", "--state", "lost"]);
    assert_eq!(code, 1);
    assert_eq!(
        err,
        "sagabus: no state with instances is called lost; there are: AwaitingPayment, Cancelled [SB0073]\n"
    );
    let (code, _, err) = run(url, &["sagas", "show", "odrer", "7"]);
    assert!(code == 1 && err.contains("there are: order"), "{err}");
    let (code, page, _) = run(url, &["sagas", "show", "Order", "-5"]);
    assert!(code == 0 && page.starts_with("order -5: AwaitingPayment"), "{page}");
    let (code, _, err) = run(url, &["sagas", "show", "order", "7"]);
    assert!(code == 1 && err.contains("2 ids begin with 7: 71, 72"), "{err}");
    let (code, _, err) = run(url, &["sagas", "show", "order", "9"]);
    assert!(code == 1 && err.contains("there is no instance 9 of saga order"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_takes_a_sagas_name_whatever_its_case_and_tells_of_one_that_nobody_knows() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        tables.instance("7", "Waiting", None).await;
        tables.hold(&Held::default()).await;
        tables.send("timer", "ordering", 5, "", "").await;
        tables.send("command", "payment", 5, "", "").await;
        for (arguments, lines) in [
            (&["held", "list"][..], 1),
            (&["held", "groups"], 1),
            (&["held", "retry", "--dry-run"], 2),
            (&["outbox", "list"], 2),
            (&["outbox", "send-now", "--dry-run"], 2),
            (&["timers", "list"], 1),
            (&["timers", "fire", "--dry-run"], 2),
        ] {
            let of = |saga: &str| run(url, &[arguments, &["--saga", saga]].concat());
            let (code, out, err) = of("ORDER");
            assert_eq!((code, out.lines().count(), err.as_str()), (0, lines, ""), "{arguments:?}: {out}");
            let told = "sagabus: no saga is called odrer; there are: order [SB0073]\n";
            assert_eq!(of("odrer"), (1, String::new(), told.to_owned()), "{arguments:?}");
        }
        // what a retry bears is the saga of its sender, which may live elsewhere
        tables.sql("UPDATE {s}outbox SET saga = 'asker' WHERE kind = 'command'").await;
        assert_eq!(run(url, &["outbox", "list", "--saga", "asker"]).1.lines().count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_shown_with_its_aliases_and_fields() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        for id in ["7", "8"] {
            tables.instance(id, "AwaitingPayment", None).await;
        }
        let sql = "INSERT INTO {s}field (name, value, saga, id, is_alias) VALUES
            ('order by reference', 'pay-7', 'order', '7', TRUE),
            ('order by card.number', '\u{1b}4\"', 'order', '7', TRUE),
            ('order by customer', '\u{1b}Ann', 'order', '7', NULL)";
        tables.sql(sql).await;
        let page = run(url, &["sagas", "show", "order", "7"]).1;
        let found_by = "\nalias   card.number \\u{1b}4\"\nalias   reference pay-7\nfield   customer \\u{1b}Ann\n";
        assert!(page.contains(found_by), "{page}");
        let page = run(url, &["sagas", "show", "order", "8"]).1;
        assert!(!page.contains("alias") && !page.contains("field"), "{page}");
        let instance = |id: &str| json(&run(url, &["--json", "sagas", "show", "order", id]).1)["instance"].clone();
        assert_eq!(instance("7")["aliases"], serde_json::json!({ "reference": "pay-7", "card.number": "\u{1b}4\"" }));
        assert_eq!(instance("7")["fields"], serde_json::json!({ "customer": "\u{1b}Ann" }));
        assert_eq!(instance("8")["aliases"], serde_json::json!({}));
        assert_eq!(instance("8")["fields"], serde_json::json!({}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_found_by_the_values_of_their_fields() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        for id in ["1", "2", "3", "4"] {
            tables.instance(id, if id == "3" { "Lost" } else { "AwaitingPayment" }, None).await;
        }
        let sql = "INSERT INTO {s}field (name, value, saga, id, is_alias) VALUES
            ('order by customer', '7', 'order', '1', NULL), ('order by customer', '7', 'order', '2', NULL),
            ('order by customer', '7', 'order', '3', NULL), ('order by customer', '70', 'order', '4', NULL),
            ('order by region', 'eu', 'order', '2', NULL), ('order by region', 'eu', 'order', '3', NULL),
            ('order by region', 'eu', 'order', '4', NULL), ('order by reference', 'pay_1', 'order', '1', TRUE)";
        tables.sql(sql).await;
        let url = &[tables.url.as_str()];
        let found = |filter: &str| {
            let words: Vec<&str> = "--json sagas list".split(' ').chain(filter.split(' ')).collect();
            let (code, page, err) = run(url, &words);
            assert_eq!(code, 0, "{filter}: {err}");
            let all = json(&page).as_array().expect("a list").clone();
            let mut ids: Vec<String> = all.iter().map(|it| it["id"].as_str().expect("an id").to_owned()).collect();
            ids.sort_unstable();
            ids.concat()
        };
        assert_eq!(found("--where customer=7"), "123");
        assert_eq!(found("--where customer=7 --where region=eu"), "23", "all must hold");
        assert_eq!(found("--where region=eu --where customer=7 --state awaitingpayment"), "2");
        assert_eq!(found("--where CUSTOMER=7 --id 1"), "1", "whatever the name's case");
        assert_eq!(found("--where customer=7 --saga ORDER --older-than 1s"), "123");
        assert_eq!(found("--where customer=7 --paused"), "");
        assert_eq!(found("--where reference=pay_1"), "1", "an alias is a field too");
        assert_eq!(found("--where customer=7 --where customer=70"), "");
        assert_eq!(found("--where customer=8"), "");
        let (code, _, err) = run(url, &["sagas", "list", "--where", "custmer=7"]);
        let text = "no field of an instance is called custmer; there are: customer, reference, region";
        assert!(code == 1 && err.contains(text), "{err}");
        let (code, _, err) = run(url, &["sagas", "list", "--where", "customer"]);
        assert!(code == 2 && err.contains("a field and its value were expected: customer=7"), "{err}");
        let counted = run(url, &["--limit", "1", "sagas", "list", "--where", "customer=7"]);
        assert!(counted.1.contains("1 of 3 shown") || counted.2.contains("1 of 3 shown"), "{counted:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_timeline_shows_its_newest_lines() {
    let tables = Tables::sqlite().await;
    tables.instance("7", "Waiting", None).await;
    for n in 1..=9 {
        tables.hold(&Held { message_id: &format!("m{n}"), type_name: &format!("tick.{n}"), ..Held::default() }).await;
        let sql = format!(
            "UPDATE {{s}}inbox SET seq = {n}, to_state = 'Waiting', result = 'handled' WHERE message_id = 'm{n}'"
        );
        tables.sql(&sql).await;
    }
    tables.sql("DELETE FROM {s}held").await;
    let (_, page, _) = run(&[&tables.url], &["--limit", "5", "sagas", "show", "order", "7"]);
    let lines: Vec<&str> = page.lines().filter(|line| line.contains("tick.")).collect();
    assert_eq!(lines.len(), 5, "{page}");
    assert!(lines[0].contains("tick.5") && lines[4].contains("tick.9"), "{page}");
    assert!(page.contains("the newest 5 of 9"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_one_document_whatever_is_found() {
    let (one, two) = (Tables::postgres().await, Tables::sqlite().await);
    let chart = r#"{"saga":"order","version":1,"states":[],"messages":[],"edges":[]}"#;
    for tables in [&one, &two] {
        tables.hold(&Held::default()).await;
        tables.hold(&Held { receiver: "charge", saga_id: None, ..Held::default() }).await;
        tables.instance("7", "Waiting", None).await;
        tables.send("command", "payment", 0, "", "").await;
        tables.sql("UPDATE {s}outbox SET message_id = 'sent'").await;
        let define = "INSERT INTO {s}definition (saga, version, chart, endpoint, registered_at)
            VALUES ('order', 1, '{chart}', 'ordering', {now})";
        tables.sql(&define.replace("{chart}", chart)).await;
    }
    let urls = &[one.url.as_str(), two.url.as_str()];
    for (arguments, documents) in [
        (&["held", "show", "m"][..], 4),
        (&["sagas", "show", "order", "7"], 2),
        (&["outbox", "show", "sent"], 2),
        (&["migrate"], 2),
        (&["migrate", "--check"], 2),
        (&["migrate", "--print"], 2),
    ] {
        let (code, out, err) = run(urls, &[&["--json"], arguments].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}: {out}");
        assert_eq!(json(&out).as_array().map(Vec::len), Some(documents), "{arguments:?}: {out}");
    }
    assert!(json(&run(&urls[..1], &["--json", "sagas", "show", "order", "7"]).1).is_object(), "one is no list");
    for arguments in [&["diagram", "order"][..], &["diagram", "order", "--format", "svg"]] {
        let (code, out, err) = run(urls, &[&["--json"], arguments].concat());
        assert_eq!((code, json(&out)["saga"].as_str()), (0, Some("order")), "{out}{err}");
    }
    assert!(json(&run(&[], &["--json", "completions", "bash"]).1).is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_fails_when_something_needs_a_person_and_only_then() {
    let tables = Tables::postgres().await;
    let url = &[tables.url.as_str()];
    tables.hold(&Held { reason: "early", ..Held::default() }).await;
    tables.send("timer", "ordering", 5, "", "").await;
    let (code, page, err) = run(url, &["status", "--check"]);
    assert_eq!(code, 0, "{page}{err}");
    assert!(page.ends_with("nothing needs a person\n"), "{page}");
    tables.hold(&Held { message_id: "n", ..Held::default() }).await;
    let (code, page, _) = run(url, &["status", "--check"]);
    assert_eq!(code, 1, "{page}");
    assert!(page.contains("ordering: 1 message is held as failed, the oldest for 1 min"), "{page}");
    assert_eq!(run(url, &["status"]).0, 0, "without --check the exit code is 0");
    let status = json(&run(url, &["--json", "status"]).1);
    assert_eq!(status["endpoints"][0]["timers"]["count"], 1, "{status}");
    assert_eq!(status["trouble"].as_array().unwrap().len(), 1, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_a_stranger_wrote_reaches_the_terminal_as_it_is() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        let wild = "bugs.\u{1b}[2J\u{9b}31m\u{7f}No\nforged\trow";
        tables.instance("7", "Waiting", None).await;
        tables.hold(&Held { type_name: "t", error: wild, ..Held::default() }).await;
        tables.sql(&format!("UPDATE {{s}}held SET type = '{wild}'")).await;
        tables.sql(&format!("UPDATE {{s}}inbox SET type = '{wild}', note = '{wild}'")).await;
        tables.send("command", wild, 0, ", last_error", &format!(", '{wild}'")).await;
        tables.sql("UPDATE {s}outbox SET waits_for = destination").await;
        for arguments in [
            vec!["held", "list"],
            vec!["held", "show", "m"],
            vec!["outbox", "list"],
            vec!["outbox", "show", "m-"],
            vec!["sagas", "show", "order", "7"],
            vec!["status"],
            vec!["--json", "held", "list"],
            vec!["held", "show", "\u{1b}[2J"],
        ] {
            let (_, out, err) = run(url, &arguments);
            let raw = |c: char| c.is_control() && c != '\n' && c != '\t';
            assert!(!out.contains(raw) && !err.contains(raw), "{arguments:?}: {out:?} {err:?}");
            assert!(!out.contains("forged\trow") && !out.lines().any(|line| line.starts_with("forged")), "{out}");
        }
    }
}

#[test]
fn the_help_is_wrapped_at_the_width_of_the_terminal() {
    for arguments in [vec!["--help"], vec!["held", "retry", "--help"], vec!["sagas", "list", "--help"]] {
        let output = command(&[], &arguments).env("COLUMNS", "80").output().expect("the program runs");
        let (code, out, _) = said(&output);
        assert_eq!(code, 0);
        assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    }
}
