//! Tensors as they pass between codecs and engines: a datatype, a checked shape, elements.
//!
//! Nothing here knows a transport or a runtime. Elements of fixed width are kept as the little-endian bytes that came
//! from the wire (no copy when a request is decoded); BYTES elements are slices of the same buffer.

mod compare;
mod dtype;
pub mod json;
pub mod raw;
mod shape;

use bytes::Bytes;

pub use compare::{Difference, Tolerance, compare};
pub use dtype::Dtype;
pub use shape::{Dim, element_count, format_dims, format_shape, matches};

/// The elements of a tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// Fixed width: little-endian, `element count x width` bytes, no alignment promised.
    Raw(Bytes),
    /// BYTES: one entry an element.
    Text(Vec<Bytes>),
}

/// A tensor whose elements are known to fit its shape and datatype.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    dtype: Dtype,
    shape: Vec<i64>,
    elements: Elements,
}

/// Why bytes and shape do not make a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// A negative dimension, too many of them, or a product beyond what can be addressed.
    #[error("shape {0} is not valid: {1}")]
    Shape(String, &'static str),
    /// The elements do not fill the shape.
    #[error("shape {shape} holds {wanted} {unit}, but {got} came")]
    Count { shape: String, wanted: usize, got: usize, unit: &'static str },
    /// BYTES elements in length-prefixed form that do not parse.
    #[error("{0}")]
    Bytes(String),
    /// JSON arrays whose nesting is not the shape's.
    #[error("{0}")]
    Nesting(String),
    /// JSON elements that do not parse.
    #[error("{0}")]
    Json(String),
}

impl Tensor {
    /// Fixed-width elements, little-endian.
    ///
    /// # Errors
    /// [`TensorError`] if the shape is invalid or `bytes` has not exactly its size.
    pub fn raw(dtype: Dtype, shape: Vec<i64>, bytes: Bytes) -> Result<Self, TensorError> {
        let Some(width) = dtype.width() else {
            return raw::decode_bytes(&bytes).and_then(|elements| Self::text(shape, elements));
        };
        let wanted = element_count(&shape)?
            .checked_mul(width)
            .ok_or_else(|| TensorError::Shape(format_shape(&shape), "too many elements"))?;
        if bytes.len() != wanted {
            return Err(TensorError::Count {
                shape: format_shape(&shape),
                wanted,
                got: bytes.len(),
                unit: "bytes",
            });
        }
        // A byte other than 0 and 1 read as a C++ bool is undefined behaviour in the engine.
        let bytes = match dtype {
            Dtype::Bool if bytes.iter().any(|byte| *byte > 1) => {
                bytes.iter().map(|byte| u8::from(*byte != 0)).collect()
            }
            _ => bytes,
        };
        Ok(Self { dtype, shape, elements: Elements::Raw(bytes) })
    }

    /// BYTES elements.
    ///
    /// # Errors
    /// [`TensorError`] if the shape is invalid or does not hold as many elements as given.
    pub fn text(shape: Vec<i64>, elements: Vec<Bytes>) -> Result<Self, TensorError> {
        let wanted = element_count(&shape)?;
        if elements.len() != wanted {
            let got = elements.len();
            return Err(TensorError::Count { shape: format_shape(&shape), wanted, got, unit: "elements" });
        }
        Ok(Self { dtype: Dtype::Bytes, shape, elements: Elements::Text(elements) })
    }

    /// The datatype.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The dimensions, each 0 or more; empty for a scalar.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// The elements.
    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    /// Size of the elements in bytes, for limits and estimates.
    pub fn byte_len(&self) -> usize {
        match &self.elements {
            Elements::Raw(bytes) => bytes.len(),
            Elements::Text(elements) => elements.iter().map(|element| element.len() + 4).sum(),
        }
    }
}
