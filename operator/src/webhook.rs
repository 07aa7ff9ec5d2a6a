//! Troubles, posted to an address: each once when it begins and once when it is over.

use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long the address may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// What waits while the address is away, at most; the oldest go first, for they are the least true.
const WAITING_MAX: usize = 1000;
/// The first pause after a failure; each next one is twice as long.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// An address to which troubles are posted, in order.
pub(crate) struct Webhook {
    client: reqwest::Client,
    url: reqwest::Url,
    waiting: VecDeque<Value>,
    pause: Duration,
    again: Instant,
    away: Option<String>,
}

impl Webhook {
    /// An address. Nothing is sent yet.
    ///
    /// # Errors
    /// When it is no `http://` or `https://` address.
    pub(crate) fn new(url: &str) -> Result<Self, String> {
        let url: reqwest::Url = url.parse().map_err(|error| format!("this is no address: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("an address that begins with http:// or https:// was expected".into());
        }
        let client = reqwest::Client::builder().timeout(ANSWER).redirect(reqwest::redirect::Policy::none());
        let client = client.build().map_err(|error| error.to_string())?;
        let again = Instant::now();
        Ok(Self { client, url, waiting: VecDeque::new(), pause: PAUSE_MIN, again, away: None })
    }

    /// A trouble has begun, or is over since `over_us`. Times are microseconds since 1970.
    pub(crate) fn add(&mut self, trouble: &str, since_us: i64, over_us: Option<i64>) {
        let at = |us: i64| Timestamp::from_microsecond(us).map_or_else(|_| us.to_string(), |at| at.to_string());
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(json!({ "trouble": trouble, "since": at(since_us), "over": over_us.map(at) }));
    }

    /// Posts what waits, unless the pause after a failure is not over. Returns why the address is away, if it is.
    pub(crate) async fn flush(&mut self) -> Option<&str> {
        while Instant::now() >= self.again
            && let Some(next) = self.waiting.front()
        {
            let answer = self.client.post(self.url.clone()).json(next).send().await;
            // the address may bear a secret
            match answer.and_then(reqwest::Response::error_for_status).map_err(reqwest::Error::without_url) {
                Ok(_) => {
                    self.waiting.pop_front();
                    (self.pause, self.away) = (PAUSE_MIN, None);
                }
                Err(error) => {
                    self.away = Some(cause(&error));
                    self.again = Instant::now() + self.pause;
                    self.pause = (self.pause * 2).min(PAUSE_MAX);
                }
            }
        }
        self.away.as_deref()
    }
}

/// The innermost cause, which says the most.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_the_oldest_goes_first() {
        assert!(Webhook::new("ftp://x").is_err() && Webhook::new("x").is_err());
        let mut webhook = Webhook::new("http://127.0.0.1:1/").unwrap();
        for n in 0..WAITING_MAX + 3 {
            webhook.add(&format!("trouble {n}"), 0, (n == 3).then_some(1_000_000));
        }
        assert_eq!(webhook.waiting.len(), WAITING_MAX);
        let first = json!({ "trouble": "trouble 3", "since": "1970-01-01T00:00:00Z", "over": "1970-01-01T00:00:01Z" });
        assert_eq!(webhook.waiting[0], first);
    }
}
