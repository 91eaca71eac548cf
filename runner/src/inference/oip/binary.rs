//! The `binary_tensor_data` extension: tensors as raw bytes behind the JSON part of a REST body.

use bytes::Bytes;

use crate::engine::Signature;
use crate::error::{Code, Error, Result};
use crate::inference::infer::Inputs;
use crate::tensor::{Dim, Dtype, Tensor};

/// Splits a body at the length that the header announces. The second part is empty without the header.
///
/// # Errors
/// `BAD_BINARY_HEADER`.
pub(super) fn split(body: Bytes, header: Option<&str>) -> Result<(Bytes, Bytes)> {
    let Some(header) = header else { return Ok((body, Bytes::new())) };
    let length: usize = header.trim().parse().map_err(|_| {
        Error::new(Code::BadBinaryHeader, "Inference-Header-Content-Length is not a number of bytes")
    })?;
    if length > body.len() {
        return Err(Error::new(
            Code::BadBinaryHeader,
            format!("Inference-Header-Content-Length is {length}, the body has {} bytes", body.len()),
        ));
    }
    Ok((body.slice(..length), body.slice(length..)))
}

/// Cuts tensors off the binary part, in the order of the request's inputs.
pub(super) struct Blobs(Bytes);

impl Blobs {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, name: &str, size: u64) -> Result<Bytes> {
        match usize::try_from(size) {
            Ok(size) if size <= self.0.len() => Ok(self.0.split_to(size)),
            _ => Err(Error::new(
                Code::BadBinaryHeader,
                format!(
                    "input {name:?} has binary_data_size {size}, {} bytes are left in the body",
                    self.0.len()
                ),
            )),
        }
    }

    /// All of the binary part must have been claimed.
    pub(super) fn finish(self) -> Result<()> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(Error::new(
                Code::BadBinaryHeader,
                format!("{left} bytes of the body belong to no input; check the binary_data_size of each"),
            )),
        }
    }
}

/// A raw request (JSON length 0): the body is the only input's tensor; one dimension may vary and follows from the
/// size.
pub(super) fn raw_request(body: Bytes, signature: &Signature) -> Result<Inputs> {
    let [spec] = signature.inputs.as_slice() else {
        let count = signature.inputs.len();
        return Err(Error::new(
            Code::BadBinaryHeader,
            format!("a raw request carries one tensor, the model has {count} inputs"),
        ));
    };
    let dims = spec.shape.as_deref().unwrap_or_default();
    let tensor = if spec.dtype == Dtype::Bytes {
        let shape: Vec<i64> = dims.iter().map(|_| 1).collect();
        Tensor::text(shape, vec![body])
    } else {
        let fixed: i64 = dims.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { 1 }).product();
        let varying = dims.iter().filter(|dim| matches!(dim, Dim::Any(_))).count();
        if varying > 1 {
            return Err(Error::new(
                Code::BadBinaryHeader,
                "a raw request needs a model with at most one varying dimension",
            ));
        }
        let width = spec.dtype.width().unwrap_or(1) as i64;
        let rest = (body.len() as i64).checked_div(fixed.saturating_mul(width)).unwrap_or(0);
        let size = |dim: &Dim| if let Dim::Fixed(size) = dim { *size } else { rest };
        Tensor::raw(spec.dtype, dims.iter().map(size).collect(), body)
    };
    let tensor =
        tensor.map_err(|error| Error::new(Code::BadCount, format!("input {:?}: {error}", spec.name)))?;
    Ok(Inputs { tensors: vec![(spec.name.clone(), tensor)], ..Inputs::default() })
}
