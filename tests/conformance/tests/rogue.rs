//! Each way to misbehave is found by the case that checks the rule, with a message that says what is wrong.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};

use libtest_mimic::{Arguments, Failed, Trial};
use pajamas_conformance::{Limits, Outcome, Subject, case_process, find_case, run_one, start_this_program};

mod fixtures;

/// How a case must end.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Passed,
    Failed,
    Crashed,
}
use Expected::{Crashed, Failed as Fails, Passed};

/// Behaviour, case, how it ends, and what the message contains.
const TABLE: &[(&str, &str, Expected, &str)] = &[
    ("none", "one-terminal-event", Passed, ""),
    ("refuse-handshake", "handshake", Fails, "the plugin refuses this host (ABI 1.0)"),
    ("major-99", "handshake", Fails, "the plugin speaks ABI 99, this host speaks ABI 1"),
    ("truncated-struct", "handshake", Fails, "pj_plugin is truncated"),
    ("null-functions", "handshake", Fails, "lacks the required function \"load\""),
    ("wrong-id", "manifest-agrees", Fails, "calls itself \"someone-else\", plugin.toml says \"rogue\""),
    ("exit-in-constructor", "handshake", Crashed, "exited with code 7"),
    ("init-error", "init", Fails, "rogue was told to fail in init"),
    ("panic-in-init", "init", Fails, "panic in init: rogue was told to panic in init"),
    ("hang-in-init", "init", Fails, "init did not return within 5000 ms"),
    ("panic-in-probe", "probe", Fails, "panic in probe"),
    ("hang-in-probe", "probe", Fails, "probe did not return within 5000 ms"),
    ("panic-in-inspect", "inspect-model", Fails, "panic in inspect"),
    ("panic-in-shutdown", "unload-and-shutdown", Passed, ""),
    ("panic-in-load", "load-model", Fails, "panic in load"),
    ("hang-in-load", "load-model", Fails, "load did not return within 5000 ms"),
    ("null-model", "load-model", Fails, "load succeeded without a model"),
    ("panic-in-stats", "stats", Fails, "panic in stats"),
    ("panic-in-unload", "unload-and-shutdown", Passed, ""),
    ("leak", "load-unload-cycles", Fails, "leaves something behind"),
    ("flood-stdout", "output-is-modest", Fails, "at most 1048576 are allowed"),
    ("panic-in-submit", "one-terminal-event", Passed, ""),
    ("panic-in-submit", "events-fit-the-task", Fails, "the plugin panicked while it worked on this request"),
    ("hang-in-submit", "submit-returns-at-once", Fails, "submit did not return within 5000 ms"),
    ("panic-on-thread", "one-terminal-event", Passed, ""),
    ("panic-on-thread", "events-fit-the-task", Fails, "the plugin panicked while it worked on this request"),
    ("panic-in-cancel", "cancel-midway", Crashed, "SIGABRT"),
    ("ignore-cancel", "cancel-by-sink", Fails, "a cancelled job sent no terminal event"),
    ("abort", "one-terminal-event", Crashed, "SIGABRT"),
    ("segv", "one-terminal-event", Crashed, "SIGSEGV"),
    ("flood-sink", "cancel-by-push", Fails, "events after push had answered PJ_CANCELLED"),
    ("event-after-terminal", "one-terminal-event", Fails, "events came after the terminal one"),
    ("two-terminals", "one-terminal-event", Fails, "2 terminal events came, exactly one must"),
    ("never-terminal", "one-terminal-event", Fails, "no terminal event within 5000 ms"),
    ("wrong-shape", "events-fit-the-task", Fails, "6 bytes are not a whole number of 32-bit floats"),
    ("bad-utf8", "generate-text", Fails, "is not UTF-8 from byte 0 on"),
    ("push-after-release", "one-terminal-event", Fails, "came after"),
    ("null-event", "one-terminal-event", Fails, "pj_event is NULL"),
    ("wrong-usage", "generate-counts", Fails, "the usage says 1008"),
];

fn main() -> ExitCode {
    if let Some(exit_code) = case_process() {
        return exit_code;
    }
    let arguments = Arguments::from_args();
    let rogue = Arc::new(LazyLock::new(|| Ok((fixtures::plugin_dir("rogue")?, fixtures::model()?))));
    let trials = TABLE.iter().map(|&(behaviour, case, expected, message)| {
        let rogue = Arc::clone(&rogue);
        Trial::test(format!("{behaviour}/{case}"), move || {
            let (plugin_dir, model): &(_, _) = Result::as_ref(&rogue).map_err(String::as_str)?;
            let told = tempfile::tempdir()?;
            let subject = subject(plugin_dir, model, told.path(), behaviour)?;
            check(&subject, case, expected, message)
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// A copy of the plugin in `told`, told to misbehave.
fn subject(plugin_dir: &Path, model: &Path, told: &Path, behaviour: &str) -> Result<Subject, String> {
    let library = plugin_dir.join("lib").join(fixtures::library_file("rogue"));
    fixtures::lay_out("rogue", &library, told)?;
    std::fs::write(told.join("rogue.toml"), format!("behaviour = \"{behaviour}\"\n"))
        .map_err(|e| e.to_string())?;
    let subject = Subject::read(told).map_err(|e| e.to_string())?;
    let limits = Limits { call_ms: 5000, load_ms: 5000, job_ms: 5000, process_ms: 60_000 };
    Ok(Subject { limits, ..subject.with_model(model).with_option("delay_ms", 5) })
}

fn check(subject: &Subject, case: &str, expected: Expected, message: &str) -> Result<(), Failed> {
    let case = find_case(case).ok_or("there is no such case")?;
    let mut command = start_this_program(case.name);
    // Naming every frame of an intended panic takes a second where much else runs.
    command.env("RUST_BACKTRACE", "0");
    let report = run_one(command, subject, case);
    let is_expected = match (&report.outcome, expected) {
        (Outcome::Passed, Passed) => true,
        (Outcome::Failed(found), Fails) | (Outcome::Crashed(found), Crashed) => found.contains(message),
        _ => false,
    };
    if is_expected {
        return Ok(());
    }
    Err(format!(
        "{expected:?} with \"{message}\" is expected, found {}\n{}",
        report.outcome,
        report.output.join("\n")
    )
    .into())
}
