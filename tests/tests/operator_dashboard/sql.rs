//! The SQL behind each page, run as it stands there: it gives what the page lists.

use crate::{Dashboard, both, paused};
use std::collections::BTreeSet;
use tests::tables::{Held, Tables};

/// The query on a page, as a person copies it.
fn sql(page: &str) -> String {
    let of = page.split("<details class=\"sql\" id=\"sql\">").nth(1).unwrap_or_else(|| panic!("a query: {page}"));
    let text = of.split("<pre>").nth(1).and_then(|rest| rest.split("</pre>").next()).expect("a text");
    assert_eq!(of.matches("<pre>").count(), 1, "one kind of database, one query: {of}");
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    assert!(text.ends_with(';') && text.matches(';').count() >= 1, "{text}");
    text.trim_end_matches(';').to_owned()
}

async fn rows(tables: &Tables, sql: &str) -> usize {
    let count = tables.one(&format!("SELECT CAST(count(*) AS text) FROM (\n{sql}\n) AS q")).await;
    count.and_then(|n| n.parse().ok()).expect("a count")
}

async fn column(tables: &Tables, column: &str, sql: &str) -> BTreeSet<String> {
    tables.sql(&format!("SELECT {column} FROM (\n{sql}\n) AS q")).await.into_iter().flatten().collect()
}

/// What a page links to under a path.
fn ids(page: &str, path: &str) -> BTreeSet<String> {
    let start = format!("href=\"{path}");
    let links = page.split(&start).skip(1).filter_map(|rest| rest.split('"').next());
    links.map(|id| id.replace("%27", "'").replace("%20", " ")).collect()
}

