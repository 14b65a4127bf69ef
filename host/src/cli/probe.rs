//! `probe`: what the machine is, and what each plugin finds in it.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use super::plugins_list::{self, Row};
use super::print::{Printer, bytes};
use super::{Error, block_on};
use crate::config::Config;
use crate::engine::{Engine, StartError};
use crate::hardware::{Gpu, Hardware, cuda_version};

pub(super) fn run(mut config: Config, json: bool) -> Result<(), Error> {
    // No model is needed to look at a machine.
    config.models_dirs.clear();
    let (hardware, plugins) = block_on(async {
        let engine = match Engine::start(&config) {
            // What the machine is can be told without plugins.
            Err(StartError::Plugins(_) | StartError::NoPlugins { .. }) => {
                let hardware = tokio::task::spawn_blocking(Hardware::detect).await;
                return Ok((hardware.unwrap_or_default(), Vec::new()));
            }
            started => started?,
        };
        engine.probed().await;
        let found = (engine.hardware().await.as_ref().clone(), engine.plugins());
        engine.shutdown(Duration::ZERO).await;
        Ok(found)
    })?;
    let installed = plugins_list::installed(&config);
    let rows: Vec<_> = plugins.iter().map(|plugin| Row::new(plugin, &installed)).collect();
    print(&mut Printer::stdout(), &hardware, &rows, json)
}

fn print<W: Write>(
    printer: &mut Printer<W>,
    hardware: &Hardware,
    plugins: &[Row<'_>],
    json: bool,
) -> Result<(), Error> {
    if json {
        return printer.json(&json!({"hardware": hardware, "plugins": plugins}));
    }
    let cpu = &hardware.cpu;
    let cores = cpu.cores.map(|cores| format!("{cores} cores, ")).unwrap_or_default();
    let system = [Some(hardware.os.clone()), hardware.os_version.clone(), Some(hardware.arch.clone())];
    let glibc = hardware.glibc.as_ref().map(|glibc| format!("glibc {glibc}"));
    let system: Vec<String> = system.into_iter().flatten().chain(glibc).collect();
    let memory = hardware.memory;
    let available = memory.available_bytes.map(|free| format!(", {} available", bytes(free)));
    printer.fields(&[
        ("system", Some(system.join(" "))),
        ("cpu", Some(format!("{} ({cores}{} threads)", cpu.model, cpu.threads))),
        ("features", Some(cpu.features.join(" "))),
        ("memory", memory.total_bytes.map(|all| format!("{}{}", bytes(all), available.unwrap_or_default()))),
        ("gpus", hardware.gpus.is_empty().then(|| "none".to_owned())),
    ])?;
    hardware.gpus.iter().try_for_each(|gpu| printer.line(describe(gpu)))?;
    hardware.problems.iter().try_for_each(|problem| printer.line(format_args!("problem: {problem}")))?;
    if plugins.is_empty() {
        return printer.line("plugins   none");
    }
    printer.line("")?;
    plugins_list::print(printer, plugins, false)
}

fn describe(gpu: &Gpu) -> String {
    let facts = [
        Some(gpu.name.clone()),
        gpu.memory_total_bytes.map(bytes),
        gpu.compute.map(|capability| format!("compute capability {capability}")),
        gpu.driver.as_ref().map(|driver| format!("driver {driver}")),
        gpu.cuda_driver.map(|version| format!("CUDA {}", cuda_version(version))),
        gpu.mig.filter(|on| *on).map(|_| "divided (MIG)".to_owned()),
    ];
    format!("{}  {}", gpu.id, facts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{Cpu, Memory, Vendor};

    #[test]
    fn the_machine_is_told_in_a_few_lines() {
        let hardware = Hardware {
            os: "linux".into(),
            os_version: Some("12".into()),
            glibc: Some("2.36".into()),
            arch: "x86_64".into(),
            cpu: Cpu { model: "Xeon".into(), cores: Some(16), threads: 32, features: vec!["avx2".into()] },
            memory: Memory { total_bytes: Some(1 << 37), available_bytes: Some(1 << 36) },
            gpus: vec![Gpu {
                id: "cuda:0".into(),
                vendor: Vendor::Nvidia,
                name: "NVIDIA H100".into(),
                pci: None,
                memory_total_bytes: Some(80 << 30),
                driver: Some("580.82.07".into()),
                cuda_driver: Some(13000),
                compute: "9.0".parse().ok(),
                mig: Some(true),
            }],
            problems: vec!["something".into()],
        };
        let mut text = Vec::new();
        print(&mut Printer::new(&mut text), &hardware, &[], false).unwrap();
        let expected = "\
system    linux 12 x86_64 glibc 2.36
cpu       Xeon (16 cores, 32 threads)
features  avx2
memory    128.0 GiB, 64.0 GiB available
cuda:0  NVIDIA H100, 80.0 GiB, compute capability 9.0, driver 580.82.07, CUDA 13.0, divided (MIG)
problem: something
plugins   none
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
