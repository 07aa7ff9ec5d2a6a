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
        now.extend(unopened.iter().map(|error| (name(error), error.clone())));
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

/// What is wrong now, each under a name that stays the same while numbers and ages change.
async fn look(session: &mut Session) -> BTreeMap<String, String> {
    let all = session.each(async |store: &dyn Inspect| store.status().await).await;
    let mut now = BTreeMap::new();
    for (n, status) in &all {
        let label = session.label(*n).map_or_else(String::new, |label| format!("{label}: "));
        for trouble in troubles(status) {
            // why may change with each try
            let what = trouble.text.split("; ").next().unwrap_or_default();
            now.insert(name(&format!("{label}{what}")), format!("{label}{trouble}"));
        }
    }
    // a database that is away is a trouble like any other, and not the end of the watch
    for error in session.take_errors() {
        now.insert(name(&error), error);
    }
    now
}

/// A trouble without its numbers and ages, and what follows from them.
fn name(text: &str) -> String {
    const CHANGING: [&str; 11] =
        ["ms", "s", "min", "h", "d", "message", "messages", "instance", "instances", "is", "are"];
    let stays = |word: &&str| {
        let word = word.trim_matches([':', ',', ';']);
        !CHANGING.contains(&word) && !word.chars().all(|c| c.is_ascii_digit())
    };
    text.split_whitespace().filter(stays).collect::<Vec<_>>().join(" ")
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
    fn a_trouble_keeps_its_name_while_it_grows() {
        let one = "payment: 1 message is held as failed, the oldest for 59 min 3 s: sagabus held list";
        let two = "payment: 2 messages are held as failed, the oldest for 1 h: sagabus held list";
        assert_eq!(name(one), name(two));
        assert_ne!(name("process payment-4711-1f died"), name("process payment-4712-2e died"));
        assert_ne!(name("payment: 1 message"), name("ordering: 1 message"));
    }
}
