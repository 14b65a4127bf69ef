//! `models list`: the catalog. No plugin is started.

use std::io::Write;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::print::{Printer, bytes, list};
use super::{Error, resolve};
use crate::config::Config;
use crate::models::{Catalog, ModelSpec};

pub(super) fn run(config: &Config, json: bool) -> Result<(), Error> {
    print(&mut Printer::stdout(), &resolve::catalog(config), json)
}

/// The catalog's problems go into the JSON document; for people they are in the log.
fn print<W: Write>(printer: &mut Printer<W>, catalog: &Catalog, json: bool) -> Result<(), Error> {
    if json {
        let models: Vec<_> = catalog.models.iter().map(document).collect();
        let problem = |problem: &crate::models::CatalogProblem| json!({"path": problem.path, "message": problem.message});
        let problems: Vec<_> = catalog.problems.iter().map(problem).collect();
        return printer.json(&json!({"models": models, "problems": problems}));
    }
    let row = |model: &ModelSpec| {
        let path = model.path.display().to_string();
        [model.id.clone(), model.format.clone(), bytes(model.size_bytes), list(&model.aliases), path]
    };
    let rows: Vec<_> = catalog.models.iter().map(row).collect();
    printer.table(["NAME", "FORMAT", "SIZE", "ALIASES", "PATH"], &rows)?;
    let total = catalog.models.iter().map(|model| model.size_bytes).sum();
    printer.line(format_args!("{} models, {}", rows.len(), bytes(total)))
}

/// What the catalog knows of a model.
pub(super) fn document(model: &ModelSpec) -> Value {
    let modified = model.modified.duration_since(UNIX_EPOCH);
    json!({
        "id": model.id,
        "aliases": model.aliases,
        "path": model.path,
        "format": model.format,
        "size_bytes": model.size_bytes,
        "modified_unix_s": modified.map_or(0, |since| since.as_secs()),
        "plugin": model.plugin_pin,
        "tasks": model.tasks_override,
        "labels": model.labels,
        "options": model.options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_one_line_per_model_and_the_document_has_the_problems_too() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.gguf", "123");
        write("a.toml", "aliases = ['b', 'c']");
        write("broken.gguf", "");
        write("broken.toml", "nmae = 1");
        let catalog = Catalog::scan(&[folder.path().to_owned()], &[]);
        let print = |json| {
            let mut text = Vec::new();
            print(&mut Printer::new(&mut text), &catalog, json).unwrap();
            String::from_utf8(text).unwrap()
        };
        let path = folder.path().join("a.gguf").display().to_string();
        assert_eq!(
            print(false).lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect::<Vec<_>>(),
            [
                vec!["NAME", "FORMAT", "SIZE", "ALIASES", "PATH"],
                vec!["a", "gguf", "3", "B", "b,", "c", &path],
                vec!["1", "models,", "3", "B"],
            ]
        );
        let document: Value = serde_json::from_str(&print(true)).unwrap();
        assert_eq!(document["models"][0]["id"], "a");
        assert_eq!(document["models"][0]["size_bytes"], 3);
        assert!(document["problems"][0]["message"].as_str().unwrap().contains("nmae"));
    }
}
