//! Selection: which plugins can serve a model on this machine, best first, and why not the others. A pure function.

use pajamas_plugin_api::manifest::Target;
use pajamas_plugin_api::{Accel, Manifest, Task};

/// What is known of the machine without running a plugin.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// As in `std::env::consts::OS`.
    pub os: String,
    /// As in `std::env::consts::ARCH`.
    pub arch: String,
    /// CPU features, as the Rust compiler names them.
    pub cpu_features: Vec<String>,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn detect() -> Self {
        Self {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            cpu_features: cpu_features(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<String> {
    macro_rules! present {
        ($($name:tt),*) => {
            [$(($name, std::arch::is_x86_feature_detected!($name))),*]
        };
    }
    present!(
        "sse4.1",
        "sse4.2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "bmi1",
        "bmi2",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512vnni",
        "avx512bf16",
        "avxvnni"
    )
    .into_iter()
    .filter(|(_, present)| *present)
    .map(|(name, _)| name.to_owned())
    .collect()
}

#[cfg(target_arch = "aarch64")]
fn cpu_features() -> Vec<String> {
    macro_rules! present {
        ($($name:tt),*) => {
            [$(($name, std::arch::is_aarch64_feature_detected!($name))),*]
        };
    }
    present!("neon", "dotprod", "fp16", "i8mm", "bf16", "sve", "sve2")
        .into_iter()
        .filter(|(_, present)| *present)
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> Vec<String> {
    Vec::new()
}

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
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The plugin.
    pub plugin: String,
    /// `Ok` with the reason for its place, `Err` with the reason for its rejection.
    pub outcome: Result<String, String>,
}

/// Ranks the candidates: those that fit come first, best first; the others follow with the reason.
#[must_use]
pub fn select(wanted: Wanted<'_>, candidates: &[Candidate<'_>], machine: &Machine) -> Vec<Verdict> {
    let mut fitting = Vec::new();
    let mut rejected = Vec::new();
    for candidate in candidates {
        let name = candidate.manifest.name.clone();
        match reject(wanted, *candidate, machine) {
            Some(reason) => rejected.push(Verdict { plugin: name, outcome: Err(reason) }),
            None => fitting.push(candidate),
        }
    }
    // Accelerators before the CPU, then the publisher's priority, then the name, so that the order is stable.
    fitting.sort_by_key(|c| (is_cpu(c.manifest), -c.manifest.priority, c.manifest.name.clone()));
    let ranked = fitting.into_iter().map(|candidate| {
        let manifest = candidate.manifest;
        let device = if is_cpu(manifest) { "cpu" } else { "accelerator" };
        let pinned = if wanted.pin.is_some() { ", named for this model" } else { "" };
        Verdict {
            plugin: manifest.name.clone(),
            outcome: Ok(format!("{device}, priority {}{pinned}", manifest.priority)),
        }
    });
    ranked.chain(rejected).collect()
}

fn is_cpu(manifest: &Manifest) -> bool {
    manifest.accel.as_ref().is_none_or(|accel| accel.api == Accel::Cpu)
}

fn reject(wanted: Wanted<'_>, candidate: Candidate<'_>, machine: &Machine) -> Option<String> {
    let manifest = candidate.manifest;
    if let Some(pin) = wanted.pin
        && pin != manifest.name
    {
        return Some(format!("the model is pinned to plugin {pin}"));
    }
    if !manifest.formats.iter().any(|format| format == wanted.format) {
        return Some(format!("it reads {}, not {}", list(&manifest.formats), wanted.format));
    }
    if let Some(missing) = wanted.tasks.iter().find(|task| !manifest.tasks.contains(task)) {
        return Some(format!("it does not offer the task {missing}"));
    }
    target_problem(&manifest.target, machine).or_else(|| match candidate.probe {
        ProbeState::Unusable(reason) => Some(reason.clone()),
        ProbeState::Unknown | ProbeState::Usable => None,
    })
}

/// Why a plugin for `target` cannot run on this machine, if it cannot. Checked before any of its code runs.
#[must_use]
pub fn target_problem(target: &Target, machine: &Machine) -> Option<String> {
    let allows = |allowed: &[String], value: &String| allowed.is_empty() || allowed.contains(value);
    if !allows(&target.os, &machine.os) {
        return Some(format!("it is built for {}, this is {}", list(&target.os), machine.os));
    }
    if !allows(&target.arch, &machine.arch) {
        return Some(format!("it is built for {}, this is {}", list(&target.arch), machine.arch));
    }
    let missing: Vec<&str> = target
        .cpu_features
        .iter()
        .filter(|feature| !machine.cpu_features.contains(feature))
        .map(String::as_str)
        .collect();
    if missing.is_empty() { None } else { Some(format!("this CPU lacks {}", missing.join(", "))) }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn manifest(name: &str, extra: &str) -> Manifest {
        let text = format!(
            "name = \"{name}\"\nversion = \"1.0.0\"\npublisher = \"p\"\nlicense = \"MIT\"\ndescription = \"d\"\n\
             abi = \">=1.0, <2\"\nentry = \"lib/x\"\n{extra}"
        );
        Manifest::parse(&text, Path::new("plugin.toml")).unwrap()
    }

    fn machine() -> Machine {
        Machine { os: "linux".into(), arch: "x86_64".into(), cpu_features: vec!["avx2".into()] }
    }

    fn wanted(format: &str) -> Wanted<'_> {
        Wanted { format, tasks: &[], pin: None }
    }

    #[test]
    fn table_of_verdicts() {
        let gguf = manifest("gguf", "formats = [\"gguf\"]\npriority = 50\ntasks = [\"generate\"]");
        let slow = manifest("slow", "formats = [\"gguf\"]\npriority = 1");
        let cuda = manifest("cuda", "formats = [\"gguf\"]\n[accel]\napi = \"cuda\"");
        let onnx = manifest("onnx", "formats = [\"onnx\"]");
        let mac = manifest("mac", "formats = [\"gguf\"]\n[target]\nos = [\"macos\"]");
        let wide = manifest("wide", "formats = [\"gguf\"]\n[target]\ncpu_features = [\"avx2\", \"avx512f\"]");
        let (usable, broken) = (ProbeState::Usable, ProbeState::Unusable("no CUDA device".into()));
        let all = [&onnx, &slow, &gguf, &mac, &wide]
            .map(|manifest| Candidate { manifest, probe: &usable })
            .into_iter()
            .chain([Candidate { manifest: &cuda, probe: &broken }])
            .collect::<Vec<_>>();
        let show = |wanted| {
            select(wanted, &all, &machine())
                .into_iter()
                .map(|v| match v.outcome {
                    Ok(why) => format!("{}: yes, {why}", v.plugin),
                    Err(why) => format!("{}: no, {why}", v.plugin),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            show(wanted("gguf")),
            [
                "gguf: yes, cpu, priority 50",
                "slow: yes, cpu, priority 1",
                "onnx: no, it reads onnx, not gguf",
                "mac: no, it is built for macos, this is linux",
                "wide: no, this CPU lacks avx512f",
                "cuda: no, no CUDA device",
            ]
        );
        let pinned = show(Wanted { pin: Some("slow"), ..wanted("gguf") });
        assert_eq!(pinned[0], "slow: yes, cpu, priority 1, named for this model");
        assert_eq!(pinned[1], "onnx: no, the model is pinned to plugin slow");
        let tasks = [Task::Generate];
        assert_eq!(show(Wanted { tasks: &tasks, ..wanted("gguf") })[0], "gguf: yes, cpu, priority 50");
    }

    #[test]
    fn a_usable_accelerator_goes_before_the_cpu() {
        let gguf = manifest("gguf", "formats = [\"gguf\"]\npriority = 50");
        let cuda = manifest("cuda", "formats = [\"gguf\"]\n[accel]\napi = \"cuda\"");
        let usable = ProbeState::Usable;
        let all = [&gguf, &cuda].map(|manifest| Candidate { manifest, probe: &usable });
        assert_eq!(select(wanted("gguf"), &all, &machine())[0].plugin, "cuda");
    }
}