/// A house with something of everything.
async fn filled() -> [Tables; 2] {
    let all = both().await;
    for tables in &all {
        paused(tables).await;
        for (n, id) in ["8", "9", "it''s 7"].into_iter().enumerate() {
            tables.instance(id, if n == 1 { "Shipped" } else { "AwaitingShipment" }, None).await;
            let older = format!("updated_at = {{now}} - {} * {{minute}}", 2 + n);
            tables.sql(&format!("UPDATE {{s}}saga SET {older} WHERE id = '{id}'")).await;
        }
        tables.sql("UPDATE {s}saga SET completed_at = {now}, version = 2 WHERE id = '9'").await;
        let field = "INSERT INTO {s}field (name, value, saga, id) VALUES ('order by customer', 'O''Neil & \"Co\"',
            'order', '7'), ('order by customer', 'O''Neil & \"Co\"', 'order', '8'),
            ('order by region', 'eu', 'order', '8'), ('order by region', 'eu', 'order', '9')";
        tables.sql(field).await;
        for (id, error) in [("m1", r#"it''s 100% \ wrong; -- "x""#), ("m2", "another"), ("m3", "It''S 100% \\ WRONG")] {
            let held = Held {
                message_id: id,
                receiver: "Charge",
                saga_id: None,
                type_name: "Mail.Sent",
                error,
                ..Held::default()
            };
            tables.hold(&held).await;
        }
        tables.send("timer", "ordering", 5, ", timer", ", 1").await;
        tables.send("timer", "ordering", -5, ", timer", ", 2").await;
        tables.send("command", "payment", -2, "", "").await;
        tables.send("command", "Warehouse", 0, ", waits_for, attempts", ", 'Warehouse', 1").await;
        tables.send("event", "shop.Sold", 0, ", attempts, last_error", ", 3, 'it''s refused'").await;
        tables.send("retry", "ordering", 5, ", last_error", ", 'no table'").await;
        let process = "INSERT INTO {s}process (owner, endpoint, started_at, seen_at, subscribes, types, report)
            VALUES ('p-1', 'payment', {now}, {now} - 7 * {minute}, '[]', '[]', '{\"link\":\"up\"}')";
        tables.sql(process).await;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_query_of_a_list_gives_the_rows_of_the_list() {
    for tables in filled().await {
        let dashboard = Dashboard::start(&tables);
        for (path, number) in [
            ("/held", 5),
            ("/held?limit=2", 2),
            ("/held?reason-is=failed", 3),
            ("/held?needs-person=yes&type=mail.SENT&receiver=CHARGE&endpoint=Ordering", 3),
            ("/held?error=it%27s%20100%25%20%5C%20wrong", 2),
            ("/held?error=%1B%0A%E2%80%AE", 0),
            ("/held?saga=ORDER&id=7", 2),
            ("/held?older-than=30s&newer-than=1h", 5),
            ("/held?older-than=1h", 0),
        ] {
            let page = dashboard.page(path).await;
            let (text, shown) = (sql(&page), ids(&page, "/held/"));
            assert_eq!((shown.len(), column(&tables, "message_id", &text).await), (number, shown), "{path}: {text}");
        }
        for (path, number) in [
            ("/sagas", 4),
            ("/sagas?limit=2", 2),
            ("/sagas?saga=ORDER&state=awaitingshipment", 3),
            ("/sagas?open=yes", 3),
            ("/sagas?paused=yes", 1),
            ("/sagas?id=it%27", 1),
            ("/sagas?older-than=150s", 2),
            ("/sagas?where=customer%3DO%27Neil%20%26%20%22Co%22", 2),
            ("/sagas?where=customer%3DO%27Neil%20%26%20%22Co%22&where=REGION%3Deu", 1),
            ("/sagas?where=region%3Deu&open=yes&saga=order", 1),
        ] {
            let page = dashboard.page(path).await;
            let (text, shown) = (sql(&page), ids(&page, "/sagas/order/"));
            assert_eq!((shown.len(), column(&tables, "id", &text).await), (number, shown), "{path}: {text}");
        }
        for (path, number) in [
            ("/outbox", 6),
            ("/outbox?limit=2", 2),
            ("/outbox?kind=command", 2),
            ("/outbox?kind=timer", 2),
            ("/outbox?kind=timer&due=yes", 1),
            ("/outbox?due=yes", 4),
            ("/outbox?failing=yes", 2),
            ("/outbox?error=IT%27S", 1),
            ("/outbox?to=WAREHOUSE&type=payment.makepayment&endpoint=ORDERING", 1),
            ("/outbox?to=ordering", 3),
            ("/outbox?saga=Order&kind=retry", 1),
            ("/outbox?saga=order&id=7", 6),
            ("/outbox?newer-than=1h&older-than=30s", 6),
            ("/outbox?older-than=1h", 0),
            ("/timers", 2),
            ("/timers?due=yes&endpoint=ordering&type=Payment.MakePayment", 1),
            ("/timers?saga=order&id=7", 2),
            ("/timers?saga=order&id=8", 0),
        ] {
            let page = dashboard.page(path).await;
            let (text, shown) = (sql(&page), ids(&page, "/outbox/"));
            assert_eq!((shown.len(), rows(&tables, &text).await), (number, number), "{path}: {text}\n{page}");
            if text.starts_with("SELECT message_id") {
                // the views do not name a timer
                let sent: BTreeSet<String> = shown.iter().map(|id| format!("m-{id}")).collect();
                assert!(column(&tables, "message_id", &text).await.is_subset(&sent), "{path}: {text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_query_of_any_other_page_gives_what_it_shows() {
    for tables in filled().await {
        let dashboard = Dashboard::start(&tables);
        let of = async |path: &str| {
            let page = dashboard.page(path).await;
            let text = sql(&page);
            let n = rows(&tables, &text).await;
            (page, text, n)
        };
        let (page, text, n) = of("/").await;
        assert!(page.contains(&format!("Needs a person: {n}<")) && n == 7, "{text}: {page}");
        let (page, _, n) = of("/processes").await;
        assert!(page.contains("p-1") && n == 1, "{page}");
        let (_, text, _) = of("/versions").await;
        assert_eq!(
            column(&tables, "CAST(open AS text) || done", &text).await,
            BTreeSet::from(["30".into(), "01".into()])
        );
        assert_eq!(of("/held/poison").await.2, 1);
        assert_eq!(of("/held/it%27s").await.2, 0);
        tables.sql("UPDATE {s}inbox SET causation_id = 'poison' WHERE message_id = 'right'").await;
        let sent = r#"[{"id":"right","type":"payment.Paid","to":"ordering"}]"#;
        tables.sql(&format!("UPDATE {{s}}inbox SET effects = '{sent}' WHERE message_id = 'poison'")).await;
        for (id, all) in [("m1", &["m1"][..]), ("right", &["poison", "right"])] {
            let (page, text, _) = of(&format!("/conversations/{id}")).await;
            let told = column(&tables, "message_id", &text).await;
            assert_eq!(told, all.iter().map(|id| (*id).to_owned()).collect(), "{text}");
            assert!(all.iter().all(|id| page.contains(&format!(">{id}</a>"))), "{id}: {page}");
        }
        assert_eq!(of("/search?q=m").await.2, 3 + 4, "three are held, four were not sent; timers have no name");
        let sent = tables.store.outbox(&saga_core::OutboxFilter::default(), 10).await.unwrap();
        for row in &sent {
            let (_, text, n) = of(&format!("/outbox/{}", row.id)).await;
            assert_eq!(n, if row.kind == "timer" { 2 } else { 1 }, "{text}");
        }
        tables.sql("UPDATE {s}inbox SET result = 'handled', seq = 1, to_state = 'A' WHERE message_id = 'poison'").await;
        let (page, text, n) = of("/sagas/order/7").await;
        assert_eq!(n, page.matches("<details id=\"step-").count(), "{text}: {page}");
        // what was done, and a plan for it
        let plan = dashboard.submit("/held", "/held?receiver=CHARGE", &[("do", "retry")]).await.path().to_owned();
        assert_eq!(of(&plan).await.2, 3, "what the plan takes");
        dashboard.submit(&plan, &plan, &[("do", "run"), ("reason", "it's well")]).await;
        let plan = dashboard.submit("/outbox", "/outbox", &[("do", "send")]).await.path().to_owned();
        assert_eq!(of(&plan).await.2, 4 + 3, "no timers, and what was retried");
        dashboard.submit(&plan, &plan, &[("do", "run"), ("reason", "why")]).await;
        for (path, number) in [
            ("/operations", 2),
            ("/operations?limit=1", 1),
            ("/operations?message=m1", 2),
            ("/operations?message=it%27s", 0),
        ] {
            let (page, text, n) = of(path).await;
            assert_eq!((n, page.matches("<tr").count().saturating_sub(1)), (number, number), "{path}: {text}: {page}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_found_by_several_fields_at_a_time() {
    for tables in filled().await {
        let dashboard = Dashboard::start(&tables);
        let page = dashboard.page("/sagas?where=customer%3DO%27Neil%20%26%20%22Co%22&where=region%3Deu").await;
        assert_eq!(ids(&page, "/sagas/order/"), BTreeSet::from(["8".to_owned()]), "{page}");
        for field in ["value=\"customer=O'Neil &amp; &quot;Co&quot;\"", "value=\"region=eu\""] {
            assert!(page.contains(&format!("name=\"where\" {field}")), "{field}: {page}");
        }
        assert_eq!(page.matches("name=\"where\"").count(), 3, "there is room for one more: {page}");
        let command = "sagas list --where 'customer=O'\\''Neil &amp; &quot;Co&quot;' --where region=eu";
        assert!(page.contains(command), "{page}");
        let wrong = dashboard.get("/sagas?where=region%3Deu&where=regoin%3Deu").await;
        assert!(wrong.text.contains("there are: customer, region"), "{}", wrong.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_receivers_put_off_is_not_of_the_instance() {
    for tables in both().await {
        tables.instance("7", "AwaitingShipment", None).await;
        tables.hold(&Held::default()).await;
        tables.hold(&Held { receiver: "charge", saga_id: None, ..Held::default() }).await;
        let held = tables.store.held(&saga_core::HeldFilter::default(), 10).await.unwrap();
        let held: Vec<_> = held.iter().map(|held| held.row()).collect();
        assert_eq!(tables.store.held_retry(&held, "ann", "why").await.count("retried"), 2);
        let page = Dashboard::start(&tables).page("/outbox?saga=order&id=7").await;
        let text = sql(&page);
        assert_eq!((ids(&page, "/outbox/").len(), rows(&tables, &text).await), (1, 1), "{text}: {page}");
        assert_eq!(column(&tables, "receiver", &text).await, BTreeSet::from(["order".to_owned()]), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_both_kinds_of_databases_a_page_has_the_query_of_each() {
    let [postgres, sqlite] = both().await;
    let dashboard = Dashboard::of(crate::command(&[&postgres.url, &sqlite.url], &["--listen", "127.0.0.1:0"]));
    let page = dashboard.page("/held").await;
    assert!(page.contains("FROM sagabus.v_held") && page.contains("FROM sagabus_v_held"), "{page}");
}
