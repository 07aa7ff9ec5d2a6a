//! The sample as a newcomer meets it: what it prints, what it logs, and what it says when something is wrong.

use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
};
use tests::{
    Database, File, PgBouncer, Vhost, eventually,
    process::{System, free_port, program},
};

/// Runs `ordering` with variables of the environment.
fn ordering(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(program("ordering"))
        .args(arguments)
        .env_remove("ORDERING_DATABASE_URL")
        .env_remove("ORDERING_BROKER_URL")
        .env_remove("RUST_LOG")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the program runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
}

fn assert_narrow(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "80 columns were expected: {line}");
    }
}

#[test]
fn the_demo_tells_what_it_simulates_and_the_story_of_one_order() {
    let file = File::create();
    let folder = file.folder.to_str().expect("the folder's name is text");
    let world = ["--decline", "0", "--no-stock", "100", "--silent", "10", "--payment-timeout", "0.5"];
    let demo = ordering(&[], &[&["--orders", "100", "--data", folder], world.as_slice()].concat());
    assert_done(&demo);
    let said = stdout(&demo);
    assert_narrow(&said.replace(folder, "DIR"));
    for expected in [
        "0 % of payments declined, 100 % of orders out of stock",
        "10 % met by a silent bank and cancelled by a timer after 0.5 s",
        "met the silent bank and ended by a timer after 0.5 s",
        " orders/s\n",
        "from placed to ended: p50 ",
    ] {
        assert!(said.contains(expected), "`{expected}` is missing:\n{said}");
    }
    let turns: Vec<String> = said
        .lines()
        .filter_map(|line| line.split_once(" ms  "))
        .map(|(_, turn)| turn.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        turns,
        [
            "OrderPlaced -> AwaitingPayment sends MakePayment and a timer",
            "PaymentCompleted -> AwaitingShipment sends CreateShippingLabel",
            "ShipmentRejected -> Refunding sends RefundPayment",
            "PaymentRefunded -> Cancelled",
        ],
        "{said}"
    );

    let nothing = stdout(&ordering(&[], &["--orders", "0", "--data", folder]));
    assert!(!nothing.contains("orders/s") && !nothing.contains("p50"), "{nothing}");
    let one = stdout(&ordering(&[], &["--orders", "1", "--decline", "0", "--data", folder]));
    assert!(one.contains("1 order through ordering") && !one.contains(" 1 orders"), "{one}");
}

#[test]
fn help_fits_a_terminal() {
    for command in ["demo", "serve", "place", "verify"] {
        let help = ordering(&[("COLUMNS", "80")], &[command, "--help"]);
        assert_done(&help);
        assert_narrow(&stdout(&help));
        assert!(!stdout(&help).contains("s3cret"));
    }
    let help = stdout(&ordering(&[("ORDERING_DATABASE_URL", "postgres://u:s3cret@x")], &["serve", "--help"]));
    assert!(help.contains("ORDERING_DATABASE_URL") && !help.contains("s3cret"), "{help}");
}

/// The README's commands, in a shell with the README's `export`.
#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_in_a_shell_that_names_the_servers() {
    let (vhost, database, file) = (Vhost::create().await, Database::prefix(), File::create());
    let folder = file.folder.to_str().expect("the folder's name is text");
    let (broker, server) = (vhost.url(), Database::server());
    let both = [("ORDERING_BROKER_URL", &*broker), ("ORDERING_DATABASE_URL", &*server)];
    let quick = ["--silent", "0", "--orders"];

    let local = ordering(&both, &[quick.as_slice(), &["20", "--data", folder]].concat());
    assert_done(&local);
    assert!(stdout(&local).contains("in this process"), "{}", stdout(&local));
    assert_done(&ordering(&both, &["verify", "--data", folder, "--orders", "20"]));
    for half in both {
        let local = ordering(&[half], &[quick.as_slice(), &["0", "--data", folder]].concat());
        assert_done(&local);
    }
    let prefix = ["--prefix", &database.name];
    let on_servers = ordering(&both, &[quick.as_slice(), &["30"], &prefix].concat());
    assert_done(&on_servers);
    assert!(stdout(&on_servers).contains("on RabbitMQ"), "{}", stdout(&on_servers));
    assert_narrow(&stdout(&on_servers));
    assert_done(&ordering(&both, &[&["verify", "--orders", "30"], prefix.as_slice()].concat()));
}

