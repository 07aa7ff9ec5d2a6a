//! `sagabus processes`, `versions` and `diagram`: what runs, in which version.

use crate::{json, run};
use sqlx::{Connection, Executor, PgConnection};
use std::process::Stdio;
use tests::{
    Database,
    tables::{Held, Tables},
};

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_listed_and_asked_to_drain() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        let report = r#"{"link":"up","breakers":["charge"],"host":"node-7","program":"payment 1.4","version":"0.1.0"}"#;
        for (owner, minutes) in [("payment-1", 0), ("payment-2", 10)] {
            tables
                .sql(&format!(
                    "INSERT INTO {{s}}process (owner, endpoint, started_at, seen_at, subscribes, types, report)
                     VALUES ('{owner}', 'payment', {{now}}, {{now}} - {minutes} * {{minute}}, '[]', '[]', '{report}')"
                ))
                .await;
        }
        let (code, out, err) = run(url, &["processes"]);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!((code, lines.len(), err.as_str()), (0, 2, ""), "{out}");
        assert!(lines[0].starts_with("payment-1\tpayment\tnode-7\tpayment 1.4\t0.1.0\t"), "{out}");
        assert!(lines[0].ends_with("\tbreaker of charge is open") && lines[1].contains("silent for 10 min"), "{out}");
        let (code, _, err) = run(url, &["processes", "drain", "payment"]);
        assert!(code == 1 && err.contains("2 ids begin with payment: payment-1, payment-2"), "{err}");
        let (code, _, err) = run(url, &["processes", "drain", "x"]);
        assert!(code == 1 && err.contains("there are: payment-1, payment-2"), "{err}");
        let (code, out, _) = run(url, &["processes", "drain", "payment-1", "--reason", "it moves"]);
        assert!(code == 0 && out.starts_with("payment-1 is asked to finish and stop"), "{out}");
        let asked = "SELECT owner || ' ' || asked FROM {s}process WHERE asked IS NOT NULL";
        assert_eq!(tables.one(asked).await.as_deref(), Some("payment-1 drain"));
        let listed = json(&run(url, &["--json", "processes", "list"]).1);
        assert_eq!((&listed[0]["asked"], &listed[1]["asked"]), (&"drain".into(), &serde_json::Value::Null), "{listed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_charts_are_those_that_processes_registered() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        assert!(run(url, &["diagram", "order"]).2.contains("there is none"));
        for version in [1, 2] {
            let chart = serde_json::json!({ "saga": "order", "version": version, "messages": [], "states": [
                    { "name": "Waiting", "done": false, "was": ["Asking"] }, { "name": "Over", "done": true }],
                "edges": [{ "from": "", "on": "placed", "branch": "", "to": "Waiting", "effects": [] },
                    { "from": "Waiting", "on": "ended", "branch": "", "to": "Over", "effects": [] }] });
            tables
                .sql(&format!(
                    "INSERT INTO {{s}}definition (saga, version, chart, endpoint, registered_at)
                     VALUES ('order', {version}, '{chart}', 'ordering', {{now}})"
                ))
                .await;
        }
        tables.instance("1", "Asking", None).await;
        tables.instance("2", "Waiting", None).await;
        let (code, out, err) = run(url, &["versions"]);
        let columns: Vec<Vec<&str>> = out.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!((code, err.as_str(), columns.len()), (0, "", 2), "{out}");
        assert_eq!((columns[0][1], columns[0][4], columns[0][6]), ("1", "2", "no"), "{out}");
        tables.sql("UPDATE {s}saga SET version = 2").await;
        let versions = json(&run(url, &["--json", "versions"]).1);
        assert_eq!((&versions[0]["retire"], &versions[1]["retire"]), (&true.into(), &false.into()), "{versions}");
        let (code, out, err) = run(url, &["diagram", "ORDER", "--live"]);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("[*] --> Waiting : placed") && out.contains("note right of Waiting : 2"), "{out}");
        for (format, text) in [("dot", "digraph"), ("svg", "<svg"), ("json", "\"saga\": \"order\"")] {
            let (code, out, _) = run(url, &["diagram", "order", "--format", format, "--live"]);
            assert!(code == 0 && out.contains(text), "{format}: {out}");
        }
        let (code, _, err) = run(url, &["diagram", "order", "--version", "7"]);
        assert!(code == 1 && err.contains("there are: 1, 2"), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_says_what_a_database_is_and_what_may_do_harm() {
    for (tables, server) in [(Tables::postgres().await, "PostgreSQL 1"), (Tables::sqlite().await, "SQLite 3")] {
        let url = &[tables.url.as_str()];
        let (_, out, err) = run(url, &["doctor"]);
        assert!(out.contains(server) && out.contains("tables   version 1; 0 processes alive"), "{out}{err}");
        tables.send("command", "payment", 0, ", lease_until, lease_owner", ", {now} - 2 * {minute}, 'gone'").await;
        let (code, out, _) = run(url, &["--json", "doctor"]);
        let found = json(&out);
        assert_eq!((code, &found[0]["upkeep"]["dead_leases"]), (1, &1.into()), "{found}");
        let advice = found[0]["advice"].to_string();
        assert!(advice.contains("1 outbox rows have a lease that ran out"), "{advice}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_created_checked_and_printed() {
    let file = std::env::temp_dir().join(format!("sagabus-migrate-{}.db", std::process::id()));
    let database = Database::create().await;
    for url in [format!("sqlite:{}", file.display()), database.url()] {
        let url = &[url.as_str()];
        let (code, out, err) = run(url, &["migrate", "--check"]);
        assert!(code == 1 && out.is_empty() && !err.is_empty(), "{out}{err}");
        let (code, out, err) = run(url, &["migrate"]);
        assert!(code == 0 && out.ends_with(": up to date\n"), "{out}{err}");
        assert_eq!(run(url, &["migrate"]).0, 0, "it may be repeated");
        let (code, out, err) = run(url, &["migrate", "--check"]);
        assert!(code == 0 && out.ends_with("the tables are there, version 1\n"), "{out}{err}");
        let (code, out, _) = run(url, &["migrate", "--print"]);
        assert!(code == 0 && out.contains("CREATE TABLE sagabus"), "{out}");
        assert_eq!(run(url, &["migrate", "--print", "--check"]).0, 2);
    }
    let _ = std::fs::remove_file(file);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_another_version_do_not_pass_a_check() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        tables.sql("UPDATE {s}schema_version SET version = 2").await;
        let told = "the tables have version 2, this binary expects 1: deploy a binary that knows version 2 [SB0028]";
        let (code, out, err) = run(url, &["migrate", "--check"]);
        assert!(code == 1 && out.is_empty() && err.ends_with(&format!(": {told}\n")), "{out}{err}");
        let (code, out, err) = run(url, &["--json", "migrate", "--check"]);
        assert!(code == 1 && json(&out).as_array().is_some_and(Vec::is_empty) && err.contains(told), "{out}{err}");
        let (code, out, _) = run(url, &["doctor"]);
        assert!(code == 1 && out.contains(told), "{out}");
        let version = tables.one("SELECT CAST(max(version) AS text) FROM {s}schema_version").await;
        assert_eq!(version.as_deref(), Some("2"), "nothing was changed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_prints_a_trouble_once_and_its_end() {
    let tables = Tables::sqlite().await;
    tables.hold(&Held { receiver: "charge", saga_id: None, ..Default::default() }).await;
    let mut watch = crate::command(&[&tables.url, "sqlite:/nowhere.db"], &["watch", "--every", "1s", "--times", "8"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("  trouble  ") && first.contains("is held as failed"), "{first}");
    let gone = lines.next().unwrap().unwrap();
    assert!(gone.contains("  trouble  ") && gone.contains("/nowhere.db"), "a database that is away is one: {gone}");
    tables.sql("DELETE FROM {s}held").await;
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    watch.wait().unwrap();
    assert_eq!(rest.len(), 1, "each is said once, and the end of one: {rest:?}");
    assert!(rest[0].contains("  over  ") && rest[0].contains("is held as failed"), "{rest:?}");
}

/// Whether a database lets anybody in.
async fn admit(tables: &Tables, is: bool) {
    let name = tables.url.rsplit('/').next().expect("a database has a name");
    let mut server = PgConnection::connect(&format!("{}/postgres", Database::server())).await.expect("a server");
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    for sql in [format!("ALTER DATABASE \"{name}\" WITH ALLOW_CONNECTIONS {is}"), end] {
        server.execute(sql.as_str()).await.expect("the server does that");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trouble_is_not_over_because_its_database_does_not_answer() {
    let (away, here) = (Tables::postgres().await, Tables::sqlite().await);
    away.hold(&Held::default()).await;
    let mut watch = crate::command(&[&away.url, &here.url], &["watch", "--every", "1s"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let mut next = |what: &str, of: &str| {
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains(&format!("  {what}  ")) && line.contains(of), "{what} {of} was expected: {line}");
    };
    next("trouble", "is held as failed");
    admit(&away, false).await;
    next("trouble", "cannot read");
    admit(&away, true).await;
    next("over", "cannot read");
    away.sql("DELETE FROM {s}held").await;
    next("over", "is held as failed");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

/// Answers requests, the first with an error. Returns the bodies of those that were taken.
fn answer(listener: &std::net::TcpListener, requests: usize) -> Vec<serde_json::Value> {
    use std::io::{BufRead, BufReader, Read, Write};
    let mut taken = Vec::new();
    for n in 0..requests {
        let (stream, _) = listener.accept().expect("the program calls");
        let mut reader = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while reader.read_line(&mut line).expect("it sends a request") > 2 {
            if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
                length = n.trim().parse().expect("a number");
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a whole body");
        let said = if n == 0 { "503 Service Unavailable" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {said}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        reader.get_mut().write_all(answer.as_bytes()).expect("it listens");
        if n > 0 {
            taken.push(serde_json::from_slice(&body).expect("the body is JSON"));
        }
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_posts_troubles_and_says_when_the_address_is_away_and_back() {
    let tables = Tables::sqlite().await;
    tables.hold(&Held::default()).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://127.0.0.1:{}/hooks/s3cret", listener.local_addr().unwrap().port());
    let answers = std::thread::spawn(move || answer(&listener, 2));
    let watch = ["watch", "--every", "2s", "--times", "3", "--webhook", &url];
    let (code, out, err) = run(&[&tables.url], &watch);
    assert_eq!(code, 1, "the trouble lasts: {out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].contains("trouble  ordering: 1 message is held as failed"), "{out}");
    assert!(lines[1].contains("trouble  the webhook is away: HTTP status server error (503"), "{out}");
    assert!(lines[2].contains("over  the webhook is away") && lines.len() == 3 && !out.contains("s3cret"), "{out}");
    let posted = answers.join().expect("it has answered");
    assert!(posted[0]["trouble"].as_str().unwrap().contains("held as failed"), "{posted:?}");
    assert!(posted[0]["since"].as_str().unwrap().ends_with('Z') && posted[0]["over"].is_null(), "{posted:?}");
    let (code, _, err) = run(&[&tables.url], &["watch", "--times", "1", "--webhook", "ftp://x"]);
    assert!(code == 1 && err.contains("http://"), "{err}");
}

/// A database and then a webhook that take connections and say nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_interrupted_while_it_waits_for_an_answer() {
    let tables = Tables::sqlite().await;
    tables.hold(&Held::default()).await;
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = deaf.local_addr().unwrap();
    let (database, webhook) = (format!("postgres://{address}/deaf"), format!("http://{address}/hook"));
    for (url, arguments, lines) in [
        (&database, &["watch"][..], 0),
        (&tables.url, &["watch", "--webhook", &webhook], 1), // what it has found is said before it waits
    ] {
        let mut watch = crate::command(&[url], arguments);
        let watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (_silent, _) = deaf.accept().expect("it asks");
        let kill = std::process::Command::new("kill").args(["-INT", &watch.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let (code, out, err) = crate::said(&watch.wait_with_output().unwrap());
        assert_eq!((code, out.lines().count(), err.as_str()), (1, lines, ""), "{arguments:?}: {out}");
    }
}

#[test]
fn shells_complete_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, err) = run(&[], &["completions", shell]);
        assert!(code == 0 && out.contains("send-now") && err.is_empty(), "{shell}: {err}");
    }
}
