//! Compute capabilities of NVIDIA GPUs, and what a plugin asks of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a GPU of NVIDIA's can execute: `9.0` is Hopper. Ordered: a higher one is newer, but need not run what was compiled
/// for a lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ComputeCapability {
    /// Before the dot.
    pub major: u16,
    /// Behind the dot.
    pub minor: u16,
}

/// Which compute capabilities a plugin runs on: `8.6` means that one alone, `>=12.0` that one and all newer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ComputeRule {
    /// This one.
    Exactly(ComputeCapability),
    /// This one or a newer one.
    AtLeast(ComputeCapability),
}

/// A text that is no compute capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no compute capability: expected two numbers with a dot between, such as 8.6, or >=12.0 for all newer ones too"
)]
pub struct ComputeError(String);

impl ComputeRule {
    /// Whether a GPU of this compute capability will do.
    #[must_use]
    pub fn allows(self, capability: ComputeCapability) -> bool {
        match self {
            Self::Exactly(wanted) => capability == wanted,
            Self::AtLeast(least) => capability >= least,
        }
    }
}

impl FromStr for ComputeCapability {
    type Err = ComputeError;

    fn from_str(text: &str) -> Result<Self, ComputeError> {
        let numbers = text.split_once('.').and_then(|(major, minor)| {
            let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
            let number = |part: &str| plain(part).then(|| part.parse().ok()).flatten();
            Some(Self { major: number(major)?, minor: number(minor)? })
        });
        numbers.ok_or_else(|| ComputeError(text.to_owned()))
    }
}

impl FromStr for ComputeRule {
    type Err = ComputeError;

    fn from_str(text: &str) -> Result<Self, ComputeError> {
        let rule = match text.strip_prefix(">=") {
            Some(least) => least.trim().parse().map(Self::AtLeast),
            None => text.parse().map(Self::Exactly),
        };
        rule.map_err(|_| ComputeError(text.to_owned()))
    }
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for ComputeRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(capability) => capability.fmt(formatter),
            Self::AtLeast(capability) => write!(formatter, ">={capability}"),
        }
    }
}

impl TryFrom<String> for ComputeCapability {
    type Error = ComputeError;

    fn try_from(text: String) -> Result<Self, ComputeError> {
        text.parse()
    }
}

impl TryFrom<String> for ComputeRule {
    type Error = ComputeError;

    fn try_from(text: String) -> Result<Self, ComputeError> {
        text.parse()
    }
}

impl From<ComputeCapability> for String {
    fn from(capability: ComputeCapability) -> Self {
        capability.to_string()
    }
}

impl From<ComputeRule> for String {
    fn from(rule: ComputeRule) -> Self {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_allows_one_or_all_newer_ones() {
        let table = [
            ("8.6", "8.6", true),
            ("8.6", "8.9", false),
            (">=12.0", "12.0", true),
            (">=12.0", "12.1", true),
            (">=12.0", "9.0", false),
            (">= 10.3", "10.3", true),
        ];
        for (rule, capability, allowed) in table {
            let parsed: ComputeRule = rule.parse().unwrap();
            assert_eq!(parsed.allows(capability.parse().unwrap()), allowed, "{rule} {capability}");
        }
        assert_eq!(">= 10.3".parse::<ComputeRule>().unwrap().to_string(), ">=10.3");
    }

    #[test]
    fn what_is_no_capability_is_refused_with_an_example() {
        for text in ["", "9", "9.", ".0", "9.0.1", "+9.0", "sm_90", ">=", ">9.0", "9.0a", "99999999.0"] {
            let error = text.parse::<ComputeRule>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("\"{text}\" is no compute capability")), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,20}") {
            let _ = text.parse::<ComputeRule>();
        }

        #[test]
        fn what_is_printed_is_read_again(major: u16, minor: u16, open: bool) {
            let capability = ComputeCapability { major, minor };
            let rule = if open { ComputeRule::AtLeast(capability) } else { ComputeRule::Exactly(capability) };
            proptest::prop_assert_eq!(rule.to_string().parse(), Ok(rule));
        }
    }
}
