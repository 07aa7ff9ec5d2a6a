//! The sample `food-delivery`, on both stacks: it audits its own books.

use std::process::{Command, Stdio};
use tests::{Database, File, Vhost, process::program};

fn deliver(arguments: &[&str]) -> String {
    let mut command = Command::new(program("food-delivery"));
    let output = command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null()).output().expect("it runs");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "clean books were expected: {text}{errors}");
    text.into_owned()
}

#[test]
fn food_is_delivered_in_one_process_and_the_books_add_up() {
    let told = deliver(&["--orders", "60"]);
    assert!(told.contains("the books add up") && told.contains("60 orders placed"), "{told}");
}

/// S-076: what version 1 left behind can be read by version 2, and not the other way round.
#[test]
fn a_version_tells_before_it_runs_whether_it_can_read_what_another_stored() {
    let folder = File::create();
    let file = folder.folder.join("food.db");
    let file = file.to_str().expect("it is text");
    deliver(&["--orders", "20", "--file", file, "--version", "1"]);
    let told = deliver(&["--file", file, "--version", "2", "--check"]);
    assert_eq!(told, "version 2: all 20 instances can be read\n");
    deliver(&["--orders", "30", "--file", file, "--version", "2"]);
    let mut command = Command::new(program("food-delivery"));
    let output = command.args(["--file", file, "--version", "1", "--check"]).stdin(Stdio::null()).output();
    let output = output.expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("a newer program wrote it"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn food_is_delivered_on_rabbitmq_and_postgresql_and_the_books_add_up() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let (broker, url) = (vhost.url(), database.url());
    let told =
        tokio::task::spawn_blocking(move || deliver(&["--orders", "60", "--broker", &broker, "--database", &url]));
    let told = told.await.expect("it runs");
    assert!(told.contains("the books add up"), "{told}");
}
