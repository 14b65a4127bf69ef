//! Models through their pipelines, as the host uses them.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use pajamas_executorch::ExecuTorchBackend;
use pajamas_plugin_api::{
    Backend, Error, Event, EventSink, Flow, Job, LoadSpec, Model, Part, Progress, Request, Task,
};
use serde_json::{Value as Json, json};

use crate::support::{file, library};

/// Passes on answers, and last of all how the job ended.
struct Answers(Sender<Result<String, String>>);

impl EventSink for Answers {
    fn push(&self, event: &Event<'_>) -> Flow {
        let answer = match event {
            Event::Result { json, .. } => Ok((*json).to_owned()),
            Event::Error { message, .. } => Err((*message).to_owned()),
            Event::Done { .. } => Ok("done".to_owned()),
            _ => return Flow::Continue,
        };
        // A test that has failed listens no longer.
        let _ = self.0.send(answer);
        Flow::Continue
    }

    fn cancelled(&self) -> bool {
        false
    }
}

fn load(name: &str, options: &Json) -> Result<impl Model + use<>, Error> {
    let options = options.as_object().unwrap().clone();
    let spec = LoadSpec { path: file(name), options, cache_dir: None };
    backend().load(&spec, &Progress::new(Arc::new(Answers(channel().0))))
}

fn backend() -> ExecuTorchBackend {
    ExecuTorchBackend::init(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn pictures_are_classified() {
    if library().is_none() {
        return;
    }
    let model = load("colours.pte", &json!({"threads": 2, "activation": "softmax"})).unwrap();
    assert!(model.info().tasks.contains(&Task::Classify));
    for (pixel, name) in [([250, 10, 10], "red"), ([10, 250, 10], "green"), ([10, 10, 250], "blue")] {
        let data = pixel.iter().copied().cycle().take(20 * 10 * 3).collect();
        let parts = vec![Part::Rgb8 { width: 20, height: 10, data }];
        let request = Request { task: Task::Classify, params: json!({}).into(), parts, deadline_ms: None };
        let (sender, answers) = channel();
        model.submit(request, Job::new(Arc::new(Answers(sender)), Arc::default()));
        let answer: Json = serde_json::from_str(&answers.recv().unwrap().unwrap()).unwrap();
        assert_eq!(answer["classes"][0]["class_name"], name, "{answer}");
        assert_eq!(answers.recv().unwrap(), Ok("done".to_owned()));
    }
}

#[test]
fn wrong_options_are_refused_with_a_reason() {
    if library().is_none() {
        return;
    }
    for (options, wanted) in [
        (json!({"threads": 0}), "`threads`"),
        (json!({"method": "encode"}), "`encode`"),
        (json!({"labels": ["one"]}), "3 classes"),
        (json!({"colour": "red"}), "`colour`"),
    ] {
        let error = load("colours.pte", &options).err().unwrap();
        assert!(error.message().contains(wanted), "{options}: {error}");
    }
}

#[test]
fn inspecting_tells_tasks_and_tensors_without_loading() {
    let info = backend().inspect(&file("colours.pte")).unwrap();
    assert_eq!((info.format.as_str(), info.architecture.as_str()), ("executorch", "classify"));
    assert_eq!(info.tasks, [Task::Classify, Task::Infer]);
    assert_eq!(info.metadata.get("executorch.delegates").map(String::as_str), Some("XnnpackBackend"));
    assert_eq!(info.metadata.get("executorch.methods").map(String::as_str), Some("forward"));
    let info = backend().inspect(&file("conv_portable.pte")).unwrap();
    assert_eq!(info.tasks, [Task::Infer]);
    assert_eq!(info.parameters, Some(137));
}

#[test]
fn a_probe_names_the_engine_or_what_is_missing() {
    let report = backend().probe().unwrap();
    match library() {
        Some(_) => {
            assert_eq!(report.engine.as_deref(), Some("ExecuTorch 1.5.1"));
            assert!(report.devices[0].name.contains("XnnpackBackend"), "{report:?}");
        }
        None => {
            let reason = report.reason.unwrap();
            assert!(report.devices.is_empty() && reason.contains("cargo xtask build"), "{reason}");
        }
    }
}
