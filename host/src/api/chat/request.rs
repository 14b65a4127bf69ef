//! The body of a chat request, checked.

use pajamas_plugin_api::Grammar;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::messages::{self, MessageBody};
use super::tools;
use crate::api::error::ApiError;
use crate::api::json::{JsonBody, Object, Present};
use crate::api::limits::TOP_LOGPROBS_MAX;
use crate::api::params::{GenerateOptions, GenerateSpec, in_range, refuse};
use crate::chat::{ChatMessage, Tool, ToolChoice};

/// What a chat request asks for, valid.
#[derive(Debug)]
pub(super) struct ChatSpec {
    /// The options that it shares with legacy completions.
    pub(super) generate: GenerateSpec,
    /// The conversation; not empty.
    pub(super) messages: Vec<ChatMessage>,
    /// The tools in the request.
    pub(super) tools: Vec<Tool>,
    /// Whether they may be used.
    pub(super) tool_choice: ToolChoice,
    /// Whether there may be more than one call.
    pub(super) parallel_tool_calls: bool,
    /// What the text must match.
    pub(super) response_format: Option<Grammar>,
    /// Whether the tokens are reported.
    pub(super) logprobs: bool,
    /// Further variables for the template.
    pub(super) template_kwargs: Map<String, Value>,
}

/// The fields that only chat has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChatBody {
    messages: Option<Vec<Object<MessageBody>>>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<Object<ResponseFormat>>,
    logprobs: Option<bool>,
    top_logprobs: Option<u32>,
    chat_template_kwargs: Option<Map<String, Value>>,
    modalities: Option<Vec<String>>,
    audio: Option<Present>,
    function_call: Option<Present>,
    functions: Option<Present>,
    prediction: Option<Present>,
    reasoning_effort: Option<Present>,
    verbosity: Option<Present>,
    web_search_options: Option<Present>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: Option<String>,
    json_schema: Option<Object<JsonSchemaBody>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JsonSchemaBody {
    schema: Option<Value>,
}

impl ChatSpec {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// With the path of the field at fault.
    pub(super) fn read(body: &JsonBody) -> Result<Self, ApiError> {
        let mut generate = body.read::<GenerateOptions>()?.check(None)?;
        let body = body.read::<ChatBody>()?;
        body.refuse_unsupported()?;
        generate.params.top_logprobs = top_logprobs(body.logprobs, body.top_logprobs)?;
        let tools = tools::tools(body.tools.unwrap_or_default())?;
        let tool_choice = tools::choice(body.tool_choice.as_ref(), &tools)?;
        let response_format = body.response_format.map(|format| format.0.grammar()).transpose()?.flatten();
        if response_format.is_some() && !tools.is_empty() && tool_choice != ToolChoice::None {
            let problem = "cannot be combined with tools that may be called; set tool_choice to \"none\"";
            return Err(ApiError::invalid("response_format", problem));
        }
        Ok(Self {
            logprobs: generate.params.top_logprobs.is_some(),
            generate,
            messages: messages::messages(body.messages)?,
            tools,
            tool_choice,
            parallel_tool_calls: body.parallel_tool_calls.unwrap_or(true),
            response_format,
            template_kwargs: body.chat_template_kwargs.unwrap_or_default(),
        })
    }

    /// The tools that the model is told of.
    pub(super) fn offered_tools(&self) -> &[Tool] {
        if self.tool_choice == ToolChoice::None { &[] } else { &self.tools }
    }
}

impl ChatBody {
    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        refuse(&[
            ("functions", &self.functions, "use tools instead"),
            ("function_call", &self.function_call, "use tool_choice instead"),
            ("audio", &self.audio, "answers are text"),
            ("prediction", &self.prediction, "leave it out"),
            (
                "reasoning_effort",
                &self.reasoning_effort,
                "use chat_template_kwargs if the model's template knows it",
            ),
            ("verbosity", &self.verbosity, "leave it out"),
            ("web_search_options", &self.web_search_options, "use tools instead"),
        ])?;
        match self.modalities.as_deref() {
            None => Ok(()),
            Some([text]) if text == "text" => Ok(()),
            Some(_) => Err(ApiError::unsupported(
                "modalities",
                "answers are text: leave it out or set it to [\"text\"]",
            )),
        }
    }
}

impl ResponseFormat {
    fn grammar(self) -> Result<Option<Grammar>, ApiError> {
        match self.kind.as_deref() {
            Some("text") => Ok(None),
            Some("json_object") => Ok(Some(Grammar::JsonObject)),
            Some("json_schema") => {
                let schema = self.json_schema.and_then(|body| body.0.schema);
                let schema = schema.ok_or_else(|| ApiError::missing(SCHEMA, "a JSON Schema"))?;
                if !matches!(schema, Value::Object(_) | Value::Bool(true)) {
                    return Err(ApiError::invalid(SCHEMA, "expected a JSON Schema, which is an object"));
                }
                Ok(Some(Grammar::JsonSchema { schema }))
            }
            Some(_) => Err(ApiError::invalid("response_format.type", format_args!("expected {FORMATS}"))),
            None => Err(ApiError::missing("response_format.type", FORMATS)),
        }
    }
}

