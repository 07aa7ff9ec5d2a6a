//! `sagabus watch`: prints each new trouble, and its end, and posts both.

use crate::{
    databases::Session,
    screen::{Screen, View},
    text::{plain, time},
    trouble::troubles,
    webhook::Webhook,
};
use clap::Args;
use jiff::Timestamp;
use saga_core::{ErrorCode, Inspect};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

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

/// A trouble that lasts.
struct Lasting {
    text: String,
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
    let mut looks = 0;
    loop {
        let mut now = look(session).await;
        now.extend(unopened.iter().map(|error| (database(error), error.clone())));
        let mut lines = changed(&mut known, now, webhook.as_mut(), &view, json);
        if let Some(webhook) = &mut webhook {
            let text = webhook
                .flush()
                .await
                .map(|why| ErrorCode::WebhookAway.told(format_args!("the webhook is away: {why}")));
            lines.extend(of_webhook(&mut known, text, &view, json));
        }
        let mut screen = Screen::new(view.clone(), json);
        lines.iter().for_each(|line| screen.line(line));
        if screen.write().is_err() {
            return false;
        }
        looks += 1;
        if arguments.times.is_some_and(|times| looks >= times) {
            return known.is_empty();
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return known.is_empty(),
            () = tokio::time::sleep(arguments.every) => {}
        }
    }
}

/// The name of the webhook's own trouble.
const WEBHOOK: &str = "webhook";

/// What began and what is over since the last look, as lines, and for the webhook.
fn changed(
    known: &mut BTreeMap<String, Lasting>,
    now: BTreeMap<String, String>,
    mut webhook: Option<&mut Webhook>,
    view: &View,
    json: bool,
) -> Vec<String> {
    let at_us = Timestamp::now().as_microsecond();
    let mut lines = Vec::new();
    for (key, text) in &now {
        if !known.contains_key(key) {
            known.insert(key.clone(), Lasting { text: text.clone(), since_us: at_us });
            lines.push(line("trouble", text, at_us, view, json));
            webhook.iter_mut().for_each(|webhook| webhook.add(text, at_us, None));
        }
    }
    known.retain(|key, it| {
        let lasts = now.contains_key(key) || key == WEBHOOK;
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
            known.insert(WEBHOOK.into(), Lasting { text, since_us: at_us });
            Some(line)
        }
        (None, true) => known.remove(WEBHOOK).map(|it| line("over", &it.text, at_us, view, json)),
        _ => None,
    }
}

/// What is wrong now, each under a key that stays the same while its text changes.
async fn look(session: &mut Session) -> BTreeMap<String, String> {
    let all = session.each(async |store: &dyn Inspect| store.status().await).await;
    let mut now = BTreeMap::new();
    for (n, status) in &all {
        let label = session.label(*n).map_or_else(String::new, |label| format!("{label}: "));
        for trouble in troubles(status) {
            now.insert(format!("{label}{}", trouble.key()), format!("{label}{trouble}"));
        }
    }
    // a database that is away is a trouble like any other, and not the end of the watch
    for error in session.take_errors() {
        now.insert(database(&error), error);
    }
    now
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

    #[test]
    fn a_trouble_is_over_when_it_is_and_not_when_its_text_changes() {
        let view = View { width: None, now_us: 0, zone: jiff::tz::TimeZone::UTC };
        let mut known = BTreeMap::new();
        let mut seen = |now: &[(&str, &str)]| {
            let now = now.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
            let lines = changed(&mut known, now, None, &view, true);
            lines.iter().map(|line| line.split_once("\"text\":").unwrap().1.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(seen(&[("bank", "in process a")]).len(), 1);
        assert_eq!(seen(&[("bank", "in processes a, b")]), [""; 0], "it grows");
        assert_eq!(seen(&[]).len(), 1, "it is over");
        assert_eq!(database("cannot read sqlite:/x.db: it is away: why"), database("cannot read sqlite:/x.db: locked"));
    }
}
