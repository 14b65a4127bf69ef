//! Exit codes. Scripts depend on them, so this is the only place that decides them; those from 64 are the numbers of
//! BSD's `sysexits.h`.

use std::fmt::Write as _;
use std::process::ExitCode;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success.
    Success = 0,
    /// A check failed.
    Failure = 1,
    /// Wrong flag, argument or configuration.
    Usage = 64,
    /// A model file is not usable.
    BadData = 65,
    /// What was named is not there.
    NoInput = 66,
    /// Something that is needed is not to be had now.
    Unavailable = 69,
    /// A fault of a plugin or of the host.
    Internal = 70,
    /// Input or output failed.
    Io = 74,
    /// Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Success,
        Self::Failure,
        Self::Usage,
        Self::BadData,
        Self::NoInput,
        Self::Unavailable,
        Self::Internal,
        Self::Io,
        Self::Interrupted,
    ];

    /// The number that a shell sees.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What it tells a user.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Success => "success; a server that was asked to stop, too",
            Self::Failure => "a check failed: the plugin does not conform",
            Self::Usage => "wrong flag, argument or configuration, or an option that the model does not have",
            Self::BadData => "the model file is corrupt, or of another kind than its name says",
            Self::NoInput => "no plugins folder, no plugin in it, or no such model",
            Self::Unavailable => {
                "the port is in use, no plugin can serve the model, or memory does not suffice"
            }
            Self::Internal => "a plugin crashed or failed, or the host has a fault",
            Self::Io => "the system refused to read or write",
            Self::Interrupted => "interrupted by Ctrl-C (143: by SIGTERM) before the work was done",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table for the end of `--help` and for the man page.
pub(super) fn help() -> String {
    let mut text = "Exit codes:\n".to_owned();
    for exit in Exit::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:>3}  {}", exit.code(), exit.meaning());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_code_with_its_meaning() {
        let documentation = include_str!("../../../docs/configuration.md");
        for exit in Exit::ALL {
            let row = format!("| {} | {} |", exit.code(), exit.meaning());
            assert!(documentation.contains(&row), "docs/configuration.md lacks the row {row}");
        }
    }
}