/// Another process of ordering handles its share of the messages, so that the demo does not see each order's end.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shares_the_servers_with_services_that_run_there() {
    let system = System::create().await;
    let listen = format!("127.0.0.1:{}", free_port());
    let _services = ["ordering", "payment", "warehouse"].map(|service| system.serve(service, &["--listen", &listen]));
    eventually("ordering to be ready", || async { reqwest::get(format!("http://{listen}/health/ready")).await.ok() })
        .await;
    let (broker, server) = (system.vhost.url(), Database::server());
    let servers = ["--broker", &broker, "--database", &server, "--prefix", &system.database.name];
    assert_done(&ordering(&[], &[&["--orders", "100", "--silent", "0"], servers.as_slice()].concat()));
    system.verify(100).await;
}

/// The README says: a package to copy. A manifest that inherits from a workspace cannot be read elsewhere.
#[test]
fn a_copy_of_the_sample_outside_the_workspace_has_a_manifest_that_is_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository");
    let manifest =
        std::fs::read_to_string(root.join("samples/ordering/Cargo.toml")).expect("the sample has a manifest");
    assert_eq!(
        manifest.matches("../..").count(),
        manifest.matches("path = \"../../").count().max(1),
        "paths of dependencies to correct were expected, and nothing else:\n{manifest}"
    );
    let elsewhere = File::create();
    let copy = manifest.replace("../..", root.to_str().expect("the repository's path is text"));
    std::fs::write(elsewhere.folder.join("Cargo.toml"), copy).expect("the folder can be written");
    std::fs::create_dir(elsewhere.folder.join("src")).expect("the folder can be written");
    std::fs::write(elsewhere.folder.join("src/main.rs"), "fn main() {}").expect("the folder can be written");
    let read = Command::new(std::env::var("CARGO").unwrap_or("cargo".into()))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(&elsewhere.folder)
        .output()
        .expect("cargo runs");
    assert_done(&read);
}

#[test]
fn a_port_that_is_taken_is_noticed_before_anything_starts() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let address = taken.local_addr().expect("it has an address").to_string();
    // no broker or database listens there: a service that looks for them waits
    let servers = ["--broker", "amqp://127.0.0.1:1", "--database", "postgres://127.0.0.1:1"];
    let serve = ordering(&[], &[&["serve", "ordering", "--listen", &address], servers.as_slice()].concat());
    assert_eq!(serve.status.code(), Some(1));
    assert_eq!(stderr(&serve).lines().count(), 1, "{}", stderr(&serve));
    assert!(stderr(&serve).contains(&format!("cannot listen on {address}: ")), "{}", stderr(&serve));
}

