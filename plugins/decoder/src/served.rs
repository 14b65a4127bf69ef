//! What a plugin over tensors serves: text generation, or any other pipeline.

use pajamas_pipelines::PipelineModel;
use pajamas_plugin_api::{Job, Model, ModelInfo, ModelStats, Request};

use crate::model::DecoderModel;

/// A loaded model of either kind.
pub enum Served {
    /// A decoder, whose requests share steps.
    Decoder(DecoderModel),
    /// A pipeline, whose requests have a thread each.
    Pipeline(PipelineModel),
}

impl Served {
    fn model(&self) -> &dyn Model {
        match self {
            Self::Decoder(model) => model,
            Self::Pipeline(model) => model,
        }
    }
}

impl Model for Served {
    fn info(&self) -> ModelInfo {
        self.model().info()
    }

    fn submit(&self, request: Request, job: Job) {
        self.model().submit(request, job);
    }

    fn stats(&self) -> ModelStats {
        self.model().stats()
    }
}
