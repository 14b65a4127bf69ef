//! Unique names: the first model of a name keeps it, a later one is told apart by the folders above it.

use std::collections::HashSet;
use std::path::Path;

use super::{CatalogProblem, ModelSpec};

/// Makes ids and aliases unique, in the order in which the models were found, and reports what had to change.
pub(super) fn name(found: Vec<ModelSpec>, problems: &mut Vec<CatalogProblem>) -> Vec<ModelSpec> {
    let mut ids = HashSet::new();
    let mut models: Vec<ModelSpec> = Vec::with_capacity(found.len());
    for mut model in found {
        if !ids.insert(model.id.clone()) {
            let id = qualified(&model.path, &ids);
            let message = format!(
                "another model is called \"{}\" already, so this one is \"{id}\": give it a name of its own in a model.toml",
                model.id
            );
            problems.push(CatalogProblem { path: model.path.clone(), message });
            model.id = id;
            ids.insert(model.id.clone());
        }
        models.push(model);
    }
    // After all ids, because an id wins over an alias wherever both were found.
    let mut names = ids;
    for model in &mut models {
        model.aliases.retain(|alias| {
            let is_new = names.insert(alias.clone());
            if !is_new {
                let message = format!("the alias \"{alias}\" names another model already and is ignored");
                problems.push(CatalogProblem { path: model.path.clone(), message });
            }
            is_new
        });
    }
    models
}

/// The shortest end of the path that no other model is called by: `folder/stem`, `upper/folder/stem`, and so on.
fn qualified(path: &Path, taken: &HashSet<String>) -> String {
    let mut id = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    for folder in path.ancestors().skip(1).filter_map(Path::file_name) {
        id = format!("{}/{id}", folder.to_string_lossy());
        if !taken.contains(&id) {
            return id;
        }
    }
    // Names that are not UTF-8 may still be alike here; the full path with its extension is the last resort.
    path.to_string_lossy().into_owned()
}
