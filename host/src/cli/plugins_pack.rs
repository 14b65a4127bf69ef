//! `plugins pack`: a plugin's folder as one file that can be published.

use std::path::PathBuf;

use pajamas_registry::package::pack;
use pajamas_registry::title;
use serde_json::json;

use super::Error;
use super::print::{Printer, bytes};

#[derive(Debug, clap::Args)]
pub(super) struct PackArgs {
    /// The plugin's folder: plugin.toml, the library, and what it needs to run, but not its sources
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The package [default: NAME-VERSION[-VARIANT].tar.zst here]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &PackArgs, json: bool) -> Result<(), Error> {
    let output = match &args.output {
        Some(output) => output.clone(),
        None => {
            let manifest = pajamas_plugin_api::Manifest::read(&args.dir)?;
            let variant = manifest.variant.map(|variant| format!("-{variant}")).unwrap_or_default();
            PathBuf::from(format!("{}-{}{variant}.tar.zst", manifest.name, manifest.version))
        }
    };
    let packed = pack(&args.dir, &output)?;
    let mut printer = Printer::stdout();
    if json {
        return printer.json(&json!({
            "package": packed.archive,
            "sha256": packed.sha256,
            "len": packed.len,
            "manifest": packed.manifest,
        }));
    }
    printer.line(format_args!(
        "{}: {} ({} files, {}), sha256 {}",
        packed.archive.display(),
        title(&packed.manifest),
        packed.manifest.files.len(),
        bytes(packed.len),
        packed.sha256
    ))
}
