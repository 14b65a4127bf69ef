//! Which release of a plugin suits this machine, and which plugins it should have. Pure functions.

use pajamas_plugin_api::{Accel, Manifest};
use pajamas_registry::{Index, Release, title};

use super::error::InstallError;
use crate::hardware::Hardware;
use crate::plugins::select::cannot_run;

/// What is recommended of one plugin.
#[derive(Debug)]
pub struct Choice {
    /// The plugin.
    pub name: String,
    /// The release that suits this machine best, if any does.
    pub release: Option<Release>,
    /// Why it is that one, or why there is none: one sentence for each release that was looked at.
    pub reasons: Vec<String>,
}

/// The release that suits this machine best: the newest version that has a variant for it, of its variants one for an
/// accelerator before one for the CPU, and then the one with the highest priority. A variant that is named is taken as it is,
/// if this machine can run it.
///
/// # Errors
/// None fits, with the reason for each.
pub fn choose(
    releases: Vec<Release>,
    variant: Option<&str>,
    hardware: &Hardware,
) -> Result<Release, InstallError> {
    let name = releases.first().map(|release| release.manifest().name.clone()).unwrap_or_default();
    let known: Vec<String> =
        releases.iter().filter_map(|release| release.manifest().variant.clone()).collect();
    let wanted = |release: &Release| {
        variant.is_none_or(|variant| release.manifest().variant.as_deref() == Some(variant))
    };
    let releases: Vec<Release> = releases.into_iter().filter(wanted).collect();
    if releases.is_empty() {
        let variant = variant.unwrap_or_default().to_owned();
        return Err(InstallError::UnknownVariant { name, variant, known });
    }
    let (best, reasons) = best(releases, hardware);
    best.ok_or(InstallError::Unfit { name, reasons })
}

/// What this machine should have of what a registry offers: of each plugin the release that suits it best.
#[must_use]
pub fn recommend(offered: Vec<(String, Index)>, hardware: &Hardware) -> Vec<Choice> {
    let choice = |(name, index): (String, Index)| {
        let rejected = index.rejected.iter().map(|rejected| {
            let what = rejected.release.as_ref().map_or_else(|| "a release".to_owned(), title);
            format!("{what}: {}", rejected.reason)
        });
        let mut reasons: Vec<String> = rejected.collect();
        let (release, more) = best(index.releases, hardware);
        reasons.extend(more);
        Choice { name, release, reasons }
    };
    offered.into_iter().map(choice).collect()
}

/// The best release, and what speaks for it or against the others of its version and of newer ones.
fn best(releases: Vec<Release>, hardware: &Hardware) -> (Option<Release>, Vec<String>) {
    let mut reasons = Vec::new();
    let mut fitting: Vec<Release> = Vec::new();
    for release in releases {
        let manifest = release.manifest();
        // Releases are sorted by version: what fits is not looked for in older ones.
        if fitting.first().is_some_and(|found| found.manifest().version != manifest.version) {
            break;
        }
        match cannot_run(manifest, hardware) {
            Some(problem) => reasons.push(format!("{}: {problem}", title(manifest))),
            None => fitting.push(release),
        }
    }
    let rank = |release: &Release| {
        let manifest = release.manifest();
        let is_cpu = manifest.accel.as_ref().is_none_or(|needs| needs.api == Accel::Cpu);
        (is_cpu, -manifest.priority)
    };
    let best = fitting.into_iter().min_by_key(rank);
    if let Some(best) = &best {
        reasons.insert(0, format!("{}: {}", title(best.manifest()), merit(best.manifest(), hardware)));
    }
    (best, reasons)
}

/// Why a release suits this machine.
fn merit(manifest: &Manifest, hardware: &Hardware) -> String {
    match &manifest.accel {
        Some(needs) if needs.api != Accel::Cpu => {
            let gpus: Vec<&str> = hardware.gpus_for(needs.api).map(|gpu| gpu.name.as_str()).collect();
            format!("runs on {}", gpus.join(", "))
        }
        _ => "runs on the CPU".to_owned(),
    }
}
