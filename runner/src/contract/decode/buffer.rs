//! The elements of one input while a request is decoded.

use bytes::Bytes;

use super::Template;
use crate::error::{Code, Error, Result};

#[derive(Debug)]
pub(super) enum Buffer {
    Raw(Vec<u8>),
    /// A part of the message, while it is all there is: a large row is not copied.
    Shared(Bytes),
    Text(Vec<Bytes>),
}

impl Buffer {
    /// The buffer to write to; a shared one is copied. `None` for text.
    pub(super) fn own(&mut self) -> Option<&mut Vec<u8>> {
        if let Self::Shared(bytes) = self {
            *self = Self::Raw(bytes.to_vec());
        }
        match self {
            Self::Raw(bytes) => Some(bytes),
            Self::Shared(_) | Self::Text(_) => None,
        }
    }

    pub(super) fn byte_len(&self) -> usize {
        match self {
            Self::Raw(bytes) => bytes.len(),
            Self::Shared(bytes) => bytes.len(),
            Self::Text(elements) => elements.iter().map(|element| element.len() + size_of::<Bytes>()).sum(),
        }
    }

    pub(super) fn count(&self, width: usize) -> usize {
        match self {
            Self::Raw(bytes) => bytes.len() / width.max(1),
            Self::Shared(bytes) => bytes.len() / width.max(1),
            Self::Text(elements) => elements.len(),
        }
    }

    /// Adds a row with nothing set.
    pub(super) fn extend(&mut self, template: &Template, limit: usize) -> Result<()> {
        let (held, more) = match self {
            Self::Shared(bytes) => (bytes.len(), template.bytes.len()),
            Self::Raw(bytes) => (bytes.len(), template.bytes.len()),
            Self::Text(elements) => {
                (elements.len() * size_of::<Bytes>(), template.count * size_of::<Bytes>())
            }
        };
        if held + more > limit {
            return Err(too_large(limit));
        }
        match self {
            Self::Raw(bytes) => bytes.extend_from_slice(&template.bytes),
            // Cells have buffers of their own.
            Self::Shared(_) => {}
            Self::Text(elements) => elements.extend_from_slice(&template.texts),
        }
        Ok(())
    }
}

pub(super) fn too_large(limit: usize) -> Error {
    Error::new(Code::DecodeLimit, format!("an input of the request would have more than {limit} bytes"))
}
