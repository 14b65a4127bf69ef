//! Which plugin serves a model, and why not another one.

use std::path::PathBuf;
use std::sync::Arc;

use pajamas_plugin_api::Accel;
use serde::Serialize;

use super::Shared;
use super::error::EngineError;
use super::version::PluginVersion;
use crate::models::ModelSpec;
use crate::plugins::select::{Candidate, Check, ProbeState, Verdict, Wanted, fall_back, select};

/// What selection says of a model.
#[derive(Debug)]
pub(super) struct Choice {
    verdicts: Vec<Verdict>,
    plugins: Vec<Arc<PluginVersion>>,
}

/// Why a model is served by the plugin that serves it: the whole table of selection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The model's id.
    pub model: String,
    /// Its format.
    pub format: String,
    /// Its file or folder.
    pub path: PathBuf,
    /// The plugins, best first, then those that are not used.
    pub plugins: Vec<WhyPlugin>,
    /// What the operator should know: the model falls back to the CPU although there is an accelerator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WhyPlugin {
    /// The plugin.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it computes on.
    pub accel: Accel,
    /// 1 for the one that is tried first; `None` for one that is not used.
    pub place: Option<usize>,
    /// Why it has its place, or why it is not used.
    pub reason: String,
    /// What it did not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_check: Option<Check>,
}

/// Asks selection, after the probes of the plugins that could read the model.
pub(super) async fn choose(shared: &Shared, spec: &ModelSpec) -> Choice {
    let plugins = shared.pool.plugins();
    let mut probes = Vec::with_capacity(plugins.len());
    for plugin in &plugins {
        // The probe of a plugin for other formats or other models is not waited for: it is rejected without it.
        let pinned = spec.plugin_pin.as_ref().is_none_or(|pin| pin == plugin.name());
        let relevant = pinned && plugin.found.manifest.formats.contains(&spec.format);
        probes.push(if relevant { plugin.probe_state().await } else { ProbeState::Unknown });
    }
    let candidates: Vec<Candidate<'_>> = plugins
        .iter()
        .zip(&probes)
        .map(|(plugin, probe)| Candidate { manifest: &plugin.found.manifest, probe })
        .collect();
    let wanted = Wanted {
        format: &spec.format,
        tasks: spec.tasks_override.as_deref().unwrap_or_default(),
        pin: spec.plugin_pin.as_deref(),
        size_bytes: spec.size_bytes,
    };
    let hardware = shared.machine.hardware().await;
    let verdicts = select(wanted, &candidates, &hardware, shared.pool.preferences());
    Choice { verdicts, plugins }
}

impl Choice {
    /// The plugins that fit, best first.
    ///
    /// # Errors
    /// None fits.
    pub(super) fn fitting(&self, spec: &ModelSpec) -> Result<Vec<Arc<PluginVersion>>, EngineError> {
        self.passing(spec, |verdict| verdict.outcome.is_ok())
    }

    /// The plugins that can tell what is in the model's files, best first: those that fit, then those that only lack a
    /// device here.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn inspecting(&self, spec: &ModelSpec) -> Result<Vec<Arc<PluginVersion>>, EngineError> {
        self.passing(spec, |verdict| {
            verdict.outcome.as_ref().err().is_none_or(|rejection| rejection.check >= Check::Device)
        })
    }

    fn passing(
        &self,
        spec: &ModelSpec,
        passes: impl Fn(&&Verdict) -> bool,
    ) -> Result<Vec<Arc<PluginVersion>>, EngineError> {
        let passing: Vec<_> = self
            .verdicts
            .iter()
            .filter(passes)
            .filter_map(|verdict| self.plugin(&verdict.plugin).cloned())
            .collect();
        if !passing.is_empty() {
            return Ok(passing);
        }
        let reason = |verdict: &Verdict| {
            verdict
                .outcome
                .as_ref()
                .err()
                .map(|rejection| format!("{}: {}", verdict.plugin, rejection.reason))
        };
        let reasons: Vec<String> = self.verdicts.iter().filter_map(reason).collect();
        Err(EngineError::NoPlugin { model: spec.id.clone(), reasons: reasons.join("; ") })
    }

    /// What to say when the best plugin is one for the CPU although the machine has an accelerator that one is there for.
    pub(super) fn warning(&self) -> Option<String> {
        let missed = fall_back(&self.verdicts)?;
        let reason = missed.outcome.as_ref().err().map(|rejection| rejection.reason.as_str())?;
        Some(format!("the model runs on the CPU, because plugin {} is not used: {reason}", missed.plugin))
    }

    /// The whole table.
    pub(super) fn why(&self, spec: &ModelSpec) -> Why {
        let line = |(index, verdict): (usize, &Verdict)| {
            let (place, reason, failed_check) = match &verdict.outcome {
                Ok(merits) => (Some(index + 1), merits.clone(), None),
                Err(rejection) => (None, rejection.reason.clone(), Some(rejection.check)),
            };
            WhyPlugin {
                name: verdict.plugin.clone(),
                version: self.plugin(&verdict.plugin).map(|plugin| plugin.number()).unwrap_or_default(),
                accel: verdict.accel,
                place,
                reason,
                failed_check,
            }
        };
        Why {
            model: spec.id.clone(),
            format: spec.format.clone(),
            path: spec.path.clone(),
            plugins: self.verdicts.iter().enumerate().map(line).collect(),
            warning: self.warning(),
        }
    }

    fn plugin(&self, name: &str) -> Option<&Arc<PluginVersion>> {
        self.plugins.iter().find(|plugin| plugin.name() == name)
    }
}
