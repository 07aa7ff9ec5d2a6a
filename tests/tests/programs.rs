//! The programs as their users meet them: the demo, the books, the operator's tool.

use serde_json::Value;
use std::process::{Command, Output, Stdio};
use tests::{Database, File, Vhost, process::program};

fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(program(name))
        .args(arguments)
        .env_remove("SAGABUS_DATABASE_URL")
        .env_remove("ORDERING_DATABASE_URL")
        .env_remove("ORDERING_BROKER_URL")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("the program runs")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "JSON and nothing else was expected ({error}): {}{}",
            text(output),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_clean(summary: &Value, orders: u64) {
    assert_eq!(summary["orders"], orders, "{summary}");
    assert_eq!(summary["violations"], Value::Array(vec![]), "{summary}");
    let number = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("`{name}` is missing in {summary}"));
    assert_eq!(number("shipped") + number("cancelled"), orders);
    assert_eq!(
        (number("labels"), number("charges")),
        (number("shipped"), number("shipped") + number("refunds")),
        "{summary}"
    );
    for name in ["p50", "p99", "max"] {
        assert!(summary["latency_ms"][name].as_f64().is_some_and(|ms| ms > 0.0), "{summary}");
    }
    assert!(
        summary["sagas_per_s"].as_f64().is_some_and(|rate| rate > 0.0) && summary["elapsed_ms"].is_u64(),
        "{summary}"
    );
}

/// The README's first command with fewer orders, and the operator's view of its result.
#[test]
fn the_demo_ends_with_clean_books_and_a_second_run_adds_to_them() {
    let file = File::create();
    let folder = file.folder.to_str().expect("the folder's name is text");
    let arguments =
        ["--orders", "150", "--no-stock", "20", "--silent", "5", "--payment-timeout", "1", "--data", folder, "--json"];
    for _ in 0..2 {
        let demo = run("ordering", &arguments);
        assert!(demo.status.success(), "{}", text(&demo));
        assert_clean(&json(&demo), 150);
    }
    let verify = run("ordering", &["verify", "--data", folder, "--orders", "300", "--json"]);
    assert!(verify.status.success());
    assert_eq!(json(&verify)["orders"], 300);
    let wrong = run("ordering", &["verify", "--data", folder, "--orders", "7"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong).contains("VIOLATION: 300 orders are there, 7 expected"), "{}", text(&wrong));
    look_around(&format!("sqlite:{folder}/ordering.db"), 300);
}

#[test]
fn the_demo_runs_on_rabbitmq_and_postgresql() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (vhost, database) = (runtime.block_on(Vhost::create()), Database::prefix());
    let server = Database::server();
    let url = vhost.url();
    let where_ = ["--broker", &url, "--database", &server, "--prefix", &database.name];
    let mut arguments = vec!["demo", "--orders", "150", "--payment-timeout", "1", "--silent", "5", "--json"];
    arguments.extend(where_);
    let demo = run("ordering", &arguments);
    assert!(demo.status.success(), "{}{}", text(&demo), String::from_utf8_lossy(&demo.stderr));
    assert_clean(&json(&demo), 150);
    let verify = run("ordering", &["verify", "--database", &server, "--prefix", &database.name, "--orders", "150"]);
    assert!(verify.status.success(), "{}", text(&verify));
    look_around(&format!("{server}/{}_ordering", database.name), 150);
}

