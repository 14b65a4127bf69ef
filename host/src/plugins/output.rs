//! What a worker prints: each line goes to the log, the last ones into the error that a client sees.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Lines kept for error messages.
const LAST_LINES: usize = 5;
/// Longest line in bytes; the rest of a longer one is dropped.
const LINE_BYTES_MAX: usize = 2048;
/// Most lines logged in one second; the others are counted and the count is logged.
const LINES_PER_SECOND_MAX: u32 = 100;

/// The last lines of a worker's output.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock();
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// The lines, oldest first.
    pub(crate) fn get(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }
}

/// Reads a pipe to its end.
pub(crate) async fn capture(
    mut pipe: impl AsyncRead + Unpin,
    plugin: String,
    stream: &'static str,
    last: LastLines,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut line = Vec::new();
    let mut rate = Rate { since: Instant::now(), logged: 0, dropped: 0 };
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        for byte in &buffer[..read] {
            match byte {
                b'\n' => emit(&mut line, &plugin, stream, &last, &mut rate),
                byte if line.len() < LINE_BYTES_MAX => line.push(*byte),
                _ => {}
            }
        }
    }
    emit(&mut line, &plugin, stream, &last, &mut rate);
}

struct Rate {
    since: Instant,
    logged: u32,
    dropped: u64,
}

fn emit(line: &mut Vec<u8>, plugin: &str, stream: &'static str, last: &LastLines, rate: &mut Rate) {
    let text = String::from_utf8_lossy(line).trim_end().to_owned();
    line.clear();
    if text.is_empty() {
        return;
    }
    last.push(&text);
    if rate.since.elapsed() > Duration::from_secs(1) {
        if rate.dropped > 0 {
            tracing::warn!(
                plugin,
                stream,
                dropped = rate.dropped,
                "the worker printed too much; lines were dropped"
            );
        }
        *rate = Rate { since: Instant::now(), logged: 0, dropped: 0 };
    }
    if rate.logged < LINES_PER_SECOND_MAX {
        rate.logged += 1;
        tracing::info!(plugin, stream, "{text}");
    } else {
        rate.dropped += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_last_lines_and_cuts_long_ones() {
        let last = LastLines::default();
        let text = (0..9).map(|i| format!("line {i}\n")).collect::<String>() + &"x".repeat(9999);
        capture(text.as_bytes(), "p".into(), "stderr", last.clone()).await;
        let lines = last.get();
        assert_eq!(lines[..4], ["line 5", "line 6", "line 7", "line 8"]);
        assert_eq!(lines[4].len(), LINE_BYTES_MAX);
    }
}
