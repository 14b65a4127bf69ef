//! `POST /v1/chat/completions`.

mod messages;
mod request;
mod response;
mod tools;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use pajamas_plugin_api::{Grammar, ModelInfo, Part, Task};
use serde::Deserialize;
use serde_json::{Map, Value};

use self::messages::MessageBody;
use self::request::ChatSpec;
use self::response::ChatFormat;
use super::ApiState;
use super::access::AccessRecord;
use super::aside;
use super::decoder::{Decoder, ToolCalls};
use super::error::ApiError;
use super::generation::{self, Generation};
use super::hooks;
use super::json::{JsonBody, Object};
use super::meta::{self, Meta};
use crate::chat::{
    self, CHATML, ChatMessage, ChatTemplate, RenderInput, SpecialTokens, TemplateError, Tool, ToolCallParser,
    ToolSyntax, random_call_id,
};
use crate::engine::LoadedModel;

/// Answers a conversation.
///
/// # Errors
/// When the request is not valid, the model cannot be used, or generation fails before anything was sent.
///
/// # Cancellation
/// The jobs are cancelled when the client goes away, also before the first token.
pub(super) async fn create(
    State(state): State<ApiState>,
    Extension(record): Extension<Arc<AccessRecord>>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let mut spec = ChatSpec::read(&body)?;
    let bytes = body.len();
    drop(body);
    let model = meta::acquire(&state, &record, &spec.generate.model, &Task::Generate).await?;
    let template = model.extension(|| ModelTemplate::new(model.info()));
    let syntax = template.compiled()?.tool_syntax();
    spec.generate.params.grammar = spec.grammar(syntax)?;
    let mut hooks = hooks::begin(&state, &record, &model, &spec.generate.model, &Task::Generate).await?;
    hooks::refuse_logprobs(&hooks, spec.logprobs)?;
    hooks::conversation(&mut hooks, &mut spec.messages).await?;
    // Some models open a call with a control token, whose text is left out otherwise.
    spec.generate.params.control_tokens = !spec.offered_tools().is_empty();
    let spec = Arc::new(spec);
    // The longest conversations that the template's bounds allow take about a second.
    let rendered = Arc::clone(&spec);
    let parts = aside::by_size(bytes, move || rendered.prompt(&template)).await?;
    let jobs = generation::submit(&model, &spec.generate, vec![parts], state.limits, &record)?;
    let jobs = jobs.into_iter().map(|job| (job, decoder(&spec, syntax))).collect();
    let meta = Meta::new("chatcmpl-", spec.generate.model.clone(), &model);
    let format = ChatFormat::new(meta, spec.generate.stream, spec.generate.n, spec.logprobs);
    Generation::new(jobs, record).respond(spec.generate.stream.is_some(), format, hooks).await
}

/// The field of a body that is a conversation.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MessagesBody {
    messages: Option<Vec<Object<MessageBody>>>,
}

/// The chat template of a loaded model, compiled when it is first needed.
struct ModelTemplate(Result<ChatTemplate, TemplateError>);

impl ModelTemplate {
    /// The model's own template, or ChatML for a model that has none.
    fn new(info: &ModelInfo) -> Self {
        let tokens = SpecialTokens {
            bos_token: info.bos_token.clone(),
            eos_token: info.eos_token.clone(),
            control: info.control_tokens.clone(),
            ..SpecialTokens::default()
        };
        Self(ChatTemplate::parse(info.chat_template.as_deref().unwrap_or(CHATML), tokens))
    }

    fn compiled(&self) -> Result<&ChatTemplate, ApiError> {
        self.0.as_ref().map_err(template_error)
    }
}

/// The conversation in the field `messages` of a body.
///
/// # Errors
/// With the path of the field at fault.
pub(super) fn messages(body: &JsonBody) -> Result<Vec<ChatMessage>, ApiError> {
    messages::messages(body.read::<MessagesBody>()?.messages)
}

/// The prompt for a conversation without tools.
///
/// # Errors
/// The model's template cannot be used, or turns the conversation down.
pub(super) fn prompt(model: &LoadedModel, messages: &[ChatMessage]) -> Result<Vec<Part>, ApiError> {
    let template = model.extension(|| ModelTemplate::new(model.info()));
    render(&template, messages, &[], &Map::new())
}

/// The prompt, in pieces that the template wrote and pieces that the client did.
fn render(
    template: &ModelTemplate,
    messages: &[ChatMessage],
    tools: &[Tool],
    extra: &Map<String, Value>,
) -> Result<Vec<Part>, ApiError> {
    let now = SystemTime::now();
    let input = RenderInput { messages, tools, add_generation_prompt: true, extra, now };
    let segments = template.compiled()?.render(&input).map_err(|error| template_error(&error))?;
    Ok(segments
        .into_iter()
        .map(|segment| Part::Text { text: segment.text, trusted: segment.trusted })
        .collect())
}

fn decoder(spec: &ChatSpec, syntax: ToolSyntax) -> Decoder {
    let offered = spec.offered_tools();
    let tools = (!offered.is_empty()).then(|| ToolCalls {
        parser: ToolCallParser::new(syntax, offered, Box::new(random_call_id)),
        parallel: spec.parallel_tool_calls,
    });
    Decoder::new(spec.generate.stops.clone(), tools, spec.logprobs)
}

impl ChatSpec {
    fn prompt(&self, template: &ModelTemplate) -> Result<Vec<Part>, ApiError> {
        render(template, &self.messages, self.offered_tools(), &self.template_kwargs)
    }

    /// What the output must match: the calls that are demanded, or the JSON that is.
    fn grammar(&self, syntax: ToolSyntax) -> Result<Option<Grammar>, ApiError> {
        let calls = chat::constraint(syntax, &self.tools, &self.tool_choice, self.parallel_tool_calls);
        let calls = calls.map_err(|error| ApiError::invalid("tool_choice", error))?;
        let calls = calls.map(|grammar| Grammar::Lark { text: grammar.text });
        Ok(calls.or_else(|| self.response_format.clone()))
    }
}

/// A conversation that the template turns down is the client's to change; a broken template is not.
fn template_error(error: &TemplateError) -> ApiError {
    match error {
        TemplateError::Rejected(_)
        | TemplateError::ImagesUnsupported
        | TemplateError::OutOfFuel
        | TemplateError::OutputTooLong => ApiError::invalid("messages", error),
        TemplateError::Parse(_)
        | TemplateError::SourceTooLong { .. }
        | TemplateError::ControlTokens(_)
        | TemplateError::Thread(_)
        | TemplateError::Render(_) => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::error!(cause, "{error}");
            ApiError::server("chat_template_failed", error.to_string())
        }
    }
}
