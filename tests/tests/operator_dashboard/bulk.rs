//! Actions on rows of the outbox by a filter: planned first, and exactly what was planned is done.

use crate::{Dashboard, Page, both, command, field};
use reqwest::StatusCode;
use saga_core::{OperationFilter, OutboxFilter};
use tests::tables::Tables;

async fn operations(tables: &Tables) -> Vec<(String, String, usize)> {
    let all = tables.store.operations(&OperationFilter::default(), 10).await.unwrap();
    let all = all.into_iter().map(|it| (it.action, it.reason, it.items.len()));
    all.collect()
}

async fn number(tables: &Tables, rows: &str) -> String {
    tables.one(&format!("SELECT CAST(count(*) AS text) FROM {{s}}outbox WHERE {rows}")).await.expect("a count")
}

/// Confirms a plan, and waits until it is over. Returns its page.
async fn confirmed(dashboard: &Dashboard, planned: &Page, fields: &[(&str, &str)]) -> String {
    let plan = planned.path().to_owned();
    let fields = [&[("do", "run")], fields].concat();
    assert_eq!(dashboard.submit(&plan, &plan, &fields).await.path(), plan);
    let over = || async { Some(dashboard.page(&plan).await).filter(|page| !page.contains("so far")) };
    tests::eventually("the plan to be carried out", over).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_the_outbox_are_sent_discarded_and_rerouted_by_a_filter_and_no_others_are() {
    for tables in both().await {
        for _ in 0..103 {
            tables.send("command", "payment", 60, "", "").await;
        }
        for _ in 0..2 {
            tables.send("command", "Warehouse", 60, ", waits_for", ", 'Warehouse'").await;
        }
        tables.send("timer", "ordering", 60, ", timer", ", 1").await;
        let dashboard = Dashboard::start(&tables);
        let planned = dashboard.submit("/outbox", "/outbox?to=payment", &[("do", "send")]).await;
        let page = dashboard.page(planned.path()).await;
        assert!(page.contains("<h1>Send 103 rows now?</h1>") && page.contains("and 3 more"), "{page}");
        assert!(page.contains("sagabus outbox send-now --to payment --reason …"), "{page}");
        assert_eq!((operations(&tables).await.len(), &*number(&tables, "due_at <= {now}").await), (0, "0"));
        // meanwhile one is sent, one is being sent, and another one comes
        let [one, two] = ["ASC", "DESC"].map(|way| {
            let of = "SELECT CAST(id AS text) FROM {s}outbox WHERE destination = 'payment' ORDER BY id";
            format!("{of} {way} LIMIT 1")
        });
        let id = tables.one(&one).await.unwrap();
        tables.sql(&format!("DELETE FROM {{s}}outbox WHERE id = '{id}'")).await;
        let id = tables.one(&two).await.unwrap();
        let lease = "UPDATE {s}outbox SET lease_owner = 'p', lease_until = {now} + 5 * {minute} WHERE id = ";
        tables.sql(&format!("{lease}'{id}'")).await;
        tables.send("command", "payment", 60, "", "").await;
        for wrong in [&[("do", "run")][..], &[("do", "run"), ("reason", " ")]] {
            let refused = dashboard.submit(planned.path(), planned.path(), wrong).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
        }
        for rate in ["0", "-1", "many"] {
            let fields = [("do", "run"), ("reason", "why"), ("rate", rate)];
            let refused = dashboard.submit(planned.path(), planned.path(), &fields).await;
            assert!(refused.status == StatusCode::BAD_REQUEST && refused.text.contains("a whole number"), "{rate}");
        }
        assert_eq!(operations(&tables).await, []);
        let page = confirmed(&dashboard, &planned, &[("reason", "it is back"), ("rate", "1000")]).await;
        assert!(page.contains("<h1>101 of 103 rows due now"), "{page}");
        assert!(page.contains("1 sent or deleted meanwhile") && page.contains("1 being sent by a running"), "{page}");
        assert_eq!(number(&tables, "due_at <= {now}").await, "101", "the new one was not shown: it waits");
        let action = |n| ("outbox send-now".to_owned(), "it is back".to_owned(), n);
        assert_eq!(operations(&tables).await, [action(3), action(100)]);

        let to = "/outbox?to=WAREHOUSE";
        let nowhere = dashboard.submit("/outbox", to, &[("do", "reroute"), ("new", " ")]).await;
        assert!(nowhere.status == StatusCode::BAD_REQUEST && nowhere.text.contains("where"), "{}", nowhere.text);
        let planned = dashboard.submit("/outbox", to, &[("do", "reroute"), ("new", "stock <2>")]).await;
        let page = dashboard.page(planned.path()).await;
        assert!(page.contains("<h1>Reroute 2 rows to stock &lt;2&gt;?</h1>"), "{page}");
        assert!(page.contains("outbox reroute --new 'stock &lt;2&gt;' --to WAREHOUSE --reason …"), "{page}");
        let page = confirmed(&dashboard, &planned, &[("reason", "renamed")]).await;
        assert!(page.contains("<h1>2 of 2 rows rerouted, and due now</h1>"), "{page}");
        assert_eq!(number(&tables, "destination = 'stock <2>' AND waits_for IS NULL").await, "2");

        let planned = dashboard.submit("/outbox", "/outbox", &[("do", "discard")]).await;
        let page = dashboard.page(planned.path()).await;
        assert!(page.contains("<h1>Discard 105 rows?</h1>") && page.contains("discard --all --reason"), "{page}");
        confirmed(&dashboard, &planned, &[("reason", "a test")]).await;
        let left = tables.store.outbox(&OutboxFilter::default(), 10).await.unwrap();
        let left: Vec<&str> = left.iter().map(|row| row.kind.as_str()).collect();
        assert_eq!(left, ["command", "timer"], "what is being sent, and the timer that no filter named");
        let page = dashboard.page("/operations").await;
        assert!(page.contains("renamed") && page.contains("a test") && page.contains("100 messages"), "{page}");
        let none = dashboard.submit("/outbox", "/outbox?to=nobody", &[("do", "send")]).await;
        assert_eq!(none.status, StatusCode::NOT_FOUND, "{}", none.text);
        let timers = dashboard.submit("/outbox", "/outbox?kind=timer", &[("do", "send")]).await;
        assert!(dashboard.page(timers.path()).await.contains("<h1>Send 1 row now?</h1>"), "a filter that names them");
        let unsaid = dashboard.submit("/outbox", "/outbox", &[("do", "retry")]).await;
        assert_eq!(unsaid.status, StatusCode::BAD_REQUEST, "{}", unsaid.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_with_a_rate_is_stopped_between_two_steps() {
    for tables in both().await {
        for _ in 0..3 {
            tables.send("command", "payment", 60, "", "").await;
        }
        let dashboard = Dashboard::start(&tables);
        let planned = dashboard.submit("/outbox", "/outbox", &[("do", "send")]).await;
        let plan = planned.path().to_owned();
        let csrf = field(&dashboard.page(&plan).await, "csrf").unwrap().to_owned();
        // one a second: it is stopped while it waits for its second turn, or later if this machine is slow
        let run = [("csrf", &*csrf), ("do", "run"), ("reason", "why"), ("rate", "1")];
        let stop = [("csrf", &*csrf), ("do", "stop")];
        let stopped = async {
            tests::eventually("the first step", || async { (!operations(&tables).await.is_empty()).then_some(()) })
                .await;
            dashboard.post(&plan, &stop).await.path().to_owned()
        };
        let (ran, stopped) = tokio::join!(dashboard.post(&plan, &run), stopped);
        assert_eq!((ran.path(), &*stopped), (&*plan, &*plan));
        let over = || async { Some(dashboard.page(&plan).await).filter(|page| !page.contains("so far")) };
        let page = tests::eventually("the plan to end", over).await;
        let done = operations(&tables).await;
        assert!(done.iter().all(|(_, _, rows)| *rows == 1), "no faster than one a second: {done:?}");
        assert!(page.contains(&format!("<h1>{} of 3 rows due now", done.len())), "{page}");
        assert_eq!(page.contains("stopped by hand"), done.len() < 3, "{page}");
        assert_eq!(number(&tables, "due_at <= {now}").await, done.len().to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_acts_on_the_outbox_without_the_right_and_the_forms_token() {
    for tables in both().await {
        tables.send("command", "payment", 60, "", "").await;
        let dashboard = Dashboard::start(&tables);
        let forged = dashboard.post("/outbox", &[("do", "discard"), ("csrf", "0")]).await;
        assert_eq!(forged.status, StatusCode::FORBIDDEN, "{}", forged.text);
        let shut = Dashboard::of(command(&[&tables.url], &["--listen", "127.0.0.1:0", "--read-only"]));
        let page = shut.page("/outbox").await;
        assert!(page.contains("payment.MakePayment") && !page.contains("Act on the filter"), "{page}");
        let refused = shut.post("/outbox", &[("do", "discard")]).await;
        assert!(refused.status == StatusCode::FORBIDDEN && refused.text.contains("you may look"), "{}", refused.text);
        assert_eq!((operations(&tables).await.len(), &*number(&tables, "TRUE").await), (0, "1"));
    }
}
