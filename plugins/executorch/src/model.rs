//! A model: what its files say, and, once it is loaded, its pipeline at work.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use pajamas_pipelines::{Loaded, Pipeline, PipelineModel};
use pajamas_plugin_api::{Error, LoadSpec, ModelInfo, Progress, resident_bytes};

use crate::library::Library;
use crate::networks::{Descriptions, Loader};
use crate::options::Options;
use crate::program::{MethodInfo, Program};

/// Bytes in memory of a network: percent of its file, because delegates pack their weights anew, and what it takes beside.
const BYTES_PERCENT: u64 = 200;
const BYTES_OF_NETWORK: u64 = 16 << 20;

/// What a model's files say, without loading it.
pub(crate) fn inspect(path: &Path) -> Result<ModelInfo, Error> {
    let options = Options::default();
    let descriptions = Descriptions::new(&options);
    let pipeline = pajamas_pipelines::open(path, &options.pipeline, &descriptions)?;
    Ok(info(pipeline.as_ref(), &descriptions.into_opened(), &options))
}

/// Loads a model.
pub(crate) fn load(
    library: &'static Library,
    spec: &LoadSpec,
    progress: &Progress,
) -> Result<PipelineModel, Error> {
    let options = Options::parse(&spec.options)?;
    let before = resident_bytes();
    let loader = Loader::new(library, &options, progress);
    let pipeline: Arc<dyn Pipeline> = pajamas_pipelines::open(&spec.path, &options.pipeline, &loader)?.into();
    let (counts, programs) = loader.into_parts();
    let info = info(pipeline.as_ref(), &programs, &options);
    let measured = before.zip(resident_bytes()).map(|(before, after)| after.saturating_sub(before));
    let bytes = match measured {
        // Memory that an unloaded model left to the process is used again and does not show.
        Some(bytes) => {
            let least = programs.iter().map(|program| program.bytes).sum();
            BTreeMap::from([("cpu".to_owned(), bytes.max(least))])
        }
        None => info.estimated_bytes.clone(),
    };
    progress.report(1.0, "ready");
    Ok(PipelineModel::new(Loaded {
        thread_name: "executorch-job",
        info,
        pipeline,
        slots: options.slots,
        queue: options.queue,
        counts,
        bytes,
    }))
}

fn info(pipeline: &dyn Pipeline, programs: &[Program], options: &Options) -> ModelInfo {
    let methods: Vec<_> =
        programs.iter().filter_map(|program| program.method(options.method.as_deref()).ok()).collect();
    let planned: u64 = methods.iter().map(|method| method.planned_bytes).fold(0, u64::saturating_add);
    let files = programs.iter().map(|program| program.bytes / 100 * BYTES_PERCENT + BYTES_OF_NETWORK);
    let bytes = files.sum::<u64>().saturating_add(planned.saturating_mul(u64::from(options.streams)));
    let mut info = ModelInfo {
        format: "executorch".to_owned(),
        // What is in a delegate only the delegate can count.
        parameters: methods
            .iter()
            .all(|method| method.delegates.is_empty())
            .then(|| methods.iter().map(|method| method.parameters).sum()),
        estimated_bytes: BTreeMap::from([("cpu".to_owned(), bytes)]),
        slots: Some(options.slots),
        ..ModelInfo::default()
    };
    pipeline.describe(&mut info);
    info.metadata = metadata(programs, &methods);
    info
}

/// What the programs say about themselves, with the format's own facts.
fn metadata(programs: &[Program], methods: &[&MethodInfo]) -> BTreeMap<String, String> {
    let mut metadata = programs.first().map(Program::metadata).unwrap_or_default();
    let all = programs.iter().flat_map(|program| &program.methods);
    let names: BTreeSet<&str> = all
        .filter(|method| !metadata.contains_key(&method.name))
        .map(|method| method.name.as_str())
        .collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    let delegates: BTreeSet<&str> =
        methods.iter().flat_map(|method| &method.delegates).map(String::as_str).collect();
    metadata.insert("executorch.methods".to_owned(), names);
    if !delegates.is_empty() {
        let delegates = delegates.into_iter().collect::<Vec<_>>().join(", ");
        metadata.insert("executorch.delegates".to_owned(), delegates);
    }
    metadata
}
