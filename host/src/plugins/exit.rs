//! How a worker ended, in words.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use crate::engine::FailureCause;

/// Such as `was killed by SIGSEGV (invalid memory access)` or `exited with code 3`.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let core = if status.core_dumped() { ", core dumped" } else { "" };
            match signal_name(signal) {
                Some((name, meaning)) => format!("was killed by {name} ({meaning}{core})"),
                None => format!("was killed by signal {signal}{core}"),
            }
        }
        (None, Some(0)) => "exited without being asked to".to_owned(),
        (None, Some(code)) => format!("exited with code {code}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// Whose doing it was. A process is killed by SIGKILL only from outside; whatever else ends it is its own fault.
pub(crate) fn cause(status: ExitStatus) -> FailureCause {
    let killed = status.signal() == Some(rustix::process::Signal::KILL.as_raw());
    if killed { FailureCause::Outside } else { FailureCause::Plugin }
}

fn signal_name(signal: i32) -> Option<(&'static str, &'static str)> {
    use rustix::process::Signal;
    let table = [
        (Signal::ABORT, "SIGABRT", "it aborted itself, often after a failed assertion"),
        (Signal::BUS, "SIGBUS", "invalid memory access, often a truncated file"),
        (Signal::FPE, "SIGFPE", "invalid arithmetic"),
        (Signal::ILL, "SIGILL", "an instruction that this CPU does not have"),
        (Signal::KILL, "SIGKILL", "killed from outside, often because memory ran out"),
        (Signal::SEGV, "SIGSEGV", "invalid memory access"),
        (Signal::SYS, "SIGSYS", "a system call that is not allowed"),
        (Signal::TERM, "SIGTERM", "asked to end from outside"),
    ];
    table.into_iter().find(|(known, ..)| known.as_raw() == signal).map(|(_, name, meaning)| (name, meaning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_ends() {
        let cases = [
            (11, "was killed by SIGSEGV (invalid memory access)"),
            (9, "was killed by SIGKILL (killed from outside, often because memory ran out)"),
            (3 << 8, "exited with code 3"),
            (0, "exited without being asked to"),
            (64, "was killed by signal 64"),
        ];
        for (raw, expected) in cases {
            assert_eq!(describe(ExitStatus::from_raw(raw)), expected);
        }
    }
}
