//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::{Stream, StreamExt};
use pajamas_plugin_api::{EmbedParams, Request, Task, Usage};
use serde::{Deserialize, Serialize};

use super::ApiState;
use super::access::AccessRecord;
use super::error::ApiError;
use super::hooks;
use super::json::{self, JsonBody};
use super::limits::EMBEDDING_INPUTS_MAX;
use super::meta;
use super::prompts::{Prompt, Prompts};
use crate::engine::JobEvent;

/// Embeds one or more inputs.
///
/// # Errors
/// When the request is not valid, the model cannot be used, or embedding fails.
///
/// # Cancellation
/// The job is cancelled when the client goes away.
pub(super) async fn create(
    State(state): State<ApiState>,
    Extension(record): Extension<Arc<AccessRecord>>,
    body: JsonBody,
) -> Result<Json<Document>, ApiError> {
    let mut spec = EmbeddingSpec::read(&body)?;
    drop(body);
    let model = meta::acquire(&state, &record, &spec.model, &Task::Embed).await?;
    let mut hooks = hooks::begin(&state, &record, &model, &spec.model, &Task::Embed).await?;
    hooks::prompts(&mut hooks, "input", &mut spec.inputs).await?;
    let count = spec.inputs.len();
    let request = Request {
        task: Task::Embed,
        params: json::params(&EmbedParams::default())?,
        parts: spec.inputs.into_iter().map(|input| input.into_part(false)).collect(),
        deadline_ms: Some(record.deadline_ms(state.limits)),
    };
    let job = model.submit(request, record.caller())?;
    let (vectors, usage) = collect(job, count).await?;
    record.add_prompt_tokens(usage.prompt_tokens);
    Document::new(vectors, usage, spec.model, spec.shape).map(Json)
}

/// How the vectors of an answer are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    base64: bool,
    dimensions: Option<usize>,
}

impl Shape {
    /// Checks the options `encoding_format` and `dimensions`.
    ///
    /// # Errors
    /// One of them has a value that is not allowed.
    pub(super) fn new(encoding_format: Option<&str>, dimensions: Option<usize>) -> Result<Self, ApiError> {
        let base64 = match encoding_format {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => return Err(ApiError::invalid("encoding_format", "expected \"float\" or \"base64\"")),
        };
        if dimensions == Some(0) {
            return Err(ApiError::invalid("dimensions", "expected a whole number from 1"));
        }
        Ok(Self { base64, dimensions })
    }
}

/// What a request asks for, valid.
#[derive(Debug)]
struct EmbeddingSpec {
    model: String,
    inputs: Vec<Prompt>,
    shape: Shape,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EmbeddingBody {
    model: Option<String>,
    input: Option<Prompts>,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

impl EmbeddingSpec {
    fn read(body: &JsonBody) -> Result<Self, ApiError> {
        let body = body.read::<EmbeddingBody>()?;
        let shape = Shape::new(body.encoding_format.as_deref(), body.dimensions)?;
        Ok(Self {
            model: meta::model_name(body.model)?,
            inputs: Prompts::check(body.input, "input", EMBEDDING_INPUTS_MAX)?,
            shape,
        })
    }
}

/// The vectors in the order of the inputs, when the job is done.
pub(super) async fn collect<S>(mut job: S, count: usize) -> Result<(Vec<Vec<f32>>, Usage), ApiError>
where
    S: Stream<Item = JobEvent> + Unpin,
{
    let mut vectors = vec![Vec::new(); count];
    while let Some(event) = job.next().await {
        match event {
            JobEvent::Vector { index, values } => {
                if let Some(vector) = vectors.get_mut(index as usize) {
                    *vector = values;
                }
            }
            JobEvent::Failed(error) => return Err(error.into()),
            JobEvent::Done { .. } if vectors.iter().any(Vec::is_empty) => break,
            JobEvent::Done { usage, .. } => return Ok((vectors, usage)),
            _ => {}
        }
    }
    Err(ApiError::server("plugin_failed", "the plugin did not answer for every input"))
}

/// The first `dimensions` components, scaled to length 1 again: what OpenAI does, and what models trained for it
/// (Matryoshka representation learning) expect.
fn resize(mut vector: Vec<f32>, dimensions: Option<usize>) -> Result<Vec<f32>, ApiError> {
    let Some(dimensions) = dimensions else { return Ok(vector) };
    if dimensions > vector.len() {
        let problem =
            format_args!("the model's embeddings have {} dimensions, got {dimensions}", vector.len());
        return Err(ApiError::invalid("dimensions", problem));
    }
    if dimensions < vector.len() {
        vector.truncate(dimensions);
        let norm = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 {
            #[expect(clippy::cast_possible_truncation, reason = "a component fits its own precision")]
            vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
    }
    Ok(vector)
}

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    object: &'static str,
    data: Vec<Item>,
    model: String,
    usage: EmbeddingUsage,
}

#[derive(Debug, Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Embedding,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Embedding {
    Floats(Vec<f32>),
    /// Little-endian single-precision numbers.
    Base64(String),
}

#[derive(Debug, Serialize)]
struct EmbeddingUsage {
    prompt_tokens: u32,
    total_tokens: u32,
}

impl Document {
    /// The answer of `model` with these vectors, one for each input.
    ///
    /// # Errors
    /// The vectors are shorter than what was asked for.
    pub(super) fn new(
        vectors: Vec<Vec<f32>>,
        usage: Usage,
        model: String,
        shape: Shape,
    ) -> Result<Self, ApiError> {
        let vectors = vectors.into_iter().map(|vector| resize(vector, shape.dimensions));
        let data = vectors.enumerate().map(|(index, vector)| Ok(Item::new(index, vector?, shape.base64)));
        let usage = EmbeddingUsage { prompt_tokens: usage.prompt_tokens, total_tokens: usage.prompt_tokens };
        Ok(Self { object: "list", data: data.collect::<Result<_, ApiError>>()?, model, usage })
    }
}

impl Item {
    fn new(index: usize, vector: Vec<f32>, base64: bool) -> Self {
        let embedding = if base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            Embedding::Base64(BASE64_STANDARD.encode(bytes))
        } else {
            Embedding::Floats(vector)
        };
        Self { object: "embedding", index, embedding }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, stream};
    use pajamas_plugin_api::Finish;
    use serde_json::{Value, json};

