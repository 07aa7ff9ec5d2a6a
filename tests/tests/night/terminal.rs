//! The night in a terminal.

use crate::house::{BAD_RELEASE, MAIL_AWAY, Night, STRANGE, STRANGE_JOURNEY};
use tests::{eventually, tool};
use tokio::task::block_in_place;

/// The tool on the night's databases, one of which may be away.
struct Terminal {
    urls: Vec<String>,
    /// One database is away: each answer says so at its end, and its exit code is 1.
    one_is_away: bool,
}

/// A trouble as `status` tells it.
struct Told {
    text: String,
    /// The command that shows it.
    see: String,
    /// The command that mends it.
    mend: String,
}

impl Terminal {
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let urls: Vec<&str> = self.urls.iter().map(String::as_str).collect();
        // the services of this process go on meanwhile
        block_in_place(|| tool::run(&urls, arguments))
    }

    /// What a command answers that does what it is asked.
    fn ask(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.run(arguments);
        let away = self.one_is_away.then(|| self.urls[3].rsplit('/').next().expect("a database has a name"));
        let lines = err.lines().filter(|line| !line.ends_with(" shown"));
        let strange: Vec<&str> = lines.filter(|line| away.is_none_or(|name| !line.contains(name))).collect();
        assert_eq!((code, &strange[..]), (i32::from(self.one_is_away), &[][..]), "{arguments:?}: {out}{err}");
        out
    }

    /// Follows a command of the tool, in which words in capitals stand for what a person fills in.
    fn follow(&self, command: &str, filled: &[(&str, &str)]) -> String {
        let words: Vec<&str> = command.split_whitespace().map(|word| fill(word, filled)).collect();
        assert_eq!(words[0], "sagabus", "a command was expected: {command}");
        self.ask(&words[1..])
    }

    /// Finds a trouble in what `status` says.
    fn told(&self, what: &str) -> Told {
        let page = self.ask(&["status"]);
        let found: Vec<&str> = page.lines().filter(|line| line.contains(what)).collect();
        let [line] = found[..] else { panic!("one line with `{what}` was expected: {page}") };
        let (text, commands) = line.split_once(": sagabus ").unwrap_or_else(|| panic!("no command: {line}"));
        let (see, mend) = commands.split_once("; then ").unwrap_or_else(|| panic!("nothing mends it: {line}"));
        Told { text: text.into(), see: format!("sagabus {see}"), mend: mend.into() }
    }
}

