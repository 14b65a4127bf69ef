//! From a file to a hook that can be started: what it imports and exports, compiled.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use sha2::{Digest as _, Sha256};
use wasmtime::component::{Component, ComponentExportIndex, InstancePre};

use super::error::LoadError;
use super::instance::Instance;
use super::runtime::Runtime;
use super::state::{State, Surroundings};
use super::v0_1::{self, Function};
use super::value::Description;
use crate::config::HookConfig;

/// Largest file of a hook; those made of Python or JavaScript have up to 40 MB.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// First bytes of a core module; a component has another version.
const CORE_MODULE: [u8; 8] = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];

/// A loaded hook with its operator's settings.
pub(super) struct Hook {
    pub(super) runtime: Arc<Runtime>,
    pub(super) pre: InstancePre<State>,
    pub(super) surroundings: Surroundings,
    /// Whether it imports WASI, whose functions may wait.
    pub(super) is_wasi: bool,
    functions: Vec<(Function, ComponentExportIndex)>,
    /// What is known of it.
    pub(super) facts: Facts,
}

/// What is known of a loaded hook.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Facts {
    /// What it says of itself.
    #[serde(flatten)]
    pub description: Description,
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Size of the file.
    pub size_bytes: u64,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Hook").field(&self.facts).finish()
    }
}

impl Hook {
    /// Reads, compiles and starts a hook once, to hear what it is and whether it likes its configuration. Blocks: large
    /// components take seconds to compile the first time.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub(super) fn load(
        runtime: &Arc<Runtime>,
        path: &Path,
        config: &HookConfig,
        total_bytes: &Arc<AtomicUsize>,
    ) -> Result<Arc<Self>, LoadError> {
        let file = read(path)?;
        let size_bytes = file.len() as u64;
        let sha256 = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
        // The engine's reasons have several lines.
        let broken = |reason: String| LoadError::Broken {
            path: path.to_owned(),
            reason: reason.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        let component = as_component(file).map_err(broken)?;
        let component = Component::new(&runtime.engine, component).map_err(|e| broken(format!("{e:#}")))?;
        let wrong = |reason: String| LoadError::WrongWorld { path: path.to_owned(), reason };
        let (imports, exports) = names(runtime, &component);
        let is_wasi = check_imports(&imports).map_err(wrong)?;
        check_exports(&exports).map_err(wrong)?;
        let linker = if is_wasi { &runtime.wasi } else { &runtime.plain };
        let pre = linker.instantiate_pre(&component).map_err(|e| wrong(format!("{e:#}")))?;
        let surroundings = Surroundings {
            hook: config.name.as_str().into(),
            config: serde_json::Value::Object(config.config.clone()).to_string().into(),
            limits: config.limits,
            grants: config.grants.clone().into(),
            total_bytes: Arc::clone(total_bytes),
        };
        let hook = Self {
            runtime: Arc::clone(runtime),
            pre,
            surroundings,
            is_wasi,
            functions: functions(&component),
            facts: Facts {
                description: Description::default(),
                path: path.to_owned(),
                sha256,
                size_bytes,
                imports,
                exports,
            },
        };
        let hook = Arc::new(hook);
        let description = hook.describe()?;
        let mut hook = Arc::into_inner(hook).ok_or(LoadError::Lost)?;
        hook.facts.description = description;
        Ok(Arc::new(hook))
    }

    /// Starts it once, to hear what it is and whether it likes its configuration.
    fn describe(self: &Arc<Self>) -> Result<Description, LoadError> {
        let mut instance = Instance::start(self).map_err(LoadError::Describe)?;
        let wrong = |reason: String| LoadError::WrongWorld { path: self.facts.path.clone(), reason };
        v0_1::check_types(&mut instance).map_err(wrong)?;
        v0_1::describe(&mut instance).map_err(LoadError::Describe)?.map_err(LoadError::Config)
    }

    /// The functions that it exports.
    pub(super) fn functions(&self) -> impl Iterator<Item = Function> {
        self.functions.iter().map(|(function, _)| *function)
    }

    /// The export, if the hook has it.
    pub(super) fn function(&self, function: Function) -> Option<&ComponentExportIndex> {
        self.functions.iter().find(|(known, _)| *known == function).map(|(_, index)| index)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let error = |source| LoadError::Read { path: path.to_owned(), source };
    let len = std::fs::metadata(path).map_err(error)?.len();
    if len > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge { path: path.to_owned(), len, max: FILE_BYTES_MAX });
    }
    std::fs::read(path).map_err(error)
}

