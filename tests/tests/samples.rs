//! The samples beside `ordering`, on both stacks, and killed in the middle: each audits its own books.

use outbox::Postgres;
use saga_core::{Inspect, InstanceFilter, InstanceView};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};
use tests::{
    Database, File, PATIENCE, Vhost, eventually,
    process::{System, program},
};
use uuid::Uuid;

fn command(sample: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program(sample));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs a sample to its end; what it printed.
fn run(sample: &str, arguments: &[&str]) -> String {
    let output = command(sample, arguments).output().expect("it runs");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{sample}: clean books were expected: {text}{errors}");
    assert!(text.contains("the books add up"), "{text}");
    text.into_owned()
}

/// Runs a sample until it prints `line`, and kills it by SIGKILL.
fn kill_at(sample: &str, arguments: &[&str], line: &str) {
    let mut child = command(sample, arguments).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut printed = BufReader::new(child.stdout.take().expect("stdout is piped")).lines().map_while(Result::ok);
    let found = printed.any(|printed| printed.contains(line));
    child.kill().expect("it can be killed");
    let status = child.wait().expect("it has ended");
    assert!(found && !status.success(), "{sample} was to be killed when it prints `{line}`: {status}");
}

/// Kills a sample at each of these lines, each time on the same file; then its books must be clean.
fn killed_again_and_again(sample: &str, arguments: &[&str], lines: &[&str]) {
    let file = File::create();
    let path = file.folder.join("sample.db");
    let arguments = [arguments, &["--file", path.to_str().expect("the folder's name is text")]].concat();
    for line in lines {
        kill_at(sample, &arguments, line);
    }
    run(sample, &arguments);
}

/// On RabbitMQ and PostgreSQL: killed at each of these lines, then to its end; what it printed then.
async fn on_servers(sample: &'static str, arguments: &'static [&str], lines: &'static [&str]) -> String {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let (broker, url) = (vhost.url(), database.url());
    let told = tokio::task::spawn_blocking(move || {
        let arguments = [arguments, &["--broker", &broker, "--database", &url]].concat();
        lines.iter().for_each(|line| kill_at(sample, &arguments, line));
        run(sample, &arguments)
    });
    told.await.expect("it runs")
}

const ONBOARDING: &[&str] = &["--visitors", "24"];

#[test]
fn f3_onboarding_changes_its_version_in_one_process_and_the_books_add_up() {
    let told = run("onboarding", ONBOARDING);
    assert!(told.contains("version 1, after") && told.contains("version 2, after"), "seen live: {told}");
}

