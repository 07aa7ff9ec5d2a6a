//! One command per file.

pub(crate) mod check;
pub(crate) mod export;
pub(crate) mod held;
mod held_act;
mod held_edit;
mod held_filter;
mod held_list;
mod held_show;
mod list;
mod operations;
pub(crate) mod outbox;
mod outbox_list;
mod outbox_show;
pub(crate) mod sagas;
mod sagas_act;
mod sagas_list;
mod sagas_show;
pub(crate) mod status;

/// Compares a page with its golden file. With `SAGABUS_BLESS=1` the file is written instead: read the changes before
/// you commit them.
#[cfg(test)]
fn golden(name: &str, page: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("SAGABUS_BLESS").is_some() {
        std::fs::write(&file, page).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(page, kept, "{} differs: SAGABUS_BLESS=1 writes it anew", file.display());
}
