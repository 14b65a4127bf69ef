//! `POST /v1/rerank`, in the shape that Jina and Cohere gave it.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use futures_util::{Stream, StreamExt};
use pajamas_plugin_api::{Params, Part, Request, Task, Usage};
use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize};

use super::ApiState;
use super::access::AccessRecord;
use super::error::ApiError;
use super::hooks;
use super::json::JsonBody;
use super::limits::DOCUMENTS_MAX;
use super::meta;
use crate::engine::JobEvent;

/// Scores documents against a query and returns the best, best first.
///
/// # Errors
/// When the request is not valid, the model cannot be used, or scoring fails.
///
/// # Cancellation
/// The job is cancelled when the client goes away.
pub(super) async fn create(
    State(state): State<ApiState>,
    Extension(record): Extension<Arc<AccessRecord>>,
    body: JsonBody,
) -> Result<Json<Document>, ApiError> {
    let mut spec = RerankSpec::read(&body)?;
    drop(body);
    let model = meta::acquire(&state, &record, &spec.model, &Task::Rerank).await?;
    let mut hooks = hooks::begin(&state, &record, &model, &spec.model, &Task::Rerank).await?;
    let documents = spec.documents.iter_mut().map(|document| ("document", document));
    let shown = std::iter::once(("query", &mut spec.query)).chain(documents);
    hooks::texts(&mut hooks, shown.collect()).await?;
    let texts = std::iter::once(&spec.query).chain(&spec.documents);
    let request = Request {
        task: Task::Rerank,
        params: Params::default(),
        parts: texts.map(Part::text).collect(),
        deadline_ms: Some(record.deadline_ms(state.limits)),
    };
    let job = model.submit(request, record.caller())?;
    let (scores, usage) = collect(job, spec.documents.len()).await?;
    record.add_prompt_tokens(usage.prompt_tokens);
    Ok(Json(Document::new(spec, &scores, usage)))
}

