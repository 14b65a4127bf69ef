//! The plugin's backend: finds devices, inspects files, loads models.

use std::path::Path;

use pajamas_pipelines::{PipelineModel, espeak};
use pajamas_plugin_api::{Backend, Error, LoadSpec, ModelInfo, ProbeReport, Progress};

use crate::{engine, model};

/// CoreML as a backend of pajamas-host.
#[derive(Clone, Copy, Debug)]
pub struct CoremlBackend;

impl Backend for CoremlBackend {
    type Model = PipelineModel;

    fn init(plugin_dir: &Path) -> Result<Self, Error> {
        // For voices that need it, as in the other plugins that run networks.
        espeak::search_in(&plugin_dir.join("lib/espeak-ng"));
        Ok(Self)
    }

    fn probe(&self) -> Result<ProbeReport, Error> {
        Ok(engine::probe())
    }

    fn inspect(&self, path: &Path) -> Result<ModelInfo, Error> {
        model::inspect(path)
    }

    fn load(&self, spec: &LoadSpec, progress: &Progress) -> Result<PipelineModel, Error> {
        model::load(spec, progress)
    }
}
