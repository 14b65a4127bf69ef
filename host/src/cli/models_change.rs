//! `models pull` and `models rm`: what is in the models folders.

use std::fs;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::print::{Printer, bytes};
use super::{Error, resolve};
use crate::config::Config;
use crate::models::SETTINGS_FILE;
use crate::models::pull::{ENDPOINT, Hub, ModelRef};

#[derive(Debug, clap::Args)]
pub(super) struct PullArgs {
    /// The model: hf:ORG/REPO, with :FILE for one of its files, and @REVISION for a branch, tag or commit
    #[arg(value_name = "hf:ORG/REPO[:FILE][@REVISION]")]
    model: String,
    /// Where to put it [default: the first models folder]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Another hub that speaks the same protocol
    #[arg(long, value_name = "URL", env = "HF_ENDPOINT", default_value = ENDPOINT)]
    endpoint: String,
    /// A token, for what is not public
    #[arg(long, value_name = "TOKEN", env = "HF_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// A name that `models list` shows
    #[arg(value_name = "MODEL")]
    model: String,
}

/// `models pull`.
pub(super) fn pull(config: &Config, args: &PullArgs, json: bool) -> Result<(), Error> {
    let wanted: ModelRef = args.model.parse()?;
    let Some(dir) = args.to.clone().or_else(|| config.models_dirs.first().cloned()) else {
        return Err(Error::Usage("there is no models folder: name one with --to"));
    };
    let hub = Hub::new(&args.endpoint, args.token.clone().filter(|token| !token.is_empty()))?;
    let listing = hub.find(&wanted)?;
    let bar = ProgressBar::new(0);
    // The template is valid.
    if let Ok(style) =
        ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
    {
        bar.set_style(style);
    }
    let path = hub.fetch(&listing, &dir, &mut |file, received| {
        bar.set_message(file.file_name().to_owned());
        bar.set_length(file.len);
        bar.set_position(received);
    });
    bar.finish_and_clear();
    let path = path?;
    let mut printer = Printer::stdout();
    if json {
        return printer.json(&json!({
            "model": wanted.to_string(),
            "commit": listing.commit,
            "path": path,
            "files": listing.files.len(),
            "size_bytes": listing.bytes(),
        }));
    }
    printer.line(format_args!(
        "{wanted} at {} is in {} ({} files, {})",
        listing.commit.get(..12).unwrap_or(&listing.commit),
        path.display(),
        listing.files.len(),
        bytes(listing.bytes())
    ))
}

/// `models rm`: removes the files of a model below the models folders, and its settings file; nothing else.
pub(super) fn remove(config: &Config, args: &RemoveArgs, json: bool) -> Result<(), Error> {
    let catalog = resolve::catalog(config);
    let Some(model) = catalog.find(&args.model) else {
        let known = catalog.models.into_iter().map(|model| model.id).collect();
        return Err(Error::UnknownModel { name: args.model.clone(), known });
    };
    let is_ours = |path: &Path| config.models_dirs.iter().any(|dir| path.starts_with(dir) && path != dir);
    if !is_ours(&model.path) || !model.files.iter().all(|file| is_ours(file)) {
        return Err(Error::Usage(
            "the model does not lie inside of a models folder, and is not this program's to remove",
        ));
    }
    let removed = if model.path.is_dir() {
        fs::remove_dir_all(&model.path)
    } else {
        let settings = model.path.with_extension("toml");
        // `model.toml` may be about other files of its folder.
        let is_its_own = settings.is_file() && !settings.ends_with(SETTINGS_FILE);
        let files = model.files.iter().chain(is_its_own.then_some(&settings));
        files.into_iter().try_for_each(fs::remove_file)
    };
    removed.map_err(|source| Error::WriteFile { path: model.path.clone(), source })?;
    let mut printer = Printer::stdout();
    if json {
        return printer
            .json(&json!({"model": model.id, "path": model.path, "freed_bytes": model.size_bytes}));
    }
    printer.line(format_args!("{} is removed, {} are free again", model.id, bytes(model.size_bytes)))
}
