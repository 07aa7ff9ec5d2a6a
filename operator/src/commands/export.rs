//! `sagabus export`: instances with their journals, for `sagabus::testing::replay`. With masked fields it needs
//! `--unmasked` for that.

use super::sagas::spelt;
use crate::{databases::Session, masks, text::plain};
use clap::Args;
use saga_core::{Counted, ExportedInstance, Inspect, InstanceFilter};

/// The longest journal that is read.
const JOURNAL_ROWS_MAX: i64 = 100_000;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The saga's name, whatever its case
    saga: String,
    /// Only in this state, whatever its case
    #[arg(long, value_name = "NAME")]
    state: Option<String>,
    /// Only those whose id begins with this
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    id: Option<String>,
    /// Only those that are not done
    #[arg(long)]
    open: bool,
}

pub(crate) async fn run(session: &mut Session, arguments: Arguments) -> bool {
    let Some((saga, state)) = spelt(session, Some(arguments.saga), arguments.state).await else { return false };
    let (id, open) = (arguments.id, arguments.open);
    let filter = InstanceFilter { saga, state, id, open, ..InstanceFilter::default() };
    let (rows_max, unmasked) = (session.rows_max, session.unmasked);
    let read = async |store: &dyn Inspect| {
        let all = store.instances_count(&filter).await?;
        let (mut exported, mut hidden) = (Vec::new(), masks::Hidden::new());
        for instance in store.instances(&filter, rows_max).await? {
            exported.push(store.export(instance, JOURNAL_ROWS_MAX).await?);
        }
        if !unmasked {
            let definitions = store.definitions().await?;
            for it in &mut exported {
                hidden.extend(masks::journal(&it.saga, &mut it.journal, &definitions));
            }
        }
        Ok((all, exported, hidden))
    };
    let databases = session.each(read).await;
    let (mut shown, mut all, mut without) = (0, 0, 0);
    let mut hidden = masks::Hidden::new();
    for (_, (count, exported, names)) in &databases {
        hidden.extend(names.iter().cloned());
        (shown, all) = (shown + exported.len(), all + count);
        for instance in exported {
            without += usize::from(!has_messages(instance));
            match serde_json::to_string(instance) {
                Ok(line) => session.screen.line(line), // JSON escapes what a terminal would obey
                Err(error) => session.failed(format!("instance {}: {error}", instance.id)),
            }
        }
    }
    session.screen.shown(shown, Counted::exactly(all));
    if without > 0 {
        session.screen.note(format!(
            "{without} of {shown} have no messages in their journal and cannot be replayed: set `keep_messages` at the \
             endpoint"
        ));
    }
    if !hidden.is_empty() {
        let fields = hidden.into_iter().collect::<Vec<_>>().join(", ");
        session.screen.note(format!(
            "masked fields ({}) are hidden in the messages: to replay them, export with --unmasked",
            plain(&fields)
        ));
    }
    session.is_clean()
}

fn has_messages(instance: &ExportedInstance) -> bool {
    instance.journal.iter().any(|line| line.message.is_some())
}
