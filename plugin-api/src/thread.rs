//! Threads of a plugin whose panics stay inside the plugin.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

use crate::error::{Error, ErrorKind};

/// Starts a named thread. A panic in `body` is caught and logged with its message; [`crate::Job`]s that `body` owned
/// end with an error while it unwinds, and `on_panic` runs last, to mark whatever the thread served as dead.
///
/// # Errors
/// The system refuses another thread.
pub fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
    on_panic: impl FnOnce(&Error) + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let label = name.to_owned();
    Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(body)) {
                let error = panic_error(&format!("thread {label}"), payload.as_ref());
                tracing::error!(thread = label, "{error}");
                on_panic(&error);
            }
        })
        .map_err(|e| Error::internal(format!("cannot start thread {name}: {e}")))
}

/// The error of a caught panic: where it happened and what it said.
pub(crate) fn panic_error(place: &str, payload: &(dyn std::any::Any + Send)) -> Error {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is not text");
    Error::new(ErrorKind::Panic, format!("panic in {place}: {text}"))
}
