//! `plugins new`: the sources of a plugin that builds and passes `plugins check` as they are.

use std::fs;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::manifest::is_name;

use super::Error;
use super::print::Printer;

#[derive(Debug, clap::Args)]
pub(super) struct NewArgs {
    /// The plugin's name; its sources come into a folder of that name here
    #[arg(value_name = "NAME")]
    name: String,
    /// The language
    #[arg(long, value_enum)]
    lang: Language,
    /// Who publishes it
    #[arg(long, value_name = "NAME", default_value = "me")]
    publisher: String,
    /// Rust only: the folder of pajamas-plugin-api's sources [default: cargo finds the crate by its version]
    #[arg(long, value_name = "DIR")]
    api: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Language {
    /// With the crate pajamas-plugin-api
    Rust,
    /// With pajamas_plugin.h alone
    C,
}

/// A file of a template, and its text.
type File = (&'static str, &'static str);

const RUST: [File; 4] = [
    ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml.in")),
    ("Makefile", include_str!("../../templates/rust/Makefile")),
    ("plugin.toml", include_str!("../../templates/rust/plugin.toml")),
    ("src/lib.rs", include_str!("../../templates/rust/src/lib.rs")),
];

/// The plugin in C with which hosts are tested, and what its author needs to read.
const C: [File; 9] = [
    ("Makefile", include_str!("../../templates/c/Makefile")),
    ("plugin.toml", include_str!("../../templates/c/plugin.toml")),
    ("echo.c", include_str!("../../../tests/fixtures/plugins/echo-c/echo.c")),
    ("echo.h", include_str!("../../../tests/fixtures/plugins/echo-c/echo.h")),
    ("json.c", include_str!("../../../tests/fixtures/plugins/echo-c/json.c")),
    ("json.h", include_str!("../../../tests/fixtures/plugins/echo-c/json.h")),
    ("model.c", include_str!("../../../tests/fixtures/plugins/echo-c/model.c")),
    ("include/pajamas_plugin.h", include_str!("../../../plugin-api/include/pajamas_plugin.h")),
    ("SPEC.md", include_str!("../../../plugin-api/SPEC.md")),
];

pub(super) fn run(args: &NewArgs) -> Result<(), Error> {
    if !is_name(&args.name) {
        return Err(Error::Usage("a plugin's name is 1 to 64 lower-case letters, digits and hyphens"));
    }
    let folder = Path::new(&args.name);
    let files: &[File] = match args.lang {
        Language::Rust => &RUST,
        Language::C => &C,
    };
    fs::create_dir(folder).map_err(|source| Error::WriteFile { path: folder.to_owned(), source })?;
    for (name, text) in files {
        let path = folder.join(name);
        let write = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&path, fill(name, text, args))
        };
        write().map_err(|source| Error::WriteFile { path: path.clone(), source })?;
    }
    let name = &args.name;
    Printer::stdout().line(format_args!(
        "made {name}; try it: make -C {name} && pajamas-host plugins check {name}; docs/plugins.md says how to publish it"
    ))
}

/// The text with the plugin's names in it. The sources in C are a plugin called echo-c.
fn fill(file: &str, text: &str, args: &NewArgs) -> String {
    if file == "SPEC.md" || file.ends_with("pajamas_plugin.h") {
        return text.to_owned();
    }
    if args.lang == Language::C && file.contains(".c") {
        return text.replace("echo-c", &args.name);
    }
    let api = match &args.api {
        Some(path) => format!("{{ path = {:?} }}", std::path::absolute(path).unwrap_or(path.clone())),
        None => format!("\"{}\"", env!("CARGO_PKG_VERSION")),
    };
    text.replace("{name}", &args.name)
        .replace("{library}", &args.name.replace('-', "_"))
        .replace("{publisher}", &args.publisher)
        .replace("{api}", &api)
        .replace("{os}", std::env::consts::OS)
        .replace("{arch}", std::env::consts::ARCH)
        .replace("{suffix}", std::env::consts::DLL_SUFFIX)
}
