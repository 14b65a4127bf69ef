//! Installing plugins from registries: which release this machine can use, the gates that it has to pass, and what becomes
//! active in the end.
//!
//! `pajamas-registry` finds, verifies and stores; nothing of a plugin runs there. The [`gates`] are where its code runs for
//! the first time, in processes that are confined to the plugin's own folder. Everything here blocks.

mod choose;
mod error;
mod gates;
mod permissions;

use std::path::Path;
use std::time::{Duration, Instant};

use pajamas_registry::source::{FolderSource, HttpOptions, HttpSource, Source};
use pajamas_registry::{
    Catalog, Installed, LockedStore, Origin, Registry, RegistryConfig, Release, Step, Store, System,
};
use semver::VersionReq;

pub use choose::{Choice, choose, recommend};
pub use error::InstallError;
pub use gates::{Gate, GateOutcome, GateReport};
pub use permissions::{granted_to, list as list_permissions};

use crate::config::Config;
use crate::hardware::Hardware;
use crate::plugins::discover;
use crate::plugins::select::cannot_run;
use gates::{Gates, Verdict};

/// How long a swap waits for an installation, before what serves is found again only until the next start.
const KEEP_WAIT: Duration = Duration::from_secs(5);
/// How long another installation in the same plugins folder is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// What is to be installed.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The plugin.
    pub name: String,
    /// Its version; `*` for the newest.
    pub version: VersionReq,
    /// Its variant, instead of the one that fits this machine best.
    pub variant: Option<String>,
}

/// Told what is being done.
pub type Progress<'a> = &'a mut dyn FnMut(&Release, Step);

/// Installs plugins into the plugins folder of a configuration.
#[derive(Debug)]
pub struct Installer<'a> {
    config: &'a Config,
    hardware: &'a Hardware,
    store: Store,
}

impl<'a> Installer<'a> {
    /// For this machine and the configuration's plugins folder, which is created if needed.
    ///
    /// # Errors
    /// The folder cannot be used, or others may write to it.
    pub fn new(config: &'a Config, hardware: &'a Hardware) -> Result<Self, InstallError> {
        let store = Store::open(&config.plugins_dir, System::default())?;
        Ok(Self { config, hardware, store })
    }

    /// The plugins folder.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The configured registries, or the one of this name. Nothing is fetched.
    ///
    /// # Errors
    /// There is none, or none of this name; or its address or folders cannot be used.
    pub fn registries(&self, only: Option<&str>) -> Result<Vec<Registry>, InstallError> {
        let configured = &self.config.registries;
        if let Some(name) = only.filter(|name| !configured.contains_key(*name)) {
            let known = configured.keys().cloned().collect();
            return Err(InstallError::UnknownRegistry { name: name.to_owned(), known });
        }
        if configured.is_empty() {
            return Err(InstallError::NoRegistry);
        }
        let state_dir = self.config.state_dir.as_ref().ok_or(InstallError::NoState)?;
        let registries = configured.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
        let open = |(name, registry): (&String, &crate::config::RegistryConfig)| {
            let cache_dir = self.config.cache_dir.join("packages");
            let config =
                RegistryConfig::new(name, registry.key.clone(), state_dir.join("registries"), cache_dir);
            Ok(Registry::open(source(&registry.location)?, config)?)
        };
        registries.map(open).collect()
    }

