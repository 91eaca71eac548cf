//! BYTES tensors in the protocol's raw form: each element is a little-endian u32 length and that many bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Elements, Tensor, TensorError};

/// Splits a raw BYTES buffer into its elements, without copying.
///
/// # Errors
/// [`TensorError::Bytes`] if a length points beyond the buffer.
pub fn decode_bytes(raw: &Bytes) -> Result<Vec<Bytes>, TensorError> {
    let mut elements = Vec::new();
    let mut at = 0;
    while at < raw.len() {
        let Some(prefix) = raw.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) else {
            return Err(TensorError::Bytes(format!(
                "element {} has no complete length prefix",
                elements.len()
            )));
        };
        let length = u32::from_le_bytes(prefix) as usize;
        at += 4;
        if length > raw.len() - at {
            return Err(TensorError::Bytes(format!(
                "element {} announces {length} bytes, {} are left",
                elements.len(),
                raw.len() - at
            )));
        }
        elements.push(raw.slice(at..at + length));
        at += length;
    }
    Ok(elements)
}

/// The raw form of a tensor's elements: as they are, or length-prefixed for BYTES.
pub fn encode(tensor: &Tensor) -> Bytes {
    match tensor.elements() {
        Elements::Raw(bytes) => bytes.clone(),
        Elements::Text(elements) => {
            let mut buffer = BytesMut::with_capacity(tensor.byte_len());
            for element in elements {
                // An element is cut from a message that is itself limited to far less than 4 GiB.
                buffer.put_u32_le(u32::try_from(element.len()).unwrap_or(u32::MAX));
                buffer.put_slice(element);
            }
            buffer.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_round_trip() {
        let elements = vec![Bytes::from_static(b"a"), Bytes::new(), Bytes::from_static(b"\0\xff")];
        let tensor = Tensor::text(vec![3], elements.clone()).expect("three elements");
        assert_eq!(decode_bytes(&encode(&tensor)), Ok(elements));
    }

    #[test]
    fn lengths_beyond_the_buffer_are_refused() {
        for raw in [&b"\x01"[..], b"\x01\0\0\0", b"\xff\xff\xff\xffab", b"\0\0\0\0\x05\0\0\0abc"] {
            assert!(decode_bytes(&Bytes::copy_from_slice(raw)).is_err(), "{raw:?}");
        }
    }
}
