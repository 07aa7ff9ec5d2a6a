//! `sagabus errors`: what a code means, and what to do about it.

use crate::{
    screen::Screen,
    table::Table,
    text::{json, plain},
};
use clap::Args;
use saga_core::ErrorCode;

#[derive(Args)]
pub(crate) struct Arguments {
    /// A code, whatever its case; without one all are listed
    #[arg(value_name = "CODE")]
    code: Option<String>,
}

/// Needs no database. Returns whether there is such a code.
pub(crate) fn run(screen: &mut Screen, arguments: &Arguments) -> bool {
    let codes = match &arguments.code {
        None => ErrorCode::ALL.to_vec(),
        Some(text) => match ErrorCode::parse(text.trim_matches(['[', ']'])) {
            Some(code) => vec![code],
            None => {
                let text = format!("sagabus: there is no code {}; `sagabus errors` lists all", plain(text));
                screen.note(ErrorCode::NotFound.told(text));
                return false;
            }
        },
    };
    if screen.json {
        let rows: Vec<_> = codes.iter().map(|code| value(*code)).collect();
        screen.line(json(&rows));
    } else if arguments.code.is_some() {
        for code in codes {
            screen.line(format!("{code}  {}", code.name()));
            screen.long(&code.paragraph());
        }
    } else {
        let mut table = Table::new(&["code", "name"]);
        codes.iter().for_each(|code| table.row(vec![code.as_str().into(), code.name().into()], None));
        screen.table(&table, "");
    }
    true
}

fn value(code: ErrorCode) -> serde_json::Value {
    serde_json::json!({ "code": code.as_str(), "name": code.name(), "text": code.paragraph() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::View;

    #[test]
    fn a_code_is_explained_whatever_its_case_and_brackets() {
        let view = View { width: Some(80), now_us: 0, zone: jiff::tz::TimeZone::UTC };
        let mut screen = Screen::new(view, false);
        for code in ["SB0056", "[sb0011]"] {
            assert!(run(&mut screen, &Arguments { code: Some(code.into()) }), "{code} is a code");
        }
        crate::commands::golden("errors.txt", screen.out());
        assert!(!run(&mut screen, &Arguments { code: Some("SB9999".into()) }), "it is none");
    }
}
