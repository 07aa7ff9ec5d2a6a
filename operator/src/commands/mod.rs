//! One command per file.

mod age_filter;
pub(crate) mod check;
pub(crate) mod diagram;
pub(crate) mod doctor;
mod doctor_broker;
pub(crate) mod errors;
pub(crate) mod explain;
mod explain_draw;
pub(crate) mod export;
pub(crate) mod held;
mod held_act;
mod held_edit;
mod held_filter;
mod held_groups;
mod held_list;
mod held_show;
mod list;
#[cfg(test)]
mod list_golden;
pub(crate) mod migrate;
pub(crate) mod operations;
pub(crate) mod outbox;
mod outbox_act;
mod outbox_filter;
mod outbox_list;
mod outbox_show;
pub(crate) mod processes;
pub(crate) mod sagas;
mod sagas_act;
mod sagas_list;
mod sagas_show;
pub(crate) mod status;
pub(crate) mod timers;
pub(crate) mod versions;
pub(crate) mod watch;

// what the dashboard says in the same way
pub(crate) use explain_draw::mermaid;
pub(crate) use held_act::{LEFT_ALONE as HELD_LEFT_ALONE, word as word_of_held};
pub(crate) use held_filter::{REASONS, Which as WhichHeld};
pub(crate) use operations::who;
pub(crate) use outbox_act::{LEFT_ALONE as OUTBOX_LEFT_ALONE, done as outbox_done};
pub(crate) use outbox_filter::{KINDS, Timers as WhichTimers, Which as WhichSent};
pub(crate) use outbox_list::tries;
pub(crate) use sagas::known as known_sagas;
pub(crate) use sagas_list::Which as WhichInstances;

use std::time::Duration;

/// A length of time as people type it.
pub(crate) fn length(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("a number with s, m, h or d was expected: 15m, 3h".into()),
    };
    let n: u64 = number.trim().parse().map_err(|_| "a whole number before s, m, h or d was expected".to_owned())?;
    n.checked_mul(unit).map(Duration::from_secs).ok_or_else(|| "that is longer than anything has waited".into())
}

/// Compares a page with its golden file. With `SAGABUS_BLESS=1` the file is written instead: read the changes before
/// you commit them.
#[cfg(test)]
fn golden(name: &str, page: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("SAGABUS_BLESS").is_some() {
        std::fs::write(&file, page).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(page, kept, "{} differs: SAGABUS_BLESS=1 writes it anew", file.display());
}

/// Compares a table, as it looks on terminals of 80, 100 and 200 columns and without one, with its golden files.
#[cfg(test)]
fn golden_table(name: &str, now_us: i64, table: &crate::table::Table) {
    use crate::screen::{Screen, View};
    for (width, suffix) in [(Some(80), "80"), (Some(100), "100"), (Some(200), "200"), (None, "no-terminal")] {
        let mut screen = Screen::new(View { width, now_us, zone: jiff::tz::TimeZone::UTC }, false);
        screen.table(table, "");
        golden(&format!("{name}-{suffix}.txt"), screen.out());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_typed_as_people_say_them() {
        assert_eq!(length("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(length("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(length("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in ["", "3", "h", "-1h", "3 fortnights", "99999999999999999999d", "ä"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }
}
