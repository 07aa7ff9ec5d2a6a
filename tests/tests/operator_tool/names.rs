//! Names in filters match whatever their case.

use crate::{command, json, run};
use std::io::{BufRead, BufReader};
use tests::tables::{Held, Tables};

#[tokio::test(flavor = "multi_thread")]
async fn filters_match_endpoints_receivers_types_and_destinations_whatever_their_case() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        let url = &[tables.url.as_str()];
        let held = Held { receiver: "ChargeCard", type_name: "payment.Paid", saga_id: None, ..Held::default() };
        tables.hold(&held).await;
        tables.hold(&Held { message_id: "n", type_name: "payment.Refunded", ..Held::default() }).await;
        tables.send("command", "Payment", 5, "", "").await;
        tables.send("command", "stock", 5, "", "").await;
        tables.sql("UPDATE {s}outbox SET type = 'stock.Take' WHERE destination = 'stock'").await;
        tables.send("timer", "ordering", 5, "", "").await;
        let held = ["--endpoint ORDERING", "--receiver chargecard", "--type PAYMENT.paid", "--type payment.paid"];
        let sent = ["--to PAYMENT", "--to payment", "--type payment.makePAYMENT --endpoint Ordering --kind command"];
        for (words, filters, lines) in [
            ("held list", &held[1..], 1),
            ("held list", &held[..1], 2),
            ("held groups", &held[1..], 1),
            ("held retry --dry-run", &held[1..], 2),
            ("held discard --reason why --dry-run", &held[..1], 3),
            ("outbox list", &sent, 1),
            ("outbox send-now --dry-run", &sent, 2),
            ("outbox reroute --new x --reason why --dry-run", &sent, 2),
            ("timers list", &["--type PAYMENT.MAKEPAYMENT", "--endpoint ORDERING"], 1),
            ("timers cancel --reason why --dry-run", &["--type PAYMENT.MAKEPAYMENT", "--endpoint ORDERING"], 2),
        ] {
            for filter in filters {
                let all: Vec<&str> = words.split(' ').chain(filter.split(' ')).collect();
                let (code, out, err) = run(url, &all);
                assert_eq!((code, out.lines().count(), err.as_str()), (0, lines, ""), "{words} {filter}: {out}");
            }
        }
        // a name that is spelt like that finds its own rows and no others
        tables.hold(&Held { message_id: "o", type_name: "Payment.Paid", ..Held::default() }).await;
        for (name, id) in [("Payment.Paid", "o"), ("payment.Paid", "m")] {
            let found = json(&run(url, &["--json", "held", "list", "--type", name]).1);
            assert_eq!((found.as_array().map(Vec::len), found[0]["message_id"].as_str()), (Some(1), Some(id)));
        }
        // what nobody knows finds nothing
        let (code, out, _) = run(url, &["held", "list", "--type", "payment.Piad"]);
        assert_eq!((code, out.as_str()), (0, ""));
        // a note is on the type as it is spelt, whoever typed it
        let note = ["held", "note", "--reason-is", "failed", "--type", "PAYMENT.refunded", "ask ann"];
        assert_eq!(run(url, &note).0, 0);
        let told = run(url, &["held", "groups", "--type", "payment.Refunded"]).1;
        assert!(told.contains("ask ann"), "{told}");
    }
}

/// Of a beginning, nobody knows whether it begins another id in a database that is away.
#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_of_an_instances_id_does_not_do_while_a_database_is_away() {
    let (here, away) = (Tables::sqlite().await, "sqlite:/nowhere.db");
    here.instance("4711", "Waiting", Some("m")).await;
    here.hold(&Held { saga_id: Some("4711"), ..Held::default() }).await;
    for (action, done) in [("resume", "goes on"), ("cancel", "is over")] {
        let act = |urls: &[&str], id: &str| run(urls, &["sagas", action, "order", id, "--reason", "why"]);
        let (code, out, err) = act(&[&here.url, away], "47");
        let why = "47 may begin other ids in the database that is away: give the whole id, 4711";
        assert!(code == 1 && out.is_empty() && err.contains(why), "{action}: {out}{err}");
        assert!(err.contains("there is no file /nowhere.db"), "{err}");
        let (code, out, err) = act(&[&here.url, away], "4711");
        assert!(code == 1 && out.contains(done) && err.lines().count() == 1, "the whole id does: {out}{err}");
    }
    let sent = run(&[&here.url, away], &["sagas", "send", "order", "47", "a.B", "--body", "{}", "--reason", "why"]);
    assert!(sent.0 == 1 && sent.2.contains("may begin other ids"), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_dashboard_is_a_line_of_json_if_that_is_asked_for() {
    let tables = Tables::sqlite().await;
    let arguments = ["--json", "dashboard", "--listen", "127.0.0.1:0", "--path", "/ops", "--read-only"];
    let mut process = command(&[&tables.url], &arguments).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let read = BufReader::new(process.stdout.take().unwrap()).read_line(&mut line);
    let _ = process.kill(); // it may have ended by itself
    let _ = process.wait();
    let told = json(&line);
    let url = told["url"].as_str().unwrap_or_default();
    assert!(read.is_ok() && url.starts_with("http://127.0.0.1:") && url.ends_with("/ops/"), "{line}");
    assert_eq!(told["access"], "for ann, from this machine, read-only");
}
