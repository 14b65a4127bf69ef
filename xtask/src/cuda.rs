//! The variant `cuda` of the plugin `gguf`: the same plugin with one file more, llama.cpp's backend for NVIDIA GPUs.
//!
//! The backend is loaded at run time like those for processors, so it alone needs a compiler for CUDA, and may come from
//! another machine: its interface to the rest is C and is checked when it is loaded.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use pajamas_plugin_api::manifest::{AccelNeeds, Manifest};
use pajamas_plugin_api::{Accel, ComputeCapability, ComputeRule};
use serde::Deserialize;

use crate::build::llama;
use crate::files;
use crate::process;
use crate::setup::Tools;

/// The folder of the variant, beside that of `gguf`.
pub(crate) const FOLDER: &str = "gguf-cuda";
/// The backend's file, as llama.cpp looks for it.
const LIBRARY: &str = "libggml-cuda.so";
/// Where the backend looks for NVIDIA's libraries before the system's places: beside itself, and where NVIDIA's installers
/// put the newest version.
const RUN_PATH: &str = "$ORIGIN:/usr/local/cuda/lib64";
/// What is in the names of NVIDIA's run-time library before the version that a library was linked with.
const RUNTIME: &[u8] = b"libcudart.so.";

/// A generation of GPUs that the backend is compiled for, as CMake's `CMAKE_CUDA_ARCHITECTURES` has it: `90` (machine code,
/// and code that drivers compile for newer ones), `90-real` (machine code alone), `90-virtual`, `120a`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Architecture {
    capability: ComputeCapability,
    text: String,
}

