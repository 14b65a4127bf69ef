//! What came out of a case.

use serde::{Deserialize, Serialize};

/// How one case ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", content = "detail", rename_all = "snake_case")]
pub enum Outcome {
    /// The plugin keeps the rules.
    Passed,
    /// It breaks one: which, and how.
    Failed(String),
    /// The case does not apply: why.
    Skipped(String),
    /// The process died: of which signal or with which exit code.
    Crashed(String),
}

impl Outcome {
    /// Whether the plugin did nothing wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Passed | Self::Skipped(_))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(message) => write!(f, "failed: {message}"),
            Self::Skipped(reason) => write!(f, "skipped: {reason}"),
            Self::Crashed(how) => write!(f, "crashed: {how}"),
        }
    }
}

/// The result of one case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the case.
    pub case: String,
    /// The rules of `SPEC.md` that it checks.
    pub rules: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Time that the process took.
    pub elapsed_ms: u64,
    /// The last lines that the plugin printed, at most 20, if it did not pass.
    pub output: Vec<String>,
}
