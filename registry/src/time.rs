//! Moments, as the registry's files write them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// A moment in whole seconds, written as RFC 3339 in UTC: `2026-11-29T16:34:23Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(u64);

/// Text that is not a moment.
#[derive(Debug, thiserror::Error)]
#[error("\"{text}\" is not a time: expected one such as 2026-11-29T16:34:23Z")]
pub struct TimestampError {
    /// The text, cut off after 80 characters.
    pub text: String,
    /// Why.
    pub source: humantime::TimestampError,
}

/// The last second that RFC 3339 can write: the end of the year 9999.
const SECONDS_MAX: u64 = 253_402_300_799;

impl Timestamp {
    /// Now, by the system's clock.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// The moment `duration` after this one; at most the end of the year 9999.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()).min(SECONDS_MAX))
    }
}

/// A clock before 1970 counts as 1970, and one after 9999 as the end of 9999.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(since.as_secs().min(SECONDS_MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.0);
        humantime::format_rfc3339_seconds(time).fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        humantime::parse_rfc3339(text)
            .map(Self::from)
            .map_err(|source| TimestampError { text: text.chars().take(80).collect(), source })
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;

    fn try_from(text: String) -> Result<Self, TimestampError> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        let time: Timestamp = "2026-11-29T16:34:23Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-29T16:34:23Z");
        assert_eq!(time.after(Duration::from_secs(60)).to_string(), "2026-11-29T16:35:23Z");
        assert_eq!(time.after(Duration::MAX).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Timestamp::from(SystemTime::UNIX_EPOCH - Duration::from_secs(9)).0, 0);
        assert!("tomorrow".parse::<Timestamp>().unwrap_err().to_string().contains("\"tomorrow\""));
    }
}
