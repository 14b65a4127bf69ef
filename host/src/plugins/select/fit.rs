//! Whether a plugin fits this machine, going by its manifest: before any of its code runs.

use pajamas_plugin_api::manifest::{AccelNeeds, Target};
use pajamas_plugin_api::version::abi_version;
use pajamas_plugin_api::{Accel, Manifest};

use super::{Check, Rejection};
use crate::hardware::{Gpu, Hardware, cuda_version, is_at_least};

/// Bytes of the unit of `vram_min_mb`.
const MIB: u64 = 1024 * 1024;

/// Why a plugin cannot run in this host on this machine, if it cannot, in a sentence.
#[must_use]
pub fn cannot_run(manifest: &Manifest, hardware: &Hardware) -> Option<String> {
    let ours = abi_version();
    if !manifest.abi.matches(&ours) {
        return Some(format!("it is for hosts of ABI {}, this host speaks {ours}", manifest.abi));
    }
    unfit(manifest, hardware).map(|rejection| rejection.reason)
}

/// Why a plugin cannot run on this machine, if it cannot.
#[must_use]
pub fn unfit(manifest: &Manifest, hardware: &Hardware) -> Option<Rejection> {
    target_problem(&manifest.target, hardware)
        .map(|reason| Rejection { check: Check::Target, reason })
        .or_else(|| device_problem(manifest.accel.as_ref()?, hardware))
}

/// Why a model of this size cannot be served by a plugin for an accelerator, if it cannot. The machine's own memory is
/// watched by the budget of the engine.
pub(super) fn too_large(manifest: &Manifest, hardware: &Hardware, size_bytes: u64) -> Option<Rejection> {
    let needs = manifest.accel.as_ref().filter(|needs| needs.api != Accel::Cpu)?;
    let mut devices = devices(needs, hardware).peekable();
    devices.peek()?;
    // A device whose memory is not known may be large enough.
    let total_bytes: u64 = devices.map(|gpu| gpu.memory_total_bytes).sum::<Option<u64>>()?;
    (size_bytes > total_bytes).then(|| Rejection {
        check: Check::DeviceMemory,
        reason: format!(
            "the model's files have {}, the GPUs that it can use have {} together",
            gib(size_bytes),
            gib(total_bytes)
        ),
    })
}

/// The devices that a plugin can use, going by its manifest.
pub(super) fn devices<'a>(needs: &'a AccelNeeds, hardware: &'a Hardware) -> impl Iterator<Item = &'a Gpu> {
    hardware.gpus_for(needs.api).filter(|gpu| gpu_problem(needs, gpu).is_none())
}

fn target_problem(target: &Target, hardware: &Hardware) -> Option<String> {
    let allows = |allowed: &[String], value: &String| allowed.is_empty() || allowed.contains(value);
    if !allows(&target.os, &hardware.os) {
        return Some(format!("it is built for {}, this is {}", list(&target.os), hardware.os));
    }
    if !allows(&target.arch, &hardware.arch) {
        return Some(format!("it is built for {}, this is {}", list(&target.arch), hardware.arch));
    }
    let too_old = |least: &Option<String>, have: &Option<String>| {
        let (least, have) = (least.clone()?, have.clone()?);
        (!is_at_least(&have, &least)).then_some((least, have))
    };
    let os_min = target.os_min.get(&hardware.os).cloned();
    if let Some((least, have)) = too_old(&os_min, &hardware.os_version) {
        return Some(format!("it needs {} {least} or newer, this is {have}", hardware.os));
    }
    if let Some((least, have)) = too_old(&target.glibc_min, &hardware.glibc) {
        return Some(format!("it needs glibc {least} or newer, this system has {have}"));
    }
    let missing: Vec<&str> = target
        .cpu_features
        .iter()
        .filter(|feature| !hardware.cpu.features.contains(feature))
        .map(String::as_str)
        .collect();
    if missing.is_empty() { None } else { Some(format!("this CPU lacks {}", missing.join(", "))) }
}

/// Why no device of this machine will do.
fn device_problem(needs: &AccelNeeds, hardware: &Hardware) -> Option<Rejection> {
    // Of interfaces that the host does not know, only the plugin's probe can tell.
    if matches!(needs.api, Accel::Cpu | Accel::Other) {
        return None;
    }
    let gpus: Vec<&Gpu> = hardware.gpus_for(needs.api).collect();
    if gpus.is_empty() {
        let reason = format!("it needs {}, and this machine has none", device_name(needs.api));
        return Some(Rejection { check: Check::Device, reason });
    }
    let problems: Vec<String> = gpus.iter().filter_map(|gpu| gpu_problem(needs, gpu)).collect();
    if problems.len() < gpus.len() {
        return None;
    }
    let mut reason = match problems.as_slice() {
        [problem] => problem.clone(),
        [first, others @ ..] if others.iter().all(|other| other == first) => first.clone(),
        _ => gpus
            .iter()
            .zip(&problems)
            .map(|(gpu, problem)| format!("{} ({}): {problem}", gpu.id, gpu.name))
            .collect::<Vec<_>>()
            .join("; "),
    };
    if let Some(problem) = hardware.problems.first() {
        reason = format!("{reason}; {problem}");
    }
    Some(Rejection { check: Check::DeviceFeatures, reason })
}

/// Why a GPU of the right kind will not do. What is not known of it is left to the plugin's probe, except what only NVIDIA's
/// driver can tell: without the driver no plugin runs on it.
fn gpu_problem(needs: &AccelNeeds, gpu: &Gpu) -> Option<String> {
    if needs.api == Accel::Cuda {
        let Some(driver) = gpu.cuda_driver else {
            return Some(format!("the driver of this GPU ({}) does not work", gpu.name));
        };
        if let Some(least) = needs.driver_min.filter(|least| driver < *least) {
            return Some(format!(
                "it needs a driver for CUDA {} or newer; this one ({}) is for CUDA {}",
                cuda_version(least),
                gpu.driver.as_deref().unwrap_or("of unknown version"),
                cuda_version(driver)
            ));
        }
    }
    if let Some(have) = gpu.compute.filter(|have| !needs.compute.iter().any(|rule| rule.allows(*have)))
        && !needs.compute.is_empty()
    {
        return Some(format!("it needs compute capability {}; this GPU has {have}", alternatives(needs)));
    }
    let least_bytes = needs.vram_min_mb.unwrap_or_default() * MIB;
    let have_bytes = gpu.memory_total_bytes.filter(|have| *have < least_bytes)?;
    Some(format!("it needs a GPU with {} of memory; this one has {}", gib(least_bytes), gib(have_bytes)))
}

/// `8.0, 8.6 or ≥ 12.0`.
fn alternatives(needs: &AccelNeeds) -> String {
    let names: Vec<String> = needs.compute.iter().map(|rule| rule.to_string().replace(">=", "≥ ")).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => names.concat(),
    }
}

fn device_name(api: Accel) -> &'static str {
    match api {
        Accel::Cuda => "an NVIDIA GPU",
        Accel::Metal | Accel::Coreml => "an Apple GPU or neural engine",
        Accel::Rocm => "an AMD GPU",
        Accel::Vulkan => "a GPU that Vulkan can use",
        Accel::Cpu | Accel::Other => "another device",
    }
}

/// Bytes for people.
fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1024.0 * MIB as f64))
}

pub(super) fn list(items: &[String]) -> String {
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}
