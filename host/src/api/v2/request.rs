//! The body of an inference request: JSON, and after it the elements of those inputs that come as binary data.

use std::collections::HashSet;

use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use pajamas_plugin_api::{Dtype, Tensor, shape_bytes};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::datatype;
use crate::api::error::{ApiError, Category};
use crate::api::json::{JsonBody, Object, Present};
use crate::api::limits::{TENSOR_DIMENSIONS_MAX, TENSORS_MAX};

/// How many bytes of a body are JSON, where there is more behind it; in requests and in answers.
pub(super) const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// What a request asks for, valid.
#[derive(Debug, PartialEq)]
pub(super) struct InferSpec {
    /// The client's name for the request, to be repeated.
    pub(super) id: Option<String>,
    /// The inputs; their elements fill their shapes.
    pub(super) inputs: Vec<Tensor>,
    /// Files that hooks are to make inputs of, by the name of the input that they came in.
    pub(super) files: Vec<(String, Bytes)>,
    /// The outputs that are wanted; empty means all.
    pub(super) wanted: Vec<Wanted>,
    /// Whether outputs come as binary data where nothing is said about one.
    pub(super) is_binary: bool,
}

/// An output that is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Its name.
    pub(super) name: String,
    /// Whether it comes as binary data; `None` leaves that to the request.
    pub(super) is_binary: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InferBody<'a> {
    id: Option<String>,
    #[serde(borrow)]
    inputs: Vec<Object<InputBody<'a>>>,
    outputs: Option<Vec<Object<OutputBody>>>,
    parameters: Option<Object<RequestParameters>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InputBody<'a> {
    name: Option<String>,
    datatype: Option<String>,
    shape: Option<Vec<i64>>,
    parameters: Option<Object<InputParameters>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InputParameters {
    binary_data_size: Option<usize>,
    shared_memory_region: Option<Present>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OutputBody {
    name: Option<String>,
    parameters: Option<Object<OutputParameters>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OutputParameters {
    binary_data: Option<bool>,
    classification: Option<u64>,
    shared_memory_region: Option<Present>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RequestParameters {
    binary_data_output: Option<bool>,
    sequence_id: Option<Present>,
    priority: Option<Present>,
    timeout: Option<Present>,
}

impl InferSpec {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// With the name of the input or output at fault.
    pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Result<Self, ApiError> {
        let (json, binary) = split(headers, body)?;
        let json = JsonBody::from(json);
        let body = json.read::<InferBody<'_>>()?;
        let parameters = body.parameters.map(|parameters| parameters.0).unwrap_or_default();
        parameters.refuse_unsupported()?;
        let (inputs, files) = inputs(body.inputs, binary)?;
        let outputs = body.outputs.unwrap_or_default();
        if outputs.len() > TENSORS_MAX {
            return Err(too_many("outputs", outputs.len()));
        }
        let wanted = outputs.into_iter().enumerate().map(|(index, output)| output.0.check(index));
        Ok(Self {
            id: body.id,
            inputs,
            files,
            wanted: wanted.collect::<Result<_, _>>()?,
            is_binary: parameters.binary_data_output.unwrap_or(false),
        })
    }
}

/// The JSON, and the binary data behind it.
fn split(headers: &HeaderMap, body: &Bytes) -> Result<(Bytes, Bytes), ApiError> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let message = format!("the body is compressed ({encoding:?}): send it as it is");
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(ApiError::new(status, Category::InvalidRequest, "unsupported_media_type", message));
    }
    let Some(length) = headers.get(JSON_LENGTH) else { return Ok((body.clone(), Bytes::new())) };
    let length = length.to_str().ok().and_then(|length| length.parse::<usize>().ok());
    match length.filter(|length| *length <= body.len()) {
        Some(length) => Ok((body.slice(..length), body.slice(length..))),
        None => {
            let expected = format_args!("expected how many of the body's {} bytes are JSON", body.len());
            Err(ApiError::invalid(JSON_LENGTH.as_str(), expected))
        }
    }
}

/// The inputs that are tensors, and those that are files.
type Inputs = (Vec<Tensor>, Vec<(String, Bytes)>);

fn inputs(inputs: Vec<Object<InputBody<'_>>>, mut binary: Bytes) -> Result<Inputs, ApiError> {
    if inputs.is_empty() {
        return Err(ApiError::missing("inputs", "the tensors that the model needs"));
    }
    if inputs.len() > TENSORS_MAX {
        return Err(too_many("inputs", inputs.len()));
    }
    let (mut tensors, mut files): Inputs = (Vec::with_capacity(inputs.len()), Vec::new());
    let mut names = HashSet::new();
    for (index, input) in inputs.into_iter().enumerate() {
        let input = input.0.check(index, &mut binary)?;
        let name = match &input {
            Input::Tensor(tensor) => &tensor.name,
            Input::File(name, _) => name,
        };
        if !names.insert(name.clone()) {
            return Err(ApiError::invalid(format!("input \"{name}\""), "it is there twice"));
        }
        match input {
            Input::Tensor(tensor) => tensors.push(tensor),
            Input::File(name, file) => files.push((name, file)),
        }
    }
    if !binary.is_empty() {
        let problem = format_args!("{} bytes of binary data belong to no input", binary.len());
        return Err(ApiError::invalid("inputs", problem));
    }
    Ok((tensors, files))
}

/// An input of a request.
enum Input {
    Tensor(Tensor),
    /// A file, with the input's name.
    File(String, Bytes),
}

impl InputBody<'_> {
    /// The tensor or file; takes its binary data, if it has such, from the front of `binary`.
    fn check(self, index: usize, binary: &mut Bytes) -> Result<Input, ApiError> {
        let Some(name) = self.name.filter(|name| !name.is_empty()) else {
            return Err(ApiError::missing(
                &format!("inputs[{index}].name"),
                "the name of an input of the model",
            ));
        };
        let place = format!("input \"{name}\"");
        let datatype = self.datatype.ok_or_else(|| ApiError::missing(&place, "a datatype, such as FP32"))?;
        if datatype == datatype::BYTES {
            let parameters = self.parameters.map(|parameters| parameters.0).unwrap_or_default();
            let file = file(self.shape.as_deref(), self.data, parameters.binary_data_size, binary);
            return Ok(Input::File(name, file.map_err(|problem| ApiError::invalid(place, problem))?));
        }
        let dtype = datatype::from_name(&datatype, &place)?;
        let shape = self.shape.ok_or_else(|| ApiError::missing(&place, "a shape, such as [1, 3]"))?;
        let bytes = shape_bytes(dtype, &shape).filter(|_| shape.len() <= TENSOR_DIMENSIONS_MAX);
        let Some(bytes) = bytes else {
            let problem =
                format_args!("shape: expected up to {TENSOR_DIMENSIONS_MAX} lengths from 0, got {shape:?}");
            return Err(ApiError::invalid(place, problem));
        };
        let parameters = self.parameters.map(|parameters| parameters.0).unwrap_or_default();
        if parameters.shared_memory_region.is_some() {
            return Err(ApiError::unsupported(place, "shared memory is not shared with it: send the data"));
        }
        let data = match (self.data, parameters.binary_data_size) {
            (Some(json), None) => json_data(dtype, json, bytes, &shape),
            (None, Some(size)) => binary_data(dtype, size, bytes, binary),
            (None, None) => Err("expected data, or binary_data_size among its parameters".to_owned()),
            (Some(_), Some(_)) => Err("data and binary_data_size exclude each other".to_owned()),
        };
        let data = data.map_err(|problem| ApiError::invalid(place, problem))?;
        Ok(Input::Tensor(Tensor { name, dtype, shape, data }))
    }
}

