//! A model: what its files say, and, once it is loaded, its pipeline at work.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pajamas_pipelines::{Loaded, Pipeline, PipelineModel};
use pajamas_plugin_api::{Error, LoadSpec, ModelInfo, Progress};

use crate::networks::{Descriptions, Loader};
use crate::options::Options;
use crate::package::Package;
use crate::spec::{Feature, FeatureKind};

/// Bytes in memory of a network: percent of its files, and what it takes beside. Not measured: CoreML maps the weights and
/// makes a copy in the layout of each unit that computes with them.
const BYTES_PERCENT: u64 = 200;
const BYTES_OF_NETWORK: u64 = 48 << 20;

/// What a model's files say, without loading it.
pub(crate) fn inspect(path: &Path) -> Result<ModelInfo, Error> {
    let options = Options::default();
    let descriptions = Descriptions::default();
    let pipeline = pajamas_pipelines::open(path, &options.pipeline, &descriptions)?;
    Ok(info(pipeline.as_ref(), &descriptions.into_opened(), &options))
}

/// Loads a model.
pub(crate) fn load(spec: &LoadSpec, progress: &Progress) -> Result<PipelineModel, Error> {
    let options = Options::parse(&spec.options)?;
    let loader = Loader::new(&options, spec.cache_dir.as_deref(), progress);
    let pipeline: Arc<dyn Pipeline> = pajamas_pipelines::open(&spec.path, &options.pipeline, &loader)?.into();
    let (counts, packages) = loader.into_parts();
    let info = info(pipeline.as_ref(), &packages, &options);
    progress.report(1.0, "ready");
    Ok(PipelineModel::new(Loaded {
        thread_name: "coreml-job",
        // macOS does not tell a process cheaply what it holds.
        bytes: info.estimated_bytes.clone(),
        info,
        pipeline,
        slots: options.slots,
        queue: options.queue,
        counts,
    }))
}

fn info(pipeline: &dyn Pipeline, packages: &[Package], options: &Options) -> ModelInfo {
    let bytes = packages.iter().map(|package| package.bytes / 100 * BYTES_PERCENT + BYTES_OF_NETWORK).sum();
    let mut info = ModelInfo {
        format: "coreml".to_owned(),
        // All units of an Apple machine share its memory.
        estimated_bytes: BTreeMap::from([("cpu".to_owned(), bytes)]),
        slots: Some(options.slots),
        ..ModelInfo::default()
    };
    pipeline.describe(&mut info);
    if let Some(first) = packages.first() {
        info.metadata = metadata(first);
    }
    info
}

/// What the first package says about itself, with the format's own facts.
fn metadata(package: &Package) -> BTreeMap<String, String> {
    let spec = &package.spec;
    let mut metadata = spec.metadata.clone();
    let names = |features: &[Feature]| features.iter().map(described).collect::<Vec<_>>().join(", ");
    let functions: Vec<_> = spec.functions.iter().map(|function| function.name.as_str()).collect();
    for (name, text) in [
        ("coreml.specification_version", spec.version.to_string()),
        ("coreml.kind", spec.kind.to_owned()),
        ("coreml.inputs", names(&spec.main.inputs)),
        ("coreml.outputs", names(&spec.main.outputs)),
        ("coreml.states", names(&spec.main.states)),
        ("coreml.other_functions", functions.join(", ")),
    ] {
        if !text.is_empty() {
            metadata.insert(name.to_owned(), text);
        }
    }
    metadata
}

/// A feature in CoreML's own terms, such as `image: image 224 x 224` or `ids: i32 [1, ?]`.
fn described(feature: &Feature) -> String {
    let dim = |dim: &Option<usize>| dim.map_or_else(|| "?".to_owned(), |dim| dim.to_string());
    let kind = match &feature.kind {
        None => "of an unknown type".to_owned(),
        Some(FeatureKind::Int64) => "integer".to_owned(),
        Some(FeatureKind::Double) => "number".to_owned(),
        Some(FeatureKind::Text) => "text".to_owned(),
        Some(FeatureKind::Dictionary) => "dictionary".to_owned(),
        Some(FeatureKind::Sequence) => "sequence".to_owned(),
        Some(FeatureKind::Image(image)) => format!("image {} x {}", dim(&image.width), dim(&image.height)),
        Some(FeatureKind::Array(array)) => {
            let dims: Vec<_> = array.shape.iter().map(dim).collect();
            format!("{} [{}]", format!("{:?}", array.dtype).to_lowercase(), dims.join(", "))
        }
    };
    let optional = if feature.is_optional { ", optional" } else { "" };
    format!("{}: {kind}{optional}", feature.name)
}
