//! What a plugin asks to be allowed, and what the operator granted it.

use pajamas_plugin_api::Manifest;
use pajamas_plugin_api::manifest::Permissions;
use pajamas_registry::{Installed, Origin, title};

use super::error::InstallError;
use crate::plugins::discover::FoundPlugin;

/// What is granted at an installation: all that the manifest asks for, or nothing.
///
/// # Errors
/// It asks for something, and nobody granted it.
pub(super) fn decide(manifest: &Manifest, grant: bool) -> Result<Permissions, InstallError> {
    let asked = list(&manifest.permissions);
    if grant || asked.is_empty() {
        return Ok(manifest.permissions.clone());
    }
    Err(InstallError::NotGranted { title: title(manifest), asked })
}

/// Permissions in the operator's words; empty for the default: its own folder and the models to read, its cache folder to
/// write, no network.
#[must_use]
pub fn list(permissions: &Permissions) -> Vec<String> {
    let network = permissions.network.then(|| "connect to other machines".to_owned());
    let read = permissions.read.iter().map(|path| format!("read {}", path.display()));
    let write = permissions.write.iter().map(|path| format!("write {}", path.display()));
    network.into_iter().chain(read).chain(write).collect()
}

/// What a plugin may do beyond the default: what was granted when a registry installed it, as far as its manifest asks for
/// that; what it asks for, if no registry installed it and the configuration grants it; nothing, if that cannot be read.
#[must_use]
pub fn granted_to(found: &FoundPlugin, grant: bool) -> Permissions {
    let asked = &found.manifest.permissions;
    match Installed::read(&found.dir) {
        Ok(Installed { origin: Origin::Unsigned, .. }) if grant => asked.clone(),
        Ok(Installed { origin: Origin::Signed { .. }, granted, .. }) => Permissions {
            network: granted.network && asked.network,
            read: granted.read.into_iter().filter(|path| asked.read.contains(path)).collect(),
            write: granted.write.into_iter().filter(|path| asked.write.contains(path)).collect(),
        },
        Ok(_) => Permissions::default(),
        Err(error) => {
            tracing::warn!(plugin = found.manifest.name, "no permissions: {}", crate::error_chain(&error));
            Permissions::default()
        }
    }
}
