//! `sagabus explain`, across databases of both kinds.

use crate::{json, run};
use tests::tables::{Held, Tables};

/// A message as it was handled.
async fn handled(tables: &Tables, endpoint: &str, receiver: &str, id: &str, cause: Option<&str>, effects: &str) {
    let cause = cause.map_or("NULL".into(), |cause| format!("'{cause}'"));
    let instance = if receiver == "order" { "'order', '7'" } else { "NULL, NULL" };
    let json = if tables.url.starts_with("sqlite:") { "" } else { "::json" };
    tables
        .sql(&format!(
            "INSERT INTO {{s}}inbox (endpoint, receiver, message_id, body_hash, type, result, conversation_id,
                causation_id, saga, saga_id, effects, claimed_at, handled_at, handled_by, attempts)
             VALUES ('{endpoint}', '{receiver}', '{id}', 1, 't.{id}', 'handled', 'talk', {cause}, {instance},
                '{effects}'{json}, {{now}}, {{now}}, 'p', 1)"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_story_is_told_across_databases_from_any_of_its_ids() {
    for (ordering, payment) in
        [(Tables::postgres().await, Tables::sqlite().await), (Tables::sqlite().await, Tables::postgres().await)]
    {
        let effect = |id: &str, to: &str| format!(r#"[{{"id":"{id}","type":"t.{id}","to":"{to}"}}]"#);
        handled(&ordering, "ordering", "order", "placed-1", None, &effect("pay-1", "payment")).await;
        handled(&payment, "payment", "charge", "pay-1", Some("placed-1"), &effect("paid-1", "ordering")).await;
        ordering.instance("7", "AwaitingPayment", None).await;
        ordering.instance("70", "AwaitingPayment", None).await;
        ordering.hold(&Held { message_id: "paid-1", ..Held::default() }).await;
        ordering.sql("UPDATE {s}inbox SET causation_id = 'pay-1' WHERE message_id = 'paid-1'").await;
        let urls = &[ordering.url.as_str(), payment.url.as_str()];
        for id in ["placed-1", "pay-1", "paid-1", "7", "talk", "pay", "pl"] {
            let (code, out, err) = run(urls, &["--json", "explain", id]);
            assert_eq!((code, err.as_str()), (0, ""), "{id}");
            let story = json(&out);
            let told: Vec<&str> =
                story["messages"].as_array().unwrap().iter().map(|it| it["message_id"].as_str().unwrap()).collect();
            assert_eq!(told, ["placed-1", "pay-1", "paid-1"], "{id}: {out}");
            assert_eq!(story["messages"][2]["steps"][0]["reason"], "failed", "{out}");
            assert_eq!(story["messages"][2]["steps"][0]["note"], "no table", "{out}");
            let [first, second] = [0, 1].map(|n| story["messages"][n]["steps"][0]["database"].clone());
            assert!(first.is_string() && first != second, "{out}");
        }
        let (_, out, _) = run(urls, &["explain", "7"]);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 3, "{out}");
        assert!(lines[0].starts_with("0\tplaced-1\tt.placed-1\t-\tordering/order 7\thandled\t"), "{out}");
        assert!(lines[2].contains("\theld as failed\t") && lines[2].ends_with("\tno table"), "{out}");
        let (_, out, _) = run(urls, &["explain", "pay-1", "--mermaid"]);
        assert!(out.starts_with("sequenceDiagram\n") && out.contains("->>p2: t.pay-1"), "{out}");
        let (code, _, err) = run(urls, &["explain", "pa"]);
        assert!(code == 1 && err.contains("2 ids begin with pa: paid-1, pay-1"), "{err}");
        let (code, _, err) = run(urls, &["explain", "nobody"]);
        assert!(code == 1 && err.contains("no message, instance or conversation nobody"), "{err}");
        let (code, out, err) = run(&[&ordering.url, "sqlite:/nowhere.db"], &["explain", "placed-1"]);
        assert!(code == 1 && out.contains("pay-1\tt.pay-1\t-\tpayment\tnot seen"), "{out}");
        assert!(err.contains("there is no file /nowhere.db"), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_outbox_is_part_of_the_story() {
    for tables in [Tables::postgres().await, Tables::sqlite().await] {
        tables.send("timer", "ordering", 5, "", "").await;
        let id = tables.one("SELECT message_id FROM {s}outbox").await.unwrap();
        let (code, out, err) = run(&[&tables.url], &["explain", &id]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("payment.MakePayment") && out.contains("\twaits: timer\t"), "{out}");
    }
}
