//! The table of fields: what each is called in the file, in the environment and on the command line.

/// A field of the configuration that a variable can set. `[plugins.NAME]`, `[registries.NAME]` and `[routes.NAME]` are for
/// the file alone.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its place in the file, such as `log.level`.
    pub path: &'static str,
    /// The flag that sets it, if there is one.
    pub flag: Option<&'static str>,
    pub(super) kind: Kind,
}

/// How the text of a variable becomes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Boolean,
    /// Separated as in `PATH`.
    Paths,
    /// Separated by commas.
    Names,
}

/// Every field, in the order of the documentation.
pub const FIELDS: &[Field] = &[
    field("listen", Some("--listen"), Kind::Text),
    field("insecure", Some("--insecure"), Kind::Boolean),
    field("plugins_dir", Some("--plugins"), Kind::Text),
    field("models_dirs", Some("--models"), Kind::Paths),
    field("cache_dir", None, Kind::Text),
    field("state_dir", None, Kind::Text),
    field("keys_file", None, Kind::Text),
    field("watch", Some("--watch"), Kind::Boolean),
    field("in_process", Some("--in-process"), Kind::Boolean),
    field("drain_timeout_ms", None, Kind::Number),
    field("log.level", Some("--log-level"), Kind::Text),
    field("log.format", Some("--log-format"), Kind::Text),
    field("limits.body_bytes", None, Kind::Number),
    field("limits.connections", None, Kind::Number),
    field("limits.queue", None, Kind::Number),
    field("limits.request_timeout_ms", None, Kind::Number),
    field("limits.image_pixels", None, Kind::Number),
    field("limits.audio_seconds", None, Kind::Number),
    field("memory.budget_bytes", None, Kind::Number),
    field("memory.idle_timeout_ms", None, Kind::Number),
    field("worker.start_timeout_ms", None, Kind::Number),
    field("worker.probe_timeout_ms", None, Kind::Number),
    field("worker.load_timeout_ms", None, Kind::Number),
    field("worker.stall_timeout_ms", None, Kind::Number),
    field("worker.hang_timeout_ms", None, Kind::Number),
    field("selection.prefer", None, Kind::Names),
    field("selection.disabled", None, Kind::Names),
];

const fn field(path: &'static str, flag: Option<&'static str>, kind: Kind) -> Field {
    Field { path, flag, kind }
}

impl Field {
    /// The variable that sets it: `PAJAMAS_LOG_LEVEL` for `log.level`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("PAJAMAS_{}", self.path.replace('.', "_").to_uppercase())
    }
}
