//! What the pages show.

use crate::{Dashboard, both, command, paused};
use reqwest::StatusCode;
use tests::{
    PATIENCE,
    tables::{Held, Tables},
};
use tokio::time::timeout;

const SCRIPT: &str = "<script>alert(1)</script>";

#[tokio::test(flavor = "multi_thread")]
async fn every_page_says_when_it_was_made_and_which_command_shows_the_same() {
    for tables in both().await {
        paused(&tables).await;
        tables.send("timer", "ordering", 5, "", "").await;
        let id = tables.one("SELECT CAST(id AS text) FROM {s}outbox").await;
        let row = match id {
            Some(id) if id.len() == 36 => id,
            _ => tables.store.outbox(&Default::default(), 1).await.unwrap()[0].id.clone(),
        };
        let dashboard = Dashboard::start(&tables);
        for (path, shown, command) in [
            ("/", "1 message is held as undecodable", "sagabus status"),
            ("/sagas?state=awaitingshipment", "AwaitingShipment", "sagabus sagas list --state awaitingshipment"),
            ("/sagas/order/7", "Timeline", "sagabus sagas show order 7"),
            ("/held?reason-is=undecodable", "no label", "sagabus held list --reason-is undecodable"),
            ("/held/poison", "&quot;a&quot;: 1", "sagabus held show poison"),
            ("/outbox?endpoint=ordering", "payment.MakePayment", "sagabus outbox list --endpoint ordering"),
            ("/outbox?kind=Timer&due=yes", "No row of the outbox matches", "sagabus outbox list --due --kind Timer"),
            ("/timers?saga=order", "payment.MakePayment", "sagabus timers list --saga order"),
            ("/processes", "No process runs.", "sagabus processes"),
            ("/versions", "not registered", "sagabus versions"),
            (&format!("/outbox/{row}"), "&quot;a&quot;: 1", "sagabus outbox show "),
        ] {
            let page = dashboard.page(path).await;
            assert!(page.contains(command) && page.contains("as of "), "{path}: {page}");
            let is_timeline = path == "/sagas/order/7"; // nothing was journaled
            assert!(page.contains(shown) || is_timeline, "{path} shows {shown}: {page}");
            for part in ["<html lang=\"en\"", "href=\"#main\"", "aria-current=\"page\"", "<label", "<h1>"] {
                assert!(page.contains(part), "{path} has {part}: {page}");
            }
        }
        let page = dashboard.page("/conversations/poison").await;
        assert!(page.contains("payment.Paid") && page.contains("undecodable"), "{page}");
        assert!(page.contains("sequenceDiagram") && page.contains("sagabus explain poison"), "{page}");
        assert!(dashboard.page("/conversations/nope").await.contains("There is no message, instance or conversation"));
        assert!(dashboard.page("/operations").await.contains("Nobody has done anything yet"));
        // what needs a person leads to where it is
        let home = dashboard.page("/").await;
        assert!(home.contains("href=\"/held?endpoint=ordering&amp;reason-is=undecodable\""), "{home}");
        assert!(home.contains("href=\"/sagas?paused=yes&amp;saga=order&amp;state=AwaitingShipment\""), "{home}");
        // a filter that finds nothing, and one that cannot be
        assert!(dashboard.page("/held?type=nope").await.contains("No held message matches"));
        let wrong = dashboard.get("/held?reason-is=lost").await;
        assert!(wrong.status == StatusCode::BAD_REQUEST && wrong.text.contains("undecodable"), "{}", wrong.text);
        let wrong = dashboard.get("/sagas?older-than=soon").await;
        assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{}", wrong.text);
        // a saga's name matches whatever its case, and a wrong one tells what there is
        for (path, shown) in [("/held", "no label"), ("/outbox", "payment.MakePayment"), ("/timers", &*row)] {
            assert!(dashboard.page(&format!("{path}?saga=ORDER")).await.contains(shown), "{path}");
            let wrong = dashboard.get(&format!("{path}?saga=odrer")).await;
            assert!(wrong.status == StatusCode::BAD_REQUEST && wrong.text.contains("there are: order"), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn held_messages_are_grouped_and_a_page_has_a_bounded_number_of_rows() {
    for tables in both().await {
        for n in 0..60 {
            let error = if n < 7 { "the bank says no" } else { "no table" };
            tables.hold(&Held { message_id: &format!("m{n:02}"), error, saga_id: None, ..Held::default() }).await;
        }
        let dashboard = Dashboard::start(&tables);
        let page = dashboard.page("/held").await;
        assert!(page.contains(">7 messages</a>") && page.contains(">53 messages</a>"), "{page}");
        assert!(page.contains("50 of 60 shown") && page.contains("href=\"/held?limit=200\""), "{page}");
        assert_eq!(page.matches("href=\"/held/m").count(), 50, "{page}");
        let group = dashboard.page("/held?error=the%20bank%20says%20no&reason-is=failed&type=payment.Paid").await;
        assert_eq!(group.matches("href=\"/held/m").count(), 7, "{group}");
        let all = dashboard.page("/held?limit=99999999").await;
        assert_eq!(all.matches("href=\"/held/m").count(), 60, "{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_script_is_text_on_every_page() {
    for tables in both().await {
        let script = SCRIPT;
        tables.instance(script, script, Some(script)).await;
        let data = format!(r#"{{"customer":"{script}"}}"#);
        tables.sql(&format!("UPDATE {{s}}saga SET data = '{data}'")).await;
        let field = "INSERT INTO {s}field (name, value, saga, id)";
        tables.sql(&format!("{field} VALUES ('order by customer', '{script}', 'order', '{script}')")).await;
        tables
            .hold(&Held {
                message_id: script,
                type_name: script,
                error: script,
                saga_id: Some(script),
                ..Held::default()
            })
            .await;
        tables.send("command", script, 0, ", last_error, attempts", &format!(", '{script}', 3")).await;
        let dashboard = Dashboard::start(&tables);
        let id = "%3Cscript%3Ealert%281%29%3C%2Fscript%3E";
        for path in [
            "/",
            "/sagas",
            &format!("/sagas?saga=order&state={id}"),
            &format!("/sagas?where=customer%3D{id}"),
            &format!("/sagas/order/{id}"),
            "/held",
            &format!("/held/{id}"),
            &format!("/held?error={id}"),
            "/outbox",
            &format!("/conversations/{id}"),
            &format!("/search?q={id}"),
            "/search?q=%3Csc",
        ] {
            let page = dashboard.get(path).await;
            if page.status == StatusCode::SEE_OTHER {
                continue; // it found one thing
            }
            assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.text);
            assert!(!page.text.contains("<script>"), "{path}: {}", page.text);
            assert!(page.text.contains("&lt;script&gt;alert(1)"), "{path} shows it as text: {}", page.text);
            assert_eq!(page.text.matches("<script ").count(), 1, "our own, from a file: {}", page.text);
            assert!(!page.text.contains("style=\"") && !page.text.contains("<style"), "{}", page.text);
            assert!(page.policy.contains("default-src 'none'; script-src 'self'; style-src 'self'"), "{}", page.policy);
            assert!(!page.policy.contains("unsafe"), "{}", page.policy);
        }
        let hidden = dashboard.submit(&format!("/held/{id}"), &format!("/held/{id}"), &[("do", "retry")]).await;
        assert_eq!(hidden.status, StatusCode::BAD_REQUEST, "there is no reason: {}", hidden.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_unreachable_and_hides_no_other() {
    let tables = Tables::sqlite().await;
    paused(&tables).await;
    let dead = "postgres://u:s3cret@127.0.0.1:1/gone";
    let dashboard = Dashboard::of(command(&[dead, &tables.url], &["--listen", "127.0.0.1:0"]));
    for path in [
        "/",
        "/sagas",
        "/held",
        "/outbox",
        "/timers",
        "/versions",
        "/conversations/poison",
        "/operations",
        "/search?q=p",
        "/held/poison",
        "/sagas/order/7",
    ] {
        let page = dashboard.page(path).await;
        assert!(page.contains("postgres://u@127.0.0.1:1/gone is unreachable."), "{path}: {page}");
        assert!(!page.contains("s3cret"), "{path}: {page}");
    }
    assert!(dashboard.page("/held").await.contains("poison"));
    let planned = dashboard.submit("/held", "/held", &[("do", "retry")]).await;
    let plan = dashboard.page(planned.path()).await;
    assert!(plan.contains("<h1>Retry 1 message?</h1>"), "the other database is not in the way: {plan}");
    assert!(plan.contains("gone is unreachable."), "half of what was asked for must be no surprise: {plan}");
    // what nobody could look for is not said to be nowhere
    for (path, deed) in [("/held?reason-is=crashes", "retry"), ("/outbox?to=nowhere", "send")] {
        let planned = dashboard.submit("/held", path, &[("do", deed)]).await;
        assert_eq!(planned.status, StatusCode::SERVICE_UNAVAILABLE, "{}", planned.text);
        let told = planned.text.contains("postgres://u@127.0.0.1:1/gone: ") && !planned.text.contains("s3cret");
        assert!(told, "{}", planned.text);
        assert!(dashboard.page(path).await.contains("Nothing that could be read matches."), "{path}");
    }
    // a file that is not there yet is opened when it is
    let alone = Dashboard::of(command(&["sqlite:/nowhere.db"], &["--listen", "127.0.0.1:0"]));
    let page = alone.page("/").await;
    assert!(page.contains("there is no file /nowhere.db") && page.contains("Nothing that could be read"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_box_finds_any_id() {
    for tables in both().await {
        paused(&tables).await;
        let dashboard = Dashboard::start(&tables);
        assert_eq!(dashboard.get("/search?q=7").await.path(), "/sagas/order/7");
        assert_eq!(dashboard.get("/search?q=pois").await.path(), "/held/poison");
        assert_eq!(dashboard.get("/search?q=").await.path(), "/");
        assert!(dashboard.page("/search?q=nope").await.contains("Nothing has this id"));
        tables.instance("poison-2", "AwaitingShipment", None).await;
        let page = dashboard.page("/search?q=poison").await;
        assert!(page.contains("/held/poison") && page.contains("/sagas/order/poison-2"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_of_changes_and_no_more_of_them_than_fit() {
    for tables in both().await {
        let dashboard = Dashboard::start(&tables);
        let live = format!("{}/live", dashboard.url);
        let watch = || async { dashboard.client.get(&live).send().await.expect("the dashboard answers") };
        let mut first = watch().await;
        assert_eq!(first.headers()["content-type"], "text/event-stream");
        tables.hold(&Held::default()).await;
        let told = async {
            let mut events = String::new();
            while !events.contains("event: change\ndata: look\n") {
                let more = first.chunk().await.expect("the stream goes on").expect("the stream goes on");
                events.push_str(&String::from_utf8_lossy(&more));
            }
        };
        timeout(PATIENCE, told).await.expect("the browser is told");
        let mut others = Vec::new();
        for _ in 0..63 {
            others.push(watch().await);
            assert_eq!(others.last().unwrap().status(), StatusCode::OK);
        }
        assert_eq!(watch().await.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(dashboard.page("/").await.contains("held as failed"), "pages are still served");
        drop(others);
        tests::eventually("a place for another browser", || async {
            (watch().await.status() == StatusCode::OK).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_may_stand_under_a_path() {
    let tables = Tables::sqlite().await;
    paused(&tables).await;
    let dashboard = Dashboard::of(command(&[&tables.url], &["--listen", "127.0.0.1:0", "--path", "/ops/bus"]));
    assert!(dashboard.url.ends_with("/ops/bus"), "{}", dashboard.url);
    let start = dashboard.get("").await;
    assert_eq!((start.status, start.location.as_str()), (StatusCode::PERMANENT_REDIRECT, "/ops/bus/"));
    for path in
        ["/", "/sagas", "/held", "/held/poison", "/sagas/order/7", "/outbox", "/timers", "/versions", "/operations"]
    {
        let page = dashboard.page(path).await;
        for attribute in ["href=\"/", "action=\"/", "src=\"/"] {
            let others = page.split(attribute).skip(1).filter(|rest| !rest.starts_with("ops/bus/")).count();
            assert_eq!(others, 0, "{path} stays under its path: {page}");
        }
    }
    assert_eq!(dashboard.get("/assets/style.css").await.status, StatusCode::OK);
    assert_eq!(dashboard.get("/search?q=7").await.path(), "/ops/bus/sagas/order/7");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_found_by_a_field_and_lead_to_those_with_the_same_value() {
    for tables in both().await {
        for id in ["1", "2", "7"] {
            tables.instance(id, "AwaitingShipment", None).await;
        }
        let fields = "INSERT INTO {s}field (name, value, saga, id) VALUES ('order by customer', 'A & B', 'order', '1'),
            ('order by customer', 'A & B', 'order', '7'), ('order by customer', 'A', 'order', '2')";
        tables.sql(fields).await;
        let dashboard = Dashboard::start(&tables);
        let href = "/sagas?saga=order&amp;where=customer%3DA%20%26%20B";
        let page = dashboard.page("/sagas/order/7").await;
        assert!(page.contains(&format!("customer <a href=\"{href}\">A &amp; B</a>")), "{page}");
        let page = dashboard.page("/sagas?saga=order&where=customer%3DA%20%26%20B").await;
        let has = |id: &str| page.contains(&format!("href=\"/sagas/order/{id}\""));
        assert_eq!([has("1"), has("2"), has("7")], [true, false, true], "{page}");
        assert!(page.contains("sagas list --saga order --where 'customer=A &amp; B'"), "the command: {page}");
        assert!(page.contains("name=\"where\" value=\"customer=A &amp; B\""), "the form: {page}");
        let unknown = dashboard.get("/sagas?where=custmer%3D7").await;
        assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
        assert!(unknown.text.contains("is called custmer; there are: customer"), "{}", unknown.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_is_drawn_with_its_counts_and_an_instance_with_its_way() {
    for tables in both().await {
        let chart = r#"{"saga":"order","version":3,"states":[{"name":"AwaitingShipment","done":false},
            {"name":"Shipped","done":true}],"messages":[],"edges":[{"from":"","on":"orders.Placed","branch":"",
            "to":"AwaitingShipment","effects":[]},{"from":"AwaitingShipment","on":"parcel.Sent","branch":"",
            "to":"Shipped","effects":[]}]}"#;
        tables
            .sql(&format!(
                "INSERT INTO {{s}}definition (saga, version, chart, endpoint, registered_at)
                 VALUES ('order', 3, '{chart}', 'ordering', {{now}})"
            ))
            .await;
        for id in ["1", "2", "7"] {
            tables.instance(id, "AwaitingShipment", None).await;
        }
        let dashboard = Dashboard::start(&tables);
        let page = dashboard.page("/sagas?saga=order").await;
        assert!(page.contains("data-state=\"AwaitingShipment\"") && page.contains(">3</text>"), "{page}");
        assert!(!page.contains("<style"), "the policy allows none: {page}");
        assert!(dashboard.page("/assets/style.css").await.contains(".sagabus-chart .count rect"));
        let page = dashboard.page("/sagas/order/7").await;
        assert!(page.contains("It waits for <code>parcel.Sent</code>"), "{page}");
    }
}