/// What a request asks for, valid.
#[derive(Debug)]
struct RerankSpec {
    model: String,
    query: String,
    documents: Vec<String>,
    top_n: usize,
    return_documents: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RerankBody {
    model: Option<String>,
    query: Option<String>,
    documents: Option<Vec<DocumentBody>>,
    top_n: Option<usize>,
    return_documents: Option<bool>,
}

impl RerankSpec {
    fn read(body: &JsonBody) -> Result<Self, ApiError> {
        let body = body.read::<RerankBody>()?;
        let query = body.query.ok_or_else(|| ApiError::missing("query", "a string"))?;
        if query.is_empty() {
            return Err(ApiError::invalid("query", "must not be empty"));
        }
        let documents =
            body.documents.ok_or_else(|| ApiError::missing("documents", "an array of strings"))?;
        if documents.is_empty() || documents.len() > DOCUMENTS_MAX {
            let problem = format_args!("expected 1 to {DOCUMENTS_MAX} documents, got {}", documents.len());
            return Err(ApiError::invalid("documents", problem));
        }
        if body.top_n == Some(0) {
            return Err(ApiError::invalid("top_n", "expected a whole number from 1"));
        }
        Ok(Self {
            model: meta::model_name(body.model)?,
            query,
            top_n: body.top_n.unwrap_or(documents.len()),
            documents: documents.into_iter().map(|document| document.0).collect(),
            return_documents: body.return_documents.unwrap_or(true),
        })
    }
}

/// A document: a string, or an object with a `text`.
#[derive(Debug)]
struct DocumentBody(String);

#[derive(Deserialize)]
struct TextBody {
    text: String,
}

impl<'de> Deserialize<'de> for DocumentBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = DocumentBody;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string or an object with a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<DocumentBody, E> {
        Ok(DocumentBody(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DocumentBody, A::Error> {
        TextBody::deserialize(MapAccessDeserializer::new(map)).map(|body| DocumentBody(body.text))
    }
}

/// What a plugin says about one document.
#[derive(Deserialize)]
struct Score {
    score: f64,
}

/// The scores in the order of the documents, when the job is done.
async fn collect<S>(mut job: S, count: usize) -> Result<(Vec<f64>, Usage), ApiError>
where
    S: Stream<Item = JobEvent> + Unpin,
{
    let mut scores = vec![None; count];
    while let Some(event) = job.next().await {
        match event {
            JobEvent::Result { index, json } => {
                let score = serde_json::from_str::<Score>(&json).map_err(|error| {
                    tracing::error!(%error, json, "the plugin's answer to rerank is not what the interface demands");
                    ApiError::server("plugin_failed", "the plugin's answer could not be read")
                })?;
                if let Some(slot) = scores.get_mut(index as usize) {
                    *slot = Some(score.score);
                }
            }
            JobEvent::Failed(error) => return Err(error.into()),
            JobEvent::Done { usage, .. } => match scores.into_iter().collect() {
                Some(scores) => return Ok((scores, usage)),
                None => break,
            },
            _ => {}
        }
    }
    Err(ApiError::server("plugin_failed", "the plugin did not answer for every document"))
}

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    id: String,
    object: &'static str,
    model: String,
    results: Vec<Ranked>,
    usage: RerankUsage,
}

#[derive(Debug, Serialize)]
struct Ranked {
    index: usize,
    relevance_score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<TextDocument>,
}

#[derive(Debug, Serialize)]
struct TextDocument {
    text: String,
}

#[derive(Debug, Serialize)]
struct RerankUsage {
    prompt_tokens: u32,
    total_tokens: u32,
}

impl Document {
    fn new(mut spec: RerankSpec, scores: &[f64], usage: Usage) -> Self {
        let mut order: Vec<(usize, f64)> = scores.iter().copied().enumerate().collect();
        order.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let results = order.into_iter().take(spec.top_n).map(|(index, relevance_score)| {
            let text = spec.documents.get_mut(index).filter(|_| spec.return_documents);
            let document = text.map(|text| TextDocument { text: std::mem::take(text) });
            Ranked { index, relevance_score, document }
        });
        Self {
            id: meta::random_id("rerank-"),
            object: "list",
            results: results.collect(),
            model: spec.model,
            usage: RerankUsage { prompt_tokens: usage.prompt_tokens, total_tokens: usage.prompt_tokens },
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, stream};
    use pajamas_plugin_api::Finish;
    use serde_json::{Value, json};

    use super::*;

    fn read(mut body: Value) -> Result<RerankSpec, ApiError> {
        let object = body.as_object_mut().unwrap();
        object.entry("model").or_insert("m".into());
        object.entry("query").or_insert("q".into());
        object.entry("documents").or_insert(json!(["a", {"text": "b", "title": "t"}, "c"]));
        RerankSpec::read(&body.into())
    }

    #[test]
    fn the_best_documents_come_first() {
        let table = [
            (json!({}), json!([[1, "b"], [2, "c"], [0, "a"]])),
            (json!({"top_n": 2}), json!([[1, "b"], [2, "c"]])),
            (json!({"top_n": 1, "return_documents": false}), json!([[1, null]])),
        ];
        for (body, expected) in table {
            let document = Document::new(read(body).unwrap(), &[-3.0, 2.0, 0.5], Usage::default());
            let json = serde_json::to_value(&document).unwrap();
            let results = json["results"].as_array().unwrap();
            let seen: Vec<Value> =
                results.iter().map(|r| json!([r["index"], r["document"]["text"]])).collect();
            assert_eq!(Value::from(seen), expected);
        }
    }

    #[test]
    fn scores_come_in_the_order_of_the_documents() {
        let result = |index, json: &str| JobEvent::Result { index, json: json.to_owned() };
        let done = || JobEvent::Done { finish: Finish::Stop, usage: Usage::default() };
        let run = |events: Vec<JobEvent>| collect(stream::iter(events), 2).now_or_never().unwrap();
        let good = vec![result(1, r#"{"index":1,"score":2}"#), result(0, r#"{"score":-1.5}"#), done()];
        assert_eq!(run(good).unwrap().0, [-1.5, 2.0]);
        for bad in [vec![result(0, "{}"), done()], vec![result(0, r#"{"score":1}"#), done()], vec![]] {
            assert_eq!(run(bad).unwrap_err().code(), "plugin_failed");
        }
    }

    #[test]
    fn wrong_fields_are_named() {
        let table = [
            (json!({"model": null}), "model"),
            (json!({"query": null}), "query"),
            (json!({"query": ""}), "query"),
            (json!({"documents": null}), "documents"),
            (json!({"documents": []}), "documents"),
            (json!({"documents": vec!["a"; DOCUMENTS_MAX + 1]}), "documents"),
            (json!({"documents": ["a", 1]}), "documents[1]"),
            (json!({"documents": [{"text": 1}]}), "documents[0].text"),
            (json!({"top_n": 0}), "top_n"),
        ];
        for (body, param) in table {
            let error = read(body).unwrap_err();
            assert_eq!(error.param(), Some(param), "{error}");
        }
    }
}
