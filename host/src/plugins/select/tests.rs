//! What selection says of made-up plugins on made-up machines.

use std::path::Path;

use super::*;
use crate::hardware::{Cpu, Gpu, Vendor};

fn manifest(name: &str, extra: &str) -> Manifest {
    let text = format!(
        "name = \"{name}\"\nversion = \"1.0.0\"\npublisher = \"p\"\nlicense = \"MIT\"\ndescription = \"d\"\n\
         abi = \">=1.0, <2\"\nentry = \"lib/x\"\n{extra}"
    );
    Manifest::parse(&text, Path::new("plugin.toml")).unwrap()
}

fn machine(gpus: Vec<Gpu>) -> Hardware {
    Hardware {
        os: "linux".into(),
        os_version: Some("12".into()),
        glibc: Some("2.36".into()),
        arch: "x86_64".into(),
        cpu: Cpu { features: vec!["avx2".into()], ..Cpu::default() },
        gpus,
        ..Hardware::default()
    }
}

fn nvidia(name: &str, compute: &str, gib: u64) -> Gpu {
    Gpu {
        id: "cuda:0".into(),
        vendor: Vendor::Nvidia,
        name: name.into(),
        pci: None,
        memory_total_bytes: Some(gib << 30),
        driver: Some("550.54.14".into()),
        cuda_driver: Some(12040),
        compute: Some(compute.parse().unwrap()),
        mig: None,
    }
}

fn wanted(format: &str) -> Wanted<'_> {
    Wanted { format, tasks: &[], pin: None, size_bytes: 1 << 30 }
}

/// The verdicts, one line each.
fn show(
    wanted: Wanted<'_>,
    manifests: &[Manifest],
    hardware: &Hardware,
    preferences: &Preferences,
) -> Vec<String> {
    let usable = ProbeState::Usable;
    let all: Vec<_> = manifests.iter().map(|manifest| Candidate { manifest, probe: &usable }).collect();
    lines(&select(wanted, &all, hardware, preferences))
}

fn lines(verdicts: &[Verdict]) -> Vec<String> {
    let line = |verdict: &Verdict| match &verdict.outcome {
        Ok(why) => format!("{}: yes, {why}", verdict.plugin),
        Err(rejection) => format!("{}: no, {}", verdict.plugin, rejection.reason),
    };
    verdicts.iter().map(line).collect()
}

#[test]
fn table_of_verdicts_on_a_machine_without_a_gpu() {
    let manifests = [
        manifest("onnx", "formats = [\"onnx\"]"),
        manifest("slow", "formats = [\"gguf\"]\npriority = 1"),
        manifest("gguf", "formats = [\"gguf\"]\npriority = 50\ntasks = [\"generate\"]"),
        manifest("mac", "formats = [\"gguf\"]\n[target]\nos = [\"macos\"]"),
        manifest("arm", "formats = [\"gguf\"]\n[target]\narch = [\"aarch64\", \"riscv64\"]"),
        manifest("wide", "formats = [\"gguf\"]\n[target]\ncpu_features = [\"avx2\", \"avx512f\"]"),
        manifest("new-os", "formats = [\"gguf\"]\n[target]\nos_min = { linux = \"13\" }"),
        manifest("new-mac", "formats = [\"gguf\"]\npriority = -1\n[target]\nos_min = { macos = \"26\" }"),
        manifest("new-libc", "formats = [\"gguf\"]\n[target]\nglibc_min = \"2.39\""),
        manifest("cuda", "formats = [\"gguf\"]\n[accel]\napi = \"cuda\""),
        manifest("metal", "formats = [\"gguf\"]\n[accel]\napi = \"metal\""),
        manifest("rocm", "formats = [\"gguf\"]\n[accel]\napi = \"rocm\""),
        manifest("vulkan", "formats = [\"gguf\"]\n[accel]\napi = \"vulkan\""),
        manifest("npu", "formats = [\"gguf\"]\n[accel]\napi = \"npu\""),
    ];
    let hardware = machine(Vec::new());
    assert_eq!(
        show(wanted("gguf"), &manifests, &hardware, &Preferences::default()),
        [
            // The host does not know this interface: its own probe has said that it is usable.
            "npu: yes, accelerator, priority 0",
            "gguf: yes, cpu, priority 50",
            "slow: yes, cpu, priority 1",
            "new-mac: yes, cpu, priority -1",
            "onnx: no, it reads onnx, not gguf",
            "mac: no, it is built for macos, this is linux",
            "arm: no, it is built for aarch64, riscv64, this is x86_64",
            "wide: no, this CPU lacks avx512f",
            "new-os: no, it needs linux 13 or newer, this is 12",
            "new-libc: no, it needs glibc 2.39 or newer, this system has 2.36",
            "cuda: no, it needs an NVIDIA GPU, and this machine has none",
            "metal: no, it needs an Apple GPU or neural engine, and this machine has none",
            "rocm: no, it needs an AMD GPU, and this machine has none",
            "vulkan: no, it needs a GPU that Vulkan can use, and this machine has none",
        ]
    );
}

