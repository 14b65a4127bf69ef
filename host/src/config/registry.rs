//! A registry of plugins, as the operator names it.

use pajamas_plugin_api::manifest::is_name;
use pajamas_registry::PublicKey;
use serde::Deserialize;

/// Where a registry is, and the key that what it offers is verified by.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// A folder, or the URL of one on a web server.
    pub location: String,
    /// Its root key, the second line of a minisign `.pub` file.
    pub key: PublicKey,
}

/// Name of a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct RegistryName(pub String);

impl TryFrom<String> for RegistryName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if is_name(&name) {
            return Ok(Self(name));
        }
        Err(format!(
            "\"{name}\" cannot name a registry: 1 to 64 lower-case letters, digits and hyphens are expected"
        ))
    }
}
