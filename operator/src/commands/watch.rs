//! `sagabus watch`: prints each new trouble, and its end, and posts both.

use crate::{
    databases::Session,
    interrupt::Interrupt,
    screen::{Screen, View},
    text::{plain, time},
    trouble::troubles,
    webhook::Webhook,
};
use clap::Args;
use jiff::Timestamp;
use saga_core::{ErrorCode, Inspect};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How often to look (`10s`, `1m`)
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = super::length)]
    every: Duration,
    /// Look so many times, then end
    #[arg(long, value_name = "N")]
    times: Option<u64>,
    /// Post each as JSON to this address as well: `trouble`, `since`, and `over`, which is null as long as it lasts
    ///
    /// While the address is away that is a trouble too, and what happens waits.
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
}

/// Something that is wrong.
struct Wrong {
    text: String,
    /// The database that says so; `None` if it is no database's own trouble: that one is away, for instance.
    of: Option<usize>,
}

/// What one look has found.
struct Look {
    /// What is wrong, each under a key that stays the same while its text changes.
    now: BTreeMap<String, Wrong>,
    /// The databases that answered: of the others nobody knows what is over.
    answered: BTreeSet<usize>,
}

/// A trouble that lasts.
struct Lasting {
    text: String,
    of: Option<usize>,
    since_us: i64,
}

/// Looks until it is interrupted, or often enough. Returns whether there was no trouble at the last look.
pub(crate) async fn run(session: &mut Session, arguments: Arguments) -> bool {
    let mut webhook = match arguments.webhook.as_deref().map(Webhook::new).transpose() {
        Ok(webhook) => webhook,
        Err(text) => {
            session.refused(ErrorCode::Usage, format!("--webhook: {text}"));
            return false;
        }
    };
    let (view, json) = (session.screen.view.clone(), session.screen.json);
    let mut known: BTreeMap<String, Lasting> = BTreeMap::new();
    let unopened = session.take_errors(); // a wrong address, or no such file: a trouble for as long as the watch lasts
    let (mut looks, mut interrupt) = (0, Interrupt::listen());
    loop {
        let mut look = tokio::select! {
            biased;
            () = &mut interrupt => return looks > 0 && known.is_empty(),
            look = look(session) => look,
        };
        look.now.extend(unopened.iter().map(|error| away(error)));
        // what is known stands on the screen before an address that hangs is waited for
        if !written(&changed(&mut known, &look, webhook.as_mut(), &view, json), &view, json) {
            return false;
        }
        if let Some(webhook) = &mut webhook {
            let why = tokio::select! {
                biased;
                () = &mut interrupt => return known.is_empty(),
                why = webhook.flush() => why,
            };
            let text = why.map(|why| ErrorCode::WebhookAway.told(format_args!("the webhook is away: {why}")));
            if !written(of_webhook(&mut known, text, &view, json).as_slice(), &view, json) {
                return false;
            }
        }
        looks += 1;
        if arguments.times.is_some_and(|times| looks >= times) {
            return known.is_empty();
        }
        tokio::select! {
            biased;
            () = &mut interrupt => return known.is_empty(),
            () = tokio::time::sleep(arguments.every) => {}
        }
    }
}

/// Writes lines at once. Returns whether they could be written.
fn written(lines: &[String], view: &View, json: bool) -> bool {
    let mut screen = Screen::new(view.clone(), json);
    lines.iter().for_each(|line| screen.line(line));
    screen.write().is_ok()
}

/// The name of the webhook's own trouble.
const WEBHOOK: &str = "webhook";

/// What began and what is over since the last look, as lines, and for the webhook.
fn changed(
    known: &mut BTreeMap<String, Lasting>,
    Look { now, answered }: &Look,
    mut webhook: Option<&mut Webhook>,
    view: &View,
    json: bool,
) -> Vec<String> {
    let at_us = Timestamp::now().as_microsecond();
    let mut lines = Vec::new();
    for (key, Wrong { text, of }) in now {
        if !known.contains_key(key) {
            known.insert(key.clone(), Lasting { text: text.clone(), of: *of, since_us: at_us });
            lines.push(line("trouble", text, at_us, view, json));
            webhook.iter_mut().for_each(|webhook| webhook.add(text, at_us, None));
        }
    }
    known.retain(|key, it| {
        let is_unknown = it.of.is_some_and(|n| !answered.contains(&n));
        let lasts = now.contains_key(key) || is_unknown || key == WEBHOOK;
        if !lasts {
            lines.push(line("over", &it.text, at_us, view, json));
            webhook.iter_mut().for_each(|webhook| webhook.add(&it.text, it.since_us, Some(at_us)));
        }
        lasts
    });
    lines
}

