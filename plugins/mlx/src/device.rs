//! Where MLX computes.

use mlx_rs::{Device as MlxDevice, DeviceType};
use pajamas_plugin_api::{Accel, Device, Error, ErrorKind};

use crate::options::Device as Choice;

/// A place that exists here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Cpu,
    Gpu,
}

impl Place {
    /// Whether it is a GPU.
    pub(crate) fn is_gpu(self) -> bool {
        self == Self::Gpu
    }
}

/// Whether this build of MLX has found a GPU: then it is the default.
fn has_gpu() -> bool {
    MlxDevice::try_default()
        .and_then(|device| device.get_type())
        .is_ok_and(|kind| matches!(kind, DeviceType::Gpu))
}

/// The place for a model.
///
/// # Errors
/// A GPU is asked for and there is none.
pub(crate) fn choose(choice: Choice) -> Result<Place, Error> {
    match choice {
        Choice::Auto if has_gpu() => Ok(Place::Gpu),
        Choice::Auto | Choice::Cpu => Ok(Place::Cpu),
        Choice::Gpu if has_gpu() => Ok(Place::Gpu),
        Choice::Gpu => Err(Error::new(
            ErrorKind::Unsupported,
            "option `device` is gpu, but this build of MLX has no GPU here: set it to cpu, or install the variant for the \
             GPU",
        )),
    }
}

/// The name of the place that `choice` leads to.
pub(crate) fn id(choice: Choice) -> String {
    match choose(choice) {
        Ok(Place::Gpu) => format!("{}:0", gpu().1),
        Ok(Place::Cpu) | Err(_) => "cpu".to_owned(),
    }
}

/// What kind of GPU this build computes on.
fn gpu() -> (Accel, &'static str) {
    if cfg!(target_os = "macos") { (Accel::Metal, "metal") } else { (Accel::Cuda, "cuda") }
}

/// All devices, the GPU first.
pub(crate) fn all() -> Vec<Device> {
    let device = |id: String, accel, name: &str| Device {
        id,
        accel,
        name: name.to_owned(),
        memory_total_bytes: None,
        memory_free_bytes: None,
    };
    let cpu = device("cpu".to_owned(), Accel::Cpu, "CPU");
    let (accel, name) = gpu();
    let gpu = has_gpu().then(|| device(format!("{name}:0"), accel, "GPU of MLX"));
    gpu.into_iter().chain([cpu]).collect()
}
