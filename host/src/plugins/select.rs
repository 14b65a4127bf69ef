//! Selection: which plugins can serve a model on this machine, best first, and why not the others. A pure function.
//!
//! A plugin has to pass every [`Check`] in order; what passes is ranked by what the operator prefers, then accelerators
//! before the CPU, then the publisher's priority.

mod fit;

use pajamas_plugin_api::{Accel, Manifest, Task};
use serde::Serialize;

pub use fit::{cannot_run, unfit};

use crate::hardware::Hardware;

/// Why a plugin that the operator disabled is not used.
pub const DISABLED: &str = "it is disabled by selection.disabled of the configuration";

/// What the probe of a plugin has shown so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeState {
    /// Not finished.
    Unknown,
    /// It can run here.
    Usable,
    /// It cannot, for this reason.
    Unusable(String),
}

/// A plugin as selection sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The manifest.
    pub manifest: &'a Manifest,
    /// What the probe has shown.
    pub probe: &'a ProbeState,
}

/// What is to be served.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// File format, such as `gguf`.
    pub format: &'a str,
    /// Tasks that the operator named for the model; empty means any.
    pub tasks: &'a [Task],
    /// Plugin that the operator named for the model.
    pub pin: Option<&'a str>,
    /// Size of the model's files, which is the least that it takes of an accelerator's memory.
    pub size_bytes: u64,
}

/// What the operator prefers for all models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// Plugins that come before all others, best first.
    pub prefer: Vec<String>,
    /// Plugins that are never used.
    pub disabled: Vec<String>,
}

/// What a plugin has to pass, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// It is the one that the operator named for the model, if any is named.
    Pin,
    /// The operator has not disabled it.
    Disabled,
    /// It reads the model's format.
    Format,
    /// It offers the tasks that the operator named for the model.
    Task,
    /// It is built for this operating system and these processors.
    Target,
    /// There is a device of the kind that it needs.
    Device,
    /// One of these devices, and its driver, can do what the plugin needs.
    DeviceFeatures,
    /// The model fits into the memory of these devices.
    DeviceMemory,
    /// Its own probe found something to compute with.
    Probe,
}

/// Why a plugin is not used for a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// What it did not pass.
    pub check: Check,
    /// Why, in the user's words.
    pub reason: String,
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The plugin.
    pub plugin: String,
    /// What it computes on.
    pub accel: Accel,
    /// `Ok` with the reason for its place, `Err` with the reason for its rejection.
    pub outcome: Result<String, Rejection>,
}

/// Ranks the candidates: those that fit come first, best first; the others follow with the reason.
#[must_use]
pub fn select(
    wanted: Wanted<'_>,
    candidates: &[Candidate<'_>],
    hardware: &Hardware,
    preferences: &Preferences,
) -> Vec<Verdict> {
    let mut fitting = Vec::new();
    let mut rejected = Vec::new();
    for candidate in candidates {
        match reject(wanted, *candidate, hardware, preferences) {
            Some(rejection) => rejected.push(Verdict {
                plugin: candidate.manifest.name.clone(),
                accel: accel(candidate.manifest),
                outcome: Err(rejection),
            }),
            None => fitting.push(candidate.manifest),
        }
    }
    let preferred =
        |name: &String| preferences.prefer.iter().position(|other| other == name).unwrap_or(usize::MAX);
    // The name comes last, so that the order is stable.
    fitting.sort_by_key(|manifest| {
        let is_cpu = accel(manifest) == Accel::Cpu;
        (preferred(&manifest.name), is_cpu, -manifest.priority, manifest.name.clone())
    });
    let ranked = fitting.into_iter().map(|manifest| Verdict {
        plugin: manifest.name.clone(),
        accel: accel(manifest),
        outcome: Ok(merits(manifest, hardware, wanted, preferences)),
    });
    ranked.chain(rejected).collect()
}

/// The accelerator that would have served the model, had its plugin not been rejected: what a fall-back to the CPU is warned
/// about with. `None` when the best plugin is one for an accelerator, or the machine has none that a plugin is there for.
#[must_use]
pub fn fall_back(verdicts: &[Verdict]) -> Option<&Verdict> {
    let best = verdicts.first()?;
    if best.accel != Accel::Cpu || best.outcome.is_err() {
        return None;
    }
    verdicts.iter().find(|verdict| {
        let missed = verdict.outcome.as_ref().err().map(|rejection| rejection.check);
        verdict.accel != Accel::Cpu && missed.is_some_and(|check| check > Check::Device)
    })
}

/// What a plugin computes on; one that does not say computes on the CPU.
fn accel(manifest: &Manifest) -> Accel {
    manifest.accel.as_ref().map_or(Accel::Cpu, |needs| needs.api)
}

/// Why a plugin that fits has its place.
fn merits(manifest: &Manifest, hardware: &Hardware, wanted: Wanted<'_>, preferences: &Preferences) -> String {
    let device = match &manifest.accel {
        Some(needs) if needs.api != Accel::Cpu => {
            let names: Vec<&str> = fit::devices(needs, hardware).map(|gpu| gpu.name.as_str()).collect();
            if names.is_empty() { "accelerator".to_owned() } else { names.join(", ") }
        }
        _ => "cpu".to_owned(),
    };
    let mut merits = format!("{device}, priority {}", manifest.priority);
    if preferences.prefer.contains(&manifest.name) {
        merits.push_str(", preferred by the configuration");
    }
    if wanted.pin.is_some() {
        merits.push_str(", named for this model");
    }
    merits
}

fn reject(
    wanted: Wanted<'_>,
    candidate: Candidate<'_>,
    hardware: &Hardware,
    preferences: &Preferences,
) -> Option<Rejection> {
    let manifest = candidate.manifest;
    let no = |check, reason| Some(Rejection { check, reason });
    if let Some(pin) = wanted.pin
        && pin != manifest.name
    {
        return no(Check::Pin, format!("the model is pinned to plugin {pin}"));
    }
    if preferences.disabled.contains(&manifest.name) {
        return no(Check::Disabled, DISABLED.to_owned());
    }
    if !manifest.formats.iter().any(|format| format == wanted.format) {
        return no(
            Check::Format,
            format!("it reads {}, not {}", fit::list(&manifest.formats), wanted.format),
        );
    }
    if let Some(missing) = wanted.tasks.iter().find(|task| !manifest.tasks.contains(task)) {
        return no(Check::Task, format!("it does not offer the task {missing}"));
    }
    unfit(manifest, hardware).or_else(|| fit::too_large(manifest, hardware, wanted.size_bytes)).or_else(
        || match candidate.probe {
            ProbeState::Unusable(reason) => no(Check::Probe, reason.clone()),
            ProbeState::Unknown | ProbeState::Usable => None,
        },
    )
}

#[cfg(test)]
mod tests;
