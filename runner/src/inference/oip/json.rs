//! The JSON form of an inference request and its answer over REST.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::binary::Blobs;
use crate::error::{Code, Error, Result};
use crate::inference::headers::signed_by;
use crate::inference::infer::{Answer, Inputs, Wanted};
use crate::tensor::{Dtype, Tensor, TensorError, json, raw};

type Parameters = BTreeMap<String, serde_json::Value>;

#[derive(Deserialize)]
struct RequestBody<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    parameters: Option<Parameters>,
    #[serde(borrow)]
    inputs: Vec<InputBody<'a>>,
    #[serde(default)]
    outputs: Option<Vec<OutputBody>>,
}

#[derive(Deserialize)]
struct InputBody<'a> {
    name: String,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(borrow)]
    shape: &'a RawValue,
    #[serde(default)]
    parameters: Option<Parameters>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct OutputBody {
    name: String,
    #[serde(default)]
    parameters: Option<Parameters>,
}

/// How the answer is to be written.
#[derive(Debug, Default)]
pub(super) struct Form {
    pub(super) id: Option<String>,
    /// Outputs are binary unless told otherwise one by one.
    pub(super) binary: bool,
    /// By name of output.
    pub(super) binary_by_output: BTreeMap<String, bool>,
}

impl Form {
    fn is_binary(&self, output: &str) -> bool {
        self.binary_by_output.get(output).copied().unwrap_or(self.binary)
    }
}

/// Reads a request: the JSON part and the binary part behind it.
///
/// # Errors
/// `BAD_JSON`, `BAD_SHAPE`, `BAD_DTYPE`, `BAD_COUNT`, `BAD_BYTES`, `BAD_BINARY_HEADER`, `UNSUPPORTED`.
pub(super) fn read(text: &[u8], blobs: Bytes, max_tensors: usize) -> Result<(Inputs, Form)> {
    let text =
        std::str::from_utf8(text).map_err(|_| Error::new(Code::BadJson, "the body is no UTF-8 text"))?;
    if !text.trim_start().starts_with('{') {
        return Err(Error::new(Code::BadJson, "the body is no JSON object"));
    }
    let body: RequestBody<'_> = match serde_json::from_str(text) {
        Ok(body) => body,
        Err(error) => match json::quote_non_finite(text) {
            Cow::Borrowed(_) => return Err(bad_json(&error)),
            // Python's json writes NaN and Infinity bare; rare enough to look for only when parsing failed.
            Cow::Owned(quoted) => {
                return serde_json::from_str(&quoted)
                    .map_err(|error| bad_json(&error))
                    .and_then(|body| convert(body, blobs, max_tensors));
            }
        },
    };
    convert(body, blobs, max_tensors)
}

fn bad_json(error: &serde_json::Error) -> Error {
    // serde names fields and types of the protocol and quotes the request; both are the caller's own.
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default().chars().take(200).collect::<String>();
    let (line, column) = (error.line(), error.column());
    Error::new(
        Code::BadJson,
        format!("the body is no inference request, line {line}, column {column}: {message}"),
    )
}

fn convert(body: RequestBody<'_>, blobs: Bytes, max_tensors: usize) -> Result<(Inputs, Form)> {
    let outputs = body.outputs.unwrap_or_default();
    if body.inputs.len().max(outputs.len()) > max_tensors {
        return Err(Error::new(Code::BadRequest, format!("a request names at most {max_tensors} tensors")));
    }
    let parameters = body.parameters.unwrap_or_default();
    let mut blobs = Blobs::new(blobs);
    let mut tensors = Vec::with_capacity(body.inputs.len());
    for input in body.inputs {
        let tensor = read_input(&input, &mut blobs)?;
        tensors.push((input.name, tensor));
    }
    blobs.finish()?;
    let mut form = Form {
        id: body.id.map(Cow::into_owned),
        binary: boolean(&parameters, "binary_data_output")?.unwrap_or(false),
        binary_by_output: BTreeMap::new(),
    };
    let mut names = Vec::with_capacity(outputs.len());
    for output in outputs {
        let parameters = output.parameters.unwrap_or_default();
        refuse_unsupported(&parameters)?;
        if let Some(binary) = boolean(&parameters, "binary_data")? {
            form.binary_by_output.insert(output.name.clone(), binary);
        }
        names.push(output.name);
    }
    let timeout = parameters.get("timeout").and_then(serde_json::Value::as_u64).filter(|micros| *micros > 0);
    let timeout = timeout.map(Duration::from_micros);
    Ok((Inputs { tensors, outputs: Wanted::Named(names), timeout, request_id: None }, form))
}

