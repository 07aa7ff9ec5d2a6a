//! A page's parameters and a form's fields. The parameters of a list are the options of its command:
//! `/held?reason-is=failed` is `sagabus held list --reason-is failed`.

use crate::{text::quoted, trouble::Command};
use std::{collections::BTreeMap, fmt::Write};

/// Rows on a page, if the page's address does not say.
const ROWS: i64 = 50;
/// The most rows on a page: more would be slow to draw, and nobody reads them.
const ROWS_MAX: i64 = 1000;
/// What a parameter without a value is set to.
const SET: &str = "yes";

/// Names with values, of some several. A blank value is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Params(BTreeMap<String, Vec<String>>);

impl Params {
    pub(super) fn of(pairs: Vec<(String, String)>) -> Self {
        let mut params = Self::default();
        for (name, value) in pairs.into_iter().filter(|(_, value)| !value.trim().is_empty()) {
            params.0.entry(name).or_default().push(value);
        }
        params
    }

    /// Those of a command.
    pub(super) fn of_command(command: &Command) -> Self {
        let pairs =
            command.options.iter().map(|(name, value)| ((*name).into(), value.as_deref().unwrap_or(SET).into()));
        Self::of(pairs.collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).last().map(String::as_str)
    }

    /// All values of a name, in the order in which they were given.
    pub(super) fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// As a filter has it.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|text| text.trim().to_owned())
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The filter of a page. Its parameters are the options of the list's command, and are read in the same way.
    ///
    /// # Errors
    /// What the command would say.
    pub(super) fn which<Which: clap::Args>(&self) -> Result<Which, String> {
        let command = options::<Which>();
        let mut words = Vec::new();
        for option in command.get_arguments() {
            let Some(name) = option.get_long() else { continue };
            let values = self.all(name);
            if option.get_action().takes_values() {
                words.extend(values.iter().map(|value| format!("--{name}={}", value.trim())));
            } else if !values.is_empty() {
                words.push(format!("--{name}"));
            }
        }
        let found = command.try_get_matches_from(words).and_then(|matches| Which::from_arg_matches(&matches));
        found.map_err(|error| {
            let text = error.to_string();
            let said: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
            said.join(" ").trim_start_matches("error: ").to_owned()
        })
    }

    /// Those that make a filter.
    pub(super) fn of_filter<Which: clap::Args>(&self) -> Self {
        let command = options::<Which>();
        let names: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        self.only(&names)
    }

    /// How many rows to show.
    pub(super) fn limit(&self) -> i64 {
        self.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(ROWS).clamp(1, ROWS_MAX)
    }

    /// The same with this value and no other; an empty one removes it.
    pub(super) fn with(&self, name: &str, value: &str) -> Self {
        let mut params = self.clone();
        match value {
            "" => drop(params.0.remove(name)),
            value => drop(params.0.insert(name.into(), vec![value.into()])),
        }
        params
    }

    pub(super) fn with_set(&self, name: &str) -> Self {
        self.with(name, SET)
    }

    /// Those of these names only.
    pub(super) fn only(&self, names: &[&str]) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(name, _)| names.contains(&name.as_str()))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        )
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of their names.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(name, values)| values.iter().map(move |value| (name.as_str(), value.as_str())))
    }

    /// The same for more rows; `None` when no more are shown.
    pub(super) fn more(&self) -> Option<Self> {
        let limit = self.limit();
        (limit < ROWS_MAX).then(|| self.with("limit", &(limit * 4).min(ROWS_MAX).to_string()))
    }

    /// The address of a page with these parameters.
    pub(super) fn href(&self, path: &str) -> String {
        let mut href = path.to_owned();
        for (n, (name, value)) in self.pairs().enumerate() {
            let _ = write!(href, "{}{}={}", if n == 0 { '?' } else { '&' }, encoded(name), encoded(value));
        }
        href
    }

    /// The command that does the same.
    pub(super) fn command(&self, command: &str) -> String {
        let mut line = format!("sagabus {command}");
        for (name, value) in self.pairs() {
            let _ = write!(line, " --{name}");
            if value != SET {
                let _ = write!(line, " {}", quoted(value));
            }
        }
        line
    }
}

/// The options of a filter.
fn options<Which: clap::Args>() -> clap::Command {
    let command = clap::Command::new("filter").no_binary_name(true).disable_help_flag(true).disable_version_flag(true);
    Which::augment_args(command)
}

/// A text as a part of an address.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte.into()),
            byte => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    // as a whole segment these mean folders
    if matches!(encoded.as_str(), "." | "..") { encoded.replace('.', "%2E") } else { encoded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pages_address_and_its_command_say_the_same() {
        let command = Command::new("held list").with("endpoint", "payment").set("needs-person");
        let params = Params::of_command(&command);
        assert_eq!(params.href("/held"), "/held?endpoint=payment&needs-person=yes");
        assert_eq!(params.command("held list"), command.to_string());
        let odd = Params::default().with("error", "it's a & b\u{1b}[2J");
        assert_eq!(odd.href("/held"), "/held?error=it%27s%20a%20%26%20b%1B%5B2J");
        assert_eq!(odd.command("held list"), r"sagabus held list --error 'it'\''s a & b\u{1b}[2J'");
        assert_eq!(encoded(".."), "%2E%2E");
    }

    #[test]
    fn a_name_may_have_several_values() {
        let pairs = [("where", "a=1"), ("where", " "), ("where", "b=2"), ("saga", "order")];
        let params = Params::of(pairs.map(|(name, value)| (name.into(), value.into())).into());
        assert_eq!(params.href("/sagas"), "/sagas?saga=order&where=a%3D1&where=b%3D2");
        assert_eq!(params.command("sagas list"), "sagabus sagas list --saga order --where a=1 --where b=2");
        let filter = params.which::<crate::commands::WhichInstances>().unwrap().filter();
        assert_eq!((filter.fields.len(), filter.fields[1].value.as_str()), (2, "2"));
        assert_eq!(params.with("where", "c=3").all("where"), ["c=3"]);
    }

    #[test]
    fn a_page_has_no_more_rows_than_can_be_drawn() {
        let of = |limit: &str| Params::default().with("limit", limit);
        assert_eq!([of("").limit(), of("7").limit(), of("-1").limit(), of("x").limit()], [50, 7, 1, 50]);
        assert_eq!(of("99999999").limit(), 1000);
        assert_eq!(of("").more(), Some(of("200")));
        assert_eq!(of("1000").more(), None);
    }
}
