//! The databases: each is read by itself, so that one that is away does not hide the others.

use crate::screen::Screen;
use anyhow::Result;
use outbox::open;
use saga_core::{ErrorCode, Inspect, StoreError};

/// Where addresses come from when none is given.
pub(crate) const VARIABLE: &str = "SAGABUS_DATABASE_URL";

/// One of the databases.
pub(crate) struct Database {
    /// Its address without a password.
    pub(crate) name: String,
    /// The label that tells it from the others in a table.
    pub(crate) short: String,
    pub(crate) store: Box<dyn Inspect>,
    /// Its address with the password: not to be shown.
    pub(crate) url: String,
}

/// All databases, and what a command prints.
pub(crate) struct Session {
    databases: Vec<Database>,
    pub(crate) screen: Screen,
    errors: Vec<String>,
    several: bool,
    /// Rows to list, at most.
    pub(crate) rows_max: i64,
    /// Show masked fields as well.
    pub(crate) unmasked: bool,
}

impl Session {
    /// Opens the databases. Those that cannot be opened are reported at the end.
    pub(crate) async fn open(urls: &[String], rows_max: i64, screen: Screen) -> Self {
        let mut session = Self {
            databases: Vec::new(),
            screen,
            errors: Vec::new(),
            several: urls.len() > 1,
            rows_max,
            unmasked: false,
        };
        for (url, (name, short)) in urls.iter().zip(named(urls)) {
            match open(url).await {
                Ok(store) => session.databases.push(Database { name, short, store, url: url.clone() }),
                Err(error) => session.errors.push(format!("{name}: {error}")),
            }
        }
        session
    }

    /// Does something with each database and returns the results. Failures are reported at the end.
    pub(crate) async fn each<T>(
        &mut self,
        work: impl AsyncFn(&dyn Inspect) -> Result<T, StoreError>,
    ) -> Vec<(usize, T)> {
        let mut all = Vec::new();
        for (n, database) in self.databases.iter().enumerate() {
            match work(&*database.store).await {
                Ok(value) => all.push((n, value)),
                Err(error) => {
                    let text = format!("cannot read {}: {error}", database.name);
                    // a command may look more than once
                    if !self.errors.contains(&text) {
                        self.errors.push(text);
                    }
                }
            }
        }
        all
    }

    /// Shows what was found, a row after another; as JSON, one document of them. Returns whether nothing failed.
    pub(crate) async fn show<T>(
        &mut self,
        rows: Vec<(usize, T)>,
        show: impl AsyncFn(&mut Self, usize, T) -> Option<serde_json::Value>,
    ) -> bool {
        let mut values = Vec::new();
        for (n, row) in rows {
            values.extend(show(self, n, row).await);
        }
        self.screen.found(values);
        self.is_clean()
    }

    /// All databases that could be opened, in the order of their numbers.
    pub(crate) fn stores(&self) -> Vec<&dyn Inspect> {
        self.databases.iter().map(|database| &*database.store).collect()
    }

    /// One of the databases, by the number that [`Session::each`] gave.
    pub(crate) fn database(&self, n: usize) -> &Database {
        &self.databases[n]
    }

    /// The label that tells a database from the others; `None` when there is only one.
    pub(crate) fn label(&self, n: usize) -> Option<&str> {
        self.several.then(|| self.databases[n].short.as_str())
    }

