//! Text as it streams: code points assembled from bytes, and stop strings found across pieces.

mod stop;
mod utf8;

pub use stop::{STOP_BYTES_MAX, STOPS_MAX, StopError, StopMatcher, StopOutcome};
pub use utf8::Utf8Assembler;
