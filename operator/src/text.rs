//! Times, ages, counts and foreign texts, as people read them.

use jiff::{Timestamp, tz::TimeZone};
use saga_core::COUNTED_MAX;
use serde_json::Value;
use std::fmt::Write;

/// The most bytes that are shown of a body that is not text.
const BYTES_SHOWN: usize = 64;
/// The most characters of a foreign text in a place for short ones: an error can have kilobytes.
const CHARS_SHOWN: usize = 300;

/// A foreign text on one line: nothing in it can move the cursor, clear the screen, forge a row or reverse the line.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if is_unsafe(c) => drop(write!(shown, "\\u{{{:x}}}", u32::from(c))),
            c => shown.push(c),
        }
    }
    shown
}

/// A foreign text on one line, shortened.
pub(crate) fn short(text: &str) -> String {
    let mut text = plain(text);
    if let Some((cut, _)) = text.char_indices().nth(CHARS_SHOWN) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// Controls (C0, C1, DEL), line separators, and characters that change the direction of writing.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// JSON, indented. What could harm a terminal is escaped; it stays JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("\"not JSON: {error}\""));
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push('\n'),
            // these occur only in JSON strings; all have four digits
            c if is_unsafe(c) => drop(write!(shown, "\\u{:04x}", u32::from(c))),
            c => shown.push(c),
        }
    }
    shown
}

/// A body as JSON; any other body as a text that says so.
pub(crate) fn body(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| match std::str::from_utf8(bytes) {
        Ok(text) => format!("not JSON: {text}").into(),
        Err(_) => {
            let digits: String = bytes.iter().take(BYTES_SHOWN).map(|b| format!("{b:02x}")).collect();
            format!("not text, {} bytes: {digits}", bytes.len()).into()
        }
    })
}

/// A time to the millisecond, with its zone.
pub(crate) fn time(us: i64, zone: &TimeZone) -> String {
    let Ok(at) = Timestamp::from_microsecond(us) else { return format!("{us} µs after 1970") };
    if *zone == TimeZone::UTC {
        return at.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string();
    }
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f%:z").to_string()
}

/// A length of time in its two largest units.
pub(crate) fn age(ms: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    let ms = ms.saturating_abs();
    let Some(first) = UNITS.iter().position(|(size, _)| ms >= *size) else { return format!("{ms} ms") };
    let (size, unit) = UNITS[first];
    let rest = UNITS.get(first + 1).map(|(next, unit)| (ms % size / next, unit)).filter(|(n, _)| *n > 0);
    let rest = rest.map_or_else(String::new, |(n, unit)| format!(" {n} {unit}"));
    format!("{} {unit}{rest}", ms / size)
}

/// How long ago, or how long until.
pub(crate) fn distance(us: i64, now_us: i64) -> String {
    let text = age(now_us.saturating_sub(us) / 1000);
    if us > now_us { format!("in {text}") } else { format!("{text} ago") }
}

/// A number with its noun: `1 run`, `2 runs`, `3 processes`.
pub(crate) fn count(n: i64, noun: &str) -> String {
    let plural = if noun.ends_with('s') { "es" } else { "s" };
    format!("{n} {noun}{}", if n == 1 { "" } else { plural })
}

/// A text as a word of a shell's line.
pub(crate) fn quoted(text: &str) -> String {
    let text = plain(text);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// A number that was counted no further than [`COUNTED_MAX`].
pub(crate) fn some(n: i64) -> String {
    if n > COUNTED_MAX { format!("{COUNTED_MAX}+") } else { n.to_string() }
}

/// Such a number, of which there may be more.
pub(crate) fn some_or_more(n: i64, more: bool) -> String {
    if more && n <= COUNTED_MAX { format!("{n}+") } else { some(n) }
}

/// Such a number with its noun.
pub(crate) fn some_of(n: i64, noun: &str) -> String {
    if n > COUNTED_MAX { format!("{COUNTED_MAX}+ {noun}s") } else { count(n, noun) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_well() {
        let cases = [
            (0, "0 ms"),
            (999, "999 ms"),
            (90_000, "1 min 30 s"),
            (120_000, "2 min"),
            (11_520_000, "3 h 12 min"),
            (10_800_000, "3 h"),
            (180_000_000, "2 d 2 h"),
            (-4_000, "4 s"),
        ];
        for (ms, text) in cases {
            assert_eq!(age(ms), text);
        }
        let now = 1_000_000_000_000;
        assert_eq!(distance(now - 500_000, now), "500 ms ago");
        assert_eq!(distance(now + 90_000_000, now), "in 1 min 30 s");
        assert!(distance(i64::MAX, now).starts_with("in 1067"), "the end of time is far: {}", distance(i64::MAX, now));
    }

    #[test]
    fn times_bear_their_zone() {
        assert_eq!(time(1_790_000_000_123_456, &TimeZone::UTC), "2026-09-21 14:13:20.123Z");
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(time(1_790_000_000_123_456, &zone), "2026-09-21 16:13:20.123+02:00");
    }

    #[test]
    fn a_strangers_text_cannot_move_the_cursor() {
        assert_eq!(plain("a\x1b[2J\u{9b}31m\nb\tc\u{7f}\u{202e}é"), "a\\u{1b}[2J\\u{9b}31m\\nb\\tc\\u{7f}\\u{202e}é");
        let text = json(&serde_json::json!({ "k": "\x1b[2J\u{9b}\u{202e}" }));
        assert!(!text.chars().any(|c| c != '\n' && is_unsafe(c)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["k"], "\x1b[2J\u{9b}\u{202e}", "it is still the same");
    }

    #[test]
    fn nouns_follow_their_number() {
        assert_eq!([count(1, "run"), count(2, "run"), count(0, "process")], ["1 run", "2 runs", "0 processes"]);
        assert_eq!([some(10_000), some(10_001), some_of(20_002, "row")], ["10000", "10000+", "10000+ rows"]);
        assert_eq!([some_or_more(3, false), some_or_more(3, true), some_or_more(20_002, true)], ["3", "3+", "10000+"]);
    }

    #[test]
    fn a_body_that_is_no_json_is_shown_as_what_it_is() {
        assert_eq!(body(b"{\"a\":1}"), serde_json::json!({ "a": 1 }));
        assert_eq!(body(b"hello"), "not JSON: hello");
        assert_eq!(body(&[0xff, 0xfe]), "not text, 2 bytes: fffe");
    }
}
