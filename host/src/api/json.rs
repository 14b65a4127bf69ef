//! Reads JSON bodies so that every rejection has OpenAI's shape and names the field at fault.

use std::marker::PhantomData;

use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, Request};
use axum::http::header;
use bytes::Bytes;
use pajamas_plugin_api::Params;
use serde::Serialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category as JsonCategory;

use super::error::ApiError;
use super::limits::{MESSAGE_CHARS_MAX, QUOTED_CHARS_MAX};

/// The body of a request that says it is JSON. It may be read more than once, each time for the fields that one part of
/// the code knows: that keeps the path to a wrong field, which flattened structs lose.
#[derive(Debug)]
pub(super) struct JsonBody(Bytes);

/// A `T` that must be written as an object; serde would take an array of its fields too.
#[derive(Debug, Default)]
pub(super) struct Object<T>(pub(super) T);

/// Any value of an option that is known but not supported.
#[derive(Debug)]
pub(super) struct Present;

impl JsonBody {
    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The body as a `T`.
    ///
    /// # Errors
    /// With line and column when the body is not JSON, with the field's path when a field has a wrong type.
    pub(super) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        let mut deserializer = serde_json::Deserializer::from_slice(&self.0);
        let Object(value) = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            describe(&path, &error.into_inner())
        })?;
        deserializer.end().map_err(|error| describe(".", &error))?;
        Ok(value)
    }
}

impl From<Bytes> for JsonBody {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

/// The whole body.
///
/// # Errors
/// It is longer than the server accepts, or the connection broke.
pub(super) async fn read_body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            ApiError::body_too_large()
        }
        _ => ApiError::incomplete_body(),
    })
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !has_media_type(&request, is_json) {
            return Err(ApiError::media_type("JSON", "application/json"));
        }
        read_body(request, state).await.map(Self)
    }
}

#[cfg(test)]
impl From<serde_json::Value> for JsonBody {
    fn from(value: serde_json::Value) -> Self {
        Self(value.to_string().into())
    }
}

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// Parameters of a task as the plugin gets them.
///
/// # Errors
/// Never for the parameters of `plugin-api`, which are made of what JSON can express.
pub(super) fn params<P: Serialize>(params: &P) -> Result<Params, ApiError> {
    Params::new(params).map_err(|error| {
        tracing::error!(%error, "parameters cannot be written as JSON");
        ApiError::server("internal_error", "the server failed on this request")
    })
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Whether the content type of a request, without its parameters and in lower case, is one that is looked for.
pub(super) fn has_media_type(request: &Request, is_wanted: fn(&str) -> bool) -> bool {
    let header = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    is_wanted(&header.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

fn describe(path: &str, error: &serde_json::Error) -> ApiError {
    if error.classify() != JsonCategory::Data {
        return ApiError::bad_request("invalid_json", format!("the body is not valid JSON: {error}"));
    }
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = error.to_string();
    let problem = plain(text.strip_suffix(&place).unwrap_or(&text));
    if path == "." {
        return ApiError::bad_request("invalid_value", format!("the body: {problem}"));
    }
    ApiError::invalid(path, problem)
}

/// Serde's message in words that do not need knowledge of Rust.
fn plain(message: &str) -> String {
    let what = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    let Some((found, expected)) = what.and_then(|what| what.rsplit_once(", expected ")) else {
        return shortened(message, MESSAGE_CHARS_MAX);
    };
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" => "a whole number that is not negative",
        "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "an object",
        other => other,
    };
    let found = found.replace("sequence", "an array").replace("map", "an object");
    format!("expected {expected}, got {}", shortened(&found, QUOTED_CHARS_MAX))
}

/// The beginning of `text`: values of clients may be megabytes.
fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default)]
    struct Sample {
        count: Option<u32>,
        list: Vec<Option<bool>>,
    }

    #[test]
    fn what_cannot_be_read_is_said_in_plain_words() {
        let long = format!(r#"{{"count": "{}"}}"#, "x".repeat(1000));
        let table = [
            ("", "the body is not valid JSON: EOF while parsing a value at line 1 column 0", None),
            ("{\n  \"count\": 1,\n}", "the body is not valid JSON: trailing comma at line 3 column 1", None),
            ("{} {}", "the body is not valid JSON: trailing characters at line 1 column 4", None),
            ("[]", "the body: expected an object, got an array", None),
            (
                r#"{"count": -1}"#,
                "count: expected a whole number that is not negative, got integer `-1`",
                Some("count"),
            ),
            (r#"{"list": 3}"#, "list: expected an array, got integer `3`", Some("list")),
            (
                r#"{"list": [true, "a, expected b"]}"#,
                "list[1]: expected true or false, got string",
                Some("list[1]"),
            ),
            (&long, "count: expected a whole number that is not negative, got string \"xxx", Some("count")),
        ];
        for (body, message, param) in table {
            let error = JsonBody(Bytes::copy_from_slice(body.as_bytes())).read::<Sample>().unwrap_err();
            assert!(error.to_string().starts_with(message), "{error}");
            assert!(error.to_string().len() < 300);
            assert_eq!(error.param(), param, "{body}");
        }
    }
}