#[test]
fn the_operator_decides_by_model_and_by_configuration() {
    let manifests = [
        manifest("gguf", "formats = [\"gguf\"]\npriority = 50\ntasks = [\"generate\"]"),
        manifest("slow", "formats = [\"gguf\"]\npriority = 1\ntasks = [\"embed\"]"),
    ];
    let hardware = machine(Vec::new());
    let nothing = Preferences::default();
    let prefer = Preferences { prefer: vec!["slow".into()], disabled: Vec::new() };
    let disabled = Preferences { prefer: vec!["slow".into()], disabled: vec!["slow".into()] };
    let pinned = Wanted { pin: Some("slow"), ..wanted("gguf") };
    let tasks = [Task::Generate];
    let table = [
        (wanted("gguf"), &nothing, ["gguf: yes, cpu, priority 50", "slow: yes, cpu, priority 1"]),
        (
            wanted("gguf"),
            &prefer,
            ["slow: yes, cpu, priority 1, preferred by the configuration", "gguf: yes, cpu, priority 50"],
        ),
        (
            wanted("gguf"),
            &disabled,
            [
                "gguf: yes, cpu, priority 50",
                "slow: no, it is disabled by selection.disabled of the configuration",
            ],
        ),
        (
            pinned,
            &nothing,
            [
                "slow: yes, cpu, priority 1, named for this model",
                "gguf: no, the model is pinned to plugin slow",
            ],
        ),
        (
            Wanted { tasks: &tasks, ..wanted("gguf") },
            &nothing,
            ["gguf: yes, cpu, priority 50", "slow: no, it does not offer the task generate"],
        ),
    ];
    for (wanted, preferences, expected) in table {
        assert_eq!(show(wanted, &manifests, &hardware, preferences), expected);
    }
}

