//! The sample `food-delivery`, on both stacks: it audits its own books.

use std::process::{Command, Stdio};
use tests::{Database, Vhost, process::program};

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

#[tokio::test(flavor = "multi_thread")]
async fn food_is_delivered_on_rabbitmq_and_postgresql_and_the_books_add_up() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let (broker, url) = (vhost.url(), database.url());
    let told =
        tokio::task::spawn_blocking(move || deliver(&["--orders", "60", "--broker", &broker, "--database", &url]));
    let told = told.await.expect("it runs");
    assert!(told.contains("the books add up"), "{told}");
}