    /// The header of a table with a column for the database, if there are several.
    pub(crate) fn header(&self, header: &[&'static str]) -> Vec<&'static str> {
        self.several.then_some("database").into_iter().chain(header.iter().copied()).collect()
    }

    /// A view as JSON, with its database if there are several.
    pub(crate) fn labelled(&self, n: usize, view: &impl serde::Serialize) -> serde_json::Value {
        let mut value = serde_json::to_value(view).unwrap_or_default();
        if let (Some(label), Some(fields)) = (self.label(n), value.as_object_mut()) {
            fields.insert("database".into(), label.into());
        }
        value
    }

    /// The text for a list without rows. Empty if a database could not be read, because it may have rows.
    pub(crate) fn none(&self, text: &'static str) -> &'static str {
        if self.is_clean() { text } else { "" }
    }

    /// What has failed so far; it is not reported at the end.
    pub(crate) fn take_errors(&mut self) -> Vec<String> {
        std::mem::take(&mut self.errors)
    }

    /// Notes a failure, to report it at the end.
    pub(crate) fn failed(&mut self, error: String) {
        self.errors.push(error);
    }

    /// Notes what is not done, and why: it is reported at the end.
    pub(crate) fn refused(&mut self, code: ErrorCode, why: impl std::fmt::Display) {
        self.errors.push(self.told(code, why));
    }

    /// The same as a text. What was not found may be in a database that could not be read.
    pub(crate) fn told(&self, code: ErrorCode, why: impl std::fmt::Display) -> String {
        if code == ErrorCode::NotFound && !self.is_clean() {
            return code.told(format_args!("in what could be read, {why}"));
        }
        code.told(why)
    }

    /// Whether nothing has failed so far.
    pub(crate) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// Writes the output and the failures. Returns whether nothing failed.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn finish(mut self) -> Result<bool> {
        let clean = self.is_clean();
        for error in &self.errors {
            self.screen.note(format!("sagabus: {}", crate::text::plain(error)));
        }
        self.screen.write()?;
        Ok(clean)
    }
}

/// The addresses: those given, each taken literally (a path may contain spaces); else those in the environment,
/// separated by spaces.
pub(crate) fn addresses(given: &[String], variable: Option<String>) -> Vec<String> {
    if !given.is_empty() {
        return given.to_vec();
    }
    variable.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// For each address, the name that may be shown, and the label that tells it from the others.
pub(crate) fn named(urls: &[String]) -> Vec<(String, String)> {
    let names: Vec<String> = urls.iter().map(|url| without_password(url)).collect();
    let short = short(&names);
    names.into_iter().zip(short).collect()
}

/// An address that may be shown: without the part after a `?`, and without the password, even if that contains an `@`.
pub(crate) fn without_password(url: &str) -> String {
    if url.split(':').next() == Some("sqlite") {
        return url.into();
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        // no address, but it may be meant as one: `u:password@h/d`, `host=h password=…`
        let host = url.rsplit_once('@').map_or(url, |(_, host)| host);
        return host.split(['?', '#', '=']).next().unwrap_or_default().into();
    };
    let (user, host) = match rest.rsplit_once('@') {
        Some((user, host)) => (user.split([':', '/', '?', '#', '@']).next(), host),
        None => (None, rest),
    };
    let host = host.split(['?', '#']).next().unwrap_or_default();
    match user.filter(|user| !user.is_empty()) {
        Some(user) => format!("{scheme}://{user}@{host}"),
        None => format!("{scheme}://{host}"),
    }
}

/// The last parts of the names if they differ, else the names.
fn short(names: &[String]) -> Vec<String> {
    let last = |name: &String| name.rsplit(['/', ':']).next().unwrap_or_default().to_owned();
    let short: Vec<String> = names.iter().map(last).collect();
    let mut distinct = short.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() == names.len() && !distinct.contains(&String::new()) { short } else { names.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_shown_in_no_form() {
        for url in [
            "postgres://u:s3cret@h:5432/d",
            "postgres://u:s3cret@h/d?sslmode=disable",
            "postgres://h/d?user=u&password=s3cret",
            "postgres://u@h/d?PASSWORD=s3cret",
            "postgres://u@h/d?p%61ssword=s3cret",
            "postgres://u:a@s3cret/b@h/d",
            "postgres://u:a/s3cret?b#c@h/d",
            "postgresql://:s3cret@h/d",
            "mysql://u:s3cret@h/d",
            "u:s3cret@h/d",
            "postgres:u:s3cret@h/d",
            "amqp:/u:s3@cret/s3cret@h/d",
            "u@h/d?password=s3cret",
        ] {
            let shown = without_password(url);
            assert!(!shown.contains("s3cret"), "{url} is shown as {shown}");
            assert!(shown.ends_with("h/d") || shown.contains("@h"), "{url} is shown as {shown}");
        }
        assert_eq!(without_password("host=h password=s3cret"), "host");
        assert_eq!(without_password("postgres://u:p@h:5432/d"), "postgres://u@h:5432/d");
        assert_eq!(without_password("sqlite:/a b/100% d?/x#y.db"), "sqlite:/a b/100% d?/x#y.db");
    }

    #[test]
    fn only_the_variable_is_split_at_blanks() {
        let given = ["sqlite:/a b/c.db".to_owned()];
        assert_eq!(addresses(&given, Some("x y".into())), given);
        assert_eq!(addresses(&[], Some(" postgres://a  sqlite:b\n".into())), ["postgres://a", "sqlite:b"]);
        assert!(addresses(&[], None).is_empty());
    }

    #[test]
    fn databases_are_told_apart_by_as_little_as_does() {
        let names = ["postgres://u@h/ordering".to_owned(), "sqlite:/data/payment.db".to_owned()];
        assert_eq!(short(&names), ["ordering", "payment.db"]);
        let names = ["postgres://u@a/app".to_owned(), "postgres://u@b/app".to_owned()];
        assert_eq!(short(&names), names);
    }
}
