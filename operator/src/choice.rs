//! Several rows under one id: which there are, and what leads to one of them alone.

use crate::{
    databases::Session,
    find::{self, IDS_TOLD},
    text::{plain, quoted},
};
use clap::Args;
use saga_core::{HeldView, OutboxView};

/// Which of the receivers that hold a message.
#[derive(Args, Debug, Default, Clone)]
pub(crate) struct Holder {
    /// The saga or handler that holds it, if several do; names match whatever their case
    #[arg(long, value_name = "NAME")]
    pub(crate) receiver: Option<String>,
    /// The endpoint that holds it, if several do
    #[arg(long, value_name = "NAME")]
    pub(crate) endpoint: Option<String>,
}

impl Holder {
    /// The rows that it holds.
    pub(crate) fn of(&self, mut rows: Vec<(usize, HeldView)>) -> Vec<(usize, HeldView)> {
        keep(&mut rows, self.receiver.as_deref(), |row| &row.receiver);
        keep(&mut rows, self.endpoint.as_deref(), |row| &row.endpoint);
        rows
    }

    /// How it is called: `receiver charge at ordering`; `None` when nobody in particular is meant.
    pub(crate) fn told(&self) -> Option<String> {
        match (&self.receiver, &self.endpoint) {
            (None, None) => None,
            (Some(receiver), None) => Some(format!("receiver {}", quoted(receiver))),
            (None, Some(endpoint)) => Some(format!("endpoint {}", quoted(endpoint))),
            (Some(receiver), Some(endpoint)) => Some(format!("receiver {} at {}", quoted(receiver), quoted(endpoint))),
        }
    }
}

fn keep(rows: &mut Vec<(usize, HeldView)>, wanted: Option<&str>, name: fn(&HeldView) -> &String) {
    let Some(wanted) = wanted else { return };
    let known: Vec<String> = rows.iter().map(|(_, row)| name(row).clone()).collect();
    let spelt = find::name(wanted, &known, "name").ok();
    rows.retain(|(_, row)| spelt.as_ref() == Some(name(row)));
}

/// A row that may have others beside it under its id.
pub(crate) trait OneOfSeveral: Sized {
    /// What it is: `receiver charge at ordering, failed`. `of` is its database, if there are several.
    fn told(&self, of: Option<&str>) -> String;

    /// What a command needs beside the id, or in its place, to mean this row of database `n` and no other of `all`.
    fn chosen_by(&self, n: usize, all: &[(usize, Self)]) -> String;
}

impl OneOfSeveral for HeldView {
    fn told(&self, of: Option<&str>) -> String {
        let receiver =
            if self.receiver.is_empty() { "no receiver".into() } else { format!("receiver {}", plain(&self.receiver)) };
        let of = of.map_or_else(String::new, |label| format!(" in {}", plain(label)));
        format!("{receiver} at {}{of}, {}", plain(&self.endpoint), plain(&self.reason))
    }

    fn chosen_by(&self, n: usize, all: &[(usize, Self)]) -> String {
        options(self, |_| true, all)
            .or_else(|| {
                // one receiver of several databases: whoever types it knows their addresses, with the passwords
                let options = options(self, |of| of == n, all)?;
                Some(format!("{options} --database URL").trim_start().to_owned())
            })
            .unwrap_or_default()
    }
}

