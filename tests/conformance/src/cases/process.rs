//! What a plugin does to the process that it runs in.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde_json::{Map, Value};

use crate::bench::{Bench, Checked, Stop, ensure, fail, run, skip};
use crate::raw::Message;

pub(super) fn log(bench: &Bench<'_>) -> Checked {
    let messages = life(bench)?;
    if messages.is_empty() {
        return skip("the plugin logs nothing");
    }
    for message in messages {
        ensure!((1..=5).contains(&message.level), "a message has the log level {}", message.level);
        let [_, text, fields] =
            message.text.map_err(|e| Stop::Fail(format!("a log message is malformed: {e}")))?;
        if !fields.is_empty() {
            serde_json::from_str::<Map<String, Value>>(&fields).map_err(|e| {
                Stop::Fail(format!("the fields of the message \"{text}\" are not a JSON object: {e}"))
            })?;
        }
    }
    Ok(())
}

pub(super) fn is_left_alone(bench: &Bench<'_>) -> Checked {
    let before = State::now()?;
    life(bench)?;
    before.compare(&State::now()?)
}

pub(super) fn output_is_modest(bench: &Bench<'_>) -> Checked {
    // What is printed is counted by the process that started this one.
    life(bench).map(drop)
}

/// A whole life, as far as there is a model for it; the log of it.
fn life(bench: &Bench<'_>) -> Checked<Vec<Message>> {
    if bench.subject.model.is_none() {
        let plugin = bench.init()?;
        plugin.probe()?;
        let messages = plugin.messages();
        plugin.shutdown()?;
        return Ok(messages);
    }
    let loaded = bench.load()?;
    loaded.plugin.probe()?;
    if let Ok(request) = loaded.any_request() {
        run(&loaded.model, &request)?;
    }
    loaded.model.unload()?;
    let messages = loaded.plugin.messages();
    loaded.plugin.shutdown()?;
    Ok(messages)
}

/// Signals 1 to 31. The C library uses some of the others for its threads.
const STANDARD_SIGNALS: u64 = (1 << 31) - 1;

/// What belongs to the process and not to the plugin.
#[derive(PartialEq)]
struct State {
    folder: Option<std::path::PathBuf>,
    environment: BTreeMap<OsString, OsString>,
    /// Masks of signals that are blocked, ignored, caught, by name.
    signals: Vec<(String, u64)>,
}

impl State {
    fn now() -> Checked<Self> {
        let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
            return skip("this system has no /proc to see signal handlers in");
        };
        let mask = |line: &str| {
            let (name, mask) =
                line.split_once(':').filter(|(name, _)| ["SigBlk", "SigIgn", "SigCgt"].contains(name))?;
            Some((name.to_owned(), u64::from_str_radix(mask.trim(), 16).ok()? & STANDARD_SIGNALS))
        };
        Ok(Self {
            folder: std::env::current_dir().ok(),
            environment: std::env::vars_os().collect(),
            signals: status.lines().filter_map(mask).collect(),
        })
    }

    fn compare(&self, after: &Self) -> Checked {
        ensure!(
            self.folder == after.folder,
            "the plugin changed the working directory to {:?}",
            after.folder
        );
        ensure!(
            self.signals == after.signals,
            "the plugin changed how signals are handled, which is the host's business: {:x?} became {:x?}",
            self.signals,
            after.signals
        );
        // Runtimes add variables of their own, which nobody else reads.
        let changed =
            self.environment.iter().find(|(name, value)| after.environment.get(*name) != Some(value));
        match changed {
            Some((name, _)) => {
                fail(format!("the plugin changed the environment variable {}", name.display()))
            }
            None => Ok(()),
        }
    }
}