    /// The release of the wanted plugin that suits this machine best, from the first of the catalogs that has the plugin.
    ///
    /// # Errors
    /// No catalog has it, or no release of it fits this machine, with the reason for each.
    pub fn find<'c>(
        &self,
        catalogs: &'c [Catalog<'c>],
        wanted: &Wanted,
    ) -> Result<(&'c Catalog<'c>, Release), InstallError> {
        let mut missing = None;
        for catalog in catalogs {
            match catalog.resolve(&wanted.name, &wanted.version) {
                Ok(releases) => {
                    let release = choose(releases, wanted.variant.as_deref(), self.hardware)?;
                    return Ok((catalog, release));
                }
                Err(error @ pajamas_registry::RegistryError::NoPlugin { .. }) => {
                    missing.get_or_insert(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(missing.map_or(InstallError::NoRegistry, InstallError::from))
    }

    /// Installs a release: fetches it, puts it in its place, lets it pass the gates, makes it active. A host that runs
    /// changes to it when it is told to, or by itself when it watches.
    ///
    /// # Errors
    /// See [`InstallError`]. The version that was active still is, and what was staged is gone.
    pub fn install(
        &self,
        catalog: &Catalog<'_>,
        release: &Release,
        grant: bool,
        progress: Progress<'_>,
    ) -> Result<GateReport, InstallError> {
        let manifest = release.manifest();
        let mut report = GateReport::new(manifest);
        report.passed(
            "signature",
            Instant::now(),
            format!("publisher {}, key {}", manifest.publisher, release.key()),
        );
        let begun = Instant::now();
        if let Some(problem) = cannot_run(manifest, self.hardware) {
            report.failed("constraints", begun, problem);
            return Err(InstallError::Gate(report));
        }
        report.passed("constraints", begun, "this machine has what it needs".to_owned());
        let granted = permissions::decide(manifest, grant)?;
        let archive = catalog.fetch(release, &mut |step| progress(release, step))?;
        let store = self.store.lock(LOCK_WAIT)?;
        let begun = Instant::now();
        let staged = store.stage(&archive, release, &mut |step| progress(release, step))?;
        report.passed("unpack", begun, format!("{} files verified", manifest.files.len()));
        let gates =
            Gates { config: self.config, dir: &staged.dir, manifest: &staged.manifest, granted: &granted };
        let verdict = gates.run(&mut report);
        if !matches!(verdict, Ok(Verdict::Passed))
            && let Err(error) = store.discard(&staged)
        {
            tracing::warn!("what was staged stays behind: {}", crate::error_chain(&error));
        }
        match verdict? {
            Verdict::Passed => {}
            Verdict::NoDevice => return Err(InstallError::NoDevice(report)),
            Verdict::Failed => return Err(InstallError::Gate(report)),
        }
        let begun = Instant::now();
        store.activate(&staged, &granted, &mut |step| progress(release, step))?;
        report.passed("activate", begun, staged.dir.display().to_string());
        sweep(&store);
        Ok(report)
    }

    /// Goes back to the version before. The folder of the version that is active then.
    ///
    /// # Errors
    /// There is none, or the folder cannot be changed.
    pub fn rollback(&self, name: &str) -> Result<String, InstallError> {
        Ok(self.store.lock(LOCK_WAIT)?.rollback(name, &mut |_| {})?)
    }

    /// Removes a plugin with all of its versions.
    ///
    /// # Errors
    /// It is not installed, or not by a registry, or cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), InstallError> {
        Ok(self.store.lock(LOCK_WAIT)?.remove(name)?)
    }
}

/// Lets the next start find the version in `dir`, which serves now. Where a registry installed it, the one before becomes the
/// one that a roll-back goes to.
///
/// # Errors
/// The plugins folder cannot be changed.
pub fn keep_active(plugins_dir: &Path, dir: &Path) -> Result<(), InstallError> {
    let installed = Installed::read(dir)?;
    let folder = dir.file_name().and_then(|name| name.to_str());
    let (Origin::Signed { .. }, Some(folder)) = (&installed.origin, folder) else {
        return discover::activate(dir).map_err(InstallError::Pointer);
    };
    let store = Store::open(plugins_dir, System::default())?;
    Ok(store.lock(KEEP_WAIT)?.choose(&installed.manifest.name, folder)?)
}

/// Versions that are neither active nor previous are not needed any more; that they stay is no reason to fail.
fn sweep(store: &LockedStore<'_>) {
    if let Err(error) = store.sweep() {
        tracing::warn!("old versions could not be removed: {}", crate::error_chain(&error));
    }
}

/// The files of the registry at this address.
fn source(location: &str) -> Result<Box<dyn Source>, InstallError> {
    if location.contains("://") {
        return Ok(Box::new(HttpSource::new(location, HttpOptions::default())?));
    }
    Ok(Box::new(FolderSource::new(Path::new(location))))
}