const SCHEMA: &str = "response_format.json_schema.schema";
const FORMATS: &str = "\"text\", \"json_object\" or \"json_schema\"";

fn top_logprobs(logprobs: Option<bool>, top: Option<u32>) -> Result<Option<u32>, ApiError> {
    match (logprobs, top) {
        (Some(true), top) => in_range("top_logprobs", top, 0..=TOP_LOGPROBS_MAX, 0).map(Some),
        (_, Some(1..)) => {
            Err(ApiError::invalid("top_logprobs", "only allowed together with \"logprobs\": true"))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(mut options: Value) -> Result<ChatSpec, ApiError> {
        let body = options.as_object_mut().unwrap();
        body.entry("model").or_insert("m".into());
        body.entry("messages").or_insert(json!([{"role": "user", "content": "hi"}]));
        ChatSpec::read(&options.into())
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name}})
    }

    #[test]
    fn wrong_fields_are_named() {
        let table = [
            (json!({"messages": []}), "messages", "at least one"),
            (json!({"messages": null}), "messages", "missing"),
            (json!({"logprobs": 1}), "logprobs", "true or false"),
            (json!({"top_logprobs": 2}), "top_logprobs", "only allowed together"),
            (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs", "from 0 to 20"),
            (json!({"response_format": {}}), "response_format.type", "missing"),
            (json!({"response_format": {"type": "xml"}}), "response_format.type", "\"json_object\""),
            (json!({"response_format": {"type": "json_schema"}}), SCHEMA, "missing"),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"schema": 1}}}),
                SCHEMA,
                "an object",
            ),
            (
                json!({"response_format": {"type": "json_object"}, "tools": [tool("f")]}),
                "response_format",
                "combined",
            ),
            (json!({"functions": []}), "functions", "use tools"),
            (json!({"function_call": "auto"}), "function_call", "use tool_choice"),
            (json!({"audio": {"voice": "x"}}), "audio", "answers are text"),
            (json!({"modalities": ["text", "audio"]}), "modalities", "answers are text"),
            (json!({"prediction": {}}), "prediction", "not supported"),
            (json!({"reasoning_effort": "low"}), "reasoning_effort", "chat_template_kwargs"),
            (json!({"web_search_options": {}}), "web_search_options", "use tools"),
            (json!({"verbosity": "low"}), "verbosity", "not supported"),
            (json!({"chat_template_kwargs": 1}), "chat_template_kwargs", "an object"),
            (json!({"temperature": 3}), "temperature", "from 0 to 2"),
        ];
        for (options, param, message) in table {
            let error = read(options.clone()).unwrap_err();
            assert_eq!(error.param(), Some(param), "{options}: {error}");
            assert!(error.to_string().contains(message), "{options}: {error}");
        }
    }

    #[test]
    fn unsupported_options_may_be_null_and_unknown_ones_anything() {
        read(json!({"functions": null, "audio": null, "modalities": ["text"], "new_option": [1]})).unwrap();
    }

    #[test]
    fn formats_become_grammars() {
        let schema = json!({"type": "object"});
        let table = [
            (json!({"type": "text"}), None),
            (json!({"type": "json_object"}), Some(Grammar::JsonObject)),
            (
                json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}}),
                Some(Grammar::JsonSchema { schema }),
            ),
        ];
        for (format, expected) in table {
            assert_eq!(read(json!({ "response_format": format })).unwrap().response_format, expected);
        }
    }

    #[test]
    fn logprobs_ask_for_tokens() {
        let table = [
            (json!({}), None),
            (json!({"logprobs": false, "top_logprobs": 0}), None),
            (json!({"logprobs": true}), Some(0)),
            (json!({"logprobs": true, "top_logprobs": 5}), Some(5)),
        ];
        for (options, expected) in table {
            let spec = read(options).unwrap();
            assert_eq!((spec.generate.params.top_logprobs, spec.logprobs), (expected, expected.is_some()));
        }
    }

    #[test]
    fn tools_that_must_not_be_used_are_not_offered() {
        let spec = read(json!({"tools": [tool("f")], "tool_choice": "none"})).unwrap();
        assert!(spec.offered_tools().is_empty());
        let spec = read(json!({"tools": [tool("f")], "parallel_tool_calls": false})).unwrap();
        assert_eq!((spec.offered_tools().len(), spec.parallel_tool_calls), (1, false));
    }
}