#[test]
fn a_client_tells_why_its_orders_have_no_end() {
    let api = format!("http://127.0.0.1:{}", free_port());
    let place = ["place", "--api", &api, "--orders", "3", "--within", "1"];
    let failed = ordering(&[], &place);
    assert_eq!(failed.status.code(), Some(1));
    let (said, logged) = (stdout(&failed), stderr(&failed));
    assert!(said.contains("FAILED: 3 orders, such as "), "{said}");
    assert!(said.contains(&format!("{api} cannot be reached: Connection refused")), "{said}");
    assert!(logged.contains("Connection refused") && logged.contains("trying again"), "{logged}");
    assert_eq!(logged.lines().count(), 1, "one word for all orders was expected: {logged}");

    // another program listens there: do not ask it twice
    let stranger = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let api = format!("http://{}", stranger.local_addr().expect("it has an address"));
    let answering = std::thread::spawn(move || {
        let (mut client, _) = stranger.accept().expect("a client comes");
        let _ = client.read(&mut [0; 4096]); // whatever it asks
        client.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").expect("the client listens");
    });
    let refused = ordering(&[], &["place", "--api", &api, "--orders", "1"]);
    answering.join().expect("the stranger has answered");
    assert_eq!(refused.status.code(), Some(1));
    let why = format!("{api} answers 404 Not Found: no reason given");
    assert!(stdout(&refused).contains(&why), "{}", stdout(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_json_without_colours_and_say_what_started_where() {
    let system = System::create().await;
    let listen = format!("127.0.0.1:{}", free_port());
    // the second start finds its tables, and logs nothing about them
    for _ in 0..2 {
        let mut service = system.serve("ordering", &["--listen", &listen, "--log-format", "json"]);
        eventually("ordering to be ready", || {
            let url = format!("http://{listen}/health/ready");
            async move { reqwest::get(url).await.ok().filter(|answer| answer.status().is_success()) }
        })
        .await;
        assert!(service.terminate().await, "an orderly end was expected after SIGTERM");
        let log = service.log();
        assert!(!log.contains('\u{1b}') && !log.contains("already exists") && !log.contains("lapin"), "{log}");
        let lines: Vec<Value> = log
            .lines()
            .map(|line| {
                assert_eq!(line.matches("\"message\":").count(), 1, "a key twice: {line}");
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect();
        let started = lines.iter().find(|line| line["fields"]["message"] == "service started");
        let fields = &started.unwrap_or_else(|| panic!("nothing started:\n{log}"))["fields"];
        let database = format!("/{}_ordering", system.database.name);
        assert!(fields["database"].as_str().is_some_and(|place| place.ends_with(&database)), "{fields}");
        let place = system.vhost.url().rsplit('@').next().map(str::to_owned);
        assert_eq!((fields["endpoint"].as_str(), fields["broker"].as_str()), (Some("ordering"), place.as_deref()));
        assert_eq!(fields["version"], "0.1.0", "{fields}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_once() {
    let system = System::create().await;
    let broker = system.vhost.url().replace("guest:guest", "guest:wrong");
    let database = Database::server();
    let arguments = ["serve", "payment", "--broker", &broker, "--database", &database];
    let refused = ordering(&[], &[arguments.as_slice(), &["--prefix", &system.database.name]].concat());
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(said.contains("ordering: ") && said.contains("ACCESS"), "{said}");
    assert!(!said.contains("lapin") && !said.contains("wrong@"), "{said}");
}

/// The broker may be away: orders are still accepted, so ordering stays ready, and says what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn ordering_is_ready_while_the_broker_is_away() {
    let system = System::create().await;
    let listen = format!("127.0.0.1:{}", free_port());
    let _service = system.serve("ordering", &["--listen", &listen]);
    let health = || {
        let url = format!("http://{listen}/health/ready");
        async move {
            let answer = reqwest::get(url).await.ok()?;
            Some((answer.status().as_u16(), answer.json::<Value>().await.ok()?))
        }
    };
    eventually("ordering to be ready", || async { health().await.filter(|(_, health)| health["broker"] == "up") })
        .await;
    system.vhost.delete().await;
    let (status, told) = eventually("the broker to be missed", || async {
        health()
            .await
            .filter(|(_, health)| health["broker"].as_str().is_some_and(|broker| broker.starts_with("away: ")))
    })
    .await;
    assert_eq!((status, &told["ready"], &told["database"]), (200, &true.into(), &"up".into()), "{told}");
    let order = serde_json::json!({ "customer": "Ada", "address": "1 Main Street", "amount_cents": 4200 });
    let placed = reqwest::Client::new().post(format!("http://{listen}/orders")).json(&order).send().await;
    assert_eq!(placed.expect("ordering answers").status(), 202);
}

/// PgBouncer in transaction mode, which may give each transaction another session.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(pgbouncer), ignore = "pgbouncer is not installed")]
async fn the_demo_runs_behind_pgbouncer() {
    let (vhost, database) = (Vhost::create().await, Database::prefix());
    let bouncer = PgBouncer::start(&database).await;
    let (broker, server) = (vhost.url(), bouncer.server());
    let servers = ["--broker", &broker, "--database", &server, "--prefix", &database.name];
    let demo = ["--orders", "200", "--in-flight", "50", "--payment-timeout", "1"];
    let done = ordering(&[], &[demo.as_slice(), &servers].concat());
    assert_done(&done);
    assert_eq!(stderr(&done), "");
    let verify = ["verify", "--orders", "200", "--database", &server, "--prefix", &database.name];
    assert_done(&ordering(&[], &verify));
}
