//! Panics of the decisions are outcomes of a run: what an invariant says, and where it stands.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};

thread_local! {
    /// Where this thread panicked last.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics print nothing from now on: each is an outcome that says where it was.
pub fn keep_panics() {
    set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        PLACE.set(place.unwrap_or_default());
    }));
}

/// Plays something; of a panic in it, what it said and where.
pub(crate) fn play_out<T>(play: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(play)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        format!("{} at {}", text.unwrap_or("a panic"), PLACE.take())
    })
}