#[test]
fn onboarding_that_is_killed_goes_on() {
    killed_again_and_again("onboarding", ONBOARDING, &["version 1 runs", "live:", "version 2 takes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn onboarding_runs_two_versions_side_by_side_on_servers_also_when_killed() {
    let told = on_servers("onboarding", ONBOARDING, &["version 2 runs beside"]).await;
    assert!(told.contains("version 2 runs beside version 1"), "{told}");
}

/// A process of `onboarding --serve`; killed by SIGKILL when dropped.
struct Office {
    child: Child,
    api: String,
    /// What it prints; it would break where nobody reads.
    _printed: BufReader<ChildStdout>,
}

impl Office {
    /// Starts one, and waits until it serves.
    fn open(version: &str, broker: &str, database: &str) -> Self {
        let place = ["--broker", broker, "--database", database, "--listen", "127.0.0.1:0"];
        // nobody loses patience here: who decides, and when, is the test's business
        let serve = ["--serve", "--version", version, "--escalate", "3600"];
        let mut child = command("onboarding", &[&serve[..], &place].concat()).stdout(Stdio::piped()).spawn().unwrap();
        let mut printed = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        printed.read_line(&mut line).expect("it is text");
        let api = line.trim().strip_prefix(&format!("version {version} serves on ")).map(str::to_owned);
        let api = api.unwrap_or_else(|| panic!("version {version} was expected to serve: {line}"));
        Self { child, api, _printed: printed }
    }

    /// Ctrl-C.
    fn close(mut self) {
        let told = Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).status();
        assert!(told.expect("kill runs").success());
        let ended = self.child.wait().expect("it ends");
        assert!(ended.success(), "an orderly end was expected: {ended}");
    }

    fn url(&self, path: &str, customer: u128) -> String {
        format!("{}/{path}/{}", self.api, Uuid::from_u128(customer))
    }

    async fn apply(&self, customer: u128) {
        let name = serde_json::json!({ "name": format!("visitor {customer}") });
        let answer = reqwest::Client::new().put(self.url("customers", customer)).json(&name).send().await;
        assert_eq!(answer.expect("the desk answers").status(), 202);
    }

    /// The clerk decides, unless no decision is needed: as soon as there is a task.
    async fn decide(&self, customer: u128) {
        let decision = serde_json::json!({ "role": "clerk", "approve": customer % 7 < 6 });
        eventually(&format!("the application of {customer} to be decided"), || async {
            let shown = reqwest::get(self.url("customers", customer)).await.ok()?;
            let shown: serde_json::Value = shown.json().await.ok()?;
            if shown["done"] == true {
                return Some(());
            }
            let decide = reqwest::Client::new().post(self.url("tasks", customer)).json(&decision);
            decide.send().await.ok()?.status().is_success().then_some(())
        })
        .await;
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// The instances of these customers, once all of them satisfy a condition.
async fn customers(
    store: &Postgres,
    what: &str,
    of: impl IntoIterator<Item = u128>,
    is: impl Fn(&InstanceView) -> bool,
) -> Vec<InstanceView> {
    let of: Vec<String> = of.into_iter().map(|customer| Uuid::from_u128(customer).to_string()).collect();
    eventually(what, || async {
        let mut all = store.instances(&InstanceFilter::default(), 1000).await.ok()?;
        all.retain(|it| of.contains(&it.id) && is(it));
        (all.len() == of.len()).then_some(all)
    })
    .await
}

/// Either version begins applications and goes on with what it can read, also when it is killed and started again. What
/// version 2 has written waits for version 2.
#[tokio::test(flavor = "multi_thread")]
async fn onboarding_runs_two_versions_as_two_processes_each_of_which_is_killed() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let (broker, url, store) = (vhost.url(), database.url(), database.store());
    let open = |version: &'static str| tokio::task::block_in_place(|| Office::open(version, &broker, &url));
    let is_done = |it: &InstanceView| it.completed_at_us.is_some();

    let one = open("1");
    for customer in 0..12 {
        one.apply(customer).await;
    }
    let begun = customers(&store, "a score for each", 0..12, |it| it.state != "Scoring").await;
    assert!(begun.iter().all(|it| it.version == 1), "{begun:?}");

    let two = open("2");
    for customer in 12..24 {
        if customer % 2 == 0 { one.apply(customer).await } else { two.apply(customer).await }
    }
    customers(&store, "a score for each, from either version", 12..24, |it| it.state != "Scoring").await;
    for customer in 12..18 {
        one.decide(customer).await;
    }
    drop(one);
    let one = open("1");
    for customer in (0..6).chain(18..24) {
        two.decide(customer).await;
    }
    drop(two);
    let two = open("2");
    customers(&store, "ends, whoever was killed", (0..6).chain(12..24), is_done).await;

    tokio::task::block_in_place(|| one.close());
    for customer in 6..12 {
        two.decide(customer).await;
    }
    let ended = customers(&store, "ends of what version 1 began, in version 2", 6..12, is_done).await;
    // the score of 7 was too low: version 1 has refused it
    let moved = ended.iter().filter(|it| it.id != Uuid::from_u128(7).to_string());
    assert!(moved.clone().all(|it| it.version == 2), "{ended:?}");
    assert_eq!(moved.count(), 5);
    tokio::task::block_in_place(|| two.close());
    // and the audit of the services' own tables: nobody new applies
    let audit = move || run("onboarding", &["--visitors", "24", "--broker", &broker, "--database", &url]);
    tokio::task::spawn_blocking(audit).await.expect("the books add up");
}

/// The books agree without a saga, too: in one process, and as processes that are killed.
#[test]
fn ordering_by_events_alone_has_clean_books_also_when_killed() {
    let file = File::create();
    let folder = file.folder.to_str().expect("the folder's name is text");
    let place = ["--choreographed", "--orders", "150", "--payment-timeout", "0.5", "--silent", "4", "--data", folder];
    let mut demo = command("ordering", &place).stdout(Stdio::piped()).spawn().expect("it runs");
    let ended = || {
        let audit = command("ordering", &["verify", "--data", folder, "--json"]).output().expect("it runs");
        let audit: serde_json::Value = serde_json::from_slice(&audit.stdout).unwrap_or_default();
        audit["shipped"].as_u64().unwrap_or_default()
    };
    let until = std::time::Instant::now() + PATIENCE;
    while ended() == 0 {
        assert!(std::time::Instant::now() < until, "an order was expected to be shipped");
    }
    demo.kill().expect("it can be killed");
    demo.wait().expect("it has ended");
    let again = command("ordering", &place).output().expect("it runs");
    let told = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && told.contains("no violations"), "{told}");
    assert!(!told.contains("the story of order"), "nobody can tell it: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ordering_by_events_alone_runs_on_servers() {
    let system = System::create().await;
    let (broker, server) = (system.vhost.url(), Database::server());
    let servers = ["--broker", &broker, "--database", &server, "--prefix", &system.database.name];
    let place = ["--choreographed", "--orders", "100", "--payment-timeout", "0.5", "--json"];
    let (clean, told) = system.run(&[&place[..], &servers[..]].concat()).await;
    assert!(clean && told["orders"] == 100 && told["shipped"].as_u64() > Some(0), "{told}");
    system.verify(100).await;
}

const FOOD: &[&str] = &["--orders", "60"];

/// Begins orders with version 1, is killed while the restaurant is asked for some, and goes on with version 2, which
/// says at its start what it finds: later all of them may have gone on.
fn food_of_version_1_goes_on_in_version_2(place: &[&str]) {
    kill_at("food-delivery", &[FOOD, place, &["--version", "1"]].concat(), "AskingRestaurant");
    let told = run("food-delivery", &[FOOD, place, &["--version", "2"]].concat());
    let found = told.lines().find(|line| line.contains("open orders of older versions")).unwrap_or_default();
    assert!(found.contains("AskingRestaurant"), "open orders of version 1 were expected: {told}");
}

#[test]
fn food_of_version_1_goes_on_in_version_2_in_one_process() {
    let file = File::create();
    let path = file.folder.join("food.db");
    food_of_version_1_goes_on_in_version_2(&["--file", path.to_str().expect("the folder's name is text")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn food_of_version_1_goes_on_in_version_2_on_servers() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let (broker, url) = (vhost.url(), database.url());
    let told = tokio::task::spawn_blocking(move || {
        food_of_version_1_goes_on_in_version_2(&["--broker", &broker, "--database", &url]);
    });
    told.await.expect("it runs");
}

#[test]
fn food_delivery_that_is_killed_goes_on() {
    killed_again_and_again("food-delivery", FOOD, &["finds", "orders placed", "open: "]);
}

/// A client waits for a second; every fourth barcode takes one and a half.
const CHECK_IN: &[&str] = &["--passengers", "24", "--pause", "0.5", "--fast", "1"];

#[test]
fn a_check_in_is_answered_at_once_or_pushed_later() {
    let told = run("check-in", CHECK_IN);
    let pushed = told.lines().filter(|line| line.starts_with("pushed:")).count();
    assert!((6..24).contains(&pushed), "every fourth was to be pushed, others answered at once: {told}");
}

#[test]
fn check_in_that_is_killed_goes_on() {
    killed_again_and_again("check-in", CHECK_IN, &["passengers check in", "pushed:"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_in_runs_on_servers_also_when_killed() {
    let told = on_servers("check-in", CHECK_IN, &["pushed:"]).await;
    assert!(told.contains("24 passengers check in") && told.contains("answered at once"), "{told}");
}

/// What a reader of a saga reads: its lines without tests, blank lines, comments and `use`.
fn lines_to_read(code: &str) -> usize {
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let mut in_use = false;
    let read = code.lines().map(str::trim).filter(|line| {
        let is_use = in_use || line.starts_with("use ");
        in_use = is_use && !line.ends_with(';');
        !(is_use || line.is_empty() || line.starts_with("//"))
    });
    read.count()
}

/// A process is read by those who do not write it. What it does more it may say in more lines, and this table says so.
#[test]
fn the_sagas_of_the_samples_are_short() {
    let bounds = [
        ("food-delivery/src/saga.rs", 130),
        ("food-delivery/src/saga_v2.rs", 145),
        ("check-in/src/saga.rs", 56),
        ("onboarding/src/v1.rs", 73),
        ("onboarding/src/v2.rs", 123),
        ("booking-payment/src/saga.rs", 135),
        ("ordering/src/saga.rs", 85),
    ];
    let samples =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository").join("samples");
    for (file, bound) in bounds {
        let lines = lines_to_read(&std::fs::read_to_string(samples.join(file)).expect("the sample is there"));
        assert!((1..=bound).contains(&lines), "{file}: at most {bound} lines were expected, and there are {lines}");
    }
}

/// Each README names the chart's file, and a manifest that inherits from a workspace could not be read elsewhere.
#[test]
fn a_copy_of_each_sample_outside_the_workspace_has_a_manifest_that_is_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository");
    for sample in std::fs::read_dir(root.join("samples")).expect("there are samples") {
        let sample = sample.expect("the folder can be read").path();
        let Ok(manifest) = std::fs::read_to_string(sample.join("Cargo.toml")) else { continue };
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
        assert!(read.status.success(), "{}: {}", sample.display(), String::from_utf8_lossy(&read.stderr));
    }
}
