//! Values with rules of their own. Their errors say what was expected; where it was is known to whoever reads them.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _};
use tracing_subscriber::EnvFilter;

use crate::media::MediaLimits;

/// The longest time that can be configured, in milliseconds: a day.
pub const MILLIS_MAX: u64 = 24 * 60 * 60 * 1000;
/// The largest bound on the requests that wait for one model.
pub(super) const QUEUE_MAX: usize = 1 << 16;
/// The largest bound on the number of connections.
pub(super) const CONNECTIONS_MAX: usize = 1 << 16;
/// The largest bound on a request's body, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 30;

/// The largest bound on pixels: as RGB they still fit into one buffer of the ABI (`SPEC.md`, E-7).
pub(super) const IMAGE_PIXELS_MAX: u64 = 1 << 28;
/// The largest bound on the length of sound, in seconds: its samples still fit into one buffer of the ABI
/// (`SPEC.md`, E-7).
pub(super) const AUDIO_SECONDS_MAX: u32 = 4 * 60 * 60;

/// Address and port to listen on. Port 0 lets the system choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl Default for Listen {
    fn default() -> Self {
        Self(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))
    }
}

impl FromStr for Listen {
    type Err = &'static str;

    /// Reads `IP:PORT`. No name is looked up, except that `localhost` is 127.0.0.1.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
            None => text.to_owned(),
        };
        numeric.parse().map(Self).map_err(|_| "expected an IP address and a port, such as 127.0.0.1:8080")
    }
}

/// A time in milliseconds, from 1 to [`MILLIS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(pub Duration);

/// The largest body of a request in bytes, from 1 to [`BODY_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyBytes(pub usize);

impl Default for BodyBytes {
    fn default() -> Self {
        Self(32 << 20)
    }
}

/// Connections at the same time, from 1 to [`CONNECTIONS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections(pub usize);

impl Default for Connections {
    fn default() -> Self {
        Self(512)
    }
}

/// Requests that may wait for one model, from 0 to [`QUEUE_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue(pub usize);

impl Default for Queue {
    fn default() -> Self {
        Self(256)
    }
}

/// Pixels of the pictures of one request, from 1 to [`IMAGE_PIXELS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImagePixels(pub u64);

impl Default for ImagePixels {
    fn default() -> Self {
        Self(MediaLimits::default().image_pixels)
    }
}

/// Seconds of sound, from 1 to [`AUDIO_SECONDS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioSeconds(pub u32);

impl Default for AudioSeconds {
    fn default() -> Self {
        Self(MediaLimits::default().audio_seconds)
    }
}

/// Which events are logged: a level, or `tracing` directives separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The directives.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Warnings and errors only: the default of commands that print an answer and end. What the engine logs when a
    /// request fails is left out, because it is the command's own error.
    #[must_use]
    pub fn warnings() -> Self {
        Self("warn,pajamas_host::engine::lifecycle=off,pajamas_host::engine::recovery=off".to_owned())
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let directives: Vec<_> = text.split(',').map(str::trim).collect();
        // Without this check a misspelt level is taken for the name of a target, and nothing else is logged.
        let is_directive = |directive: &&str| {
            directive.contains(['=', '[']) || LEVELS.contains(&directive.to_ascii_lowercase().as_str())
        };
        let text = directives.join(",");
        if directives.iter().all(is_directive) && EnvFilter::builder().parse(&text).is_ok() {
            return Ok(Self(text));
        }
        Err("expected off, error, warn, info, debug or trace, or a list such as info,pajamas_host=debug")
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        clap::ValueEnum::from_str(text, false).map_err(|_| "expected human or json")
    }
}

/// The name of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PluginName(pub String);

impl FromStr for PluginName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if pajamas_plugin_api::manifest::is_name(text) {
            return Ok(Self(text.to_owned()));
        }
        Err("expected the name of a plugin: 1 to 64 lower-case letters, digits and hyphens")
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer).ok().filter(|number| (1..=MILLIS_MAX).contains(number));
        number.map(Duration::from_millis).map(Self).ok_or_else(|| {
            D::Error::custom(format_args!("expected a number of milliseconds from 1 to {MILLIS_MAX}"))
        })
    }
}

impl<'de> Deserialize<'de> for BodyBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = usize::deserialize(deserializer).ok();
        number.filter(|number| (1..=BODY_BYTES_MAX).contains(number)).map(Self).ok_or_else(|| {
            D::Error::custom(format_args!("expected a number of bytes from 1 to {BODY_BYTES_MAX}"))
        })
    }
}

impl<'de> Deserialize<'de> for Connections {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = usize::deserialize(deserializer).ok();
        number
            .filter(|number| (1..=CONNECTIONS_MAX).contains(number))
            .map(Self)
            .ok_or_else(|| D::Error::custom(format_args!("expected a number from 1 to {CONNECTIONS_MAX}")))
    }
}

impl<'de> Deserialize<'de> for Queue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = usize::deserialize(deserializer).ok();
        number
            .filter(|number| *number <= QUEUE_MAX)
            .map(Self)
            .ok_or_else(|| D::Error::custom(format_args!("expected a number from 0 to {QUEUE_MAX}")))
    }
}

impl<'de> Deserialize<'de> for ImagePixels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer).ok();
        number.filter(|number| (1..=IMAGE_PIXELS_MAX).contains(number)).map(Self).ok_or_else(|| {
            D::Error::custom(format_args!("expected a number of pixels from 1 to {IMAGE_PIXELS_MAX}"))
        })
    }
}

impl<'de> Deserialize<'de> for AudioSeconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer).ok();
        number.filter(|number| (1..=AUDIO_SECONDS_MAX).contains(number)).map(Self).ok_or_else(|| {
            D::Error::custom(format_args!("expected a number of seconds from 1 to {AUDIO_SECONDS_MAX}"))
        })
    }
}

/// Reads a text by its `FromStr`, whose error is all that the user needs to know.
fn parse<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    // A value that is no text is told apart by the empty text, which no `FromStr` here accepts.
    String::deserialize(deserializer).unwrap_or_default().parse().map_err(D::Error::custom)
}

macro_rules! deserialize_by_from_str {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                parse(deserializer)
            }
        }
    )*};
}

deserialize_by_from_str!(Listen, LogFilter, LogFormat, PluginName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numeric_or_localhost() {
        for text in ["127.0.0.1:0", "[::1]:8080", "0.0.0.0:80"] {
            assert_eq!(text.parse::<Listen>().unwrap().0.to_string(), text);
        }
        assert_eq!("localhost:1".parse::<Listen>().unwrap().0.to_string(), "127.0.0.1:1");
        for text in ["", "8080", ":8080", "example.org:80", "127.0.0.1", "localhost"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for text in ["info", "WARN", "info,pajamas_host=debug", "off, pajamas_host::api=trace"] {
            assert!(text.parse::<LogFilter>().is_ok(), "{text}");
        }
        for text in ["", "inof", "verbose", "info,", "pajamas_host=loud"] {
            assert!(text.parse::<LogFilter>().is_err(), "{text}");
        }
    }
}
