//! `sagabus diagram`: the chart of a saga as its newest running version registered it.

use crate::{databases::Session, find};
use clap::{Args, ValueEnum};
use saga_core::{Chart, DefinitionView, ErrorCode, Inspect};
use serde_json::json;
use std::collections::BTreeMap;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The saga's name, whatever its case
    saga: String,
    /// The language of the drawing; --json is the last of them
    #[arg(long, value_enum, default_value = "mermaid")]
    format: Format,
    /// How many instances are in each state
    #[arg(long)]
    live: bool,
    /// This version instead of the newest
    #[arg(long, value_name = "N")]
    version: Option<u32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A state diagram that GitHub and GitLab draw
    Mermaid,
    /// For Graphviz
    Dot,
    /// A drawing for a browser
    Svg,
    /// Everything that is known of the chart
    Json,
}

pub(crate) async fn run(session: &mut Session, arguments: &Arguments) -> bool {
    let live = arguments.live;
    let read = async |store: &dyn Inspect| {
        let forms = if live { store.forms().await? } else { Vec::new() };
        Ok((store.definitions().await?, forms))
    };
    let all = session.each(read).await;
    let definitions: Vec<&DefinitionView> = all.iter().flat_map(|(_, (definitions, _))| definitions).collect();
    let known: Vec<String> = definitions.iter().map(|it| it.saga.clone()).collect();
    let saga = match find::name(&arguments.saga, &known, "registered saga") {
        Ok(saga) => saga,
        Err(text) => {
            session.refused(ErrorCode::NotFound, text);
            return false;
        }
    };
    let of_saga = definitions.iter().filter(|it| it.saga == saga);
    let wanted = of_saga.filter(|it| arguments.version.is_none_or(|version| version == it.version));
    let Some(definition) = wanted.max_by_key(|it| (it.version, it.registered_at_us)) else {
        let versions: Vec<String> =
            definitions.iter().filter(|it| it.saga == saga).map(|it| it.version.to_string()).collect();
        session.refused(ErrorCode::NotFound, format!("{saga} has no such version; there are: {}", versions.join(", ")));
        return false;
    };
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut strange = 0;
    for form in all.iter().flat_map(|(_, (_, forms))| forms).filter(|form| form.saga == saga) {
        // a state that was renamed is counted where it is now
        match definition.chart.state(&form.state) {
            Some(state) => *counts.entry(&state.name).or_default() += form.count.unsigned_abs(),
            None => strange += form.count,
        }
    }
    if strange > 0 {
        session.screen.note(format!("{strange} instances are in states that this chart does not have: sagabus check"));
    }
    let format = if session.screen.json { Format::Json } else { arguments.format };
    let text = drawn(&definition.chart, format, &counts, live);
    session.screen.line(text.trim_end());
    true
}

fn drawn(chart: &Chart, format: Format, counts: &BTreeMap<&str, u64>, live: bool) -> String {
    match format {
        Format::Mermaid => {
            let notes = counts.iter().map(|(state, n)| format!("    note right of {state} : {n}\n"));
            chart.to_mermaid() + &notes.collect::<String>()
        }
        Format::Dot => {
            let labels = counts.iter().map(|(state, n)| format!("    {state:?} [label=\"{state}\\n{n}\"];\n"));
            let text = chart.to_dot();
            let (body, _) = text.rsplit_once('}').unwrap_or((&text, ""));
            format!("{body}{}}}", labels.collect::<String>())
        }
        Format::Svg => chart.drawing().counts(counts.iter().map(|(state, n)| (*state, *n))).to_string(),
        Format::Json if live => crate::text::json(&json!({ "chart": chart, "instances": counts })),
        Format::Json => chart.to_json(),
    }
}
