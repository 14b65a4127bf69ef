//! Bodies of the type `multipart/form-data` (RFC 7578), as browsers, curl and OpenAI's clients send files.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequest, Multipart, Request};
use axum::http::StatusCode;
use bytes::Bytes;

use super::error::ApiError;
use super::json::{JsonBody, has_media_type};
use super::limits::{FORM_FIELDS_MAX, FORM_NAME_BYTES_MAX, FORM_TEXT_BYTES_MAX};

/// A form, read to its end. A field of a form is a text or a file by who asks for it: clients do not agree on what makes a
/// part a file.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// In the order of the body; a name may come more than once.
    fields: Vec<(String, Bytes)>,
}

/// A body in either of two types.
#[derive(Debug)]
pub(super) enum Body {
    /// `application/json`.
    Json(JsonBody),
    /// `multipart/form-data`.
    Form(Form),
}

impl Form {
    /// The text of a field; `None` when it is left out or empty, as browsers send fields that nobody filled in. Of several
    /// with this name the last one counts.
    ///
    /// # Errors
    /// It is longer than [`FORM_TEXT_BYTES_MAX`], or not UTF-8.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, ApiError> {
        let last = self.fields.iter().rev().find(|field| field.0 == name);
        let text = last.map(|field| text(name, &field.1)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
    }

    /// The texts of all fields of this name, such as `timestamp_granularities[]`.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let fields = self.fields.iter().filter(|field| field.0 == name);
        fields.map(|field| text(name, &field.1).map(str::to_owned)).collect()
    }

    /// A field that is written as a `T`, such as a number; `expected` says what that looks like.
    ///
    /// # Errors
    /// It is not written as one.
    pub(super) fn parse<T: FromStr>(
        &self,
        name: &str,
        expected: impl Display,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let wrong = |_| {
            let start: String = text.chars().take(super::limits::QUOTED_CHARS_MAX).collect();
            ApiError::invalid(name, format_args!("expected {expected}, got \"{start}\""))
        };
        text.trim().parse().map(Some).map_err(wrong)
    }

    /// The bytes of all fields with one of these names, with the name of each.
    pub(super) fn files(&self, names: &[&str]) -> impl Iterator<Item = (&str, &Bytes)> {
        let fields = self.fields.iter().filter(|field| names.contains(&field.0.as_str()));
        fields.map(|(name, bytes)| (name.as_str(), bytes))
    }

    async fn read(mut multipart: Multipart) -> Result<Self, ApiError> {
        let mut form = Self::default();
        while let Some(field) = multipart.next_field().await.map_err(|error| broken(&error))? {
            let name = field.name().unwrap_or_default().to_owned();
            if name.is_empty() || name.len() > FORM_NAME_BYTES_MAX {
                let problem = format!("a field of the form needs a name of 1 to {FORM_NAME_BYTES_MAX} bytes");
                return Err(ApiError::bad_request("invalid_form", problem));
            }
            if form.fields.len() == FORM_FIELDS_MAX {
                let problem = format!("the form has more than {FORM_FIELDS_MAX} fields");
                return Err(ApiError::bad_request("invalid_form", problem));
            }
            let bytes = field.bytes().await.map_err(|error| broken(&error))?;
            form.fields.push((name, bytes));
        }
        Ok(form)
    }
}

impl Body {
    /// The length of what was sent, without the borders of a form's fields, in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Json(body) => body.len(),
            Self::Form(form) => form.fields.iter().map(|field| field.1.len()).sum(),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !has_media_type(&request, is_form) {
            return Err(ApiError::media_type("a form", "multipart/form-data"));
        }
        let multipart = Multipart::from_request(request, state).await.map_err(|_| {
            ApiError::bad_request("invalid_form", "the content type of the form names no boundary")
        })?;
        Self::read(multipart).await
    }
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if has_media_type(&request, is_form) {
            return Form::from_request(request, state).await.map(Self::Form);
        }
        JsonBody::from_request(request, state).await.map(Self::Json)
    }
}

#[cfg(test)]
impl Form {
    pub(super) fn of(fields: &[(&str, &[u8])]) -> Self {
        let owned = |(name, bytes): &(&str, &[u8])| ((*name).to_owned(), Bytes::copy_from_slice(bytes));
        Self { fields: fields.iter().map(owned).collect() }
    }
}

fn is_form(media_type: &str) -> bool {
    media_type == "multipart/form-data"
}

fn text<'a>(name: &str, bytes: &'a Bytes) -> Result<&'a str, ApiError> {
    if bytes.len() > FORM_TEXT_BYTES_MAX {
        let problem = format_args!("expected at most {FORM_TEXT_BYTES_MAX} bytes, got {}", bytes.len());
        return Err(ApiError::invalid(name, problem));
    }
    std::str::from_utf8(bytes).map_err(|_| ApiError::invalid(name, "expected text in UTF-8"))
}

