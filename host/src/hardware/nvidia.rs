//! NVIDIA's GPUs, through the driver's management library (NVML).

use std::sync::LazyLock;

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use pajamas_plugin_api::ComputeCapability;

use super::gpu::{Gpu, GpuReading, Vendor};

/// The library, loaded by the first who asks and kept: it wakes the driver up, which takes a while.
static NVML: LazyLock<Result<Nvml, String>> =
    LazyLock::new(|| Nvml::init().map_err(|error| unusable(&error)));

/// The GPUs, in the order of the bus, which is that of CUDA where `CUDA_DEVICE_ORDER` is `PCI_BUS_ID`.
pub(super) fn gpus() -> Result<Vec<Gpu>, String> {
    let nvml = NVML.as_ref().map_err(Clone::clone)?;
    let driver = nvml.sys_driver_version().ok();
    let cuda_driver = nvml.sys_cuda_driver_version().ok().and_then(|version| u32::try_from(version).ok());
    let gpu = |index, device: &Device<'_>| -> Result<Gpu, NvmlError> {
        let capability = device.cuda_compute_capability().ok();
        let mig = device.mig_mode().ok().map(|mode| mode.current != 0);
        Ok(Gpu {
            id: id(index),
            vendor: Vendor::Nvidia,
            name: device.name()?,
            pci: device.pci_info().ok().map(|pci| address(&pci.bus_id)),
            memory_total_bytes: device.memory_info().ok().map(|memory| memory.total),
            driver: driver.clone(),
            cuda_driver,
            compute: capability.and_then(|capability| {
                let (major, minor) = (capability.major.try_into().ok()?, capability.minor.try_into().ok()?);
                Some(ComputeCapability { major, minor })
            }),
            mig,
        })
    };
    devices(nvml)
        .and_then(|devices| devices.iter().map(|(index, device)| gpu(*index, device)).collect())
        .map_err(|error| unusable(&error))
}

/// What the GPUs are doing; nothing where nobody has found any before.
pub(super) fn read() -> Vec<GpuReading> {
    let Some(Ok(nvml)) = LazyLock::get(&NVML) else { return Vec::new() };
    let reading = |(index, device): &(u32, Device<'_>)| GpuReading {
        id: id(*index),
        memory_used_bytes: device.memory_info().ok().map(|memory| memory.used),
        utilization: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0),
        temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
        power_watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1000.0),
    };
    devices(nvml).map(|devices| devices.iter().map(reading).collect()).unwrap_or_default()
}

fn devices(nvml: &Nvml) -> Result<Vec<(u32, Device<'_>)>, NvmlError> {
    (0..nvml.device_count()?).map(|index| Ok((index, nvml.device_by_index(index)?))).collect()
}

fn id(index: u32) -> String {
    format!("cuda:{index}")
}

/// The address as Linux writes it: NVML has eight digits for the domain, and capitals.
fn address(bus_id: &str) -> String {
    let address = bus_id.to_lowercase();
    match address.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 => format!("{}:{rest}", &domain[4..]),
        _ => address,
    }
}

fn unusable(error: &NvmlError) -> String {
    let hint = match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => {
            "install NVIDIA's driver (in a container: give it the \"utility\" capability), which brings libnvidia-ml.so.1"
        }
        NvmlError::DriverNotLoaded => "load the kernel module: modprobe nvidia",
        NvmlError::LibRmVersionMismatch => "the driver was updated while it ran: restart the machine",
        _ => "see what nvidia-smi says",
    };
    format!("NVIDIA's driver does not tell about its GPUs ({error}); {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_linux() {
        assert_eq!(address("00000000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(address("0000:3b:00.0"), "0000:3b:00.0");
    }

    #[test]
    fn without_a_driver_the_problem_says_what_to_install() {
        let problem = unusable(&NvmlError::LibraryNotFound);
        assert!(problem.contains("install NVIDIA's driver"), "{problem}");
    }
}
