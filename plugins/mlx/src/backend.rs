//! The plugin's backend: inspects and loads checkpoints.

use std::path::Path;

use pajamas_plugin_api::{Backend, Error, LoadSpec, ModelInfo, ProbeReport, Progress};

use crate::device;
use crate::model::{self, MlxModel};
use crate::options::Options;

/// The version of MLX that this plugin is built against and ships.
const MLX_VERSION: &str = "0.32.2";

/// MLX as a backend of pajamas-host.
#[derive(Clone, Copy, Debug)]
pub struct MlxBackend;

impl Backend for MlxBackend {
    type Model = MlxModel;

    fn init(_plugin_dir: &Path) -> Result<Self, Error> {
        Ok(Self)
    }

    fn probe(&self) -> Result<ProbeReport, Error> {
        Ok(ProbeReport { devices: device::all(), reason: None, engine: Some(format!("MLX {MLX_VERSION}")) })
    }

    fn inspect(&self, path: &Path) -> Result<ModelInfo, Error> {
        model::inspect(path, &Options::default())
    }

    fn load(&self, spec: &LoadSpec, progress: &Progress) -> Result<MlxModel, Error> {
        MlxModel::load(spec, progress)
    }
}