fn read_input(input: &InputBody<'_>, blobs: &mut Blobs) -> Result<Tensor> {
    let name = &input.name;
    let dtype = Dtype::from_name(&input.datatype).ok_or_else(|| {
        Error::new(Code::BadDtype, format!("input {name:?}: {:?} is no datatype", clip(&input.datatype)))
    })?;
    let shape: Vec<i64> = serde_json::from_str(input.shape.get()).map_err(|_| {
        Error::new(Code::BadShape, format!("input {name:?}: the shape is no list of whole numbers"))
    })?;
    let size = match &input.parameters {
        None => None,
        Some(parameters) => {
            refuse_unsupported(parameters)?;
            parameters.get("binary_data_size")
        }
    };
    match (size, input.data) {
        (Some(size), None) => {
            let size = size.as_u64().ok_or_else(|| {
                Error::new(
                    Code::BadBinaryHeader,
                    format!("input {name:?}: binary_data_size is not a number of bytes"),
                )
            })?;
            let blob = blobs.take(name, size)?;
            Tensor::raw(dtype, shape, blob).map_err(|error| tensor_error(name, &error))
        }
        (None, Some(data)) => {
            json::read(dtype, shape, data.get().as_bytes()).map_err(|error| tensor_error(name, &error))
        }
        (Some(_), Some(_)) => {
            Err(Error::new(Code::BadRequest, format!("input {name:?} has both data and binary_data_size")))
        }
        (None, None) => {
            Err(Error::new(Code::BadRequest, format!("input {name:?} has neither data nor binary_data_size")))
        }
    }
}

/// A tensor's fault under the code that callers know.
pub(super) fn tensor_error(name: &str, error: &TensorError) -> Error {
    let code = match error {
        TensorError::Shape(..) | TensorError::Nesting(_) => Code::BadShape,
        TensorError::Count { .. } => Code::BadCount,
        TensorError::Bytes(_) => Code::BadBytes,
        TensorError::Json(_) => Code::BadJson,
    };
    Error::new(code, format!("input {name:?}: {error}"))
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

fn boolean(parameters: &Parameters, name: &str) -> Result<Option<bool>> {
    match parameters.get(name) {
        None => Ok(None),
        Some(serde_json::Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(Error::new(Code::BadRequest, format!("parameter {name} is true or false"))),
    }
}

/// Parameters that would change the meaning of the request must not be passed over.
fn refuse_unsupported(parameters: &Parameters) -> Result<()> {
    for name in ["shared_memory_region", "classification"] {
        if parameters.contains_key(name) {
            return Err(unsupported(name));
        }
    }
    Ok(())
}

pub(super) fn unsupported(parameter: &str) -> Error {
    Error::new(Code::Unsupported, format!("the parameter {parameter} is not supported"))
}

/// Writes an answer. Returns the bytes and, if any output is binary, the length of the JSON part.
///
/// # Errors
/// `BAD_REQUEST` for byte strings that JSON cannot carry.
pub(super) fn write(answer: &Answer, form: &Form) -> Result<(Vec<u8>, Option<usize>)> {
    let size: usize = answer.outputs.iter().map(|(_, tensor)| tensor.byte_len()).sum();
    let mut out = Vec::with_capacity(512 + size * 2);
    let identity = &answer.target.version().identity;
    out.extend_from_slice(b"{\"model_name\":\"");
    out.extend_from_slice(identity.model.as_str().as_bytes());
    out.extend_from_slice(b"\",\"model_version\":\"");
    out.extend_from_slice(identity.number_text.as_bytes());
    out.push(b'"');
    if let Some(id) = &form.id {
        out.extend_from_slice(b",\"id\":");
        write_text(id, &mut out);
    }
    out.extend_from_slice(b",\"parameters\":{");
    for (index, (name, value)) in signed_by(&answer.target, answer.request_id.as_ref()).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(name, &mut out);
        out.push(b':');
        write_text(value, &mut out);
    }
    out.extend_from_slice(b"},\"outputs\":[");
    let mut blobs = Vec::new();
    for (index, (name, tensor)) in answer.named().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"name\":");
        write_text(name, &mut out);
        out.extend_from_slice(b",\"datatype\":\"");
        out.extend_from_slice(tensor.dtype().name().as_bytes());
        out.extend_from_slice(b"\",\"shape\":[");
        let mut digits = itoa::Buffer::new();
        for (index, size) in tensor.shape().iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(digits.format(*size).as_bytes());
        }
        out.push(b']');
        if form.is_binary(name) {
            let blob = raw::encode(tensor);
            out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            out.extend_from_slice(digits.format(blob.len()).as_bytes());
            out.push(b'}');
            blobs.push(blob);
        } else {
            out.extend_from_slice(b",\"data\":");
            json::write(tensor, &mut out).map_err(|error| {
                Error::new(
                    Code::BadRequest,
                    format!("output {name:?}: {error}, which JSON cannot carry; ask for it with binary_data"),
                )
            })?;
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    let json_length = (!blobs.is_empty()).then_some(out.len());
    for blob in blobs {
        out.extend_from_slice(&blob);
    }
    Ok((out, json_length))
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Writing a string to memory does not fail.
    let _ = serde_json::to_writer(out, text);
}
