//! Panics of user code, caught with their place.

use std::{
    any::Any,
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Puts a hook before the process's panic hook that keeps the place of a panic which [`caught`] will catch, and hands
/// all others on. [`EndpointBuilder::start`](crate::EndpointBuilder::start) says so to the user.
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

/// Runs `f`; a panic in it becomes its text and place, and is not printed.
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
