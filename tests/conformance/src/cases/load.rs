//! `load` and `unload`.

use std::time::{Duration, Instant};

use pajamas_plugin_api::abi::{PJ_CANCELLED, PJ_OK};
use pajamas_plugin_api::{ErrorKind, LoadSpec, ModelInfo};

use super::lifecycle::{check_info, damaged_files};
use crate::bench::{Bench, Checked, Stop, ensure, fail, run, skip};
use crate::raw::{Plugin, Seen};

/// Loads and unloads of one model.
const CYCLES: usize = 20;
/// Loads before the count: runtimes start threads and open files once, which is not a leak.
const WARM_UP_CYCLES: usize = 3;
/// After this time the cycles end, however many there were.
const CYCLES_TIME_MAX: Duration = Duration::from_secs(60);
/// A name that no plugin has an option of.
const UNKNOWN_OPTION: &str = "no_such_option_of_any_plugin";

pub(super) fn missing(bench: &Bench<'_>) -> Checked {
    let plugin = bench.init()?;
    let spec = LoadSpec {
        path: bench.scratch().join("there-is-no-such-model"),
        options: bench.subject.load_options.clone(),
        cache_dir: None,
    };
    let (answer, _) = plugin.load(&spec)?;
    let (kind, message) = answer.error()?;
    ensure!(kind == ErrorKind::NotFound, "the error of a missing file is {kind:?}, not NotFound: {message}");
    plugin.shutdown()
}

pub(super) fn damaged(bench: &Bench<'_>) -> Checked {
    let plugin = bench.init()?;
    for damaged in damaged_files(bench)? {
        let options = bench.subject.load_options.clone();
        let spec = LoadSpec { path: damaged.path.clone(), options, cache_dir: None };
        let (answer, model) = plugin.load(&spec)?;
        damaged.check("load", answer.status, || answer.error())?;
        model.map_or(Ok(()), |model| model.unload())?;
    }
    plugin.shutdown()
}

pub(super) fn malformed_spec(bench: &Bench<'_>) -> Checked {
    let plugin = bench.init()?;
    for spec in ["", "{", "[]", "{\"path\":7}", "{\"path\":\"/nowhere\",\"options\":[]}"] {
        let (answer, _) = plugin.load_text(spec, false)?;
        answer.error().map_err(|stop| match stop {
            Stop::Fail(message) => Stop::Fail(format!("specification {spec:?}: {message}")),
            Stop::Skip(reason) => Stop::Skip(reason),
        })?;
    }
    plugin.shutdown()
}

pub(super) fn unknown_option(bench: &Bench<'_>) -> Checked {
    let mut spec = bench.spec()?;
    spec.options.insert(UNKNOWN_OPTION.to_owned(), serde_json::json!(1));
    let plugin = bench.init()?;
    let (answer, _) = plugin.load(&spec)?;
    let (_, message) = answer.error()?;
    ensure!(
        message.contains(UNKNOWN_OPTION),
        "the error of an unknown option does not name \"{UNKNOWN_OPTION}\": {message}"
    );
    plugin.shutdown()
}

pub(super) fn model(bench: &Bench<'_>) -> Checked {
    let spec = bench.spec()?;
    let plugin = bench.init()?;
    let (answer, model) = plugin.load(&spec)?;
    check_info(&answer.result::<ModelInfo>()?)?;
    let fractions = answer.events.iter().filter_map(|event| match event {
        Seen::Progress(fraction) => Some(*fraction),
        _ => None,
    });
    for fraction in fractions {
        ensure!((0.0..=1.0).contains(&fraction), "load reports a progress of {fraction}, 0 to 1 is expected");
    }
    model.map_or(Ok(()), |model| model.unload())?;
    plugin.shutdown()
}

pub(super) fn cancelled(bench: &Bench<'_>) -> Checked {
    let spec = serde_json::to_string(&bench.spec()?).map_err(|e| Stop::Fail(e.to_string()))?;
    let plugin = bench.init()?;
    let (answer, model) = plugin.load_text(&spec, true)?;
    // A small model may be there before the plugin looks.
    ensure!(
        matches!(answer.status, PJ_OK | PJ_CANCELLED),
        "a cancelled load returned status {}: PJ_CANCELLED is expected",
        answer.status
    );
    model.map_or(Ok(()), |model| model.unload())?;
    let (answer, model) = plugin.load_text(&spec, false)?;
    answer.success()?;
    model.map_or(Ok(()), |model| model.unload())?;
    plugin.shutdown()
}

pub(super) fn cycles(bench: &Bench<'_>) -> Checked {
    let spec = bench.spec()?;
    let plugin = bench.init()?;
    let started = Instant::now();
    let mut before = None;
    for cycle in 0..CYCLES {
        if cycle == WARM_UP_CYCLES {
            before = Some(Usage::now()?);
        }
        load_run_unload(&plugin, &spec)?;
        if started.elapsed() > CYCLES_TIME_MAX {
            break;
        }
    }
    let Some(before) = before else { return skip("loading takes too long for repetitions") };
    before.compare_with_now()?;
    plugin.shutdown()
}

fn load_run_unload(plugin: &Plugin, spec: &LoadSpec) -> Checked {
    let (answer, model) = plugin.load(spec)?;
    let info: ModelInfo = answer.result()?;
    let Some(model) = model else { return fail("load succeeded without a model".to_owned()) };
    if let Some(request) = info.tasks.iter().find_map(crate::bench::sample_request) {
        run(&model, &request)?;
    }
    model.unload()
}

pub(super) fn two_models(bench: &Bench<'_>) -> Checked {
    let first = bench.load()?;
    let (answer, second) = first.plugin.load(&bench.spec()?)?;
    answer.success()?;
    let request = first.any_request()?;
    run(&first.model, &request)?.done()?;
    first.model.clone().unload()?;
    if let Some(second) = second {
        run(&second, &request)?.done()?;
        second.unload()?;
    }
    first.plugin.shutdown()
}

/// What a process holds of the system.
struct Usage {
    threads: usize,
    files: usize,
}

impl Usage {
    /// Skips where the system does not tell.
    fn now() -> Checked<Self> {
        let count = |folder| std::fs::read_dir(folder).map(Iterator::count);
        match (count("/proc/self/task"), count("/proc/self/fd")) {
            (Ok(threads), Ok(files)) => Ok(Self { threads, files }),
            _ => skip("this system has no /proc to count threads and files in"),
        }
    }

    /// Threads that end by themselves get a second to do so.
    fn compare_with_now(&self) -> Checked {
        let started = Instant::now();
        loop {
            let now = Self::now()?;
            if now.threads <= self.threads && now.files <= self.files {
                return Ok(());
            }
            ensure!(
                started.elapsed() < Duration::from_secs(1),
                "loading and unloading again and again leaves something behind: {} threads became {}, {} open files \
                 became {}",
                self.threads,
                now.threads,
                self.files,
                now.files
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
