//! The examples of `docs/hooks.md`: their files as they stand there, built with the tools that it names.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::Setup;

const CONFIG: &str = r#"{"line": "Written by a machine.", "max_characters": 1000}"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Writes the files of the guide, each of which follows a comment that names it.
fn write_files() -> TempDir {
    let folder = tempfile::tempdir().expect("folder");
    let guide = std::fs::read_to_string(root().join("docs/hooks.md")).expect("guide");
    let write = |path: &str, content: &[u8]| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        std::fs::write(path, content).expect("file");
    };
    for rest in guide.split("<!-- file: ").skip(1) {
        let (path, rest) = rest.split_once(" -->\n```").expect("a block follows");
        let (_, rest) = rest.split_once('\n').expect("a line");
        let (content, _) = rest.split_once("\n```").expect("the block ends");
        write(path, format!("{content}\n").as_bytes());
    }
    for rest in guide.split("<!-- copy: ").skip(1) {
        let (copy, _) = rest.split_once(" -->").expect("the comment ends");
        let (from, to) = copy.split_once(" to ").expect("from and to");
        write(to, &std::fs::read(root().join(from)).expect("file"));
    }
    folder
}

fn variable(name: &str, what: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name).map(PathBuf::from);
    if value.is_none() {
        eprintln!("skipped: {name} does not say where {what} is (cargo xtask test sets it)");
    }
    value
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&text));
}

/// The component is what the guide says that it is, and says what is wrong with its configuration.
fn check(component: &Path) {
    let file = component.to_str().expect("path");
    // One for all, because it keeps what is compiled.
    let setup = Setup::new();
    let check = |config: &str| setup.run(&["hooks", "check", file, "--config-json", config, "--json"]);
    let finished = check(CONFIG);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout).expect("json");
    assert_eq!(report["describes_itself_as"], "sign-off", "{report}");
    let outcomes = report["samples"].to_string();
    assert!(outcomes.contains("passed") && outcomes.contains("Written by a machine."), "{report}");
    let long = check(r#"{"line": "x", "max_characters": 5}"#);
    assert!(long.stdout.contains("rejected: a request may have 5 characters"), "{long:?}");
    let wrong = check("{}");
    assert_eq!(wrong.code, Some(64), "{wrong:?}");
    assert!(wrong.stderr.contains("`line` must be a text"), "{wrong:?}");
}

#[test]
fn the_example_in_python_works() {
    let Some(python) = variable("PAJAMAS_TEST_PYTHON", "Python") else { return };
    let tool = python.with_file_name("componentize-py");
    if !tool.is_file() {
        eprintln!("skipped: {} is missing (cargo xtask test installs it)", tool.display());
        return;
    }
    let folder = write_files();
    let mut command = Command::new(tool);
    command.args(["--wit-path", "wit", "--world", "text-hook", "componentize", "hook"]);
    command.args(["--output", "hook.wasm"]).current_dir(folder.path().join("python"));
    // Packages of the environment that runs the tests are none of the example's.
    command.env("VIRTUAL_ENV", folder.path()).env_remove("PYTHONPATH");
    std::fs::create_dir_all(folder.path().join("lib/site-packages")).expect("folder");
    run(&mut command);
    check(&folder.path().join("python/hook.wasm"));
}

#[test]
fn the_example_in_javascript_works() {
    let Some(tools) = variable("PAJAMAS_TEST_NODE_TOOLS", "componentize-js") else { return };
    let tool = tools.join("node_modules/@bytecodealliance/componentize-js/src/cli.js");
    if !tool.is_file() {
        eprintln!("skipped: {} is missing (cargo xtask test installs it where there is npm)", tool.display());
        return;
    }
    let folder = write_files();
    let mut command = Command::new("node");
    command.arg(tool).args(["hook.js", "--wit", "wit", "--world-name", "text-hook"]);
    command.args(["--disable", "clocks", "fetch-event", "http", "random", "stdio", "--out", "hook.wasm"]);
    run(command.current_dir(folder.path().join("javascript")));
    check(&folder.path().join("javascript/hook.wasm"));
}

const TARGET: &str = "wasm32-unknown-unknown";

/// What rustc prints.
fn rustc(print: &str) -> Option<PathBuf> {
    let output = Command::new("rustc").args(["--print", print]).output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// A command that builds for WebAssembly: with rustup's target, else with the compiler that `cargo xtask hooks` unpacks.
fn cargo_for_wasm() -> Option<Command> {
    let (sysroot, host) = (rustc("sysroot")?, rustc("host-tuple")?);
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--offline", "--target", TARGET]);
    if sysroot.join("lib/rustlib").join(TARGET).is_dir() {
        return Some(cargo);
    }
    let tools = variable("PAJAMAS_TEST_HOOK_TOOLS", "a compiler for WebAssembly")?;
    let unpacked = tools.join("rust");
    if !unpacked.join(".complete").is_file() {
        eprintln!("skipped: there is no compiler for {TARGET} (cargo xtask hooks gets one)");
        return None;
    }
    let linker = sysroot.join("lib/rustlib").join(host).join("bin/rust-lld");
    cargo.env("RUSTC", unpacked.join("usr/bin/rustc"));
    cargo.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_abort");
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    cargo.env("LD_LIBRARY_PATH", unpacked.join(libraries));
    // Kept, because the standard library is part of it.
    cargo.env("CARGO_TARGET_DIR", tools.join("guide"));
    Some(cargo)
}

#[test]
fn the_example_in_rust_works() {
    let Some(mut cargo) = cargo_for_wasm() else { return };
    let folder = write_files();
    let example = folder.path().join("rust");
    // Without a network: the versions that this repository has.
    std::fs::copy(root().join("Cargo.lock"), example.join("Cargo.lock")).expect("copy");
    run(cargo.current_dir(&example));
    let is_target = |(name, _): &(&OsStr, Option<&OsStr>)| *name == "CARGO_TARGET_DIR";
    let target = cargo.get_envs().find(is_target).and_then(|(_, value)| value.map(PathBuf::from));
    let target = target.or_else(|| std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from));
    let target = target.unwrap_or_else(|| example.join("target"));
    // The host makes a component of a module that was built for hooks.
    check(&target.join(TARGET).join("release/sign_off.wasm"));
}
