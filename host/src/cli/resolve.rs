//! From a MODEL argument to a model: a name of the catalog, else a path.

use std::path::Path;

use super::Error;
use crate::config::Config;
use crate::models::{Catalog, ModelSpec};
use crate::plugins::discover::discover;

/// The model that `name` means. A name of the catalog wins over a path of the same spelling; a path may lie anywhere,
/// and becomes the only place of models, so that an engine of this configuration has it under the same id.
pub(super) fn model(name: &str, config: &mut Config) -> Result<ModelSpec, Error> {
    let formats = plugin_formats(config);
    let catalog = Catalog::scan_quietly(&config.models_dirs, &formats);
    if let Some(model) = catalog.find(name) {
        return Ok(model.clone());
    }
    let Ok(path) = std::path::absolute(name).and_then(|path| path.metadata().map(|_| path)) else {
        // One of them may be the reason why the model is not there.
        catalog.log_problems();
        let known = catalog.models.into_iter().map(|model| model.id).collect();
        return Err(Error::UnknownModel { name: name.to_owned(), known });
    };
    config.models_dirs = vec![path.clone()];
    only_model(&path, Catalog::scan_quietly(&config.models_dirs, &formats))
}

/// The models of the configured folders.
pub(super) fn catalog(config: &Config) -> Catalog {
    Catalog::scan(&config.models_dirs, &plugin_formats(config))
}

/// Formats that installed plugins bring. Without plugins the host still knows the usual ones.
fn plugin_formats(config: &Config) -> Vec<String> {
    let plugins = discover(&config.plugins_dir).map(|found| found.plugins).unwrap_or_default();
    plugins.into_iter().flat_map(|plugin| plugin.manifest.formats).collect()
}

fn only_model(path: &Path, mut catalog: Catalog) -> Result<ModelSpec, Error> {
    let path = path.display();
    let problem = match (catalog.models.len(), catalog.problems.first()) {
        (1, _) => return Ok(catalog.models.remove(0)),
        (0, Some(problem)) => problem.to_string(),
        (0, None) => format!("{path}: holds nothing of a known format"),
        (count, _) => format!("{path}: holds {count} models, name one of its files"),
    };
    Err(Error::NotAModel { problem })
}
