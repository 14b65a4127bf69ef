//! The walk through the folders.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::format::{self, Part};
use super::settings::{ModelSettings, SETTINGS_FILE};
use super::{CatalogProblem, ModelSpec};

/// How many levels of folders below a configured one are searched; deeper ones are left out.
pub const DEPTH_MAX: usize = 4;
/// How many files and folders are looked at in all; the search ends there, and says so.
pub const ENTRIES_MAX: usize = 10_000;

/// Finds the models in all places. Their ids may still be alike.
pub(super) fn scan(places: &[PathBuf], plugin_formats: &[String]) -> (Vec<ModelSpec>, Vec<CatalogProblem>) {
    let mut scan = Scan::new(plugin_formats);
    for place in places {
        scan.place(place);
    }
    (scan.found.into_iter().map(|found| found.model).collect(), scan.problems)
}

struct Scan<'a> {
    plugin_formats: &'a [String],
    entries_left: usize,
    /// Real paths of the folders searched, so that overlapping places and links upwards end the walk.
    searched: HashSet<PathBuf>,
    /// Real paths of the models found, and the names that settings give them.
    known: HashSet<(PathBuf, Option<String>)>,
    found: Vec<Found>,
    problems: Vec<CatalogProblem>,
}

struct Found {
    /// What its settings call it.
    own_name: Option<String>,
    model: ModelSpec,
}

