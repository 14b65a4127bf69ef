//! From `init` to `shutdown`, but for `load`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pajamas_plugin_api::manifest::SelfTest;
use pajamas_plugin_api::{ErrorKind, ModelInfo, ModelStats, Part, ProbeReport, Task};

use crate::bench::{Bench, Checked, Loaded, Stop, ensure, fail, offered, request, run, skip};
use crate::raw::Seen;

/// Longest time for `probe`.
const PROBE_TIME_MAX: Duration = Duration::from_secs(10);
/// Most bytes of a model that are copied to make a damaged one.
const DAMAGED_BYTES_MAX: u64 = 64 * 1024;

pub(super) fn init(bench: &Bench<'_>) -> Checked {
    bench.init()?.shutdown()
}

pub(super) fn probe(bench: &Bench<'_>) -> Checked {
    let plugin = bench.init()?;
    let started = Instant::now();
    let report: ProbeReport = offered(plugin.probe()?, "probe")?.result()?;
    let elapsed = started.elapsed();
    ensure!(elapsed <= PROBE_TIME_MAX, "probe took {} ms, at most 10 s are allowed", elapsed.as_millis());
    ensure!(
        !report.devices.is_empty() || report.reason.is_some(),
        "probe found no device and gives no reason: fill in \"devices\" or \"reason\""
    );
    if let Some(device) = report.devices.iter().find(|device| device.id.is_empty() || device.name.is_empty())
    {
        return fail(format!("probe reports a device without id or name: {device:?}"));
    }
    plugin.shutdown()
}

/// Skipped, with the plugin's reason, where it finds none: that is the machine's lack and not the plugin's fault.
pub(super) fn finds_device(bench: &Bench<'_>) -> Checked {
    let plugin = bench.init()?;
    let report: ProbeReport = offered(plugin.probe()?, "probe")?.result()?;
    plugin.shutdown()?;
    if report.devices.is_empty() {
        return skip(report.reason.unwrap_or_else(|| "no device, and the plugin gives no reason".to_owned()));
    }
    Ok(())
}

pub(super) fn inspect_missing(bench: &Bench<'_>) -> Checked {
    let plugin = bench.init()?;
    let path = bench.scratch().join("there-is-no-such-model");
    let (kind, message) = offered(plugin.inspect(&path)?, "inspect")?.error()?;
    ensure!(kind == ErrorKind::NotFound, "the error of a missing file is {kind:?}, not NotFound: {message}");
    plugin.shutdown()
}

pub(super) fn inspect_damaged(bench: &Bench<'_>) -> Checked {
    let plugin = bench.init()?;
    for damaged in damaged_files(bench)? {
        let answer = offered(plugin.inspect(&damaged.path)?, "inspect")?;
        damaged.check("inspect", answer.status, || answer.error())?;
    }
    plugin.shutdown()
}

pub(super) fn inspect_model(bench: &Bench<'_>) -> Checked {
    let spec = bench.spec()?;
    let plugin = bench.init()?;
    let inspected: ModelInfo = offered(plugin.inspect(&spec.path)?, "inspect")?.result()?;
    check_info(&inspected)?;
    let (answer, model) = plugin.load(&spec)?;
    let loaded: ModelInfo = answer.result()?;
    let same = [
        ("format", inspected.format == loaded.format),
        ("architecture", inspected.architecture == loaded.architecture),
        ("parameters", inspected.parameters == loaded.parameters),
        ("chat_template", inspected.chat_template == loaded.chat_template),
    ];
    if let Some((field, _)) = same.iter().find(|(_, is_same)| !is_same) {
        return fail(format!("inspect and load disagree on \"{field}\""));
    }
    model.map_or(Ok(()), |model| model.unload())?;
    plugin.shutdown()
}

/// What every description of a model says.
pub(super) fn check_info(info: &ModelInfo) -> Checked {
    ensure!(!info.format.is_empty(), "the model's info has no \"format\"");
    ensure!(!info.architecture.is_empty(), "the model's info has no \"architecture\"");
    ensure!(!info.tasks.is_empty(), "the model's info has no \"tasks\"");
    Ok(())
}

pub(super) fn stats(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let stats: ModelStats = offered(loaded.model.stats()?, "stats")?.result()?;
    ensure!(
        stats.bytes.values().any(|bytes| *bytes > 0),
        "stats measured no memory: \"bytes\" is {:?}, a loaded model uses more",
        stats.bytes
    );
    ensure!(stats.slots_busy == 0, "{} slots are busy although no job runs", stats.slots_busy);
    if let Ok(request) = loaded.any_request() {
        run(&loaded.model, &request)?;
        let stats: ModelStats = offered(loaded.model.stats()?, "stats")?.result()?;
        ensure!(stats.slots_busy == 0, "{} slots are busy after the only job has ended", stats.slots_busy);
    }
    Ok(())
}

