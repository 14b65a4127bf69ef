//! Running other programs: one way to start them, and errors that name the command line.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a command to its end with the terminal as its output; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("could not start `{}`", display(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", display(command));
    }
    Ok(())
}

/// Runs a command to its end and returns what it wrote to standard output, without the last line break.
pub(crate) fn stdout_of(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("could not start `{}`", display(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", display(command), output.status);
    }
    let text = String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something that is not UTF-8", display(command)))?;
    Ok(text.trim_end().to_owned())
}

/// Whether a command can be started and ends with success; its output is thrown away.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// The first executable file of this name on `PATH`, skipping the folder `except`.
///
/// `except` is for the private virtual environment, which a contributor may have put on `PATH`.
pub(crate) fn find_program(name: impl AsRef<OsStr>, except: &Path) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders)
        .filter(|folder| folder != except)
        .map(|folder| folder.join(name.as_ref()))
        .find(is_program)
}

/// The command line as a person would type it.
pub(crate) fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| shell_quote(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// Quotes a word for a POSIX shell, if it needs it.
pub(crate) fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_when_a_shell_would_misread_them() {
        for (word, quoted) in [
            ("-I/usr/include", "-I/usr/include"),
            ("", "''"),
            ("two words", "'two words'"),
            ("$HOME", "'$HOME'"),
            ("it's", r"'it'\''s'"),
        ] {
            assert_eq!(shell_quote(word), quoted);
        }
    }

    #[test]
    fn a_failed_command_is_named_with_its_exit_status() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c 'exit 3'` failed: exit status: 3");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = stdout_of(&mut Command::new("/nowhere/tool")).unwrap_err();
        assert_eq!(error.to_string(), "could not start `/nowhere/tool`");
    }

    #[test]
    fn a_program_in_the_excepted_folder_is_not_found() {
        let nowhere = Path::new("/nowhere");
        let found = find_program("sh", nowhere).unwrap();
        assert_ne!(find_program("sh", found.parent().unwrap()), Some(found));
        assert_eq!(find_program("no-such-program-anywhere", nowhere), None);
    }
}