    use super::*;

    fn vector(index: u32, values: &[f32]) -> JobEvent {
        JobEvent::Vector { index, values: values.to_vec() }
    }

    fn done() -> JobEvent {
        let usage = Usage { prompt_tokens: 5, ..Usage::default() };
        JobEvent::Done { finish: Finish::Stop, usage }
    }

    fn run(events: Vec<JobEvent>, count: usize) -> Result<(Vec<Vec<f32>>, Usage), ApiError> {
        collect(stream::iter(events), count).now_or_never().unwrap()
    }

    #[test]
    fn vectors_come_in_the_order_of_the_inputs() {
        let (vectors, usage) = run(vec![vector(1, &[2.0]), vector(0, &[1.0]), done()], 2).unwrap();
        assert_eq!(vectors, [[1.0], [2.0]]);
        assert_eq!(usage.prompt_tokens, 5);
    }

    #[test]
    fn a_plugin_that_leaves_inputs_out_fails() {
        for events in [vec![vector(0, &[1.0]), done()], vec![vector(0, &[1.0]), vector(9, &[1.0])], vec![]] {
            assert_eq!(run(events, 2).unwrap_err().code(), "plugin_failed");
        }
    }

    #[test]
    fn shorter_vectors_have_length_one_and_longer_ones_are_refused() {
        assert_eq!(resize(vec![3.0, 4.0, 12.0], Some(2)).unwrap(), [0.6, 0.8]);
        assert_eq!(resize(vec![3.0, 4.0], Some(2)).unwrap(), [3.0, 4.0]);
        assert_eq!(resize(vec![0.0, 1.0], Some(1)).unwrap(), [0.0]);
        assert_eq!(resize(vec![1.0], Some(2)).unwrap_err().param(), Some("dimensions"));
    }

    #[test]
    fn vectors_are_numbers_or_base64() {
        let item = |base64| serde_json::to_value(Item::new(0, vec![1.0, -0.5], base64)).unwrap();
        assert_eq!(item(false), json!({"object": "embedding", "index": 0, "embedding": [1.0, -0.5]}));
        assert_eq!(item(true)["embedding"], "AACAPwAAAL8=");
    }

    #[test]
    fn wrong_fields_are_named() {
        let table: [(Value, &str); 5] = [
            (json!({"input": "a"}), "model"),
            (json!({"model": "m"}), "input"),
            (json!({"model": "m", "input": "a", "encoding_format": "hex"}), "encoding_format"),
            (json!({"model": "m", "input": "a", "dimensions": 0}), "dimensions"),
            (json!({"model": "m", "input": vec!["a"; EMBEDDING_INPUTS_MAX + 1]}), "input"),
        ];
        for (body, param) in table {
            let error = EmbeddingSpec::read(&body.into()).unwrap_err();
            assert_eq!(error.param(), Some(param), "{error}");
        }
    }
}