/// That the webhook is away, or back.
fn of_webhook(known: &mut BTreeMap<String, Lasting>, away: Option<String>, view: &View, json: bool) -> Option<String> {
    let at_us = Timestamp::now().as_microsecond();
    match (away, known.contains_key(WEBHOOK)) {
        (Some(text), false) => {
            let line = line("trouble", &text, at_us, view, json);
            known.insert(WEBHOOK.into(), Lasting { text, of: None, since_us: at_us });
            Some(line)
        }
        (None, true) => known.remove(WEBHOOK).map(|it| line("over", &it.text, at_us, view, json)),
        _ => None,
    }
}

async fn look(session: &mut Session) -> Look {
    let all = session.each(async |store: &dyn Inspect| store.status().await).await;
    let mut now = BTreeMap::new();
    for (n, status) in &all {
        let label = session.label(*n).map_or_else(String::new, |label| format!("{label}: "));
        for trouble in troubles(status) {
            let wrong = Wrong { text: format!("{label}{trouble}"), of: Some(*n) };
            now.insert(format!("{label}{}", trouble.key()), wrong);
        }
    }
    // a database that is away is a trouble like any other, and not the end of the watch
    now.extend(session.take_errors().iter().map(|error| away(error)));
    Look { now, answered: all.iter().map(|(n, _)| *n).collect() }
}

/// That a database is away, under its key.
fn away(error: &str) -> (String, Wrong) {
    (database(error), Wrong { text: error.to_owned(), of: None })
}

/// The database that an error is about: why it is away may change with each look.
fn database(error: &str) -> String {
    error.split(": ").next().unwrap_or_default().to_owned()
}

fn line(what: &str, text: &str, at_us: i64, view: &View, json: bool) -> String {
    if json {
        return json!({ "at_us": at_us, "what": what, "text": text }).to_string();
    }
    format!("{}  {what}  {}", time(at_us, &view.zone), plain(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key, a text and a database.
    type Told<'a> = (&'a str, &'a str, Option<usize>);

    /// What `changed` says of each look: of what is wrong, and the databases that answered.
    fn watched() -> impl FnMut(&[Told<'_>], &[usize]) -> Vec<String> {
        let view = View { width: None, now_us: 0, zone: jiff::tz::TimeZone::UTC };
        let mut known = BTreeMap::new();
        move |now, answered| {
            let wrong = |(key, text, of): &Told<'_>| ((*key).to_owned(), Wrong { text: (*text).to_owned(), of: *of });
            let look = Look { now: now.iter().map(wrong).collect(), answered: answered.iter().copied().collect() };
            let lines = changed(&mut known, &look, None, &view, true);
            let told = |line: &String| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                format!("{}: {}", line["what"].as_str().unwrap(), line["text"].as_str().unwrap())
            };
            lines.iter().map(told).collect()
        }
    }

    #[test]
    fn a_trouble_is_over_when_it_is_and_not_when_its_text_changes() {
        let mut seen = watched();
        assert_eq!(seen(&[("bank", "in process a", Some(0))], &[0]), ["trouble: in process a"]);
        assert_eq!(seen(&[("bank", "in processes a, b", Some(0))], &[0]), [""; 0], "it grows");
        assert_eq!(seen(&[], &[0]), ["over: in process a"]);
        assert_eq!(database("cannot read sqlite:/x.db: it is away: why"), database("cannot read sqlite:/x.db: locked"));
    }

    #[test]
    fn a_trouble_of_a_database_that_does_not_answer_is_not_over() {
        let mut seen = watched();
        let (bank, stock) = (("bank", "no money", Some(0)), ("stock", "no label", Some(1)));
        assert_eq!(seen(&[bank, stock], &[0, 1]).len(), 2);
        let away = ("one", "one is away", None);
        assert_eq!(seen(&[away], &[1]), ["trouble: one is away", "over: no label"]);
        assert_eq!(seen(&[away], &[1]), [""; 0], "nobody knows of the bank");
        assert_eq!(seen(&[bank], &[0, 1]), ["over: one is away"], "it has lasted");
        assert_eq!(seen(&[], &[0, 1]), ["over: no money"]);
    }
}
