//! Text as it streams: code points assembled from bytes, and stop strings and sentences found across pieces.

mod sentences;
mod stop;
mod utf8;

pub use sentences::{SENTENCE_BYTES_MAX, SentenceSplitter};
pub use stop::{STOP_BYTES_MAX, STOPS_MAX, StopError, StopMatcher, StopOutcome};
pub use utf8::Utf8Assembler;
