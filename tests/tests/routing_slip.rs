//! The sample `routing-slip`, on both stacks and after a kill: it audits its own books.

use std::process::{Command, Stdio};
use tests::{Database, File, Vhost, eventually, process::program};

fn travel(arguments: &[&str]) -> String {
    let output = command(arguments).output().expect("it runs");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "clean books were expected: {text}{errors}");
    text.into_owned()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("routing-slip"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

#[test]
fn slips_travel_in_one_process_and_the_books_add_up() {
    let told = travel(&["--trips", "60"]);
    assert!(told.contains("the books add up") && told.contains("60 trips are on their way"), "{told}");
    assert!(!told.contains(" 0 cancelled") && !told.contains("0 booked"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slips_travel_on_rabbitmq_and_postgresql_and_the_books_add_up() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let (broker, url) = (vhost.url(), database.url());
    let told = tokio::task::spawn_blocking(move || travel(&["--trips", "60", "--broker", &broker, "--database", &url]));
    let told = told.await.expect("it runs");
    assert!(told.contains("the books add up"), "{told}");
}

/// SIGKILL while trips are under way: the next process ends them all.
#[tokio::test(flavor = "multi_thread")]
async fn slips_go_on_after_a_kill_on_sqlite() {
    let file = File::create();
    let path = file.folder.join("trips.db");
    let arguments = ["--trips", "300", "--file", path.to_str().expect("the folder's name is text")];
    let mut first = command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    eventually("some trips have ended, and others have not", || async {
        let books = sqlx::SqlitePool::connect(&format!("sqlite:{}?mode=ro", path.display())).await.ok()?;
        let ended = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM trip WHERE booked + cancelled > 0");
        ended.fetch_one(&books).await.ok().filter(|ended| *ended > 0)
    })
    .await;
    first.kill().expect("it is running");
    first.wait().expect("it has ended");
    let told = travel(&[&arguments[..], &["--resume"]].concat());
    assert!(told.contains("the books add up"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slips_go_on_after_a_kill_on_rabbitmq_and_postgresql() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let (broker, url) = (vhost.url(), database.url());
    let arguments = ["--trips", "300", "--broker", &broker, "--database", &url];
    let mut first = command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let store = database.store();
    eventually("some trips have ended", || async {
        let ended = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM trip WHERE booked + cancelled > 0");
        ended.fetch_one(store.pool()).await.ok().filter(|ended| *ended > 0)
    })
    .await;
    first.kill().expect("it is running");
    first.wait().expect("it has ended");
    let arguments: Vec<String> = arguments.iter().chain(&["--resume"]).map(|it| (*it).to_owned()).collect();
    let told = tokio::task::spawn_blocking(move || travel(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    let told = told.await.expect("it runs");
    assert!(told.contains("the books add up"), "{told}");
}