/// A word of a command, or what it stands for.
fn fill<'a>(word: &'a str, filled: &[(&str, &'a str)]) -> &'a str {
    filled.iter().find(|(name, _)| *name == word).map_or(word, |(_, value)| *value)
}

/// The columns of a row.
fn columns(line: &str) -> Vec<&str> {
    line.split('\t').collect()
}

/// The only row.
fn one(page: &str) -> Vec<&str> {
    let [line] = page.lines().collect::<Vec<_>>()[..] else { panic!("one row was expected: {page}") };
    columns(line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_night_is_mended_from_what_status_says() {
    let mut night = Night::begins().await;
    let mut terminal = Terminal { urls: night.urls(), one_is_away: true };
    let (code, page, err) = terminal.run(&["status", "--check"]);
    assert_eq!(code, 1, "{page}");
    assert!(err.contains("is not currently accepting connections"), "the database that is away is told: {err}");
    assert!(page.contains("needs a person (6):"), "{page}");

    a_timer_is_moved(&terminal);
    the_bad_release_is_mended(&terminal, &night);
    a_strange_message_is_edited(&terminal);
    an_open_breaker_closes(&terminal, &night); // before another journey ends, of which mails are sent
    a_paused_instance_goes_on(&terminal);
    an_instance_that_waits_since_yesterday_ends(&terminal);

    // only what cannot be mended yet is left
    eventually("one trouble", || async {
        let (code, page, _) = terminal.run(&["status", "--check"]);
        (code == 1 && page.contains("needs a person (1):") && page.contains("no queue takes 3 messages")).then_some(())
    })
    .await;
    night.warehouse_is_back().await;
    terminal.one_is_away = false;
    a_queue_is_back(&terminal);

    night.is_clean().await;
    eventually("a status without trouble", || async {
        let (code, page, err) = terminal.run(&["status", "--check"]);
        (code == 0 && err.is_empty() && page.ends_with("\n\nnothing needs a person\n")).then_some(())
    })
    .await;
    assert!(!terminal.ask(&["status"]).contains("has waited for more than a day"));
    let audit = night.audit().await;
    let expected = [
        ("held discard", "the client closed it again", 1),
        ("held edit", "the mainframe writes words", 1),
        ("held retry", "release 2.0.1 is deployed", 80),
        ("held retry", "release 2.0.1 is deployed", 100),
        ("outbox send-now", "the mail server is back", 12),
        ("outbox send-now", "the warehouse is back", 3),
        ("saga send", "they closed it by phone", 1),
        ("timer move", "the bank is down until two", 1),
    ];
    let expected = expected.map(|(action, why, rows)| ("ann".to_owned(), action.to_owned(), why.to_owned(), rows));
    assert_eq!(audit, expected, "each action with its reason");
    night.ends().await;
}

fn a_timer_is_moved(terminal: &Terminal) {
    let page = terminal.ask(&["status"]);
    let timers = |page: &str| page.lines().find(|line| line.contains("\tjourneys\ttimers\t")).map(str::to_owned);
    let line = timers(&page).unwrap_or_else(|| panic!("timers were expected: {page}"));
    assert!(line.contains("\tnext in 2"), "{line}");
    let more = page.lines().find(|line| line.starts_with("more: sagabus ")).expect("it says what shows more");
    assert!(more.contains("timers"), "{more}");
    let listed = terminal.ask(&["timers"]);
    let row = columns(listed.lines().next().expect("there are timers"));
    assert_eq!((row[2], row[3], row[4]), ("journey", "3", "journeys.TooLate"), "next due first: {listed}");
    let story = terminal.ask(&["explain", row[1]]);
    assert!(story.contains("journeys.TooLate") && story.contains("client.Began"), "what set it: {story}");
    let out = terminal.ask(&["timers", "move", row[1], "--in", "2h", "--reason", "the bank is down until two"]);
    assert_eq!(out, "1 of 1 timer moved\n");
    let line = timers(&terminal.ask(&["status"])).expect("timers stay");
    assert!(!line.contains("next in 2"), "the next is another: {line}");
    let page = terminal.ask(&["sagas", "show", "journey", "3"]);
    assert!(page.contains("the bank is down until two"), "the instance's page has the reason: {page}");
}

fn the_bad_release_is_mended(terminal: &Terminal, night: &Night) {
    let told = terminal.told("worker: 180 messages are held as failed");
    assert!(told.text.contains(", the oldest for "), "{}", told.text);
    let groups = terminal.follow(&told.see, &[]);
    let group = one(&groups);
    assert_eq!(group[1..4], ["180", "failed", "worker.Work"], "{groups}");
    assert!(group[6].contains(BAD_RELEASE), "why: {groups}");
    let listed = terminal.ask(&["--limit", "1", "held", "list", "--endpoint", "worker", "--reason-is", "failed"]);
    let id = one(&listed)[1].to_owned();
    let page = terminal.ask(&["held", "show", &id]);
    assert!(page.contains(BAD_RELEASE) && page.contains("\"note\": \"please\""), "{page}");
    let story = terminal.ask(&["explain", &id]);
    assert!(story.contains("client.Began") && story.contains("held as failed"), "where it came from: {story}");
    night.release.is_wrong(false);
    let out = terminal.follow(&told.mend, &[("TEXT", "release 2.0.1 is deployed")]);
    assert!(out.starts_with("180 of 180 messages will be handled again"), "{out}");
}

fn a_strange_message_is_edited(terminal: &Terminal) {
    let told = terminal.told("journeys: 1 message is held as undecodable");
    let listed = terminal.follow(&told.see, &[]);
    let row = one(&listed);
    assert_eq!((row[1], row[2]), (STRANGE, "client.Began"), "{listed}");
    let page = terminal.ask(&["held", "show", row[1]]);
    assert!(page.contains("seven hundred") && page.contains("invalid type"), "the body, and what is wrong: {page}");
    let body = format!(r#"{{"id":{STRANGE_JOURNEY}}}"#);
    let edit = format!("{} --body BODY", told.mend);
    let why = "the mainframe writes words";
    let out = terminal.follow(&edit, &[("MESSAGE", row[1]), ("TEXT", why), ("BODY", &body)]);
    assert!(out.contains("will be handled with its new body"), "{out}");
    assert!(terminal.ask(&["held", "show", STRANGE]).contains(why));
}

fn a_paused_instance_goes_on(terminal: &Terminal) {
    let told = terminal.told("journey: 1 instance in Waiting is paused");
    assert!(told.text.contains(", the longest for "), "{}", told.text);
    let listed = terminal.follow(&told.see, &[]);
    let row = one(&listed);
    assert_eq!((row[1], row[2]), ("journey", "1"), "{listed}");
    let page = terminal.ask(&["sagas", "show", row[1], row[2]]);
    let ways: Vec<&str> = page.lines().filter_map(|line| line.trim().split_once("sagabus ")).map(|it| it.1).collect();
    assert!(told.mend.contains("held retry") && ways.len() == 4, "{page}");
    let shown = terminal.follow(&format!("sagabus {}", ways[0]), &[]);
    assert!(shown.contains("poisoned by order"), "a retry would fail again: {shown}");
    let out = terminal.follow(&format!("sagabus {}", ways[2]), &[("TEXT", "the client closed it again")]);
    assert_eq!(out, "1 of 1 message discarded\n");
}

fn an_open_breaker_closes(terminal: &Terminal, night: &Night) {
    let told = terminal.told("keeps failing for ");
    assert!(told.text.contains("mail: handler "), "{}", told.text);
    let listed = terminal.follow(&told.see, &[]);
    assert_eq!(listed.lines().filter(|line| line.ends_with(MAIL_AWAY)).count(), 12, "{listed}");
    let processes = terminal.ask(&["processes"]);
    assert!(processes.lines().any(|line| line.contains("\tmail\t") && line.contains(" is open for ")), "{processes}");
    night.mailer.is_wrong(false);
    let out = terminal.follow(&told.mend, &[("TEXT", "the mail server is back")]);
    assert!(out.starts_with("12 of 12 rows due now"), "{out}");
}

fn an_instance_that_waits_since_yesterday_ends(terminal: &Terminal) {
    let told = terminal.told("journey: an instance in Waiting has not changed for 1 d 2 h");
    let listed = terminal.follow(&told.see, &[]);
    let row = one(&listed);
    assert_eq!((row[1], row[2]), ("journey", "2"), "{listed}");
    let story = terminal.ask(&["explain", "2"]);
    assert!(story.contains("client.Began") && story.contains("worker.Worked"), "{story}");
    let page = terminal.ask(&["sagas", "show", row[1], row[2]]);
    assert!(page.starts_with("journey 2: Waiting ") && page.contains("\nno timers\n"), "{page}");
    let filled =
        [("ID", row[2]), ("TYPE", "client.Closed"), ("JSON", r#"{"id":2}"#), ("TEXT", "they closed it by phone")];
    let out = terminal.follow(&told.mend, &filled);
    assert!(out.starts_with("journey 2 gets message "), "{out}");
}

fn a_queue_is_back(terminal: &Terminal) {
    let told = terminal.told("journeys: no queue takes 3 messages to warehouse");
    assert!(
        told.text.contains(", the oldest for ") && told.text.ends_with("check whether warehouse runs [SB0033]"),
        "{}",
        told.text
    );
    let listed = terminal.follow(&told.see, &[]);
    assert_eq!(listed.lines().filter(|line| line.contains("no queue takes what goes to warehouse")).count(), 3);
    let page = terminal.ask(&["outbox", "show", columns(listed.lines().next().expect("a row"))[1]]);
    assert!(page.contains("waits      no queue takes what goes to warehouse"), "{page}");
    let out = terminal.follow(&told.mend, &[("TEXT", "the warehouse is back")]);
    assert!(out.starts_with("3 of 3 rows due now"), "{out}");
}