/// What is compiled when nothing is asked for: Ada and Hopper.
pub(crate) fn architectures() -> [Architecture; 2] {
    let capability = |major, minor| ComputeCapability { major, minor };
    [(capability(8, 9), "89"), (capability(9, 0), "90")]
        .map(|(capability, text)| Architecture { capability, text: text.to_owned() })
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim_end_matches("-real").trim_end_matches("-virtual").trim_end_matches(['a', 'f']);
        let digits = number.len().checked_sub(1).and_then(|at| number.split_at_checked(at));
        let capability = digits.and_then(|(major, minor)| {
            Some(ComputeCapability { major: major.parse().ok()?, minor: minor.parse().ok()? })
        });
        match capability {
            Some(capability) => Ok(Self { capability, text: text.to_owned() }),
            None => {
                Err(format!("\"{text}\" is no architecture of CMake: expected such as 89, 90-real or 120a"))
            }
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Architecture {
    /// The GPUs that run it. Code for one that is not `-real` and not specific (`a`, `f`) is compiled by the driver for newer ones.
    fn rule(&self) -> ComputeRule {
        if self.text.bytes().all(|byte| byte.is_ascii_digit()) || self.text.ends_with("-virtual") {
            ComputeRule::AtLeast(self.capability)
        } else {
            ComputeRule::Exactly(self.capability)
        }
    }
}

/// The GPUs that run one of these, each said once.
fn rules(architectures: &[Architecture]) -> Vec<ComputeRule> {
    let all: Vec<ComputeRule> = architectures.iter().map(Architecture::rule).collect();
    let least = all.iter().filter_map(|rule| match rule {
        ComputeRule::AtLeast(least) => Some(*least),
        ComputeRule::Exactly(_) => None,
    });
    let least = least.min();
    let below = all.into_iter().filter(|rule| match rule {
        ComputeRule::Exactly(one) => least.is_none_or(|least| *one < least),
        ComputeRule::AtLeast(_) => false,
    });
    below.chain(least.map(ComputeRule::AtLeast)).collect()
}

/// Compiles the backend from the sources that the plugin's own llama.cpp is from. Minutes, on many processors.
pub(crate) fn build(tools: &Tools, architectures: &[Architecture]) -> Result<PathBuf> {
    let (sources, target) = sources_and_target(tools)?;
    let folder = target.join("cuda");
    let configure = configure(tools, &sources, &folder, architectures);
    if process::find_program("nvcc", Path::new("")).is_none() && std::env::var_os("CUDACXX").is_none() {
        bail!(
            "nvcc is not on PATH: install NVIDIA's CUDA toolkit, or set CUDACXX to its nvcc. Or do this on a machine that has it, with a \
             copy of that folder, and give the file bin/{LIBRARY} to --cuda here:\n{}\ncmake --build {} --target ggml-cuda",
            process::display(&configure),
            folder.display()
        );
    }
    process::run(&mut { configure })?;
    let mut compile = tools.command("cmake");
    process::run(compile.arg("--build").arg(&folder).args(["--target", "ggml-cuda", "--parallel"]))?;
    Ok(folder.join("bin").join(LIBRARY))
}

/// The plugin's own build has the same settings where they concern this backend.
fn configure(tools: &Tools, sources: &Path, folder: &Path, architectures: &[Architecture]) -> Command {
    let names: Vec<String> = architectures.iter().map(ToString::to_string).collect();
    let mut cmake = tools.command("cmake");
    cmake.arg("-S").arg(sources).arg("-B").arg(folder).args([
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_SHARED_LIBS=ON",
        "-DGGML_BACKEND_DL=ON",
        "-DGGML_CPU=OFF",
        "-DGGML_NATIVE=OFF",
        "-DGGML_CUDA=ON",
        "-DGGML_CUDA_NCCL=OFF",
        "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    ]);
    for part in ["COMMON", "TESTS", "EXAMPLES", "TOOLS", "SERVER", "APP"] {
        cmake.arg(format!("-DLLAMA_BUILD_{part}=OFF"));
    }
    cmake.arg(format!("-DCMAKE_INSTALL_RPATH={RUN_PATH}"));
    cmake.arg(format!("-DCMAKE_CUDA_ARCHITECTURES={}", names.join(";")));
    cmake
}

/// Lays out the variant's folder beside that of `gguf`, in the folder of the plugins.
pub(crate) fn place(library: &Path, architectures: &[Architecture], plugins: &Path) -> Result<()> {
    if !llama::IS_SEPARATE {
        bail!("the package for NVIDIA GPUs is made on Linux only");
    }
    let content = fs::read(library).with_context(|| format!("could not read {}", library.display()))?;
    let Some(version) = runtime_version(&content) else {
        bail!("{} does not use NVIDIA's libcudart: is it {LIBRARY}?", library.display());
    };
    let (gguf, folder) = (plugins.join("gguf"), plugins.join(FOLDER));
    files::remove_folder(&folder)?;
    files::copy_folder(&gguf, &folder)?;
    files::install(library, &folder.join("lib").join(LIBRARY))?;
    let mut manifest = Manifest::read(&gguf)?;
    manifest.variant = Some("cuda".to_owned());
    // Where the machine has such a GPU, it comes before the variant for the CPU.
    manifest.accel = Some(AccelNeeds {
        api: Accel::Cuda,
        driver_min: Some(version * 1000),
        compute: rules(architectures),
        vram_min_mb: None,
    });
    // The numbers of GPUs are those that the host and nvidia-smi use.
    manifest.environment.insert("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned());
    llama::write_manifest(&manifest, &folder)
}

/// The version of CUDA that a library was linked with, from the name of the run-time library that it asks for.
fn runtime_version(library: &[u8]) -> Option<u32> {
    let at = library.windows(RUNTIME.len()).position(|window| window == RUNTIME)?;
    let name = library.get(at + RUNTIME.len()..)?;
    let digits = name.iter().take_while(|byte| byte.is_ascii_digit()).take(3);
    digits.fold(None, |number, digit| Some(number.unwrap_or(0) * 10 + u32::from(digit - b'0')))
}

/// llama.cpp's sources inside the package that compiles it, and cargo's target folder.
fn sources_and_target(tools: &Tools) -> Result<(PathBuf, PathBuf)> {
    #[derive(Deserialize)]
    struct Package {
        name: String,
        manifest_path: PathBuf,
    }
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
        target_directory: PathBuf,
    }
    let text = process::stdout_of(tools.cargo().args(["metadata", "--format-version", "1"]))?;
    let metadata: Metadata =
        serde_json::from_str(&text).context("could not read the output of cargo metadata")?;
    let package = metadata.packages.into_iter().find(|package| package.name == llama::PACKAGE);
    let package = package.with_context(|| format!("the workspace does not use {}", llama::PACKAGE))?;
    Ok((package.manifest_path.with_file_name("llama.cpp"), metadata.target_directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_tell_which_gpus_will_do() {
        for (text, rule) in [
            ("89", ">=8.9"),
            ("90", ">=9.0"),
            ("120", ">=12.0"),
            ("90-virtual", ">=9.0"),
            ("90-real", "9.0"),
            ("90a", "9.0"),
            ("120a-real", "12.0"),
        ] {
            let architecture: Architecture = text.parse().unwrap();
            assert_eq!(
                (architecture.rule().to_string(), architecture.to_string()),
                (rule.into(), text.into())
            );
        }
        let list = |texts: &[&str]| {
            let list: Vec<Architecture> = texts.iter().map(|text| text.parse().unwrap()).collect();
            rules(&list).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(list(&["90", "89"]), ">=8.9");
        assert_eq!(list(&["80-real", "90", "90a", "100-real"]), "8.0 >=9.0");
        assert_eq!(list(&["80-real", "90a"]), "8.0 9.0");
        for text in ["", "9", "x0", "native", "9.0", "é"] {
            let error = text.parse::<Architecture>().unwrap_err();
            assert!(error.starts_with(&format!("\"{text}\" is no architecture")), "{error}");
        }
    }

    #[test]
    fn the_version_of_cuda_is_that_of_the_library_that_is_asked_for() {
        for (content, version) in [
            (&b"\x7fELF\0libcudart.so.13\0libcublas.so.13"[..], Some(13)),
            (b"libcudart.so.9", Some(9)),
            (b"libcudart.so.", None),
            (b"libcublas.so.13", None),
            (b"", None),
        ] {
            assert_eq!(runtime_version(content), version);
        }
    }

    #[test]
    fn the_variant_is_the_plugin_with_the_backend() {
        let folder = tempfile::tempdir().unwrap();
        let gguf = folder.path().join("gguf");
        fs::create_dir_all(gguf.join("lib")).unwrap();
        let manifest = "name = \"gguf\"\nversion = \"0.1.0\"\npublisher = \"tests\"\nlicense = \"MIT\"\ndescription = \"models\"\n\
                        abi = \">=1.0, <2\"\nentry = \"lib/pajamas_gguf\"\n[accel]\napi = \"cpu\"\n";
        fs::write(gguf.join("plugin.toml"), manifest).unwrap();
        fs::write(gguf.join("lib/libpajamas_gguf.so"), "plugin").unwrap();
        let library = folder.path().join("elsewhere.so");

        fs::write(&library, "no library").unwrap();
        let error = place(&library, &architectures(), folder.path()).unwrap_err();
        assert!(error.to_string().contains("libcudart"), "{error}");

        fs::write(&library, "libcudart.so.13").unwrap();
        place(&library, &architectures(), folder.path()).unwrap();
        let variant = folder.path().join(FOLDER);
        for file in ["lib/libpajamas_gguf.so", "lib/libggml-cuda.so"] {
            assert!(variant.join(file).is_file(), "{file}");
        }
        let manifest = Manifest::read(&variant).unwrap();
        let accel = manifest.accel.unwrap();
        assert_eq!(
            (manifest.variant.as_deref(), accel.api, accel.driver_min),
            (Some("cuda"), Accel::Cuda, Some(13_000))
        );
        let rules: Vec<String> = accel.compute.iter().map(ToString::to_string).collect();
        assert_eq!(rules, [">=8.9"]);
    }
}