pub(super) fn whole_life(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    if let Ok(request) = loaded.any_request() {
        for _ in 0..3 {
            run(&loaded.model, &request)?.done()?;
        }
    }
    loaded.model.unload()?;
    loaded.plugin.shutdown()
}

pub(super) fn self_tests(bench: &Bench<'_>) -> Checked {
    let tests = &bench.subject.manifest.self_test;
    if tests.is_empty() {
        return skip("plugin.toml has no [[self_test]]");
    }
    for test in tests {
        let loaded = load_for_test(bench, test)?;
        let input =
            request(test.task.clone(), test.params.clone().into(), vec![Part::text(test.input.as_str())]);
        let recording = run(&loaded.model, &input)?;
        recording.done()?;
        let output = text_of(&recording.events);
        if let Some(expected) = &test.contains {
            ensure!(
                output.contains(expected),
                "the self test of {} gave \"{output}\" without \"{expected}\"",
                test.task
            );
        }
        loaded.model.unload()?;
        loaded.plugin.shutdown()?;
    }
    Ok(())
}

fn load_for_test(bench: &Bench<'_>, test: &SelfTest) -> Checked<Loaded> {
    let Some(model) = &test.model else { return bench.load_for(&test.task) };
    let subject = bench.subject.clone().with_model(bench.subject.plugin_dir.join(model));
    Bench::new(&subject)?.load_for(&test.task)
}

/// What a person reads of a job's output.
fn text_of(events: &[Seen]) -> String {
    let mut bytes = Vec::new();
    for event in events {
        match event {
            Seen::Token { text, .. } => bytes.extend_from_slice(text),
            Seen::Segment(json) | Seen::Detections(json) | Seen::Result { json, .. } => {
                bytes.extend(json.as_bytes())
            }
            _ => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A file that is not a model.
pub(super) struct Damaged {
    pub(super) path: PathBuf,
    what: &'static str,
    /// Whether some format might take it for a model.
    may_be_good: bool,
}

impl Damaged {
    /// Checks the answer to it: an error with a reason, or success where that is possible.
    pub(super) fn check<T>(&self, entry: &str, status: i32, error: impl FnOnce() -> Checked<T>) -> Checked {
        if status == pajamas_plugin_api::abi::PJ_OK {
            ensure!(self.may_be_good, "{entry} takes {} for a model", self.what);
            return Ok(());
        }
        error().map(drop)
    }
}

/// Files that are no models, with the name of one; those made from the model only if there is one.
pub(super) fn damaged_files(bench: &Bench<'_>) -> Checked<Vec<Damaged>> {
    let model = bench.subject.model.as_deref();
    let name = model.and_then(Path::file_name).unwrap_or_else(|| "model".as_ref());
    let start =
        model.filter(|path| path.is_file()).map(|path| start_of(path, DAMAGED_BYTES_MAX)).transpose()?;
    let noise: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut contents = vec![("an empty file", Vec::new(), true), ("noise", noise, false)];
    if let Some(start) = start {
        let whole =
            model.and_then(|path| path.metadata().ok()).is_some_and(|m| m.len() == start.len() as u64);
        for (what, len) in
            [("the first 3 bytes of the model", 3), ("the first half of the model's start", start.len() / 2)]
        {
            // A short text cut short may still be one.
            contents.push((what, start[..len.min(start.len())].to_vec(), whole));
        }
        let mut garbled = start;
        garbled.iter_mut().skip(4).for_each(|byte| *byte = !*byte);
        contents.push(("the model with its bits inverted", garbled, whole));
    }
    let mut files = Vec::new();
    for (i, (what, bytes, may_be_good)) in contents.into_iter().enumerate() {
        let folder = bench.scratch().join(i.to_string());
        let path = folder.join(name);
        let written = std::fs::create_dir(&folder).and_then(|()| std::fs::write(&path, bytes));
        written.map_err(|e| Stop::Fail(format!("cannot write {}: {e}", path.display())))?;
        files.push(Damaged { path, what, may_be_good });
    }
    files.push(Damaged {
        path: bench.scratch().to_owned(),
        what: "a folder without a model",
        may_be_good: false,
    });
    Ok(files)
}

fn start_of(path: &Path, bytes_max: u64) -> Checked<Vec<u8>> {
    use std::io::Read as _;
    let mut start = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(bytes_max).read_to_end(&mut start))
        .map_err(|e| Stop::Fail(format!("cannot read {}: {e}", path.display())))?;
    Ok(start)
}

/// Whether a model that offers nothing but tasks of its own can be tried at all.
pub(super) fn is_known(task: &Task) -> bool {
    !matches!(task, Task::Other(_))
}
