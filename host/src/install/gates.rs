//! What a new version has to pass before it becomes active: its code runs here for the first time, in processes that end
//! with each test and are confined as its workers will be.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use pajamas_conformance::{Outcome, Report, Subject, find_case, run_one};
use pajamas_plugin_api::Manifest;
use pajamas_plugin_api::manifest::Permissions;
use serde::Serialize;

use super::error::InstallError;
use crate::config::Config;
use crate::models::Catalog;
use crate::plugins::confine;

/// The case that is skipped, with the plugin's reason, where no device is for it.
const FINDS_DEVICE: &str = "finds-device";

/// The cases of the conformance suite that a new version has to pass, with their gates: the handshake and the plugin's own
/// probe, then how it deals with what hosts of other versions and users do. The whole suite, which takes minutes for some
/// engines, is the publisher's.
const CASES: [(&str, &str); 10] = [
    ("handshake", "handshake"),
    ("handshake", "manifest-agrees"),
    ("probe", "probe"),
    ("probe", FINDS_DEVICE),
    ("conformance", "larger-structs"),
    ("conformance", "smaller-structs"),
    ("conformance", "inspect-missing-file"),
    ("conformance", "load-missing-file"),
    ("conformance", "unload-and-shutdown"),
    ("self_test", "self-tests"),
];

/// How an installation went, gate by gate.
#[derive(Clone, Debug, Serialize)]
pub struct GateReport {
    /// The plugin.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// Its variant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The gates, in order; after one that failed there are no others.
    pub gates: Vec<Gate>,
}

/// One gate.
#[derive(Clone, Debug, Serialize)]
pub struct Gate {
    /// `signature`, `constraints`, `unpack`, `handshake`, `probe`, `conformance`, `self_test` or `activate`.
    pub gate: &'static str,
    /// How it went.
    pub outcome: GateOutcome,
    /// What was found.
    pub detail: String,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// How a gate went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GateOutcome {
    /// Well.
    Passed,
    /// There was nothing to try it with.
    Skipped,
    /// Badly.
    Failed,
}

impl GateReport {
    pub(super) fn new(manifest: &Manifest) -> Self {
        Self {
            plugin: manifest.name.clone(),
            version: manifest.version.to_string(),
            variant: manifest.variant.clone(),
            gates: Vec::new(),
        }
    }

    pub(super) fn passed(&mut self, gate: &'static str, begun: Instant, detail: String) {
        self.add(gate, GateOutcome::Passed, begun, detail);
    }

    pub(super) fn failed(&mut self, gate: &'static str, begun: Instant, detail: String) {
        self.add(gate, GateOutcome::Failed, begun, detail);
    }

    fn add(&mut self, gate: &'static str, outcome: GateOutcome, begun: Instant, detail: String) {
        let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.gates.push(Gate { gate, outcome, detail, elapsed_ms });
    }

    /// The gate that failed.
    #[must_use]
    pub fn failure(&self) -> Option<&Gate> {
        self.gates.iter().find(|gate| gate.outcome == GateOutcome::Failed)
    }

    /// In one sentence, why it was not installed.
    pub(super) fn problem(&self) -> String {
        let (gate, detail) = self.failure().map_or(("", ""), |gate| (gate.gate, gate.detail.as_str()));
        format!("{} {} was not installed, its gate \"{gate}\" failed: {detail}", self.plugin, self.version)
    }
}

/// How the gates ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All were passed.
    Passed,
    /// The plugin works, but this machine has no device for it.
    NoDevice,
    /// One was not passed.
    Failed,
}

/// What is tried out.
pub(super) struct Gates<'a> {
    pub(super) config: &'a Config,
    /// The version's folder.
    pub(super) dir: &'a Path,
    pub(super) manifest: &'a Manifest,
    pub(super) granted: &'a Permissions,
}

impl Gates<'_> {
    /// Runs the gates up to the first that fails.
    ///
    /// # Errors
    /// This program's own file is not found.
    pub(super) fn run(&self, report: &mut GateReport) -> Result<Verdict, InstallError> {
        let model = self.model();
        let mut subject = Subject::of(self.dir, self.manifest.clone());
        subject.model = model.first().cloned();
        if let Some(plugin) = self.config.plugins.get(&self.manifest.name) {
            subject.load_options.extend(plugin.options.clone());
        }
        let host = std::env::current_exe().map_err(InstallError::Executable)?;
        for group in CASES.chunk_by(|one, next| one.0 == next.0) {
            let begun = Instant::now();
            let mut skipped = Vec::new();
            for (gate, name) in group {
                let Some(case) = find_case(name) else { continue };
                let Report { outcome, output, .. } =
                    run_one(self.command(&host, &model, name), &subject, case);
                match outcome {
                    Outcome::Passed => {}
                    Outcome::Skipped(reason) if *name == FINDS_DEVICE => {
                        report.failed(gate, begun, reason);
                        return Ok(Verdict::NoDevice);
                    }
                    Outcome::Skipped(reason) => skipped.push(reason),
                    Outcome::Failed(reason) | Outcome::Crashed(reason) => {
                        report.failed(gate, begun, explain(&reason, &output));
                        return Ok(Verdict::Failed);
                    }
                }
            }
            let gate = group[0].0;
            if skipped.len() == group.len() {
                report.add(gate, GateOutcome::Skipped, begun, skipped.join("; "));
            } else {
                let passed = format!("{} of {} cases", group.len() - skipped.len(), group.len());
                let warning =
                    if confine::is_available() { "" } else { "; NOT confined, the kernel lacks Landlock" };
                report.passed(gate, begun, format!("{passed}{warning}"));
            }
        }
        Ok(Verdict::Passed)
    }

    /// The files of a model to try it with, the one to load first: its own, or the smallest of the operator's that it reads.
    fn model(&self) -> Vec<PathBuf> {
        let own = self.manifest.self_test.iter().find_map(|test| test.model.as_ref());
        if let Some(own) = own {
            return vec![self.dir.join(own)];
        }
        let formats = &self.manifest.formats;
        let catalog = Catalog::scan_quietly(&self.config.models_dirs, formats);
        let readable = catalog.models.into_iter().filter(|model| {
            let pinned_elsewhere = model.plugin_pin.as_ref().is_some_and(|pin| *pin != self.manifest.name);
            formats.contains(&model.format) && !pinned_elsewhere
        });
        let Some(model) = readable.min_by_key(|model| model.size_bytes) else { return Vec::new() };
        // Links are allowed, wherever they lead: the operator made them.
        let files = model.files.iter().filter_map(|file| file.canonicalize().ok());
        std::iter::once(model.path.clone()).chain(files).collect()
    }

    /// A process for one case that may read the plugin, its model and what was granted, and write temporary files.
    fn command(&self, host: &Path, model: &[PathBuf], case: &str) -> Command {
        let mut command = Command::new(host);
        command.args(["check-case", case, "--confined", "--read"]).arg(self.dir);
        let granted = self.granted;
        for path in model.iter().chain(&granted.read) {
            command.arg("--read").arg(path);
        }
        granted.write.iter().for_each(|path| _ = command.arg("--write").arg(path));
        if granted.network {
            command.arg("--network");
        }
        command.envs(self.manifest.environment.iter().filter(|(name, _)| std::env::var_os(name).is_none()));
        command
    }
}

/// The reason, and the last thing that the plugin said.
fn explain(reason: &str, output: &[String]) -> String {
    match output.last() {
        Some(last) => format!("{reason} (it said: {last})"),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gate_names_a_case_that_exists() {
        for (_, case) in CASES {
            assert!(find_case(case).is_some(), "{case}");
        }
    }
}
