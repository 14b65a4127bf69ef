//! What computes: ONNX Runtime's execution providers that this plugin knows by name.

use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use pajamas_plugin_api::{Accel, Error};
use serde::Deserialize;

use crate::library::engine_error;

/// An execution provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// The CPU; always there.
    Cpu,
    /// NVIDIA CUDA.
    Cuda,
    /// NVIDIA TensorRT.
    Tensorrt,
    /// Apple CoreML.
    Coreml,
    /// Microsoft DirectML.
    Directml,
    /// Intel OpenVINO.
    Openvino,
}

impl Provider {
    /// All of them, best first.
    const ALL: [Self; 6] =
        [Self::Tensorrt, Self::Cuda, Self::Coreml, Self::Directml, Self::Openvino, Self::Cpu];

    /// Its name in options.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
            Self::Coreml => "coreml",
            Self::Directml => "directml",
            Self::Openvino => "openvino",
        }
    }

    /// The kind of device that it runs on.
    pub(crate) fn accel(self) -> Accel {
        match self {
            Self::Cpu => Accel::Cpu,
            Self::Cuda | Self::Tensorrt => Accel::Cuda,
            Self::Coreml => Accel::Coreml,
            Self::Directml | Self::Openvino => Accel::Other,
        }
    }

    /// Those that the loaded library was built with, best first. Whether their drivers are there shows at load only.
    pub(crate) fn available() -> Result<Vec<Self>, Error> {
        let mut available = Vec::new();
        for provider in Self::ALL {
            if provider.is_available().map_err(|error| engine_error("cannot list its providers", &error))? {
                available.push(provider);
            }
        }
        Ok(available)
    }

    fn is_available(self) -> ort::Result<bool> {
        match self {
            Self::Cpu => ep::CPU::is_available(),
            Self::Cuda => ep::CUDA::is_available(),
            Self::Tensorrt => ep::TensorRT::is_available(),
            Self::Coreml => ep::CoreML::is_available(),
            Self::Directml => ep::DirectML::is_available(),
            Self::Openvino => ep::OpenVINO::is_available(),
        }
    }

    /// What registers it with a session; a failure is an error of the session.
    pub(crate) fn dispatch(self, memory_arena: bool) -> ExecutionProviderDispatch {
        let dispatch = match self {
            Self::Cpu => ep::CPU::default().with_arena_allocator(memory_arena).build(),
            Self::Cuda => ep::CUDA::default().build(),
            Self::Tensorrt => ep::TensorRT::default().build(),
            Self::Coreml => ep::CoreML::default().build(),
            Self::Directml => ep::DirectML::default().build(),
            Self::Openvino => ep::OpenVINO::default().build(),
        };
        dispatch.error_on_failure()
    }
}
