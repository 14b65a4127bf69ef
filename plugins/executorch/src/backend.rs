//! The plugin's backend: finds devices, inspects files, loads models.

use std::path::{Path, PathBuf};

use pajamas_pipelines::PipelineModel;
use pajamas_plugin_api::{Accel, Backend, Device, Error, LoadSpec, ModelInfo, ProbeReport, Progress};

use crate::library::Library;
use crate::model;
use crate::options::Options;

/// ExecuTorch as a backend of pajamas-host.
#[derive(Clone, Debug)]
pub struct ExecuTorchBackend {
    plugin_dir: PathBuf,
}

impl ExecuTorchBackend {
    /// Inspecting works without the libraries, so that they are loaded when something is to run.
    fn library(&self) -> Result<&'static Library, Error> {
        Library::load(&self.plugin_dir)
    }
}

impl Backend for ExecuTorchBackend {
    type Model = PipelineModel;

    fn init(plugin_dir: &Path) -> Result<Self, Error> {
        Ok(Self { plugin_dir: plugin_dir.to_owned() })
    }

    fn probe(&self) -> Result<ProbeReport, Error> {
        let library = match self.library() {
            Ok(library) => library,
            Err(error) => {
                return Ok(ProbeReport {
                    reason: Some(error.message().to_owned()),
                    ..ProbeReport::default()
                });
            }
        };
        let backends: String = library.backends().iter().map(|name| format!(", {name}")).collect();
        let device = Device {
            id: "cpu".to_owned(),
            accel: Accel::Cpu,
            name: format!("CPU, {} threads{backends}", Options::default().threads()),
            memory_total_bytes: None,
            memory_free_bytes: None,
        };
        let engine = Some(format!("ExecuTorch {}", library.version()));
        Ok(ProbeReport { devices: vec![device], reason: None, engine })
    }

    fn inspect(&self, path: &Path) -> Result<ModelInfo, Error> {
        model::inspect(path)
    }

    fn load(&self, spec: &LoadSpec, progress: &Progress) -> Result<PipelineModel, Error> {
        model::load(self.library()?, spec, progress)
    }
}
