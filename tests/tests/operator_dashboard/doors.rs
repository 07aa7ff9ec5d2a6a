//! Who comes in, and what does not.

use crate::{Dashboard, command, ended, field, paused};
use reqwest::StatusCode;
use saga_core::{HeldFilter, OperationFilter};
use std::process::Command;
use tests::tables::Tables;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const OPERATOR: &str = "0123456789-operator";
const VIEWER: &str = "0123456789-viewer";
const ON_LOOPBACK: [&str; 2] = ["--listen", "127.0.0.1:0"];

fn with_tokens(tables: &Tables) -> Command {
    let mut command = command(&[&tables.url], &ON_LOOPBACK);
    command.env("SAGABUS_DASHBOARD_TOKEN", OPERATOR).env("SAGABUS_DASHBOARD_VIEWER_TOKEN", VIEWER);
    command
}

/// Whether nobody has done anything.
async fn untouched(tables: &Tables) -> bool {
    let done = tables.store.operations(&OperationFilter::default(), 10).await.unwrap();
    done.is_empty() && tables.store.held_count(&HeldFilter::default()).await.unwrap() == 2
}

async fn login(dashboard: &mut Dashboard, token: &str) {
    let page = dashboard.post("/login", &[("name", "bob"), ("token", token), ("next", "/held?limit=7")]).await;
    assert_eq!(page.path(), "/held?limit=7");
    assert!(
        page.cookie.contains("; HttpOnly; SameSite=Strict;") && page.cookie.ends_with("; Path=/"),
        "{}",
        page.cookie
    );
    let cookie = page.cookie.split(';').next().unwrap().to_owned();
    dashboard.with("cookie", &cookie);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_it_listens_on_loopback_alone() {
    let tables = Tables::sqlite().await;
    for address in ["0.0.0.0:0", "[::]:0"] {
        let (code, err) = ended(command(&[&tables.url], &["--listen", address]));
        assert!(code == 1 && err.contains("is not loopback") && err.contains("SAGABUS_DASHBOARD_TOKEN"), "{err}");
    }
    let mut short = command(&[&tables.url], &ON_LOOPBACK);
    short.env("SAGABUS_DASHBOARD_TOKEN", "secret");
    let (code, err) = ended(short);
    assert!(code == 1 && err.contains("could be guessed") && !err.contains("secret:"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_token_sees_and_does_nothing() {
    let tables = Tables::sqlite().await;
    paused(&tables).await;
    let mut dashboard = Dashboard::of(with_tokens(&tables));
    assert_eq!(dashboard.get("/held?type=x").await.path(), "/login?next=%2Fheld%3Ftype%3Dx");
    assert_eq!(dashboard.get("/live").await.status, StatusCode::UNAUTHORIZED);
    let post = dashboard.post("/held", &[("do", "discard"), ("csrf", "x")]).await;
    assert_eq!(post.status, StatusCode::UNAUTHORIZED, "{}", post.text);
    dashboard.with("cookie", "sagabus-dashboard=0");
    assert_eq!(dashboard.get("/").await.path(), "/login?next=%2F");
    for wrong in ["", "0123456789-operatoR", "0123456789-operator "] {
        let page = dashboard.post("/login", &[("name", "bob"), ("token", wrong)]).await;
        assert_eq!((page.status, page.cookie.as_str()), (StatusCode::FORBIDDEN, ""), "{}", page.text);
        assert!(!page.text.contains(OPERATOR), "{}", page.text);
    }
    let nameless = dashboard.post("/login", &[("name", " "), ("token", OPERATOR)]).await;
    assert_eq!((nameless.status, nameless.cookie.as_str()), (StatusCode::BAD_REQUEST, ""));
    // a login leads to no other site
    for elsewhere in ["//evil.example/", "https://evil.example/", "/\\evil.example", "/\t/evil.example", "javascript:1"]
    {
        let page = dashboard.post("/login", &[("name", "bob"), ("token", OPERATOR), ("next", elsewhere)]).await;
        assert_eq!(page.path(), "/", "{elsewhere}");
    }
    // ten wrong ones a minute, and then not even the right one
    for _ in 0..10 {
        dashboard.post("/login", &[("name", "bob"), ("token", "x")]).await;
    }
    let page = dashboard.post("/login", &[("name", "bob"), ("token", OPERATOR)]).await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS, "{}", page.text);
    assert!(untouched(&tables).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_looks_and_an_operator_acts() {
    let tables = Tables::sqlite().await;
    paused(&tables).await;
    let mut dashboard = Dashboard::of(with_tokens(&tables));
    login(&mut dashboard, VIEWER).await;
    let page = dashboard.page("/held/poison").await;
    assert!(page.contains("bob (viewer)") && !page.contains("name=\"do\""), "{page}");
    let csrf = field(&page, "csrf").expect("one can log out").to_owned();
    for (path, what) in
        [("/held", "discard"), ("/held/poison", "discard"), ("/sagas/order/7", "cancel"), ("/plans/x", "run")]
    {
        let fields = [("csrf", csrf.as_str()), ("do", what), ("reason", "why"), ("arrival", "1")];
        let post = dashboard.post(path, &fields).await;
        assert!(post.status == StatusCode::FORBIDDEN && post.text.contains("you may look"), "{path}: {}", post.text);
    }
    assert!(untouched(&tables).await);
    let out = dashboard.post("/logout", &[("csrf", csrf.as_str())]).await;
    assert!(out.path() == "/login" && out.cookie.contains("Max-Age=0"), "{}", out.cookie);
    assert_eq!(dashboard.get("/").await.path(), "/login?next=%2F", "the cookie is worth nothing now");
    login(&mut dashboard, OPERATOR).await;
    let page = dashboard.page("/sagas/order/7").await;
    let shown = |name: &'static str| (name, field(&page, name).unwrap());
    let fields = [("do", "cancel"), ("reason", "by phone"), shown("database"), shown("seq"), shown("paused-by")];
    assert_eq!(dashboard.submit("/sagas/order/7", "/sagas/order/7", &fields).await.path(), "/sagas/order/7");
    let done = tables.store.operations(&OperationFilter::default(), 10).await.unwrap();
    assert_eq!((done[0].who.as_str(), done[0].action.as_str()), ("bob", "saga cancel"));
}

#[tokio::test(flavor = "multi_thread")]
async fn masked_fields_are_shown_to_an_operator_who_asks_and_to_no_viewer() {
    let tables = Tables::sqlite().await;
    paused(&tables).await;
    let envelope = r#"{"message_id":"poison","type":"payment.Paid","headers":{"sagabus-masked":["a"]}}"#;
    tables.sql(&format!("UPDATE {{s}}held SET envelope = '{envelope}' WHERE message_id = 'poison'")).await;
    let mut dashboard = Dashboard::of(with_tokens(&tables));
    let (secret, mask) = ("&quot;a&quot;: 1", "&quot;a&quot;: &quot;•••&quot;");
    login(&mut dashboard, VIEWER).await;
    for path in ["/held/poison", "/held/poison?unmasked=yes"] {
        let page = dashboard.page(path).await;
        assert!(page.contains(mask) && !page.contains(secret) && !page.contains("Show them"), "{path}: {page}");
    }
    login(&mut dashboard, OPERATOR).await;
    let page = dashboard.page("/held/poison").await;
    assert!(page.contains(mask) && !page.contains(secret) && page.contains("?unmasked=yes"), "{page}");
    assert!(!page.contains("Retry with this body"), "what is hidden is not edited: {page}");
    let page = dashboard.page("/held/poison?unmasked=yes").await;
    assert!(page.contains(secret) && page.contains("Retry with this body"), "{page}");
    let held = tables.store.held(&HeldFilter::default(), 10).await.unwrap();
    let row = held.iter().find(|it| it.message_id == "poison").expect("it is still held").row();
    tables.store.held_edit(&row, "[]", "bob", "it was wrong").await.unwrap();
    tables.sql("DELETE FROM {s}outbox").await; // what has only been acted on: a search leads nowhere else
    for path in ["/operations", "/held/poison", "/search?q=poison", "/sagas/order/7"] {
        let page = dashboard.page(path).await;
        let is_masked = page.contains("•••") && !page.contains("{&quot;a&quot;:1}");
        assert!(is_masked && page.contains("Show them"), "the old body is masked too, at {path}: {page}");
        let page = dashboard.page(&format!("{path}{}unmasked=yes", if path.contains('?') { '&' } else { '?' })).await;
        assert!(!page.contains("•••") && page.contains("{&quot;a&quot;:1}"), "{path}: {page}");
    }
    login(&mut dashboard, VIEWER).await;
    let page = dashboard.page("/search?q=poison&unmasked=yes").await;
    assert!(page.contains("•••") && !page.contains("{&quot;a&quot;:1}"), "a viewer never sees it: {page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_without_the_token_of_a_page_does_nothing() {
    let tables = Tables::sqlite().await;
    paused(&tables).await;
    let mut dashboard = Dashboard::start(&tables);
    let page = dashboard.page("/held/poison").await;
    let (csrf, arrival) = (field(&page, "csrf").unwrap().to_owned(), field(&page, "arrival").unwrap().to_owned());
    let database = field(&page, "database").unwrap().to_owned();
    let fields = |csrf: Option<&str>| -> Vec<(&str, String)> {
        let csrf = csrf.map(|csrf| ("csrf", csrf.to_owned()));
        let all = [("do", "discard"), ("reason", "why"), ("endpoint", "ordering"), ("receiver", "order")];
        let all = all.into_iter().map(|(name, value)| (name, value.to_owned()));
        all.chain([("arrival", arrival.clone()), ("database", database.clone())]).chain(csrf).collect()
    };
    let post = async |dashboard: &Dashboard, csrf: Option<&str>| {
        let fields = fields(csrf);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        dashboard.post("/held/poison", &fields).await
    };
    let wrong = format!("{}0", &csrf[..csrf.len() - 1]);
    for csrf in [None, Some(""), Some("x"), Some(&*wrong)].into_iter().filter(|it| *it != Some(&*csrf)) {
        let page = post(&dashboard, csrf).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{csrf:?}: {}", page.text);
    }
    for site in ["cross-site", "same-site"] {
        dashboard.with("sec-fetch-site", site);
        assert_eq!(post(&dashboard, Some(&csrf)).await.status, StatusCode::FORBIDDEN, "{site}");
    }
    // neither JSON nor a form with files is a form of ours
    dashboard.with("sec-fetch-site", "same-origin");
    let request = dashboard.client.post(format!("{}/held", dashboard.url)).body(format!("csrf={csrf}&do=discard"));
    assert_eq!(dashboard.send(request).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(untouched(&tables).await);
    assert_eq!(post(&dashboard, Some(&csrf)).await.status, StatusCode::SEE_OTHER);
    assert!(!untouched(&tables).await, "with it, it does");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_acts_on_a_dashboard_that_is_read_only() {
    let tables = Tables::sqlite().await;
    paused(&tables).await;
    let dashboard = Dashboard::of(command(&[&tables.url], &["--listen", "127.0.0.1:0", "--read-only"]));
    for path in ["/held", "/held/poison", "/sagas/order/7"] {
        assert!(!dashboard.page(path).await.contains("name=\"do\""));
        let post = dashboard.post(path, &[("do", "discard"), ("reason", "why")]).await;
        assert_eq!(post.status, StatusCode::FORBIDDEN, "{}", post.text);
    }
    assert!(untouched(&tables).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_in_a_header_counts_only_where_a_proxy_was_announced() {
    let tables = Tables::sqlite().await;
    paused(&tables).await;
    let mut dashboard = Dashboard::start(&tables);
    dashboard.with("x-user", "mallory");
    let page = dashboard.page("/held").await;
    assert!(page.contains("ann") && !page.contains("mallory"), "{page}");
    drop(dashboard);
    let options = ["--listen", "127.0.0.1:0", "--user-header", "X-User", "--operator", "carl"];
    let mut dashboard = Dashboard::of(command(&[&tables.url], &options));
    assert_eq!(dashboard.get("/").await.status, StatusCode::UNAUTHORIZED, "the proxy named nobody");
    dashboard.with("x-user", "dora");
    assert!(dashboard.page("/").await.contains("dora (viewer)"));
    dashboard.with("x-user", "carl");
    let planned =
        dashboard.submit("/held?reason-is=undecodable", "/held?reason-is=undecodable", &[("do", "retry")]).await;
    let plan = planned.path().to_owned();
    // a plan is its maker's
    dashboard.with("x-user", "dora");
    assert_eq!(dashboard.get(&plan).await.status, StatusCode::NOT_FOUND);
    dashboard.with("x-user", "carl");
    dashboard.submit(&plan, &plan, &[("do", "run"), ("reason", "the label is back")]).await;
    let done = tables.store.operations(&OperationFilter::default(), 10).await.unwrap();
    assert_eq!((done[0].who.as_str(), done[0].reason.as_str()), ("carl", "the label is back"));
}

/// A name that suddenly leads to 127.0.0.1 is another site's.
#[tokio::test(flavor = "multi_thread")]
async fn on_loopback_it_answers_under_no_other_name() {
    let tables = Tables::sqlite().await;
    paused(&tables).await;
    let mut dashboard = Dashboard::of(command(&[&tables.url], &["--listen", "127.0.0.1:0", "--host", "ops.example"]));
    for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example"] {
        dashboard.with("host", host);
        for path in ["/", "/held", "/live", "/assets/live.js"] {
            let page = dashboard.get(path).await;
            assert_eq!(page.status, StatusCode::MISDIRECTED_REQUEST, "{host}{path}");
            assert!(!page.text.contains("poison") && !page.text.contains("csrf"), "{}", page.text);
        }
    }
    for host in ["localhost", "localhost:8480", "ops.example"] {
        assert_eq!(dashboard.with("host", host).get("/").await.status, StatusCode::OK, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_to_a_file() {
    let tables = Tables::sqlite().await;
    let dashboard = Dashboard::start(&tables);
    let address = dashboard.url.strip_prefix("http://").unwrap();
    for path in [
        "/../etc/passwd",
        "/assets/../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2fetc%2fpasswd",
        "/assets//etc/passwd",
        "/sagas/../../etc/passwd",
        "/held/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
    ] {
        // a client library would tidy the path
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(!answer.contains("root:"), "{path}: {answer}");
        // a held message may have any id, also this one
        assert!(
            status == "404" || (path.starts_with("/held/") && answer.contains("is not held now")),
            "{path}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_too_large_is_not_read() {
    let tables = Tables::sqlite().await;
    paused(&tables).await;
    let dashboard = Dashboard::start(&tables);
    let large = "x".repeat(1_000_000);
    let page =
        dashboard.submit("/held/poison", "/held/poison", &[("do", "edit"), ("reason", "why"), ("body", &large)]).await;
    assert_eq!(page.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", page.text);
    assert!(untouched(&tables).await);
}
