//! Instances, messages and charts as somebody may have changed them by hand.

use super::*;

#[test]
fn fuzz_stored_instance() {
    let mut instance = Instance::at(&["Begin", "Tick", "Line"]);
    instance.batch(&["Next", "Back"]);
    let row = instance.row().clone();
    let columns = [row.data.as_str(), row.progress.as_deref().unwrap(), row.originator.as_deref().unwrap()];
    let samples: Vec<&str> = columns.into_iter().chain(["A", "Done", "null"]).collect();
    let logic = Typed::<Walk>::new();
    ::fuzz::each_text(&samples, |input| {
        let text = || input.to_owned();
        let rows = [
            InstanceRow { data: text(), ..row.clone() },
            InstanceRow { progress: Some(text()), ..row.clone() },
            InstanceRow { originator: Some(text()), ..row.clone() },
            InstanceRow { state: text(), ..row.clone() },
        ];
        for row in rows {
            let good = logic.check(&row).is_ok();
            logic.fits(&row, "Later", HeldReason::Deferred);
            let mut instance = Instance { row: Some(row), ..Instance::default() };
            let outcomes = instance.batch(&["Tick", "Next", "Later", "Join", "Cancel"]);
            let went_on = outcomes.iter().any(|outcome| outcome.contains(": Done"));
            assert!(good || !went_on, "an instance that cannot be read went on: {outcomes:?}");
            let written = instance.row.expect("it was there");
            assert!(!good || logic.check(&written).is_ok(), "what could be read cannot any more: {written:?}");
        }
    });
}

#[test]
fn fuzz_message() {
    let logic = Typed::<Walk>::new();
    let samples: [&[u8]; 4] = [b"{\"id\":7}", b"{\"id\":7,\"line\":3}", b"[7]", b"\xef\xbb\xbf{\"id\":7}"];
    ::fuzz::each(&samples, |input| {
        for type_name in ["Begin", "Line", "Timeout"] {
            let Ok((Some(named), _)) = logic.read(type_name, input) else { continue };
            let crate::saga::logic::Named::ById(id) = named else { panic!("the saga has no alias: {named:?}") };
            assert!(id.parse::<u64>().is_ok(), "`{id}` is no id of this saga");
        }
    });
}

/// The operators' tool draws charts that it reads from the database.
#[test]
fn fuzz_chart() {
    let chart = serde_json::to_string(&Walk::chart()).unwrap();
    ::fuzz::each_text(&[&chart], |input| {
        let Ok(chart) = serde_json::from_str::<Chart>(input) else { return };
        let _ = (chart.errors(), chart.verify(), chart.to_mermaid(), chart.to_svg(), chart.to_json());
    });
}
