//! What an operator does in a browser: the same as by the commands, with the same record.

use crate::{Dashboard, both, field, paused};
use reqwest::StatusCode;
use saga_core::{HeldFilter, OperationFilter, OperationView, OutboxFilter};
use tests::tables::{Held, Tables};

async fn operations(tables: &Tables) -> Vec<OperationView> {
    tables.store.operations(&OperationFilter::default(), 10).await.unwrap()
}

async fn held(tables: &Tables) -> Vec<String> {
    let held = tables.store.held(&HeldFilter::default(), 1000).await.unwrap();
    held.into_iter().map(|row| row.message_id).collect()
}

/// The hidden fields of a form.
async fn of_form(dashboard: &Dashboard, path: &str) -> Vec<(&'static str, String)> {
    let page = dashboard.page(path).await;
    let value = |name: &'static str| Some((name, field(&page, name)?.to_owned()));
    let names = ["csrf", "database", "endpoint", "receiver", "arrival", "seq", "paused-by"];
    names.into_iter().filter_map(value).collect()
}

async fn post(
    dashboard: &Dashboard,
    path: &str,
    form: &[(&'static str, String)],
    more: &[(&str, &str)],
) -> crate::Page {
    let fields: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    dashboard.post(path, &[fields, more.to_vec()].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_on_a_filter_says_how_many_and_takes_those_and_no_others() {
    for tables in both().await {
        for n in 0..205 {
            tables.hold(&Held { message_id: &format!("m{n:03}"), saga_id: None, ..Held::default() }).await;
        }
        tables.hold(&Held { message_id: "other", type_name: "payment.Refunded", ..Held::default() }).await;
        let dashboard = Dashboard::start(&tables);
        let planned = dashboard.submit("/held", "/held?type=payment.Paid", &[("do", "retry")]).await;
        let plan = planned.path().to_owned();
        let page = dashboard.page(&plan).await;
        assert!(page.contains("<h1>Retry 205 messages?</h1>") && page.contains("and 105 more"), "{page}");
        assert!(page.contains("sagabus held retry --type payment.Paid --reason …"), "{page}");
        assert_eq!((held(&tables).await.len(), operations(&tables).await.len()), (206, 0), "nothing is done yet");
        // meanwhile one is dealt with and held again, another is dealt with, and a third comes
        tables.sql("DELETE FROM {s}held WHERE message_id IN ('m007', 'm008')").await;
        tables.sql("DELETE FROM {s}inbox WHERE message_id IN ('m007', 'm008')").await;
        tables.hold(&Held { message_id: "m007", saga_id: None, ..Held::default() }).await;
        tables.hold(&Held { message_id: "new", saga_id: None, ..Held::default() }).await;
        for blank in ["", "  "] {
            let refused = dashboard.submit(&plan, &plan, &[("do", "run"), ("reason", blank)]).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
        }
        assert_eq!(operations(&tables).await.len(), 0, "nothing is done without a reason");
        let form = of_form(&dashboard, &plan).await;
        let run = [("do", "run"), ("reason", "the bank is back")];
        assert_eq!(post(&dashboard, &plan, &form, &run).await.path(), plan);
        let page = tests::eventually("the plan to be carried out", || async {
            Some(dashboard.page(&plan).await).filter(|page| !page.contains("so far"))
        })
        .await;
        assert!(page.contains("<h1>203 of 205 messages retried</h1>"), "{page}");
        assert!(page.contains("2 dealt with meanwhile, or held anew"), "{page}");
        assert_eq!(held(&tables).await, ["other", "m007", "new"]);
        let done = operations(&tables).await;
        let items: Vec<usize> = done.iter().rev().map(|operation| operation.items.len()).collect();
        assert_eq!(items, [100, 100, 5], "each transaction is bounded, and recorded by itself");
        assert!(done.iter().all(|it| it.who == "ann" && it.reason == "the bank is back" && it.action == "held retry"));
        // twice is once
        post(&dashboard, &plan, &form, &run).await;
        assert_eq!(operations(&tables).await.len(), 3);
        let page = dashboard.page("/operations").await;
        assert!(page.contains("the bank is back") && page.contains("100 messages"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_edited_retried_or_discarded_as_the_page_showed_it() {
    for tables in both().await {
        paused(&tables).await;
        let dashboard = Dashboard::start(&tables);
        let path = "/held/poison";
        let form = of_form(&dashboard, path).await;
        let refused = post(&dashboard, path, &form, &[("do", "edit"), ("reason", "why"), ("body", "{'a':1}")]).await;
        assert!(refused.status == StatusCode::BAD_REQUEST && refused.text.contains("not JSON"), "{}", refused.text);
        // the lines that the page added are no change
        let same = [("do", "edit"), ("reason", "why"), ("body", "{\r\n  \"a\": 1\r\n}")];
        let unchanged = post(&dashboard, path, &form, &same).await;
        assert!(
            unchanged.status == StatusCode::CONFLICT && unchanged.text.contains("had this body"),
            "{}",
            unchanged.text
        );
        let none = post(&dashboard, path, &form, &[("do", "discard")]).await;
        assert_eq!(none.status, StatusCode::BAD_REQUEST, "no reason: {}", none.text);
        assert_eq!(operations(&tables).await.len(), 0);
        let edit = [("do", "edit"), ("reason", "the sender's bug"), ("body", "{\r\n  \"a\": 1.50\r\n}")];
        assert_eq!(post(&dashboard, path, &form, &edit).await.path(), path);
        let sent = tables.store.outbox(&OutboxFilter::default(), 10).await.unwrap();
        assert_eq!(tables.store.outbox_body(&sent[0].id).await.unwrap().unwrap(), b"{\n  \"a\": 1.50\n}");
        let done = &operations(&tables).await[0];
        assert_eq!((done.who.as_str(), done.action.as_str()), ("ann", "held edit"));
        assert_eq!((done.reason.as_str(), done.items[0].old_body.as_deref()), ("the sender's bug", Some(r#"{"a":1}"#)));
        let page = dashboard.page(path).await;
        assert!(
            page.contains("is not held now") && page.contains("the sender&#39;s bug") || page.contains("sender's bug")
        );
        // it is held anew: what a page showed before is another message
        tables.hold(&Held { message_id: "again", saga_id: None, ..Held::default() }).await;
        let old = of_form(&dashboard, "/held/again").await;
        tables.sql("DELETE FROM {s}held WHERE message_id = 'again'").await;
        tables.sql("DELETE FROM {s}inbox WHERE message_id = 'again'").await;
        tables.hold(&Held { message_id: "again", saga_id: None, ..Held::default() }).await;
        let discard = [("do", "discard"), ("reason", "no use")];
        let late = post(&dashboard, "/held/again", &old, &discard).await;
        assert_eq!(late.status, StatusCode::CONFLICT, "{}", late.text);
        let form = of_form(&dashboard, "/held/again").await;
        let done = post(&dashboard, "/held/again", &form, &discard).await;
        assert!(dashboard.page(done.path()).await.contains("<h1>1 of 1 message discarded</h1>"));
        assert_eq!(operations(&tables).await[0].action, "held discard");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_resumed_and_cancelled_and_its_page_says_by_whom() {
    for tables in both().await {
        paused(&tables).await;
        let dashboard = Dashboard::start(&tables);
        let path = "/sagas/order/7";
        let page = dashboard.page(path).await;
        assert!(page.contains("Paused.") && page.contains("2 held messages will be discarded with it"), "{page}");
        let form = of_form(&dashboard, path).await;
        assert_eq!(post(&dashboard, path, &form, &[("do", "resume")]).await.status, StatusCode::BAD_REQUEST);
        let resume = [("do", "resume"), ("reason", "sent again")];
        assert_eq!(post(&dashboard, path, &form, &resume).await.path(), path);
        let page = dashboard.page(path).await;
        assert!(!page.contains("Paused.") && page.contains("sent again"), "{page}");
        let again = post(&dashboard, path, &form, &resume).await;
        assert!(again.status == StatusCode::CONFLICT && again.text.contains("not paused"), "{}", again.text);
        let form = of_form(&dashboard, path).await;
        assert_eq!(post(&dashboard, path, &form, &[("do", "cancel"), ("reason", "by phone")]).await.path(), path);
        let page = dashboard.page(path).await;
        assert!(page.contains("by phone") && !page.contains("Cancel the instance"), "{page}");
        let done: Vec<String> = operations(&tables).await.into_iter().map(|operation| operation.action).collect();
        assert_eq!(done, ["saga cancel", "saga resume"]);
        assert_eq!(dashboard.get("/sagas/order/8").await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_has_moved_on_since_its_page_was_made_is_left_alone() {
    for tables in both().await {
        paused(&tables).await;
        let dashboard = Dashboard::start(&tables);
        let path = "/sagas/order/7";
        let left_alone = async |form: &[(&'static str, String)], what: &str| {
            let late = post(&dashboard, path, form, &[("do", what), ("reason", "late")]).await;
            assert!(late.status == StatusCode::CONFLICT && late.text.contains("has moved on"), "{what}: {}", late.text);
            assert_eq!(operations(&tables).await.len(), 0, "{what}: nothing is done");
        };
        let form = of_form(&dashboard, path).await;
        // its failure was dealt with, and now it waits behind another message
        tables.sql("UPDATE {s}saga SET paused_by = 'right'").await;
        left_alone(&form, "resume").await;
        left_alone(&form, "cancel").await;
        // it went on
        tables.sql("UPDATE {s}saga SET paused_by = NULL").await;
        let form = of_form(&dashboard, path).await;
        tables.sql("UPDATE {s}saga SET seq = seq + 1, state = 'Paid'").await;
        left_alone(&form, "cancel").await;
        let fields: Vec<_> = form.iter().filter(|(name, _)| *name != "seq").cloned().collect();
        let blind = post(&dashboard, path, &fields, &[("do", "cancel"), ("reason", "why")]).await;
        assert_eq!(blind.status, StatusCode::BAD_REQUEST, "{}", blind.text);
        let form = of_form(&dashboard, path).await;
        assert_eq!(post(&dashboard, path, &form, &[("do", "cancel"), ("reason", "by phone")]).await.path(), path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_stands_again_where_a_step_left_it_and_its_page_shows_what_steps_changed() {
    for tables in both().await {
        tables.instance("7", "Paid", None).await; // two steps
        for (seq, from, to, note) in [(1, "NULL", "Waiting", "<b>x</b>"), (2, "'Waiting'", "Paid", "y")] {
            let data = format!(r#"{{"amount":{seq},"note":"{note}"}}"#);
            let after = format!(r#"{{"data":{data},"progress":null,"entered":{seq},"version":1,"done":false}}"#);
            let kept = format!(r#"{{"envelope":{{"message_id":"m{seq}","type":"t"}},"body":"{{}}","after":{after}}}"#);
            let effects = r#"[{"id":"e","type":"payment.MakePayment","to":"payment"}]"#;
            tables
                .sql(&format!(
                    "INSERT INTO {{s}}inbox (endpoint, receiver, message_id, body_hash, type, result, conversation_id,
                        saga, saga_id, seq, from_state, to_state, effects, claimed_at, handled_at, handled_by,
                        attempts, message)
                     VALUES ('ordering', 'order', 'm{seq}', 1, 't', 'handled', 'c', 'order', '7', {seq}, {from},
                        '{to}', '{effects}', {{now}}, {{now}}, 'p', 1, '{kept}')"
                ))
                .await;
        }
        let dashboard = Dashboard::start(&tables);
        let path = "/sagas/order/7";
        let page = dashboard.page(path).await;
        assert!(page.contains("<code>amount: 1 → 2</code>"), "{page}");
        assert!(page.contains("note: added &quot;&lt;b&gt;x&lt;/b&gt;&quot;") && !page.contains("<b>x"), "{page}");
        assert!(page.contains("id=\"fork-1\"") && !page.contains("id=\"fork-2\""), "it stands at step 2: {page}");
        assert!(page.contains("1 message that it sent after this step stays sent"), "{page}");
        let form = of_form(&dashboard, path).await;
        let none = post(&dashboard, path, &form, &[("do", "fork"), ("at", "1")]).await;
        assert_eq!(none.status, StatusCode::BAD_REQUEST, "no reason: {}", none.text);
        let blind = post(&dashboard, path, &form, &[("do", "fork"), ("reason", "why")]).await;
        assert_eq!(blind.status, StatusCode::BAD_REQUEST, "no step: {}", blind.text);
        let unfit = post(&dashboard, path, &form, &[("do", "fork"), ("at", "2"), ("reason", "why")]).await;
        assert!(unfit.status == StatusCode::BAD_REQUEST && unfit.text.contains("stands where step 2 left it"));
        let forged: Vec<_> = form.iter().filter(|(name, _)| *name != "csrf").cloned().collect();
        let fork = [("do", "fork"), ("at", "1"), ("reason", "the price was wrong")];
        assert_eq!(post(&dashboard, path, &forged, &fork).await.status, StatusCode::FORBIDDEN);
        assert_eq!(operations(&tables).await.len(), 0, "nothing was done so far");
        assert_eq!(post(&dashboard, path, &form, &fork).await.path(), path);
        let page = dashboard.page(path).await;
        assert!(
            page.contains("sagabus.Fork") && page.contains("forked to step 1 by ann: the price was wrong"),
            "{page}"
        );
        assert!(page.contains("<code>amount: 2 → 1</code>") && page.contains("<strong>Waiting</strong>"), "{page}");
        assert_eq!(operations(&tables).await[0].action, "saga fork");
        let late = post(&dashboard, path, &form, &fork).await;
        assert!(late.status == StatusCode::CONFLICT && late.text.contains("has moved on"), "{}", late.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_and_rows_of_the_outbox_are_moved_sent_and_given_up() {
    for tables in both().await {
        tables.instance("7", "AwaitingPayment", None).await;
        tables.send("timer", "ordering", 60, ", timer", ", 1").await;
        tables.send("command", "payment", 60, "", "").await;
        let dashboard = Dashboard::start(&tables);
        let rows = tables.store.outbox(&OutboxFilter::default(), 10).await.unwrap();
        let of_kind = |kind: &str| format!("/outbox/{}", rows.iter().find(|row| row.kind == kind).unwrap().id);
        let (timer, command) = (of_kind("timer"), of_kind("command"));
        let form = of_form(&dashboard, &timer).await;
        let refused = post(&dashboard, &timer, &form, &[("do", "move"), ("in", "3h")]).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "no reason: {}", refused.text);
        let refused = post(&dashboard, &timer, &form, &[("do", "move"), ("in", "soon"), ("reason", "why")]).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "no time: {}", refused.text);
        let wrong = post(&dashboard, &command, &form, &[("do", "fire"), ("reason", "why")]).await;
        assert!(wrong.status == StatusCode::CONFLICT && wrong.text.contains("not a timer"), "{}", wrong.text);
        let moved = post(&dashboard, &timer, &form, &[("do", "move"), ("in", "3h"), ("reason", "they asked")]).await;
        assert_eq!(moved.path(), "/operations");
        assert!(dashboard.page("/timers").await.contains("in 2 h 59 min"));
        assert_eq!(
            post(&dashboard, &timer, &form, &[("do", "cancel"), ("reason", "paid")]).await.path(),
            "/operations"
        );
        assert_eq!(post(&dashboard, &command, &form, &[("do", "send"), ("reason", "now")]).await.path(), "/operations");
        assert_eq!(tables.store.outbox(&OutboxFilter::default(), 10).await.unwrap().len(), 1, "the command");
        let gone = post(&dashboard, &timer, &form, &[("do", "fire"), ("reason", "why")]).await;
        assert!(gone.status == StatusCode::CONFLICT && gone.text.contains("gone"), "{}", gone.text);
        assert_eq!(
            post(&dashboard, &command, &form, &[("do", "discard"), ("reason", "no")]).await.path(),
            "/operations"
        );
        let done: Vec<(String, String)> =
            operations(&tables).await.into_iter().map(|operation| (operation.action, operation.reason)).collect();
        let said = |action: &str, reason: &str| done.contains(&(action.to_owned(), reason.to_owned()));
        assert!(said("timer move", "they asked") && said("timer cancel", "paid"), "{done:?}");
        assert!(said("outbox send-now", "now") && said("outbox discard", "no"), "{done:?}");
    }
}