/// The one element of a BYTES tensor: base64 in JSON, else a length of four bytes and the file.
fn file(
    shape: Option<&[i64]>,
    json: Option<&RawValue>,
    size: Option<usize>,
    binary: &mut Bytes,
) -> Result<Bytes, String> {
    if shape.is_none_or(|shape| shape.iter().any(|length| *length != 1)) {
        return Err("datatype BYTES: expected one element, a file of shape [1]".to_owned());
    }
    match (json, size) {
        (Some(json), None) => {
            let [text]: [String; 1] = serde_json::from_str(json.get())
                .map_err(|_| "datatype BYTES: expected an array of one text, a file in base64".to_owned())?;
            let file = BASE64_STANDARD.decode(text).map_err(|error| format!("is not base64: {error}"))?;
            Ok(file.into())
        }
        (None, Some(size)) if size <= binary.len() => {
            let mut data = binary.split_to(size);
            let length = data.split_first_chunk::<4>().map(|(length, _)| u32::from_le_bytes(*length));
            if length.is_none_or(|length| length as usize != size - 4) {
                return Err(
                    "datatype BYTES: expected the file's length in four bytes, and the file".to_owned()
                );
            }
            Ok(data.split_off(4))
        }
        _ => Err("datatype BYTES: expected data, or as many bytes as binary_data_size says".to_owned()),
    }
}

fn json_data(dtype: Dtype, json: &RawValue, bytes: usize, shape: &[i64]) -> Result<Vec<u8>, String> {
    if !datatype::has_json_form(dtype) {
        return Err(format!("{} has no form in JSON: send it as binary data", datatype::name(dtype)));
    }
    let count = bytes / dtype.size_bytes();
    datatype::elements(dtype, json, count).map_err(|problem| format!("data of shape {shape:?}: {problem}"))
}

fn binary_data(dtype: Dtype, size: usize, bytes: usize, binary: &mut Bytes) -> Result<Vec<u8>, String> {
    if size != bytes {
        return Err(format!("its shape takes {bytes} bytes, binary_data_size is {size}"));
    }
    if size > binary.len() {
        return Err(format!("expected {size} bytes of binary data, {} are left of the body", binary.len()));
    }
    let data = binary.split_to(size);
    if dtype == Dtype::Bool && data.iter().any(|element| *element > 1) {
        return Err("expected bytes of 0 or 1".to_owned());
    }
    Ok(data.into())
}

impl OutputBody {
    fn check(self, index: usize) -> Result<Wanted, ApiError> {
        let Some(name) = self.name.filter(|name| !name.is_empty()) else {
            return Err(ApiError::missing(
                &format!("outputs[{index}].name"),
                "the name of an output of the model",
            ));
        };
        let parameters = self.parameters.map(|parameters| parameters.0).unwrap_or_default();
        let unsupported = |hint| Err(ApiError::unsupported(format!("output \"{name}\""), hint));
        if parameters.classification.is_some_and(|count| count > 0) {
            return unsupported("classification is not done here: leave it out and sort the scores");
        }
        if parameters.shared_memory_region.is_some() {
            return unsupported("shared memory is not shared with it: take the data from the answer");
        }
        Ok(Wanted { name, is_binary: parameters.binary_data })
    }
}

impl RequestParameters {
    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        crate::api::params::refuse(&[
            ("sequence_id", &self.sequence_id, "each request stands for itself"),
            ("priority", &self.priority, "use the header x-priority"),
            ("timeout", &self.timeout, "use the header x-request-timeout"),
        ])
    }
}

fn too_many(what: &str, count: usize) -> ApiError {
    ApiError::invalid(what, format_args!("expected up to {TENSORS_MAX} tensors, got {count}"))
}

#[cfg(test)]
mod tests;