fn broken(error: &axum::extract::multipart::MultipartError) -> ApiError {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::body_too_large(),
        StatusCode::BAD_REQUEST => {
            let problem = format!("the body is not a valid form: {}", error.body_text());
            ApiError::bad_request("invalid_form", problem)
        }
        _ => ApiError::incomplete_body(),
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::DefaultBodyLimit;
    use axum::response::Response;
    use axum::routing::post;
    use futures_util::FutureExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::api::testing;

    /// Sends a body to a route that tells what it reads.
    fn send(content_type: &str, body: impl Into<axum::body::Body>) -> Response {
        async fn tell(form: Form) -> Result<String, ApiError> {
            let count: Option<u32> = form.parse("count", "a whole number")?;
            let files: Vec<_> =
                form.files(&["file", "image"]).map(|(name, bytes)| (name, bytes.len())).collect();
            Ok(format!("{:?} {count:?} {:?} {files:?}", form.text("model")?, form.texts("tags[]")?))
        }
        let router = axum::Router::new().route("/", post(tell)).layer(DefaultBodyLimit::max(100_000));
        let request = Request::post("/").header("content-type", content_type).body(body.into()).unwrap();
        router.oneshot(request).now_or_never().unwrap().unwrap()
    }

    const TYPE: &str = "multipart/form-data; boundary=b";

    fn part(head: &str, body: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n")
    }

    #[test]
    fn fields_are_texts_numbers_and_files() {
        let body = [
            part("name=\"model\"", "first"),
            part("name=model", "größe"),
            part("name=\"count\"", " 7 "),
            part("name=\"tags[]\"", "a"),
            part("name=\"tags[]\"", ""),
            part("name=\"file\"; filename=\"x.png\"\r\nContent-Type: image/png", "12345"),
            part("name=\"image\"", "123"),
            part("name=\"other\"", "\u{0}"),
            "--b--".to_owned(),
        ];
        let text = testing::text(send(TYPE, body.concat()));
        assert_eq!(text, r#"Some("größe") Some(7) ["a", ""] [("file", 5), ("image", 3)]"#);
        let empty = [part("name=\"model\"", ""), part("name=count", ""), "--b--\r\n".to_owned()].concat();
        assert_eq!(testing::text(send(TYPE, empty)), "None None [] []");
        assert_eq!(testing::text(send(TYPE, "--b--\r\n")), "None None [] []");
    }

    #[test]
    fn what_is_no_form_is_refused_with_a_reason() {
        let many = part("name=a", "").repeat(FORM_FIELDS_MAX + 1) + "--b--";
        let long = part("name=model", &"x".repeat(FORM_TEXT_BYTES_MAX + 1)) + "--b--";
        let large = part("name=file", &"x".repeat(100_000)) + "--b--";
        let nameless = part("name=\"\"", "x") + "--b--";
        let wordy = part(&format!("name={}", "x".repeat(FORM_NAME_BYTES_MAX + 1)), "x") + "--b--";
        let wrong = part("name=count", "seven") + "--b--";
        let table: [(&str, &str, u16, &str); 13] = [
            ("application/json", "{}", 415, "the body must be a form, with the header"),
            ("", "", 415, "the body must be a form, with the header"),
            ("multipart/mixed; boundary=b", "--b--", 415, "the body must be a form, with the header"),
            ("multipart/form-data", "--b--", 400, "the content type of the form names no boundary"),
            (TYPE, "", 400, "the body is not a valid form: "),
            (TYPE, "hello", 400, "the body is not a valid form: "),
            (
                TYPE,
                "--b\r\nContent-Disposition: form-data; name=a\r\n\r\nunfinished",
                400,
                "the body is not a valid form",
            ),
            (TYPE, &nameless, 400, "a field of the form needs a name"),
            (TYPE, &wordy, 400, "a field of the form needs a name"),
            (TYPE, &many, 400, "the form has more than"),
            (TYPE, &long, 400, "model: expected at most 65536 bytes, got 65537"),
            (TYPE, &wrong, 400, "count: expected a whole number, got \\\"seven\\\""),
            (TYPE, &large, 413, "the body is larger than this server accepts"),
        ];
        for (content_type, body, status, expected) in table {
            let response = send(content_type, body.to_owned());
            assert_eq!(response.status().as_u16(), status, "{content_type} {expected}");
            let text = testing::text(response);
            assert!(text.contains(expected), "{text}");
        }
        let binary = [part("name=model", "").trim_end().as_bytes(), b"\r\n\r\n\xff\r\n--b--"].concat();
        assert!(testing::text(send(TYPE, binary)).contains("model: expected text in UTF-8"));
    }

    #[test]
    fn a_body_that_breaks_off_is_told_from_a_wrong_one() {
        let start = Ok(Bytes::from(part("name=a", "x")));
        let stream = futures_util::stream::iter([start, Err(std::io::Error::other("gone"))]);
        let response = send(TYPE, axum::body::Body::from_stream(stream));
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert!(testing::text(response).contains("incomplete_body"));
    }
}
