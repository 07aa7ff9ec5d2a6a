//! The files for Grafana and Prometheus: they parse, and name what is measured.

use crate::metrics::documented;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};
use yaml_rust2::{Yaml, YamlLoader};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/telemetry").join(name)
}

fn file(name: &str) -> String {
    std::fs::read_to_string(path(name)).expect("there is such a file")
}

/// The metrics in an expression, without what Prometheus makes of a histogram.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("sagabus_")).map(|name| {
        let histogram = ["_sum", "_count", "_bucket"].iter().find_map(|end| name.strip_suffix(end));
        histogram.unwrap_or(name).to_owned()
    });
    names.collect()
}

#[test]
fn the_board_parses_and_shows_every_metric() {
    let board: Value = serde_json::from_str(&file("grafana.json")).expect("the board is JSON");
    let panels = board["panels"].as_array().expect("a board has panels");
    let mut shown = BTreeSet::new();
    for panel in panels {
        let targets = panel["targets"].as_array().expect("a panel has targets");
        for target in targets {
            let named = metrics(target["expr"].as_str().expect("a target has an expression"));
            assert!(!named.is_empty(), "{panel}");
            shown.extend(named);
        }
    }
    let documented: BTreeSet<String> = documented().into_iter().collect();
    assert_eq!(shown, documented);
}

#[test]
fn the_alert_rules_parse_and_name_metrics_that_there_are() {
    let rules = YamlLoader::load_from_str(&file("alerts.yml")).expect("the rules are YAML");
    let documented: BTreeSet<String> = documented().into_iter().collect();
    let groups = rules[0]["groups"].as_vec().expect("there are groups");
    let rules: Vec<&Yaml> = groups.iter().flat_map(|group| group["rules"].as_vec().expect("of rules")).collect();
    assert_eq!(rules.len(), 8);
    for rule in rules {
        let text = |name: &str| rule[name].as_str().unwrap_or_else(|| panic!("`{name}` is missing in {rule:?}"));
        let named = metrics(text("expr"));
        assert!(!named.is_empty() && named.is_subset(&documented), "{named:?}");
        assert!(text("alert").starts_with("Sagabus") && text("for").ends_with(['m', 'h']));
        for name in ["summary", "description"] {
            assert!(rule["annotations"][name].as_str().is_some_and(|text| !text.is_empty()), "{rule:?}");
        }
    }
}

/// What only Prometheus itself knows: that expressions and templates are right.
#[test]
fn promtool_accepts_the_alert_rules() {
    match Command::new("promtool").args(["check", "rules"]).arg(path("alerts.yml")).output() {
        Ok(checked) => assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr)),
        Err(error) => eprintln!("not checked by promtool, which is not installed here: {error}"),
    }
}
