//! The answer to an inference request: JSON, and after it the elements of the outputs that are binary data.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use std::convert::Infallible;

use super::VERSION;
use super::datatype::{self, JsonElements};
use super::request::JSON_LENGTH;
use crate::api::error::ApiError;
use crate::engine::OutputTensor;

/// What an answer says before its outputs.
pub(super) struct Head<'a> {
    /// The model's name as the client wrote it.
    pub(super) model: &'a str,
    /// The client's name for the request.
    pub(super) id: Option<&'a str>,
}

#[derive(Serialize)]
struct Document<'a> {
    model_name: &'a str,
    model_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<Output<'a>>,
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [i64],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<JsonElements<'a>>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

/// Writes the tensors, each as binary data if `is_binary` says so of its name.
///
/// # Errors
/// An output is asked for as JSON and has elements without a form in it.
pub(super) fn write(
    head: &Head<'_>,
    tensors: &[OutputTensor],
    is_binary: impl Fn(&str) -> bool,
) -> Result<Response, ApiError> {
    let mut binary = Vec::new();
    let mut outputs = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let as_binary = is_binary(&tensor.name);
        if as_binary {
            binary.push(tensor.data.clone());
        } else if !datatype::fit_json(tensor.dtype, &tensor.data) {
            let datatype = datatype::name(tensor.dtype);
            let problem =
                format_args!("its {datatype} elements have no form in JSON: ask for it as binary data");
            return Err(ApiError::invalid(format!("output \"{}\"", tensor.name), problem));
        }
        outputs.push(Output {
            name: &tensor.name,
            datatype: datatype::name(tensor.dtype),
            shape: &tensor.shape,
            parameters: as_binary.then_some(Parameters { binary_data_size: tensor.data.len() }),
            data: (!as_binary).then_some(JsonElements(tensor.dtype, &tensor.data)),
        });
    }
    let document = Document { model_name: head.model, model_version: VERSION, id: head.id, outputs };
    let json = serde_json::to_vec(&document).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        ApiError::server("internal_error", "the server failed on this request")
    })?;
    Ok(assemble(json.into(), binary))
}

fn assemble(json: Bytes, binary: Vec<Bytes>) -> Response {
    if binary.is_empty() {
        let mut response = Response::new(Body::from(json));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return response;
    }
    let json_length = json.len();
    let length = json_length + binary.iter().map(Bytes::len).sum::<usize>();
    // Piece by piece, so that no tensor is copied.
    let pieces = std::iter::once(json).chain(binary).map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(stream::iter(pieces)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(JSON_LENGTH, json_length.into());
    response
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use pajamas_plugin_api::Dtype;
    use serde_json::{Value, json};

    use super::*;

    fn tensor(name: &str, dtype: Dtype, data: &[u8]) -> OutputTensor {
        let shape = vec![(data.len() / dtype.size_bytes()) as i64];
        OutputTensor { name: name.into(), dtype, shape, data: Bytes::copy_from_slice(data) }
    }

    fn written(tensors: &[OutputTensor], binary: &[&str]) -> Result<(Value, Vec<u8>), ApiError> {
        let head = Head { model: "m", id: Some("7") };
        let response = write(&head, tensors, |name| binary.contains(&name))?;
        let length =
            response.headers().get(JSON_LENGTH).map(|length| length.to_str().unwrap().parse().unwrap());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).now_or_never().unwrap().unwrap();
        let (json, binary) = body.split_at(length.unwrap_or(body.len()));
        Ok((serde_json::from_slice(json).unwrap(), binary.to_vec()))
    }

    #[test]
    fn outputs_are_json_or_binary_as_asked() {
        let numbers = [1.5_f32, -2.0].map(f32::to_ne_bytes).concat();
        let tensors = [
            tensor("a", Dtype::F32, &numbers),
            tensor("b", Dtype::Bool, &[1, 0]),
            tensor("c", Dtype::F16, &[1, 2]),
        ];
        let (json, binary) = written(&tensors, &["a", "c"]).unwrap();
        let expected = json!({"model_name": "m", "model_version": "1", "id": "7", "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
            {"name": "b", "datatype": "BOOL", "shape": [2], "data": [true, false]},
            {"name": "c", "datatype": "FP16", "shape": [1], "parameters": {"binary_data_size": 2}},
        ]});
        assert_eq!(json, expected);
        assert_eq!(binary, [&numbers[..], &[1, 2]].concat());
        let (json, binary) = written(&tensors[..1], &[]).unwrap();
        assert_eq!((&json["outputs"][0]["data"], binary.len()), (&json!([1.5, -2.0]), 0));
    }

    #[test]
    fn what_json_cannot_say_is_refused_with_the_outputs_name() {
        for bad in [tensor("y", Dtype::F16, &[0, 0]), tensor("y", Dtype::F32, &f32::NAN.to_ne_bytes())] {
            let error = written(&[bad], &[]).unwrap_err();
            assert!(error.to_string().contains("output \"y\": its FP"), "{error}");
        }
    }
}
