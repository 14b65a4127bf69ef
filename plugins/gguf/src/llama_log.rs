//! llama.cpp's log: pieces of lines become events of `tracing`, and the first error is kept for whoever reports a failure.

use parking_lot::Mutex;
use tracing::Level;

/// A line that is not complete yet, and the first error line since the last call that can fail.
struct State {
    line: String,
    level: Level,
    first_error: Option<String>,
}

/// Most bytes of one line; the rest of a longer line is dropped.
const LINE_BYTES_MAX: usize = 16 * 1024;

static STATE: Mutex<State> =
    Mutex::new(State { line: String::new(), level: Level::DEBUG, first_error: None });

/// Takes a piece of a line; without a level it goes on with the last one.
pub(crate) fn take(level: Option<Level>, piece: &str) {
    let mut state = STATE.lock();
    state.level = level.unwrap_or(state.level);
    if state.line.len() < LINE_BYTES_MAX {
        state.line.push_str(piece);
    }
    if piece.ends_with('\n') {
        let line = std::mem::take(&mut state.line);
        let level = state.level;
        let line = line.trim_end();
        if level == Level::ERROR {
            // Later ones say only that something failed.
            state.first_error.get_or_insert_with(|| line.to_owned());
        }
        drop(state);
        forward(level, line);
    }
}

fn forward(level: Level, line: &str) {
    match level {
        Level::ERROR => tracing::error!(target: "llama.cpp", "{line}"),
        Level::WARN => tracing::warn!(target: "llama.cpp", "{line}"),
        Level::INFO | Level::DEBUG => tracing::debug!(target: "llama.cpp", "{line}"),
        Level::TRACE => tracing::trace!(target: "llama.cpp", "{line}"),
    }
}

/// Takes the first error of the last load, context creation or decode, without its function name.
pub(crate) fn take_error() -> Option<String> {
    let line = STATE.lock().first_error.take()?;
    let reason = line.split_once(": ").map_or(line.as_str(), |(_, rest)| rest);
    Some(reason.to_owned())
}

/// Forgets the errors of calls before.
pub(crate) fn forget_error() {
    STATE.lock().first_error = None;
}
