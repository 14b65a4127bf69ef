//! The system's own voices: the plugin `system-tts` of pajamas-host.
//!
//! [`SystemTts`] is the plugin's face. On Linux the voices are espeak-ng's; `README.md` says how to install it and what a
//! `.voice` file is.

mod backend;
mod model;
mod options;
mod voice_file;

pub use backend::SystemTts;
pub use model::SystemVoice;

pajamas_plugin_api::export_plugin!(SystemTts, id = "system-tts", version = env!("CARGO_PKG_VERSION"));