/// A core module with the metadata of wit-bindgen is wrapped.
fn as_component(file: Vec<u8>) -> Result<Vec<u8>, String> {
    if !file.starts_with(&CORE_MODULE) {
        return Ok(file);
    }
    let mut encoder = wit_component::ComponentEncoder::default();
    let encoded = encoder.validate(true).module(&file).and_then(|encoder| encoder.encode());
    encoded.map_err(|error| format!("{error:#}"))
}

/// Names of what a component imports and exports.
fn names(runtime: &Runtime, component: &Component) -> (Vec<String>, Vec<String>) {
    let ty = component.component_type();
    let imports = ty.imports(&runtime.engine).map(|(name, _)| name.to_owned()).collect();
    let exports = ty.exports(&runtime.engine).map(|(name, _)| name.to_owned()).collect();
    (imports, exports)
}

/// Whether it imports WASI.
fn check_imports(imports: &[String]) -> Result<bool, String> {
    let mut is_wasi = false;
    for import in imports {
        if import.starts_with("wasi:") {
            is_wasi = true;
        } else if !is_ours(import)? {
            return Err(format!("it imports {import}, which hooks do not get"));
        }
    }
    Ok(is_wasi)
}

fn check_exports(exports: &[String]) -> Result<(), String> {
    let mut ours = Vec::new();
    for export in exports {
        if is_ours(export)? {
            ours.push(export.as_str());
        }
    }
    if !ours.iter().any(|export| interface(export) == interface(v0_1::INFO)) {
        return Err("it exports no pajamas:hook/info".to_owned());
    }
    let useful = [v0_1::TEXT, v0_1::IMAGE, v0_1::AUDIO, v0_1::TENSOR];
    if !ours.iter().any(|export| useful.iter().any(|useful| interface(useful) == interface(export))) {
        return Err("it exports none of text, image, audio and tensor".to_owned());
    }
    Ok(())
}

/// A name without its version.
fn interface(name: &str) -> &str {
    name.split_once('@').map_or(name, |(interface, _)| interface)
}

/// Whether the name belongs to the package of hooks.
///
/// # Errors
/// To a version of it that this host does not speak.
fn is_ours(name: &str) -> Result<bool, String> {
    let Some((package, _)) = name.split_once('/') else { return Ok(false) };
    if package != v0_1::PACKAGE {
        return Ok(false);
    }
    match name.split_once('@') {
        Some((_, version)) if version.starts_with("0.1.") => Ok(true),
        _ => Err(format!("it speaks {name}, this host version 0.1 of {}", v0_1::PACKAGE)),
    }
}

fn functions(component: &Component) -> Vec<(Function, ComponentExportIndex)> {
    let find = |function: Function| {
        let (interface, name) = function.path();
        let instance = component.get_export_index(None, interface)?;
        Some((function, component.get_export_index(Some(&instance), name)?))
    };
    Function::ALL.into_iter().filter_map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hooks_of_this_version_are_taken() {
        let table: &[(&[&str], Result<(), &str>)] = &[
            (&["pajamas:hook/info@0.1.0", "pajamas:hook/text@0.1.0"], Ok(())),
            (&["pajamas:hook/info@0.1.7", "pajamas:hook/tensor@0.1.7", "other:x/y"], Ok(())),
            (&["pajamas:hook/text@0.1.0"], Err("no pajamas:hook/info")),
            (&["pajamas:hook/info@0.1.0"], Err("none of text")),
            (&["pajamas:hook/info@0.2.0", "pajamas:hook/text@0.2.0"], Err("speaks pajamas:hook/info@0.2.0")),
            (&["pajamas:hook/info"], Err("version 0.1")),
            (&["wasi:cli/run@0.2.0"], Err("no pajamas:hook/info")),
        ];
        for (exports, expected) in table {
            let exports: Vec<String> = exports.iter().map(|name| (*name).to_owned()).collect();
            match (check_exports(&exports), expected) {
                (Ok(()), Ok(())) => {}
                (Err(reason), Err(part)) => assert!(reason.contains(part), "{exports:?}: {reason}"),
                (outcome, expected) => panic!("{exports:?}: {outcome:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn imports_beyond_ours_and_wasi_are_refused() {
        let check = |name: &str| check_imports(&[name.to_owned()]);
        assert_eq!(check("pajamas:hook/log@0.1.0"), Ok(false));
        assert_eq!(check("wasi:io/streams@0.2.3"), Ok(true));
        assert!(check("evil:kernel/ring0@1.0.0").is_err());
    }
}
