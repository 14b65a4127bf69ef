//! The hooks of this repository that are written in Python and JavaScript, built into components.
//!
//! They carry an interpreter, tens of megabytes each, so they are built into the cache folder and never committed. Their
//! tools come from the package registries at pinned versions. A machine without one of them still builds the others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::files;
use crate::process;
use crate::python::{Package, Venv};
use crate::workspace::Workspace;

const COMPONENTIZE_PY: Package = Package { name: "componentize-py", version: "0.25.1" };
const WIT: &str = "plugin-api/wit/since_v0.1.0";
const WORLD: &str = "text-hook";
/// What an engine would ask of the machine, left out of hooks in JavaScript.
const DISABLED: [&str; 5] = ["clocks", "fetch-event", "http", "random", "stdio"];
/// What npm reads to install the same packages everywhere.
const NPM_FILES: [&str; 2] = ["package.json", "package-lock.json"];

/// A hook in another language.
struct Hook {
    /// Of the component's file.
    name: &'static str,
    /// In the repository.
    folder: &'static str,
    language: Language,
    /// All that the component is made of, in the folder; the first is what the tool is pointed at.
    sources: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Language {
    Python,
    JavaScript,
}

const HOOKS: &[Hook] = &[
    Hook {
        name: "glossary",
        folder: "plugins/hooks/examples/python",
        language: Language::Python,
        sources: &["hook.py", "glossary.py"],
    },
    Hook {
        name: "link-filter",
        folder: "plugins/hooks/examples/javascript",
        language: Language::JavaScript,
        sources: &["hook.js", "links.js"],
    },
    Hook {
        name: "python-rogue",
        folder: "tests/fixtures/hooks/python-rogue",
        language: Language::Python,
        sources: &["rogue.py"],
    },
];

/// Builds all and prints where the components are; fails when one could not be built.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    for component in build(workspace)? {
        println!("{}", component?.display());
    }
    Ok(())
}

/// Builds what changed since the last time. Returns each component, or what is missing to build it.
///
/// The components are `NAME.wasm` in the folder [`Workspace::foreign_hooks`]. Where one cannot be built, `NAME.missing`
/// says why, for tests that are skipped then.
pub(crate) fn build(workspace: &Workspace) -> Result<Vec<Result<PathBuf>>> {
    let folder = workspace.foreign_hooks();
    fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
    let build = |hook: &Hook| {
        let component = folder.join(format!("{}.wasm", hook.name));
        let missing = component.with_extension("missing");
        let built = build_hook(workspace, hook, &component)
            .with_context(|| format!("could not build the hook {}", hook.name));
        match &built {
            Ok(()) => remove_file(&missing)?,
            Err(error) => {
                // One of older sources would be taken for this one.
                remove_file(&component)?;
                fs::write(&missing, format!("{error:#}\n"))?;
            }
        }
        Ok(built.map(|()| component))
    };
    HOOKS.iter().map(build).collect()
}

fn build_hook(workspace: &Workspace, hook: &Hook, component: &Path) -> Result<()> {
    let stamp_file = component.with_extension("stamp");
    let stamp = stamp(workspace, hook)?;
    let is_built =
        || component.is_file() && fs::read_to_string(&stamp_file).is_ok_and(|written| written == stamp);
    if is_built() {
        return Ok(());
    }
    let partial = component.with_extension("partial");
    // Before this takes the lock, because installing takes it too.
    let mut tool = match hook.language {
        Language::Python => componentize_py(workspace, hook, &partial)?,
        Language::JavaScript => componentize_js(workspace, hook, &partial)?,
    };
    let _lock = workspace.lock_cache()?;
    // Another command may have built it while this one waited for the lock.
    if is_built() {
        return Ok(());
    }
    eprintln!("hooks: building {}", hook.name);
    process::run(tool.current_dir(workspace.root().join(hook.folder)))?;
    remove_file(&stamp_file)?;
    fs::rename(&partial, component).with_context(|| format!("could not create {}", component.display()))?;
    fs::write(stamp_file, stamp)?;
    Ok(())
}

/// Names all that decides a component.
fn stamp(workspace: &Workspace, hook: &Hook) -> Result<String> {
    let folder = workspace.root().join(hook.folder);
    let mut files: Vec<_> = hook.sources.iter().map(|source| folder.join(source)).collect();
    let mut lines = match hook.language {
        Language::Python => vec![COMPONENTIZE_PY.requirement()],
        Language::JavaScript => {
            files.extend(NPM_FILES.map(|name| folder.join(name)));
            vec![format!("without {}", DISABLED.join(" "))]
        }
    };
    files.push(workspace.root().join(WIT).join("hook.wit"));
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        lines.push(format!("{name} {}", files::sha256_hex(&file)?));
    }
    Ok(lines.join("\n") + "\n")
}

