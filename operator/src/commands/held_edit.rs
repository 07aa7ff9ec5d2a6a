//! `sagabus held edit`.

use super::{held_show, operations};
use crate::{bulk, choice::Holder, databases::Session, masks, text::plain};
use anyhow::{Context, Result, bail};
use clap::Args;
use saga_core::ErrorCode;
use serde_json::json;
use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

/// The largest body that is read: no endpoint takes a larger one unless told to.
const BODY_BYTES_MAX: u64 = 64 << 20;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The message's id, or how it begins
    #[arg(value_name = "MESSAGE", allow_hyphen_values = true)]
    id: String,
    #[command(flatten)]
    holder: Holder,
    /// The new body
    #[arg(long, value_name = "JSON", allow_hyphen_values = true, conflicts_with = "body_file")]
    body: Option<String>,
    /// A file with the new body; - is stdin
    #[arg(long, value_name = "PATH")]
    body_file: Option<PathBuf>,
    /// Why: recorded with who and when
    #[arg(long, value_name = "TEXT", default_value = operations::NO_REASON, allow_hyphen_values = true)]
    reason: String,
}

pub(crate) async fn run(session: &mut Session, arguments: Arguments) -> bool {
    let (id, holder) = (&arguments.id, &arguments.holder);
    let find = async |session: &mut Session, id: &str| held_show::find_at(session, id, holder).await;
    let (n, row) = match bulk::of_id(session, id, find, |id| held_show::none_at(id, holder)).await {
        Ok(found) => found,
        Err(text) => {
            session.failed(text);
            return false;
        }
    };
    let body = match (arguments.body, &arguments.body_file) {
        (Some(body), _) => Ok(body),
        (None, Some(path)) => read(path),
        (None, None) if !session.unmasked && !row.masked().is_empty() => {
            let fields = row.masked().join(", ");
            let text = format!("message {id} has masked fields ({fields}): --unmasked opens it, --body replaces it");
            session.refused(ErrorCode::NotAllowed, text);
            return false;
        }
        (None, None) => match session.database(n).store.held_body(&row.row()).await {
            Ok(Some(body)) => edited(&body),
            Ok(None) => {
                Err(anyhow::anyhow!(ErrorCode::NotFound.told(format_args!("message {id} was dealt with meanwhile"))))
            }
            Err(error) => Err(error.into()),
        },
    };
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            session.refused(ErrorCode::InputUnfit, format!("{error:#}"));
            return false;
        }
    };
    let store = &session.database(n).store;
    let mut item = match store.held_edit(&row.row(), &body, &operations::who(), &arguments.reason).await {
        Ok(item) => item,
        Err(error) => {
            let name = session.database(n).name.clone();
            session.failed(format!("{name}: {error}"));
            return false;
        }
    };
    masks::item(&mut item, session.unmasked);
    let (is_edited, is_unchanged) = (item.result == "edited", item.result == "unchanged");
    if session.screen.json {
        let (edited, unchanged) = (usize::from(is_edited), usize::from(is_unchanged));
        session.screen.value(&json!({ "found": 1, "edited": edited, "unchanged": unchanged, "items": [item] }));
    } else {
        let message = plain(&item.message_id);
        session.screen.line(match item.result.as_str() {
            "edited" => format!("{message} will be handled with its new body by the next running process"),
            "unchanged" => format!("{message} has this body already: nothing was done"),
            "waits" => format!("{message} waits behind another message of its instance: nothing was done"),
            other => format!("{message} is {other}: nothing was done"),
        });
    }
    session.is_clean() && (is_edited || is_unchanged)
}

pub(super) fn read(path: &Path) -> Result<String> {
    let mut body = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(BODY_BYTES_MAX).read_to_string(&mut body)
    } else {
        File::open(path).and_then(|file| file.take(BODY_BYTES_MAX).read_to_string(&mut body))
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(body)
}

/// The body after a person has edited it. The file is for this user alone, and is removed.
fn edited(body: &[u8]) -> Result<String> {
    let body = std::str::from_utf8(body).context("the body is no text: give the new one by --body-file")?;
    let Some(editor) = ["VISUAL", "EDITOR"].iter().find_map(std::env::var_os).filter(|editor| !editor.is_empty())
    else {
        bail!("give the new body by --body or --body-file, or set EDITOR");
    };
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let path = std::env::temp_dir().join(format!("sagabus-{}-{nanos}.json", std::process::id()));
    let changed = in_editor(&editor, &path, body);
    let _ = fs::remove_file(&path); // there is none, if it could not be written
    changed
}

fn in_editor(editor: &std::ffi::OsStr, path: &Path, body: &str) -> Result<String> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(body.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    // an editor is often a program with options
    let status = Command::new("sh").arg("-c").arg("$0 \"$1\"").arg(editor).arg(path).status();
    let status = status.context("the editor does not start")?;
    if !status.success() {
        bail!("the editor ended with {status}: nothing was done");
    }
    let changed = read(path)?;
    // editors end a file with a line break: alone it is no change
    Ok(if changed.trim_end_matches(['\n', '\r']) == body { body.to_owned() } else { changed })
}
