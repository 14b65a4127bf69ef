//! Version negotiation between a host and a plugin.

use crate::abi::{PJ_ABI_MAJOR, PJ_ABI_MINOR};

/// Versions as the two sides state them in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PluginVersions {
    /// ABI major that the plugin was built for.
    pub abi_major: u32,
    /// ABI minor that the plugin was built for.
    pub abi_minor: u32,
    /// Oldest host minor that the plugin works with.
    pub min_host_minor: u32,
}

/// Why a plugin and a host do not fit; both versions are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Another major.
    #[error("the plugin speaks ABI {plugin}, this host speaks ABI {host}: install a build of the plugin for ABI {host}", host = PJ_ABI_MAJOR)]
    Major {
        /// The plugin's major.
        plugin: u32,
    },
    /// The plugin needs services that this host does not have yet.
    #[error("the plugin needs a host of ABI {major}.{needed} or newer, this host is {major}.{host}: update the host or install an older version of the plugin", major = PJ_ABI_MAJOR)]
    HostTooOld {
        /// Host minor that the plugin asks for.
        needed: u32,
        /// Host minor.
        host: u32,
    },
}

/// Decides whether a plugin may be used by a host of minor `host_minor`, and which minor both then speak.
///
/// The rule: equal majors, and `min_host_minor` is not above the host's minor. The plugin's own minor may be older or
/// newer; fields that one side does not know are simply absent.
///
/// # Errors
/// The rule is not met.
pub fn negotiate(plugin: PluginVersions, host_minor: u32) -> Result<u32, VersionError> {
    if plugin.abi_major != PJ_ABI_MAJOR {
        return Err(VersionError::Major { plugin: plugin.abi_major });
    }
    if plugin.min_host_minor > host_minor {
        return Err(VersionError::HostTooOld { needed: plugin.min_host_minor, host: host_minor });
    }
    Ok(plugin.abi_minor.min(host_minor))
}

/// This crate's own ABI version as `major.minor`.
#[must_use]
pub fn abi_version() -> semver::Version {
    semver::Version::new(u64::from(PJ_ABI_MAJOR), u64::from(PJ_ABI_MINOR), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_versions() {
        let v =
            |abi_major, abi_minor, min_host_minor| PluginVersions { abi_major, abi_minor, min_host_minor };
        assert_eq!(negotiate(v(1, 0, 0), 0), Ok(0));
        assert_eq!(negotiate(v(1, 0, 0), 5), Ok(0), "an older plugin loads");
        assert_eq!(negotiate(v(1, 7, 0), 5), Ok(5), "a newer plugin that is content with this host loads");
        assert_eq!(negotiate(v(1, 7, 6), 5), Err(VersionError::HostTooOld { needed: 6, host: 5 }));
        assert_eq!(negotiate(v(99, 0, 0), 5), Err(VersionError::Major { plugin: 99 }));
    }
}