/// The command of componentize-py, which is installed then.
fn componentize_py(workspace: &Workspace, hook: &Hook, output: &Path) -> Result<Command> {
    let venv = Venv::of(workspace);
    venv.create(workspace)?;
    venv.install(workspace, &[COMPONENTIZE_PY])?;
    let mut command = Command::new(venv.bin().join(COMPONENTIZE_PY.name));
    // It would offer the packages of the environment that it finds to the component.
    let empty = workspace.foreign_hooks().join("no-packages");
    let packages = empty.join("lib/site-packages");
    fs::create_dir_all(&packages).with_context(|| format!("could not create {}", packages.display()))?;
    command.env("VIRTUAL_ENV", empty).env_remove("PYTHONPATH");
    command.arg("--wit-path").arg(workspace.root().join(WIT)).args(["--world", WORLD, "--quiet"]);
    command.args(["componentize", hook.sources[0].trim_end_matches(".py"), "--output"]).arg(output);
    Ok(command)
}

/// The command of componentize-js, which is installed then, as the hook's own lock file says.
fn componentize_js(workspace: &Workspace, hook: &Hook, output: &Path) -> Result<Command> {
    let (node, npm) = (find_node_program("node")?, find_node_program("npm")?);
    let (source, folder) = (workspace.root().join(hook.folder), workspace.node_tools());
    if !are_packages_installed(&source, &folder)? {
        let _lock = workspace.lock_cache()?;
        if !are_packages_installed(&source, &folder)? {
            install_packages(&npm, &source, &folder)?;
        }
    }
    let mut command = Command::new(node);
    command.arg(folder.join("node_modules/@bytecodealliance/componentize-js/src/cli.js"));
    command.arg(hook.sources[0]).arg("--wit").arg(workspace.root().join(WIT));
    command.args(["--world-name", WORLD, "--out"]).arg(output).arg("--disable").args(DISABLED);
    Ok(command)
}

fn find_node_program(name: &str) -> Result<PathBuf> {
    process::find_program(name, Path::new("")).with_context(|| {
        format!(
            "{name} is not on PATH; install Node.js 20 or newer with npm (Debian and Ubuntu: apt-get install nodejs \
             npm, Fedora: dnf install nodejs npm, macOS: brew install node)"
        )
    })
}

fn are_packages_installed(source: &Path, folder: &Path) -> Result<bool> {
    for name in NPM_FILES {
        let wanted = source.join(name);
        let wanted = fs::read(&wanted).with_context(|| format!("could not read {}", wanted.display()))?;
        if !fs::read(folder.join(name)).is_ok_and(|installed| installed == wanted) {
            return Ok(false);
        }
    }
    // npm writes it last.
    Ok(folder.join("node_modules/.package-lock.json").is_file())
}

/// Installs what the lock file lists, with the hash of each package checked and no program of theirs run.
fn install_packages(npm: &Path, source: &Path, folder: &Path) -> Result<()> {
    eprintln!("hooks: installing componentize-js into {}", folder.display());
    files::remove_folder(folder)?;
    for name in NPM_FILES {
        files::install(&source.join(name), &folder.join(name))?;
    }
    let mut npm = Command::new(npm);
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    process::stdout_of(npm.current_dir(folder)).context("could not install componentize-js")?;
    Ok(())
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("could not remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(hook: &Hook) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(hook.folder)
    }

    #[test]
    fn every_module_of_a_hook_is_listed_so_that_a_change_to_it_builds_again() {
        for hook in HOOKS {
            let is_module = |name: &str| {
                (name.ends_with(".py") && !name.starts_with("test_"))
                    || (name.ends_with(".js") && !name.ends_with(".test.js"))
            };
            let entries = fs::read_dir(source(hook)).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut found: Vec<_> = names.filter(|name| is_module(name)).collect();
            found.sort();
            let mut listed = hook.sources.to_vec();
            listed.sort_unstable();
            assert_eq!(found, listed, "{}", hook.name);
        }
    }

    #[test]
    fn packages_count_as_installed_only_for_the_same_lock_file() {
        let folder = tempfile::tempdir().unwrap();
        let (source, installed) = (folder.path().join("source"), folder.path().join("installed"));
        fs::create_dir_all(installed.join("node_modules")).unwrap();
        fs::create_dir_all(&source).unwrap();
        for name in NPM_FILES {
            fs::write(source.join(name), "1").unwrap();
            fs::write(installed.join(name), "1").unwrap();
        }
        assert!(!are_packages_installed(&source, &installed).unwrap(), "broken off");
        fs::write(installed.join("node_modules/.package-lock.json"), "").unwrap();
        assert!(are_packages_installed(&source, &installed).unwrap());
        fs::write(source.join(NPM_FILES[1]), "2").unwrap();
        assert!(!are_packages_installed(&source, &installed).unwrap());
    }

    /// The parts of the examples that know nothing of hooks have tests in their own language.
    #[test]
    fn the_examples_pass_their_own_tests() {
        for (program, arguments, hook) in
            [("python3", ["-B", "-m", "unittest"].as_slice(), &HOOKS[0]), ("node", &["--test"], &HOOKS[1])]
        {
            let Some(program) = process::find_program(program, Path::new("")) else {
                eprintln!("skipped: {program} is not on PATH");
                continue;
            };
            let output = Command::new(program).args(arguments).current_dir(source(hook)).output().unwrap();
            let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {printed}", hook.name);
        }
    }
}
