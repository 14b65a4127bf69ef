//! The log: events of the host, of its plugins and of their workers, on standard error.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogConfig, LogFormat};

/// Directives that come before the user's: what libraries tell about each connection and message helps nobody who runs
/// models, even at debug level. A directive of the user's for the same target wins.
const QUIET_LIBRARIES: &str = "h2=off,hyper=off,hyper_util=off,mio=off,reqwest=off,rustls=off,tower=off";

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The directives cannot be read.
    #[error("the log filter \"{filter}\" is not valid")]
    Filter {
        /// The directives.
        filter: String,
        /// Which one, and why.
        source: ParseError,
    },
    /// This process has a log already.
    #[error("cannot set up the log")]
    Init(#[from] TryInitError),
}

/// Sends all `tracing` events of this process to standard error, from now on. Each line carries the fields of the spans
/// around it, so that what belongs to one request shows that request's id. Call it once in a process.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter = filter(config)?;
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr);
    match config.format {
        LogFormat::Human => lines.compact().with_ansi(is_colourful()).finish().try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).finish().try_init()?,
    }
    Ok(())
}

fn filter(config: &LogConfig) -> Result<EnvFilter, TelemetryError> {
    let user = config.filter.as_str();
    EnvFilter::builder()
        .parse(format!("{QUIET_LIBRARIES},{user}"))
        .map_err(|source| TelemetryError::Filter { filter: user.to_owned(), source })
}

/// Colours are for people in front of a terminal who have not asked for none (<https://no-color.org>).
fn is_colourful() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// Collects what is logged.
    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Buffer {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn logged(filter_text: &str, events: impl FnOnce()) -> String {
        let config = LogConfig { filter: filter_text.parse().unwrap(), format: LogFormat::Human };
        let buffer = Buffer::default();
        let lines = fmt().with_env_filter(filter(&config).unwrap()).with_writer(buffer.clone());
        tracing::subscriber::with_default(lines.compact().with_ansi(false).finish(), events);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn libraries_are_quiet_unless_the_user_names_them() {
        let events = || {
            tracing::debug!(target: "hyper::proto", "bytes");
            tracing::debug!(target: "pajamas_host::engine", "loading");
        };
        let text = logged("debug", events);
        assert!(text.contains("loading") && !text.contains("bytes"), "{text}");
        let text = logged("info,hyper=debug", events);
        assert!(!text.contains("loading") && text.contains("bytes"), "{text}");
    }

    #[test]
    fn a_line_carries_the_id_of_the_request_around_it() {
        let text = logged("info", || {
            tracing::info_span!("request", id = "r-1").in_scope(|| tracing::info!("served"));
        });
        assert!(text.contains("served") && text.contains("id=\"r-1\""), "{text}");
    }
}
