//! Panics of user code, caught with their place in the source.

use std::{
    any::Any,
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs a hook in front of the process's panic hook: it records the place of a panic that [`caught`] will catch,
/// and passes on all others. [`EndpointBuilder::start`](crate::EndpointBuilder::start) documents this for users.
pub(crate) fn install_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
            let caught = PLACE.with(|slot| match &mut *slot.borrow_mut() {
                Some(slot) => {
                    *slot = place.unwrap_or_default();
                    true
                }
                None => false,
            });
            if !caught {
                before(info);
            }
        }));
    });
}

/// Runs `f`. A panic in it is not printed; its text and place are returned as the error.
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    PLACE.with(|slot| *slot.borrow_mut() = Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(f));
    let place = PLACE.with(|slot| slot.borrow_mut().take()).unwrap_or_default();
    let place = if place.is_empty() { place } else { format!(" at {place}") };
    result.map_err(|payload| format!("panicked{place}: {}", text(&*payload)))
}

/// The text of a panic.
pub(crate) fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
