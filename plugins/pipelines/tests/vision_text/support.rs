//! Sending requests to a pipeline and keeping what it answers.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use pajamas_pipelines::Pipeline;
use pajamas_plugin_api::{
    Error, Event, EventSink, Finish, Flow, Job, ModelInfo, Part, Request, Task, Tensor, Usage,
};
use serde_json::{Map, Value, json};

/// What a pipeline sent.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) vectors: Vec<(u32, Vec<f32>)>,
    /// Results and detections.
    pub(crate) documents: Vec<Value>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) usage: Usage,
    pub(crate) finish: Finish,
}

#[derive(Default)]
struct Sink(Mutex<Answer>);

impl EventSink for Sink {
    fn push(&self, event: &Event<'_>) -> Flow {
        let mut answer = self.0.lock().unwrap();
        match event {
            Event::Vector { index, values } => answer.vectors.push((*index, values.to_vec())),
            Event::Result { index, json } => {
                let mut document: Value = serde_json::from_str(json).unwrap();
                document["index"] = json!(index);
                answer.documents.push(document);
            }
            Event::Detections { json } => answer.documents.push(serde_json::from_str(json).unwrap()),
            Event::Tensors(views) => answer.tensors.extend(views.iter().map(|view| Tensor {
                name: view.name.to_owned(),
                dtype: view.dtype,
                shape: view.shape.to_vec(),
                data: view.data.to_vec(),
            })),
            Event::Error { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
        Flow::Continue
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// Sends a request.
pub(crate) fn ask(
    pipeline: &dyn Pipeline,
    task: Task,
    params: Value,
    parts: Vec<Part>,
) -> Result<Answer, Error> {
    ask_with(pipeline, task, params, parts, false)
}

/// Sends a request that is cancelled already.
pub(crate) fn ask_cancelled(pipeline: &dyn Pipeline, task: Task, parts: Vec<Part>) -> Answer {
    ask_with(pipeline, task, json!({}), parts, true).unwrap()
}

fn ask_with(
    pipeline: &dyn Pipeline,
    task: Task,
    params: Value,
    parts: Vec<Part>,
    is_cancelled: bool,
) -> Result<Answer, Error> {
    let sink = Arc::new(Sink::default());
    let job = Job::new(Arc::clone(&sink) as Arc<dyn EventSink>, Arc::new(AtomicBool::new(is_cancelled)));
    let request = Request { task, params: params.into(), parts, deadline_ms: None };
    let (finish, usage) = pipeline.run(&request, &job)?;
    drop(job);
    let mut answer = std::mem::take(&mut *sink.0.lock().unwrap());
    (answer.finish, answer.usage) = (finish, usage);
    Ok(answer)
}

/// What a pipeline says about its model.
pub(crate) fn info(pipeline: &dyn Pipeline) -> ModelInfo {
    let mut info = ModelInfo::default();
    pipeline.describe(&mut info);
    info
}

/// A JSON object.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

/// A picture of one colour.
pub(crate) fn plain(width: u32, height: u32, colour: [u8; 3]) -> Part {
    Part::Rgb8 { width, height, data: colour.repeat((width * height) as usize) }
}

/// Fails unless the numbers are as close as said.
pub(crate) fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: {found:?} {expected:?}");
    let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference <= tolerance, "{what}: differs by {difference}: {found:?} instead of {expected:?}");
}
