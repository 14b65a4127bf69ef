//! `plugins check`: the conformance cases, for any plugin. Each runs in a process of its own, started as `check-case`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use pajamas_conformance::{Outcome, Report, Subject, cases, run_one};
use serde_json::json;

use super::print::Printer;
use super::{Error, Exit};
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The plugin's folder, which holds its plugin.toml
    #[arg(value_name = "PATH")]
    plugin: PathBuf,
    /// A small model of the plugin's; without one, the cases that load a model are skipped [default: the manifest's]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
}

/// Checks the plugin. [`Exit::Failure`] means that it breaks a rule.
pub(super) fn run(config: &Config, args: &CheckArgs, json: bool) -> Result<Exit, Error> {
    let subject = subject(config, args)?;
    let host = std::env::current_exe().map_err(|source| Error::System {
        attempted: "find this program's own file, which runs the cases",
        source,
    })?;
    let mut printer = Printer::stdout();
    let mut reports = Vec::new();
    for case in cases() {
        let mut command = Command::new(&host);
        command.args(["check-case", case.name]);
        let report = run_one(command, &subject, case);
        if !json {
            print(&mut printer, &report, case.description)?;
        }
        reports.push(report);
    }
    let is_ok = reports.iter().all(|report| report.outcome.is_ok());
    if json {
        let (name, version) = (&subject.manifest.name, &subject.manifest.version);
        printer.json(&json!({"plugin": name, "version": version, "conforms": is_ok, "cases": reports}))?;
    } else {
        printer.line(summary(&reports))?;
    }
    Ok(if is_ok { Exit::Success } else { Exit::Failure })
}

/// The plugin as the host would run it: with the options of the configuration.
fn subject(config: &Config, args: &CheckArgs) -> Result<Subject, Error> {
    let absolute = |path: &Path| {
        std::path::absolute(path)
            .map_err(|source| Error::System { attempted: "tell the working folder", source })
    };
    let folder = absolute(&args.plugin)?;
    let mut subject = Subject::read(&folder)?;
    let of_manifest = subject.manifest.self_test.iter().find_map(|test| test.model.as_ref());
    let model = match &args.model {
        Some(model) => Some(absolute(model)?),
        None => of_manifest.map(|model| folder.join(model)),
    };
    if let Some(model) = model {
        subject = subject.with_model(model);
    }
    if let Some(plugin) = config.plugins.get(&subject.manifest.name) {
        subject.load_options.extend(plugin.options.clone());
    }
    Ok(subject)
}

/// One line for what is well; for what is not, all that helps to mend it.
fn print<W: Write>(printer: &mut Printer<W>, report: &Report, description: &str) -> Result<(), Error> {
    let Report { case, rules, outcome, elapsed_ms, output } = report;
    let (word, detail) = match outcome {
        Outcome::Passed => return printer.line(format_args!("passed   {case} ({elapsed_ms} ms)")),
        Outcome::Skipped(reason) => return printer.line(format_args!("skipped  {case}: {reason}")),
        Outcome::Failed(detail) => ("failed ", detail),
        Outcome::Crashed(detail) => ("crashed", detail),
    };
    printer.line(format_args!("{word}  {case}: {detail}"))?;
    printer.line(format_args!("         checks {}: {description}", rules.join(", ")))?;
    output.iter().try_for_each(|line| printer.line(format_args!("         | {line}")))
}

fn summary(reports: &[Report]) -> String {
    let count = |is: fn(&Outcome) -> bool| reports.iter().filter(|report| is(&report.outcome)).count();
    format!(
        "{} passed, {} failed, {} crashed, {} skipped",
        count(|outcome| matches!(outcome, Outcome::Passed)),
        count(|outcome| matches!(outcome, Outcome::Failed(_))),
        count(|outcome| matches!(outcome, Outcome::Crashed(_))),
        count(|outcome| matches!(outcome, Outcome::Skipped(_))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_shown_with_its_rules_and_the_last_output() {
        let report = |outcome| Report {
            case: "one-terminal-event".into(),
            rules: vec!["J-5".into(), "J-6".into()],
            outcome,
            elapsed_ms: 12,
            output: vec!["oops".into()],
        };
        let reports = [
            report(Outcome::Passed),
            report(Outcome::Skipped("no model".into())),
            report(Outcome::Failed("two terminal events".into())),
            report(Outcome::Crashed("signal 11".into())),
        ];
        let mut text = Vec::new();
        for report in &reports {
            print(&mut Printer::new(&mut text), report, "a job ends once").unwrap();
        }
        let expected = "\
passed   one-terminal-event (12 ms)
skipped  one-terminal-event: no model
failed   one-terminal-event: two terminal events
         checks J-5, J-6: a job ends once
         | oops
crashed  one-terminal-event: signal 11
         checks J-5, J-6: a job ends once
         | oops
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        assert_eq!(summary(&reports), "1 passed, 1 failed, 1 crashed, 1 skipped");
    }
}