/// What lies in a folder, sorted by name, without hidden entries.
#[derive(Default)]
struct Listing {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

/// What makes up a model on the disk.
struct Weights {
    /// What to load.
    path: PathBuf,
    files: Vec<PathBuf>,
    format: String,
    /// Its name without extension and part number: what it is called unless the user says otherwise.
    stem: String,
}

impl<'a> Scan<'a> {
    fn new(plugin_formats: &'a [String]) -> Self {
        Self {
            plugin_formats,
            entries_left: ENTRIES_MAX,
            searched: HashSet::new(),
            known: HashSet::new(),
            found: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn place(&mut self, place: &Path) {
        if place.is_dir() {
            self.folder(place, 0);
        } else if !place.exists() {
            self.problem(place, "does not exist: create it, or name another place for models");
        } else {
            self.file(place);
        }
    }

    /// One model's file, with whatever its folder says about it.
    fn file(&mut self, file: &Path) {
        let mut around = Scan::new(self.plugin_formats);
        around.folder(file.parent().unwrap_or(file), DEPTH_MAX);
        let file = first_part(file);
        match around.found.into_iter().find(|found| found.model.path == file) {
            Some(found) => self.keep(found),
            None if !around.problems.is_empty() => self.problems.extend(around.problems),
            None => match format::of_file(&file, self.plugin_formats) {
                // Its folder counts as a model of another format, but the user wants this one.
                Some(format) => self.add_with_own_settings(Weights::of_file(&file, format)),
                None => self.problem(&file, "is not a model of a known format"),
            },
        }
    }

    fn folder(&mut self, folder: &Path, depth: usize) {
        if !self.searched.insert(real_path(folder)) {
            return;
        }
        let listing = self.list(folder);
        if let Some(format) = self.format_of(folder, &listing) {
            let weights = self.folder_weights(folder, format.to_owned());
            return self.add_with_own_settings(weights);
        }
        let mut candidates = self.candidates(&listing);
        let settings_file = folder.join(SETTINGS_FILE);
        if listing.files.contains(&settings_file) {
            match ModelSettings::read(&settings_file) {
                Ok(settings) => self.described(&settings_file, settings, &mut candidates),
                Err(error) => {
                    self.problem(&settings_file, &error.to_string());
                    // It is unknown which of them the settings were for, and wrong settings are worse than none.
                    candidates.clear();
                }
            }
        }
        for weights in candidates {
            self.add_with_own_settings(weights);
        }
        if depth < DEPTH_MAX {
            for subfolder in &listing.folders {
                self.folder(subfolder, depth + 1);
            }
        }
    }

    /// The models among the files of a folder.
    fn candidates(&self, listing: &Listing) -> Vec<Weights> {
        let mut candidates = Vec::new();
        for path in &listing.files {
            let Some(format) = format::of_file(path, self.plugin_formats) else {
                continue;
            };
            // The other parts of a model belong to the first one; without it the model is reported as incomplete.
            let first = first_part(path);
            if first == *path || !listing.files.contains(&first) {
                candidates.push(Weights::of_file(&first, format));
            }
        }
        candidates
    }

    /// Adds the model that a folder's `model.toml` is about, and takes it from the candidates.
    fn described(&mut self, settings_file: &Path, settings: ModelSettings, candidates: &mut Vec<Weights>) {
        let weights = match &settings.file {
            Some(file) => self.named(&settings_file.with_file_name(file), settings.format.as_deref()),
            None => only_undescribed(candidates),
        };
        match weights {
            Ok(weights) => self.add(weights, settings),
            Err(message) => self.problem(settings_file, &message),
        }
    }

    /// The file or folder that the settings name.
    fn named(&mut self, path: &Path, format: Option<&str>) -> Result<Weights, String> {
        if !path.exists() {
            return Err(format!("field \"file\" names {}, which does not exist", path.display()));
        }
        let detected = if path.is_dir() {
            let listing = self.list(path);
            self.format_of(path, &listing).map(str::to_owned)
        } else {
            format::of_file(path, self.plugin_formats)
        };
        match format.map(str::to_owned).or(detected) {
            None => Err(format!("the format of {} is unknown: name it with \"format\"", path.display())),
            Some(format) if path.is_dir() => Ok(self.folder_weights(path, format)),
            Some(format) => Ok(Weights::of_file(&first_part(path), format)),
        }
    }

    /// The format of a folder that is one model.
    fn format_of(&mut self, folder: &Path, listing: &Listing) -> Option<&'static str> {
        let exported = folder.join(format::ONNX_FOLDER);
        let has_exported =
            listing.folders.contains(&exported) && listing.files.contains(&folder.join(format::CONFIG_FILE));
        let exported = if has_exported { self.list(&exported).files } else { Vec::new() };
        let packages = listing.folders.iter().filter(|folder| format::is_package(folder));
        format::of_folder(folder, listing.files.iter().chain(&exported).chain(packages).map(PathBuf::as_path))
    }

    /// A model that is a whole folder.
    fn folder_weights(&mut self, path: &Path, format: String) -> Weights {
        // Only an extension that tells the format is none of the name: `qwen2.5-7b` is a name.
        let name = if format::is_package(path) { path.file_stem() } else { path.file_name() };
        let stem = name.unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let mut files = Vec::new();
        self.collect_files(path, 0, &mut files);
        Weights { path: path.to_owned(), files, format, stem }
    }

    fn collect_files(&mut self, folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
        let listing = self.list(folder);
        files.extend(listing.files);
        for subfolder in listing.folders.iter().filter(|_| depth < DEPTH_MAX) {
            self.collect_files(subfolder, depth + 1, files);
        }
    }

    /// Adds a model with the settings that are its own, if it has any.
    fn add_with_own_settings(&mut self, weights: Weights) {
        let path = weights.settings_file();
        match path.is_file().then(|| ModelSettings::read(&path)).transpose() {
            Ok(settings) => self.add(weights, settings.unwrap_or_default()),
            Err(error) => self.problem(&path, &error.to_string()),
        }
    }

    fn add(&mut self, weights: Weights, settings: ModelSettings) {
        let (mut size_bytes, mut modified) = (0, SystemTime::UNIX_EPOCH);
        for file in &weights.files {
            match fs::metadata(file) {
                Ok(metadata) => {
                    size_bytes += metadata.len();
                    // Where a file system keeps no times, all models are equally old.
                    modified = modified.max(metadata.modified().unwrap_or(modified));
                }
                Err(error) => {
                    let message =
                        format!("cannot be read, and the model is not complete without it: {error}");
                    return self.problem(file, &message);
                }
            }
        }
        let own_name = settings.name.clone();
        let model = ModelSpec {
            id: settings.name.unwrap_or(weights.stem),
            aliases: settings.aliases,
            path: weights.path,
            files: weights.files,
            format: settings.format.unwrap_or(weights.format),
            size_bytes,
            modified,
            plugin_pin: settings.plugin,
            options: settings.options.0,
            tasks_override: settings.tasks,
            labels: settings.labels,
            pin: settings.pin,
            preload: settings.preload,
            idle_timeout: settings.idle_timeout_ms.map(|timeout| timeout.0),
            golden: settings.golden,
        };
        self.keep(Found { own_name, model });
    }

    /// Keeps a model that was not found before. Links to one file are one model, unless settings give them names of their own:
    /// then the same weights are served with several settings.
    fn keep(&mut self, found: Found) {
        let path = real_path(&found.model.path);
        let is_first = self.known.insert((path.clone(), None));
        let is_new = match &found.own_name {
            Some(name) => self.known.insert((path, Some(name.clone()))),
            None => is_first,
        };
        if is_new {
            self.found.push(found);
        }
    }

    /// What lies in a folder. A folder that cannot be read is reported and seems empty.
    fn list(&mut self, folder: &Path) -> Listing {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                self.problem(folder, &format!("cannot be read: {error}"));
                return Listing::default();
            }
        };
        let mut listing = Listing::default();
        for entry in entries.flatten() {
            if self.entries_left == 0 {
                self.problem(
                    folder,
                    &format!("was not searched to its end: {ENTRIES_MAX} entries are the limit"),
                );
                break;
            }
            self.entries_left -= 1;
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            // Links are followed: models are often links into a cache.
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => listing.folders.push(path),
                Ok(metadata) if metadata.is_file() => listing.files.push(path),
                _ => {}
            }
        }
        listing.files.sort();
        listing.folders.sort();
        listing
    }

    /// Reports a problem, once.
    fn problem(&mut self, path: &Path, message: &str) {
        let problem = CatalogProblem { path: path.to_owned(), message: message.to_owned() };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

impl Weights {
    /// A model in one file, or in several parts of which `path` is the first.
    fn of_file(path: &Path, format: String) -> Self {
        let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let part = Part::of(&stem).filter(|_| format == "gguf");
        let files = match part {
            Some(part) => {
                (1..=part.count).map(|number| path.with_file_name(part.file_name(number, "gguf"))).collect()
            }
            None => std::iter::once(path.to_owned()).chain(companions(path, &format)).collect(),
        };
        let stem = part.map_or(stem.as_str(), |part| part.base).to_owned();
        Self { path: path.to_owned(), files, format, stem }
    }

    /// Where settings for this model alone would be.
    fn settings_file(&self) -> PathBuf {
        if self.path.is_dir() && !format::is_package(&self.path) {
            return self.path.join(SETTINGS_FILE);
        }
        self.path.with_file_name(format!("{}.toml", self.stem))
    }
}

/// Files that belong to a model in one file: beside `X.onnx`, its weights and what Piper says of a voice. Whoever loads the
/// model reads them too.
fn companions(path: &Path, format: &str) -> Vec<PathBuf> {
    let of = |suffix: &str| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        path.with_file_name(name)
    };
    let suffixes: &[&str] = if format == "onnx" { &[".data", "_data", ".json"] } else { &[] };
    suffixes.iter().map(|suffix| of(suffix)).filter(|path| path.is_file()).collect()
}

/// Takes the only candidate that has no settings of its own.
fn only_undescribed(candidates: &mut Vec<Weights>) -> Result<Weights, String> {
    let is_undescribed = |index: &usize| {
        let own = candidates[*index].settings_file();
        // The own settings of `model.onnx` would be `model.toml`: the very file that is being read.
        !own.is_file() || own.ends_with(SETTINGS_FILE)
    };
    let undescribed: Vec<_> = (0..candidates.len()).filter(is_undescribed).collect();
    match undescribed.as_slice() {
        [] => Err("no model without settings of its own lies beside it: name one with \"file\"".to_owned()),
        [index] => Ok(candidates.remove(*index)),
        several => Err(format!("{} models lie beside it: name one with \"file\"", several.len())),
    }
}

/// The first part of a model in several files; any other file is its own first part.
fn first_part(path: &Path) -> PathBuf {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    match stem.and_then(Part::of) {
        Some(part) if path.extension().is_some_and(|extension| extension == "gguf") => {
            path.with_file_name(part.file_name(1, "gguf"))
        }
        _ => path.to_owned(),
    }
}

fn real_path(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