#[test]
fn what_a_gpu_lacks_is_said_in_the_words_of_its_maker() {
    const RTX: &str = "compute = [\"8.0\", \"8.6\", \"8.9\", \">=12.0\"]";
    let hopper = || nvidia("NVIDIA H100", "9.0", 80);
    let no_driver =
        || Gpu { driver: None, cuda_driver: None, compute: None, ..nvidia("NVIDIA 10de:2330", "9.0", 80) };
    let table = [
        ("", vec![hopper()], "yes, NVIDIA H100, priority 0"),
        (RTX, vec![hopper()], "no, it needs compute capability 8.0, 8.6, 8.9 or ≥ 12.0; this GPU has 9.0"),
        (RTX, vec![nvidia("RTX 5090", "12.0", 32)], "yes, RTX 5090, priority 0"),
        (RTX, vec![hopper(), nvidia("L4", "8.9", 24)], "yes, L4, priority 0"),
        ("compute = [\"8.0\"]", vec![hopper()], "no, it needs compute capability 8.0; this GPU has 9.0"),
        (
            "driver_min = 13000",
            vec![hopper()],
            "no, it needs a driver for CUDA 13.0 or newer; this one (550.54.14) is for CUDA 12.4",
        ),
        (
            "vram_min_mb = 98304",
            vec![hopper()],
            "no, it needs a GPU with 96.0 GiB of memory; this one has 80.0 GiB",
        ),
        ("", vec![no_driver()], "no, the driver of this GPU (NVIDIA 10de:2330) does not work; install it"),
        (
            "compute = [\"10.0\"]",
            vec![hopper(), nvidia("L4", "8.9", 24)],
            "no, cuda:0 (NVIDIA H100): it needs compute capability 10.0; this GPU has 9.0; \
             cuda:0 (L4): it needs compute capability 10.0; this GPU has 8.9",
        ),
        (
            "compute = [\"10.0\"]",
            vec![hopper(), hopper()],
            "no, it needs compute capability 10.0; this GPU has 9.0",
        ),
    ];
    for (needs, gpus, expected) in table {
        let plugin = manifest("cuda", &format!("formats = [\"gguf\"]\n[accel]\napi = \"cuda\"\n{needs}"));
        let mut hardware = machine(gpus);
        if hardware.gpus.iter().any(|gpu| gpu.driver.is_none()) {
            hardware.problems.push("install it".to_owned());
        }
        let verdicts = show(wanted("gguf"), &[plugin], &hardware, &Preferences::default());
        assert_eq!(verdicts, [format!("cuda: {expected}")], "{needs}");
    }
}

#[test]
fn a_model_has_to_fit_into_the_gpus_together() {
    let plugins = [manifest("cuda", "formats = [\"gguf\"]\n[accel]\napi = \"cuda\"")];
    let large = Wanted { size_bytes: 100 << 30, ..wanted("gguf") };
    let verdicts = |gpus| show(large, &plugins, &machine(gpus), &Preferences::default());
    let one = nvidia("H100", "9.0", 80);
    assert_eq!(
        verdicts(vec![one.clone()]),
        ["cuda: no, the model's files have 100.0 GiB, the GPUs that it can use have 80.0 GiB together"]
    );
    assert_eq!(verdicts(vec![one.clone(), one.clone()]), ["cuda: yes, H100, H100, priority 0"]);
    let unknown = Gpu { memory_total_bytes: None, ..one };
    assert_eq!(verdicts(vec![unknown]), ["cuda: yes, H100, priority 0"]);
}

#[test]
fn an_accelerator_goes_before_the_cpu_and_a_fall_back_is_noticed() {
    let cpu = manifest("gguf", "formats = [\"gguf\"]\npriority = 50");
    let cuda = manifest("cuda", "formats = [\"gguf\"]\n[accel]\napi = \"cuda\"");
    let (usable, broken) = (ProbeState::Usable, ProbeState::Unusable("out of memory".into()));
    let verdicts = |probe, gpus| {
        let all = [Candidate { manifest: &cpu, probe: &usable }, Candidate { manifest: &cuda, probe }];
        select(wanted("gguf"), &all, &machine(gpus), &Preferences::default())
    };
    let gpu = || vec![nvidia("L4", "8.9", 24)];
    let good = verdicts(&usable, gpu());
    assert_eq!(good[0].plugin, "cuda");
    assert_eq!(fall_back(&good), None);
    let fallen = verdicts(&broken, gpu());
    assert_eq!(lines(&fallen), ["gguf: yes, cpu, priority 50", "cuda: no, out of memory"]);
    assert_eq!(fall_back(&fallen).map(|missed| missed.plugin.as_str()), Some("cuda"));
    // Without a GPU there is nothing to fall back from.
    assert_eq!(fall_back(&verdicts(&usable, Vec::new())), None);
}
