//! Compiles mlx-c, the C interface of MLX, against the headers and the library of MLX's wheel, and generates bindings.
//!
//! `cargo xtask setup` brings both and says where they are: `MLX_DIR` is the folder `mlx` of the wheel, `MLX_C_DIR` the
//! sources of mlx-c.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=format_compat.h");
    let mlx = folder("MLX_DIR", "the folder `mlx` of the wheel mlx-cpu")?;
    let mlx_c = folder("MLX_C_DIR", "the sources of mlx-c")?;
    let sources = files(&mlx_c.join("mlx/c"), "cpp")?;
    let mut build = cc::Build::new();
    build.cpp(true).std("c++20").warnings(false).opt_level(2);
    build.include(&mlx_c).include(mlx.join("include")).files(sources);
    // GCC 12 and older have no std::format, which mlx-c uses for messages.
    build.flag("-include").flag("format_compat.h");
    build.try_compile("mlxc")?;

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    // Cargo lets programs and tests find libraries that lie in its own folder.
    for folder in ["mlx/lib", "mlx_cpu.libs"] {
        let from = mlx.with_file_name("").join(folder);
        if from.is_dir() {
            link_files(&from, &out.join(folder))?;
        }
    }
    println!("cargo:rustc-link-search=native={}", out.join("mlx/lib").display());
    println!("cargo:rustc-link-lib=dylib=mlx");

    let mut bindings = bindgen::Builder::default()
        .rust_target("1.73.0".parse()?)
        .clang_arg(format!("-I{}", mlx_c.display()))
        .blocklist_function("malloc")
        .blocklist_function("realloc");
    for header in files(&mlx_c.join("mlx/c"), "h")? {
        bindings = bindings.header(header.to_string_lossy());
    }
    bindings.generate()?.write_to_file(out.join("bindings.rs"))?;
    Ok(())
}

/// The folder that a variable names.
fn folder(variable: &str, what: &str) -> Result<PathBuf, String> {
    println!("cargo:rerun-if-env-changed={variable}");
    let help = "build through `cargo xtask`, or first: eval \"$(cargo xtask setup --print-env)\"";
    let path = env::var_os(variable).map(PathBuf::from);
    let path = path.ok_or_else(|| format!("{variable} is not set; it names {what}: {help}"))?;
    if path.is_dir() {
        Ok(path)
    } else {
        Err(format!("{variable} is {}, which is no folder; it names {what}: {help}", path.display()))
    }
}

/// Puts the files of a folder into another one, without a second copy where the system can do that.
fn link_files(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if !entry.file_type()?.is_file() {
            continue;
        }
        if target.exists() {
            fs::remove_file(&target)?;
        }
        if fs::hard_link(entry.path(), &target).is_err() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// The files of a folder with this extension, in order.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let describe = |error| format!("could not read {}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(describe)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