/// The options of a [`Holder`] that tell a held row from all others that are looked at: as few as do.
fn options(row: &HeldView, is_looked_at: impl Fn(usize) -> bool, all: &[(usize, HeldView)]) -> Option<String> {
    let of = |receiver: bool, endpoint: bool| {
        let is_like =
            |it: &HeldView| (!receiver || it.receiver == row.receiver) && (!endpoint || it.endpoint == row.endpoint);
        all.iter().filter(|(n, it)| is_looked_at(*n) && is_like(it)).count()
    };
    let ways = [(false, false), (true, false), (false, true), (true, true)];
    let (receiver, endpoint) = ways.into_iter().find(|(receiver, endpoint)| of(*receiver, *endpoint) < 2)?;
    let option = |name: &str, value: &str| format!("--{name} {}", quoted(value));
    let options =
        [receiver.then(|| option("receiver", &row.receiver)), endpoint.then(|| option("endpoint", &row.endpoint))];
    Some(options.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

impl OneOfSeveral for OutboxView {
    fn told(&self, of: Option<&str>) -> String {
        let of = of.map_or_else(String::new, |label| format!(" in {}", plain(label)));
        format!("{} to {} of {}{of}", plain(&self.kind), plain(&self.destination), plain(&self.endpoint))
    }

    /// Its own id: several rows have the id of one message.
    fn chosen_by(&self, _: usize, _: &[(usize, Self)]) -> String {
        quoted(&self.id)
    }
}

/// Why an id of several rows does not do for an action: it would be done with each of them.
pub(crate) fn several<T: OneOfSeveral>(session: &Session, id: &str, rows: &[(usize, T)]) -> String {
    listed(id, rows, |n| session.label(n))
}

fn listed<'a, T: OneOfSeveral>(id: &str, rows: &[(usize, T)], label: impl Fn(usize) -> Option<&'a str>) -> String {
    let one = |(n, row): &(usize, T)| format!("{} ({})", row.told(label(*n)), row.chosen_by(*n, rows));
    let told: Vec<String> = rows.iter().take(IDS_TOLD).map(one).collect();
    let more = rows.len().saturating_sub(IDS_TOLD);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{} is there {} times, say which: {}{more}", plain(id), rows.len(), told.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn held(endpoint: &str, receiver: &str) -> HeldView {
        serde_json::from_value(json!({ "endpoint": endpoint, "receiver": receiver, "message_id": "m", "type": "t",
            "arrival": 1, "reason": "failed", "saga": null, "saga_id": null, "error": null, "attempts": 1,
            "held_at_us": 0, "expires_at_us": null, "kind": null, "destination": null, "envelope": {} }))
        .unwrap()
    }

    fn chosen(all: &[(usize, HeldView)]) -> Vec<String> {
        all.iter().map(|(n, row)| row.chosen_by(*n, all)).collect()
    }

    #[test]
    fn a_held_row_is_chosen_by_as_little_as_does() {
        assert_eq!(chosen(&[(0, held("a", "order"))]), [""]);
        assert_eq!(
            chosen(&[(0, held("a", "order")), (0, held("a", ""))]),
            ["--receiver order", "--receiver ''"],
            "one that nobody knew"
        );
        assert_eq!(chosen(&[(0, held("a", "x y")), (1, held("b", "x y"))]), ["--endpoint a", "--endpoint b"]);
        let all = [(0, held("a", "x")), (0, held("a", "y")), (1, held("b", "x"))];
        assert_eq!(chosen(&all), ["--receiver x --endpoint a", "--receiver y", "--endpoint b"]);
        let all = [(0, held("a", "x")), (1, held("a", "x")), (1, held("a", "y"))];
        assert_eq!(chosen(&all), ["--database URL", "--receiver x --database URL", "--receiver y"]);
    }

    #[test]
    fn several_rows_are_listed_with_what_leads_to_each() {
        let mut all = vec![(0, held("ordering", "order")), (1, held("ordering", "charge"))];
        let label = |n: usize| Some(if n == 0 { "one" } else { "two" });
        assert_eq!(
            listed("m", &all, label),
            "m is there 2 times, say which: receiver order at ordering in one, failed (--receiver order); \
             receiver charge at ordering in two, failed (--receiver charge)"
        );
        all.extend((0..10).map(|n| (0, held("ordering", &format!("r{n}")))));
        assert!(listed("m", &all, |_| None).ends_with("receiver r7 at ordering, failed (--receiver r7); and 2 more"));
    }

    #[test]
    fn a_holder_is_meant_whatever_the_case_of_its_name() {
        let all = || vec![(0, held("a", "Order")), (0, held("a", "charge")), (1, held("b", "charge"))];
        let of = |receiver: Option<&str>, endpoint: Option<&str>| {
            let holder = Holder { receiver: receiver.map(str::to_owned), endpoint: endpoint.map(str::to_owned) };
            holder.of(all()).into_iter().map(|(_, row)| row.endpoint + &row.receiver).collect::<Vec<_>>()
        };
        assert_eq!(of(None, None).len(), 3);
        assert_eq!(of(Some("ORDER"), None), ["aOrder"]);
        assert_eq!(of(Some("charge"), Some("B")), ["bcharge"]);
        assert_eq!(of(Some("order"), Some("b")), [""; 0]);
    }
}
