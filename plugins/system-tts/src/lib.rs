//! The system's own voices: the plugin `system-tts` of pajamas-host.
//!
//! [`SystemTts`] is the plugin's face. On Linux the voices are espeak-ng's, on macOS the system's own (`apple.rs`);
//! `README.md` says how to install espeak-ng and what a `.voice` file is.

#[cfg(target_vendor = "apple")]
mod apple;
mod backend;
// The tests of it run everywhere.
#[cfg(any(target_vendor = "apple", test))]
mod known_voices;
mod model;
mod options;
mod synthesizer;
mod voice_file;

pub use backend::SystemTts;
pub use model::SystemVoice;

pajamas_plugin_api::export_plugin!(SystemTts, id = "system-tts", version = env!("CARGO_PKG_VERSION"));
