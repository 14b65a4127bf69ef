//! `cargo xtask setup`: the tools that compiling the engines needs, and the environment that points cargo at them.
//!
//! A usable cmake or libclang of the system is used as it is; otherwise both come as pinned wheels into a private
//! virtual environment, because these need no root and are the same on every machine. A wheel that is there already
//! wins over the system's: the environment, and with it cargo's cache of minutes of C++, must not change when a
//! contributor installs something.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::mlx;
use crate::process;
use crate::python::{Package, Venv};
use crate::workspace::Workspace;

mod system;

const CMAKE: Package = Package { name: "cmake", version: "4.4.5" };
const LIBCLANG: Package = Package { name: "libclang", version: "18.1.1" };

#[derive(Args)]
pub(crate) struct SetupArgs {
    /// Print `export` lines for a POSIX shell: eval "$(cargo xtask setup --print-env)"
    #[arg(long)]
    print_env: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &SetupArgs) -> Result<()> {
    let tools = Tools::ensure(workspace)?;
    if args.print_env {
        for (name, value) in &tools.variables {
            println!("export {name}={}", process::shell_quote(&value.to_string_lossy()));
        }
    } else {
        println!("The build tools are ready.");
    }
    Ok(())
}

/// The tools of this machine, present and ready.
pub(crate) struct Tools {
    variables: Vec<(&'static str, OsString)>,
    venv: Venv,
    root: PathBuf,
    has_mlx: bool,
}

impl Tools {
    /// Finds the tools, and installs what is missing. Takes a few milliseconds when nothing is.
    pub(crate) fn ensure(workspace: &Workspace) -> Result<Self> {
        let compiler = require_compilers()?;
        let venv = Venv::of(workspace);
        venv.create(workspace)?;
        let wants_cmake = venv.has(CMAKE) || !system::has_cmake(&venv.bin());
        let system_libclang = if venv.has(LIBCLANG) { None } else { system::libclang_folder() };

        let cmake = wants_cmake.then_some(CMAKE);
        let libclang = system_libclang.is_none().then_some(LIBCLANG);
        venv.install(workspace, &cmake.into_iter().chain(libclang).collect::<Vec<_>>())?;

        let mut variables = Vec::new();
        if wants_cmake {
            variables.push(("PATH", path_with(&venv.bin())?));
            variables.push(("CMAKE", venv.bin().join("cmake").into()));
        }
        match system_libclang {
            Some(folder) => variables.push(("LIBCLANG_PATH", folder.into())),
            None => variables.extend(wheel_libclang_variables(&venv, &compiler)?),
        }
        let mlx = mlx::ensure(workspace, &venv)?;
        let has_mlx = mlx.is_some();
        variables.extend(mlx.into_iter().flatten());
        Ok(Self { variables, venv, root: workspace.root().to_owned(), has_mlx })
    }

    /// The private Python environment.
    pub(crate) fn venv(&self) -> &Venv {
        &self.venv
    }

    /// Whether MLX is there, for the plugin that is built against it.
    pub(crate) fn has_mlx(&self) -> bool {
        self.has_mlx
    }

    /// The options that select every crate which can be built on this machine.
    pub(crate) fn all_crates(&self) -> Vec<&'static str> {
        let mut options = vec!["--workspace"];
        if !self.has_mlx {
            options.extend(["--exclude", "pajamas-mlx", "--exclude", "mlx-sys"]);
        }
        options
    }

    /// A cargo command in the repository's top folder, with the tools in its environment.
    pub(crate) fn cargo(&self) -> Command {
        self.with_tools(cargo(&self.root))
    }

    /// Another command with the tools in its environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.with_tools(Command::new(program))
    }

    fn with_tools(&self, mut command: Command) -> Command {
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A cargo command in the repository's top folder.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root);
    // `cargo run` describes the xtask package in variables that some build scripts watch: passed on, they would
    // make cargo rebuild crates that it built when called directly.
    let is_of_this_package = |name: &str| {
        let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
        name == "CARGO_PRIMARY_PACKAGE" || prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_of_this_package) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Where cargo keeps what it downloads.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    match env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo"))) {
        Some(folder) => Ok(folder),
        None => bail!("cannot tell where cargo keeps its downloads; set HOME or CARGO_HOME to a folder"),
    }
}

/// The version of glibc that this system has, as its own program tells it; `None` where there is none.
pub(crate) fn glibc() -> Option<String> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().strip_prefix("glibc ").map(str::to_owned)
}

/// Fails unless the programs that llama.cpp's build calls by name are there. Returns the C compiler.
fn require_compilers() -> Result<PathBuf> {
    const HELP: &str = "install the C and C++ tools (Debian and Ubuntu: apt-get install build-essential, Fedora: \
                        dnf install gcc-c++ make, macOS: xcode-select --install)";
    let find = |variable: &str, name: &str| {
        let program = env::var_os(variable).unwrap_or_else(|| name.into());
        match process::find_program(&program, Path::new("")) {
            Some(path) => Ok(path),
            None => bail!("{} is not on PATH; {HELP}", program.to_string_lossy()),
        }
    };
    find("CXX", "c++")?;
    find("MAKE", "make")?;
    find("CC", "cc")
}

/// libclang's wheel has the library only; the compiler's own headers (stddef.h and the like) come from `cc`.
fn wheel_libclang_variables(venv: &Venv, compiler: &Path) -> Result<[(&'static str, OsString); 2]> {
    let Some(packages) = venv.site_packages() else {
        bail!("{} has no packages; remove its folder and try again", venv.bin().display());
    };
    let headers = process::stdout_of(Command::new(compiler).arg("-print-file-name=include"))?;
    Ok([
        ("LIBCLANG_PATH", packages.join("clang/native").into()),
        ("BINDGEN_EXTRA_CLANG_ARGS", format!("-I{headers}").into()),
    ])
}

/// The current `PATH` with a folder at its front, once.
fn path_with(folder: &Path) -> Result<OsString> {
    let current = env::var_os("PATH").unwrap_or_default();
    let others = env::split_paths(&current).filter(|other| other != folder);
    Ok(env::join_paths(std::iter::once(folder.to_owned()).chain(others))?)
}
