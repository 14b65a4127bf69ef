//! NVIDIA's driver: whether it is there, and which GPUs it has. Nothing here makes a CUDA context, which would take half a
//! gigabyte of the GPU's memory.
#![expect(unsafe_code, reason = "calls of the CUDA driver")]

use cudarc::driver::sys::{CUdevice_attribute, cuDriverGetVersion};
use cudarc::driver::{DriverError, result, sys};
use pajamas_plugin_api::{ComputeCapability, Error, ErrorKind};

use crate::flavour;

/// A GPU of NVIDIA's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// Its number in the driver's order.
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) compute: ComputeCapability,
    pub(crate) memory_bytes: u64,
}

/// The GPUs, in the driver's order, never empty.
///
/// # Errors
/// There is no driver, or it is too old, does not work, or finds no GPU; the reason in the user's words.
pub(crate) fn gpus() -> Result<Vec<Gpu>, String> {
    // SAFETY: loads the driver's library, whose initialisers are those of any CUDA program.
    if !unsafe { sys::is_culib_present() } {
        return Err("no NVIDIA driver: libcuda.so.1 is not there".to_owned());
    }
    let failed = |error: DriverError| format!("the NVIDIA driver does not work: {error}");
    match result::init() {
        Ok(()) => {}
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => return Err(no_gpu()),
        Err(error) => return Err(failed(error)),
    }
    let mut version = 0;
    // SAFETY: the driver is there and initialised, and writes one integer.
    unsafe { cuDriverGetVersion(&raw mut version).result() }.map_err(failed)?;
    if version < flavour::DRIVER_MIN {
        return Err(format!(
            "{} needs an NVIDIA driver for CUDA {} or newer; this one is for CUDA {}",
            flavour::name_and_version(),
            cuda_version(flavour::DRIVER_MIN),
            cuda_version(version)
        ));
    }
    let count = result::device::get_count().map_err(failed)?;
    let gpus: Result<Vec<Gpu>, DriverError> = (0..count).map(gpu).collect();
    let gpus = gpus.map_err(failed)?;
    if gpus.is_empty() { Err(no_gpu()) } else { Ok(gpus) }
}

fn no_gpu() -> String {
    "the NVIDIA driver finds no GPU".to_owned()
}

/// `13.0` for 13000.
fn cuda_version(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

fn gpu(ordinal: i32) -> Result<Gpu, DriverError> {
    let device = result::device::get(ordinal)?;
    // SAFETY: the driver has just given this device.
    let (major, minor, memory_bytes) = unsafe {
        (
            result::device::get_attribute(
                device,
                CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            )?,
            result::device::get_attribute(
                device,
                CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )?,
            result::device::total_mem(device)?,
        )
    };
    let number = |number: i32| u16::try_from(number).unwrap_or_default();
    Ok(Gpu {
        index: u32::try_from(ordinal).unwrap_or_default(),
        name: result::device::get_name(device)?,
        compute: ComputeCapability { major: number(major), minor: number(minor) },
        memory_bytes: memory_bytes as u64,
    })
}

/// The GPU that a model's option `device` names.
///
/// # Errors
/// There is none, or the library does not support it.
pub(crate) fn find(index: u32) -> Result<Gpu, Error> {
    let device = |reason: String| Error::new(ErrorKind::Device, reason);
    let gpus = gpus().map_err(device)?;
    let count = gpus.len();
    let gpu = gpus.into_iter().find(|gpu| gpu.index == index).ok_or_else(|| {
        Error::invalid(format!(
            "option `device` is {index}, and this machine has {count} GPUs, counted from 0"
        ))
    })?;
    match flavour::unsupported_gpu(gpu.compute) {
        None => Ok(gpu),
        Some(reason) => Err(device(reason)),
    }
}

/// What a call of the driver's failed with.
pub(crate) fn driver_error(doing: &str, error: DriverError) -> Error {
    let kind = match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => ErrorKind::OutOfMemory,
        _ => ErrorKind::Device,
    };
    Error::new(kind, format!("cannot {doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_cuda_are_printed_as_people_write_them() {
        assert_eq!([13_000, 12_080, 11_040].map(cuda_version), ["13.0", "12.8", "11.4"]);
    }

    #[test]
    fn a_machine_without_a_driver_says_so_and_one_with_a_driver_lists_its_gpus() {
        match gpus() {
            Ok(gpus) => {
                assert!(gpus.iter().all(|gpu| gpu.memory_bytes > 0 && gpu.compute.major > 0), "{gpus:?}")
            }
            Err(reason) => assert!(reason.contains("NVIDIA driver"), "{reason}"),
        }
    }
}
