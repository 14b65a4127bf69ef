//! `hooks`: which hooks there are, and a dry run of one.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use super::print::{Printer, list};
use super::{Error, Exit, block_on};
use crate::config::{Config, HookConfig, HookSource};
use crate::hooks::{self, CheckReport, Facts, Hooks, HooksError, LoadError};

/// The state of a hook that cannot be loaded.
const UNUSABLE: &str = "unusable";

#[derive(Debug, clap::Subcommand)]
pub(super) enum HooksCommand {
    /// List the hooks of the configuration, and those that are installed
    List,
    /// Load a hook, show what it imports and exports, and call it with samples
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The component's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The hook's configuration as a JSON object
    #[arg(long = "config-json", value_name = "JSON", default_value = "{}", value_parser = object)]
    hook_config: Map<String, Value>,
}

/// # Errors
/// It is no JSON object.
fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))
}

/// Runs a command. [`Exit::Failure`] means that the hook failed with a sample.
pub(super) fn run(config: &Config, command: &HooksCommand, json: bool) -> Result<Exit, Error> {
    match command {
        HooksCommand::List => print_list(&mut Printer::stdout(), &rows(config)?, json),
        HooksCommand::Check(args) => {
            let hook =
                HookConfig { config: args.hook_config.clone(), ..HookConfig::of_file(args.file.clone()) };
            let report = block_on(async {
                let (path, cache_dir) = (args.file.clone(), config.cache_dir.join("hooks"));
                let name = hook.name.clone();
                let load = |source| HooksError::Load { name: name.clone(), source };
                let checked =
                    tokio::task::spawn_blocking(move || hooks::check(&path, &hook, &cache_dir)).await;
                let report = checked.unwrap_or(Err(LoadError::Lost)).map_err(load)?;
                Ok(report)
            })?;
            print_report(&mut Printer::stdout(), &report, json)
        }
    }
}

/// A hook of the list.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// `configured`, `installed`, `unconfigured` (it does nothing without a configuration) or `unusable`.
    state: &'static str,
    /// What it is; `None` when it cannot be loaded.
    #[serde(flatten)]
    component: Option<Facts>,
    /// Why it cannot be loaded.
    problem: Option<String>,
}

fn rows(config: &Config) -> Result<Vec<Row>, Error> {
    block_on(async {
        let config = config.clone();
        let rows = tokio::task::spawn_blocking(move || {
            let mut rows = Vec::new();
            for hook in &config.hooks {
                rows.push(row(&config, hook.clone(), "configured"));
            }
            let is_used =
                |name: &String| config.hooks.iter().any(|hook| hook.source == HookSource::Hook(name.clone()));
            for name in hooks::installed(&config.plugins_dir).into_iter().filter(|name| !is_used(name)) {
                let source = HookSource::Hook(name.clone());
                let hook = HookConfig { name, source, ..HookConfig::of_file(PathBuf::new()) };
                rows.push(row(&config, hook, "installed"));
            }
            rows
        });
        rows.await.map_err(|error| Error::System { attempted: "load the hooks", source: error.into() })
    })
}

/// Loads a hook alone, so that one that fails hides no other.
fn row(config: &Config, hook: HookConfig, state: &'static str) -> Row {
    let name = hook.name.clone();
    let alone = Config { hooks: vec![hook], ..config.clone() };
    match Hooks::load(&alone) {
        Ok(hooks) => {
            let component = hooks.list().into_iter().next().map(|status| status.component);
            Row { name, state, component, problem: None }
        }
        Err(error) => {
            let lacks_config = matches!(&error, HooksError::Load { source: LoadError::Config(_), .. });
            let state = if state == "installed" && lacks_config { "unconfigured" } else { UNUSABLE };
            Row { name, state, component: None, problem: Some(crate::error_chain(&error)) }
        }
    }
}

fn print_list<W: Write>(printer: &mut Printer<W>, rows: &[Row], json: bool) -> Result<Exit, Error> {
    if json {
        printer.json(&rows)?;
    } else {
        let cells: Vec<[String; 5]> = rows.iter().map(Row::cells).collect();
        printer.table(["NAME", "STATE", "VERSION", "SEES", "WHAT IT DOES"], &cells)?;
    }
    Ok(if rows.iter().any(|row| row.state == UNUSABLE) { Exit::Failure } else { Exit::Success })
}

impl Row {
    fn cells(&self) -> [String; 5] {
        let Some(component) = &self.component else {
            let problem = self.problem.clone().unwrap_or_default();
            return [self.name.clone(), self.state.to_owned(), "-".into(), "-".into(), problem];
        };
        [
            self.name.clone(),
            self.state.to_owned(),
            component.description.version.clone(),
            list(&interfaces(component)),
            component.description.summary.clone(),
        ]
    }
}

/// The interfaces by which a hook sees something.
fn interfaces(component: &Facts) -> Vec<String> {
    let names = component.exports.iter().filter_map(|name| name.strip_prefix("pajamas:hook/"));
    let names = names.filter_map(|name| name.split_once('@')).map(|(name, _)| name);
    names.filter(|name| *name != "info").map(str::to_owned).collect()
}

fn print_report<W: Write>(printer: &mut Printer<W>, report: &CheckReport, json: bool) -> Result<Exit, Error> {
    let is_ok = report.samples.iter().all(|sample| !sample.failed);
    if json {
        printer.json(report)?;
    } else {
        let facts = &report.facts;
        let description = &facts.description;
        printer
            .line(format_args!("{} {}: {}", description.name, description.version, description.summary))?;
        printer.line(format_args!("sha256   {}, {} bytes", facts.sha256, facts.size_bytes))?;
        printer.line(format_args!("imports  {}", list(&facts.imports)))?;
        printer.line(format_args!("exports  {}", list(&facts.exports)))?;
        let limits = &report.limits;
        printer.line(format_args!(
            "limits   {} ms of processor time a call, {} bytes of memory, {} bytes of output",
            limits.cpu_ms, limits.memory_bytes, limits.output_bytes
        ))?;
        printer.line(format_args!("load     {:.1} ms", report.load_ms))?;
        printer.line(format_args!("start    {:.0} µs", report.start_us))?;
        for sample in &report.samples {
            let verdict = if sample.failed { "FAILED" } else { "ok" };
            printer.line(format_args!(
                "{verdict}  {} ({:.0} µs): {}",
                sample.call, sample.call_us, sample.outcome
            ))?;
        }
    }
    Ok(if is_ok { Exit::Success } else { Exit::Failure })
}