/// `sagabus` on ordering's database.
fn look_around(url: &str, orders: u64) {
    let sagabus = |arguments: &[&str]| {
        let output = run("sagabus", &[&["--database", url], arguments].concat());
        assert!(output.status.success(), "sagabus {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    };
    let status = json(&sagabus(&["--json", "status"]));
    assert_eq!(status["endpoints"][0]["endpoint"], "ordering");
    let instances: u64 =
        status["instances"].as_array().unwrap().iter().filter_map(|state| state["count"].as_u64()).sum();
    assert_eq!(instances, orders, "{status}");
    assert!(text(&sagabus(&["status"])).contains("order-fulfilment"));
    assert_eq!(json(&sagabus(&["--json", "outbox", "list"])), Value::Array(vec![]));
    assert_eq!(text(&sagabus(&["held", "list"])), "", "rows and nothing else where there is no terminal");
    let shipped = json(&sagabus(&["--json", "--limit", "1", "sagas", "list", "--state", "Shipped"]));
    let id = shipped[0]["id"].as_str().expect("an instance was shipped");
    let shown = json(&sagabus(&["--json", "sagas", "show", "order-fulfilment", id]));
    let states: Vec<&str> =
        shown["journal"].as_array().unwrap().iter().filter_map(|line| line["to_state"].as_str()).collect();
    assert_eq!(states, ["AwaitingPayment", "AwaitingShipment", "Shipped"]);
    assert!(shown["instance"]["data"]["state"]["label_id"].is_string(), "{shown}");
    let page = text(&sagabus(&["sagas", "show", "order-fulfilment", id]));
    assert!(page.contains("→ AwaitingPayment") && page.contains("payment.MakePayment"), "{page}");
}

#[test]
fn wrong_usage_is_told_from_trouble() {
    for (name, arguments, code, says) in [
        ("sagabus", vec!["status"], 2, "say which database"),
        ("sagabus", vec!["--database", "mysql://x", "status"], 1, "is not a database"),
        ("sagabus", vec!["--database", "sqlite:/nowhere.db", "status"], 1, "there is no file /nowhere.db"),
        (
            "sagabus",
            vec!["--database", "postgres://u:s3cret@127.0.0.1:1/x", "status"],
            1,
            "cannot read postgres://u@127.0.0.1:1/x",
        ),
        ("sagabus", vec!["--database", "x", "dance"], 2, "unrecognized subcommand"),
        ("ordering", vec!["--orders", "many"], 2, "invalid value"),
        ("ordering", vec!["--decline", "101"], 2, "101"),
        ("ordering", vec!["--broker", "amqp://x"], 2, "--database"),
        ("ordering", vec!["--database", "postgres://x"], 2, "--broker"),
        ("ordering", vec!["verify"], 2, "--data DIR"),
        ("ordering", vec!["verify", "--data", "x", "--database", "postgres://x"], 2, "cannot be used with"),
        ("ordering", vec!["verify", "--database", "mysql://u:s3cret@x"], 2, "`mysql` is not PostgreSQL"),
        ("ordering", vec!["serve", "payment", "--database", "postgres://x"], 2, "ORDERING_BROKER_URL"),
        ("ordering", vec!["serve", "payment", "--broker", "amqp://x"], 2, "ORDERING_DATABASE_URL"),
        (
            "ordering",
            vec!["serve", "payment", "--broker", "amqp://x", "--database", "mysql://u:s3cret@x"],
            2,
            "`mysql` is not PostgreSQL",
        ),
        ("ordering", vec!["place", "--api", "nonsense"], 2, "http://127.0.0.1:8080"),
        (
            "ordering",
            vec!["serve", "payment", "--broker", "http://x", "--database", "postgres://x"],
            2,
            "amqp://user:password@host",
        ),
    ] {
        let output = run(name, &arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{name} {arguments:?}: {error}");
        assert!(error.contains(says), "`{says}` was expected of {name} {arguments:?}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

/// The measuring program, with few sagas: its books agree, and it prints its figures.
#[tokio::test(flavor = "multi_thread")]
async fn the_throughput_program_measures_all_it_names() {
    let (vhost, database) = (Vhost::create().await, Database::prefix());
    let (broker, server, prefix) = (vhost.url(), Database::server(), format!("{}_", database.name));
    let measure = |arguments: &[&str]| {
        let place = ["--json", "--broker", &broker, "--database", &server, "--prefix", &prefix];
        let output = run("throughput", &[arguments, &place].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        json(&output)
    };
    let report = measure(&["compare", "--sagas", "200", "--in-flight", "50", "--rounds", "1"]);
    for contestant in ["naive", "limit", "bundled", "sagabus"] {
        let median = &report["median"][contestant];
        let figures = ["sagas_per_s", "p50_ms", "p99_ms"].map(|name| &median[name]);
        let cpu = ["postgres", "broker", "self"].map(|name| &median["cpu_us_per_saga"][name]);
        assert!(figures.iter().all(|figure| figure.as_f64().is_some_and(|n| n > 0.0)), "{median}");
        assert!(cpu.iter().all(|figure| figure.is_number()), "{median}");
    }
    let ratios = ["naive", "limit", "bundled"].map(|other| &report["ratio"][other]);
    assert!(ratios.iter().all(|ratio| ratio.is_number()), "{report}");
    assert_eq!(report["rounds"].as_array().map(Vec::len), Some(4), "{report}");
    let parked = measure(&["parked", "--parked", "1000", "--sagas", "200", "--rounds", "1"]);
    assert!(parked["ratio"]["beside 1000"].is_number(), "{parked}");
    let few = ["--sagas", "200", "--rounds", "1"];
    let processes = measure(&[&["processes", "--processes", "2"], &few[..]].concat());
    assert!(processes["ratio"]["2 of each"].is_number(), "{processes}");
    let distance = measure(&[&["distance", "--delay", "1"], &few[..]].concat());
    assert!(distance["ratio"]["1 ms away"].is_number(), "{distance}");
    let growth = measure(&[&["growth", "--inbox", "3000", "--expired", "1500"], &few[..]].concat());
    let ratios = ["full", "held", "both", "sweep"].map(|condition| &growth["ratio"][condition]);
    assert!(ratios.iter().all(|ratio| ratio.is_number()), "{growth}");
    let drain = measure(&["drain", "--rows", "2000"]);
    assert!(drain["ratio"].is_number(), "{drain}");
    let embedded = measure(&["embedded", "--sagas", "200", "--rounds", "1"]);
    assert!(embedded["ratio"].is_number(), "{embedded}");
    let idle = measure(&["idle", "--seconds", "1"]);
    assert!(idle["first_message_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{idle}");
}
