//! `sagabus explain`: where something came from and what it caused, as a tree or as a sequence diagram.

use super::explain_draw::{mermaid, rows, tree};
use crate::databases::Session;
use clap::Args;
use saga_core::{ErrorCode, Explanation, explain};
use serde_json::{Value, json};

/// The most messages of a story.
const MESSAGES_MAX: usize = 1000;

/// What is said when a conversation may have messages that are older than those that were looked at.
pub(crate) const OLDER: &str =
    "a conversation is looked for among the newest messages alone: for older ones give the id of a message";

#[derive(Args)]
pub(crate) struct Arguments {
    /// The id of a message, an instance of a saga (often a business id) or a conversation, or how it begins
    #[arg(allow_hyphen_values = true)]
    id: String,
    /// A sequence diagram in Mermaid's language, which GitHub and GitLab draw
    #[arg(long)]
    mermaid: bool,
}

pub(crate) async fn run(session: &mut Session, arguments: &Arguments) -> bool {
    let id = &arguments.id;
    let explained = explain(&session.stores(), id, MESSAGES_MAX).await;
    for (n, error) in explained.unread {
        let name = session.database(n).name.clone();
        session.failed(format!("cannot read {name}: {error}"));
    }
    let beyond = explained.beyond;
    let story = match explained.answer {
        Explanation::Story(story) => story,
        Explanation::Several(ids) => {
            session.refused(ErrorCode::Ambiguous, format!("{} ids begin with {id}: {}", ids.len(), ids.join(", ")));
            return false;
        }
        _ => {
            let there = if session.is_clean() { "" } else { " in what could be read" };
            let older = if beyond { format!("; {OLDER}") } else { String::new() };
            let text = format!(
                "there is no message, instance or conversation {id}{there}: after its retention it is forgotten{older}"
            );
            session.refused(ErrorCode::NotFound, text);
            return false;
        }
    };
    if session.screen.json {
        let mut value = json!(story);
        for step in value["messages"].as_array_mut().into_iter().flatten().flat_map(steps) {
            let n = step["database"].as_u64().unwrap_or_default() as usize;
            step["database"] = session.database(n).short.clone().into();
        }
        value["beyond"] = beyond.into();
        session.screen.value(&value);
    } else if arguments.mermaid {
        session.screen.line(mermaid(&story));
    } else if let Some(width) = session.screen.view.width {
        let lines = tree(&story, width, session.screen.view.now_us);
        lines.into_iter().for_each(|line| session.screen.line(line));
    } else {
        session.screen.table(&rows(&story), "");
    }
    if story.left_out > 0 {
        session.screen.note(format!("{} messages shown; at least {} more", story.messages.len(), story.left_out));
    }
    if beyond {
        session.screen.note(OLDER);
    }
    true
}

/// The parts of a message that name a database.
fn steps(message: &mut Value) -> Vec<&mut Value> {
    let Some(message) = message.as_object_mut() else { return Vec::new() };
    let parts = message.iter_mut().filter(|(name, _)| matches!(name.as_str(), "steps" | "waits"));
    parts.filter_map(|(_, part)| part.as_array_mut()).flatten().collect()
}
