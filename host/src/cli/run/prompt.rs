//! Questions from standard input, and remarks to whoever asks; remarks go to standard error.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use super::Error;

/// The longest prompt that is read from standard input, in bytes; a longer one is refused.
const PROMPT_BYTES_MAX: u64 = 16 << 20;

/// The prompt on standard input; `None` when that is a terminal, where a person waits to be asked.
pub(super) fn piped() -> Result<Option<String>, Error> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Ok(None);
    }
    let mut prompt = String::new();
    stdin.lock().take(PROMPT_BYTES_MAX + 1).read_to_string(&mut prompt).map_err(Error::Input)?;
    if prompt.len() as u64 > PROMPT_BYTES_MAX {
        return Err(Error::Usage("the prompt on standard input has more than 16 MiB: shorten it"));
    }
    // The line break that ends the last line is the shell's, not the question's.
    prompt.truncate(prompt.trim_end_matches(['\n', '\r']).len());
    Ok(Some(prompt))
}

/// The next line from the terminal; `None` at its end.
///
/// # Cancellation
/// The next line is lost: it is still waited for, on a thread that ends with the process.
pub(super) async fn ask() -> Result<Option<String>, Error> {
    let read = tokio::task::spawn_blocking(|| {
        write!(io::stderr(), "> ")?;
        let mut line = String::new();
        let length = io::stdin().lock().take(PROMPT_BYTES_MAX).read_line(&mut line)?;
        Ok((length > 0).then_some(line))
    });
    read.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked))).map_err(Error::Input)
}

/// A remark that is not part of the answer.
pub(super) fn note(text: &str) {
    // Nobody can be told that nobody can be told.
    let _ = writeln!(io::stderr(), "{text}");
}
