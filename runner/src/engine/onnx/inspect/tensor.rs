//! Checks one tensor: nothing of it lies outside the file, and its data fill its shape exactly.
//!
//! Values are never looked at, raw data are never touched. Element types that this table does not know (and UNDEFINED,
//! which exporters write for "no default") keep their shape check and lose only the check of size: a newer ONNX Runtime
//! may know them.

use super::super::wire::{Field, Message, WireError};
use super::{InspectError, InspectLimits, quoted};

/// Where a tensor sits, to call it something if it has no name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    Initializer,
    Attribute { name: &'a [u8], node: &'a [u8] },
}

/// Where a type's elements are if they are not raw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    Float,
    Double,
    Int32,
    Int64,
    Uint64,
    Text,
}

/// How a type is stored.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Of one element in raw data.
    bits: u64,
    storage: Storage,
    /// Entries of the typed field: `per.0` for each `per.1` elements.
    per: (u64, u64),
}

impl Layout {
    /// By the numbers of `TensorProto.DataType` (ONNX 1.23, IR version 14).
    fn of(element_type: i32) -> Option<Self> {
        let one = |bits, storage| Self { bits, storage, per: (1, 1) };
        Some(match element_type {
            1 => one(32, Storage::Float),                              // float
            2 | 3 | 9 => one(8, Storage::Int32),                       // uint8, int8, bool
            4 | 5 | 10 | 16 => one(16, Storage::Int32),                // uint16, int16, float16, bfloat16
            6 => one(32, Storage::Int32),                              // int32
            7 => one(64, Storage::Int64),                              // int64
            8 => one(0, Storage::Text),                                // string
            11 => one(64, Storage::Double),                            // double
            12 => one(32, Storage::Uint64),                            // uint32
            13 => one(64, Storage::Uint64),                            // uint64
            14 => Self { per: (2, 1), ..one(64, Storage::Float) },     // complex64
            15 => Self { per: (2, 1), ..one(128, Storage::Double) },   // complex128
            17..=20 | 24 => one(8, Storage::Int32),                    // the float8 family
            21..=23 => Self { per: (1, 2), ..one(4, Storage::Int32) }, // uint4, int4, float4
            25 | 26 => Self { per: (1, 4), ..one(2, Storage::Int32) }, // uint2, int2
            27 | 28 => one(6, Storage::Int32),                         // the float6 family
            _ => return None,
        })
    }

    fn raw_bytes(self, elements: u64) -> Option<u64> {
        elements.checked_mul(self.bits).map(|bits| bits.div_ceil(8))
    }

    /// Of one element once loaded, at least: a string is an object there.
    fn bytes_in_memory(self) -> u64 {
        match self.storage {
            Storage::Text => 32,
            _ => self.bits.div_ceil(8),
        }
    }

    fn entries(self, elements: u64) -> Option<u64> {
        elements.checked_mul(self.per.0).map(|entries| entries.div_ceil(self.per.1))
    }

    /// ONNX's text lets four bytes share an int32 entry for the types below a byte; ONNX Runtime and `onnx.helper` use
    /// one byte an entry. Both pass here.
    fn dense_entries(self, elements: u64) -> Option<u64> {
        match self.bits {
            2 | 4 => self.raw_bytes(elements).map(|bytes| bytes.div_ceil(4)),
            _ => self.entries(elements),
        }
    }
}

/// What a TensorProto holds.
#[derive(Default)]
struct Content<'a> {
    name: &'a [u8],
    dims: Vec<i64>,
    element_type: i32,
    raw: Option<u64>,
    floats: u64,
    doubles: u64,
    int32s: u64,
    int64s: u64,
    uint64s: u64,
    texts: u64,
    external: bool,
}

impl<'a> Content<'a> {
    fn read(tensor: Message<'a>, limits: &InspectLimits) -> Result<Self, WireError> {
        let mut content = Self::default();
        for field in tensor.fields() {
            let field = field?;
            match field.number {
                1 => read_dims(&field, limits, &mut content.dims)?,
                2 => content.element_type = field.int32()?,
                4 => add(&mut content.floats, field.count_fixed(4)?),
                5 => add(&mut content.int32s, count_varints(&field)?),
                6 => add(&mut content.texts, field.bytes().map(|_| 1)?),
                7 => add(&mut content.int64s, count_varints(&field)?),
                8 => content.name = field.bytes()?,
                9 => content.raw = Some(field.bytes()?.len() as u64),
                10 => add(&mut content.doubles, field.count_fixed(8)?),
                11 => add(&mut content.uint64s, count_varints(&field)?),
                // An entry alone is refused as well as the flag alone: what one parser ignores the next one follows.
                13 => {
                    field.bytes()?;
                    content.external = true;
                }
                14 => content.external |= field.int32()? != 0,
                _ => {}
            }
        }
        Ok(content)
    }

    fn entries(&self, storage: Storage) -> u64 {
        match storage {
            Storage::Float => self.floats,
            Storage::Double => self.doubles,
            Storage::Int32 => self.int32s,
            Storage::Int64 => self.int64s,
            Storage::Uint64 => self.uint64s,
            Storage::Text => self.texts,
        }
    }

    /// What is wrong with shape and data, if anything.
    fn fault(&self, elements: u64) -> Option<String> {
        let layout = Layout::of(self.element_type)?;
        if let Some(bytes) = self.raw {
            let wanted = match layout.storage {
                Storage::Text => return Some("strings cannot be raw data".to_owned()),
                _ => layout.raw_bytes(elements),
            };
            let shape = &self.dims;
            return match wanted {
                Some(wanted) if wanted == bytes => None,
                Some(wanted) => Some(format!("its shape {shape:?} takes {wanted} bytes, it has {bytes}")),
                None => Some(format!("its shape {shape:?} takes more bytes than there can be")),
            };
        }
        let entries = self.entries(layout.storage);
        let wanted = [layout.entries(elements), layout.dense_entries(elements)];
        if wanted.contains(&Some(entries)) {
            return None;
        }
        let shape = &self.dims;
        Some(if entries == 0 {
            format!("its shape {shape:?} has {elements} elements, but there are no data of its type")
        } else {
            format!("its shape {shape:?} has {elements} elements, its data have another number ({entries})")
        })
    }
}

/// A checked tensor's number of elements and width of one, for the check of what is made of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Checked {
    elements: u64,
    /// Bytes in memory.
    width: u64,
}

pub(super) fn check_tensor(
    tensor: Message<'_>,
    place: Place<'_>,
    limits: &InspectLimits,
) -> Result<Checked, InspectError> {
    let content = Content::read(tensor, limits)?;
    let label = || label(content.name, place);
    if content.external {
        return Err(InspectError::ExternalData { tensor: label() });
    }
    let bad = |reason| InspectError::BadTensor { tensor: label(), reason };
    let elements = count_elements(&content.dims, limits).map_err(bad)?;
    match content.fault(elements) {
        Some(reason) => Err(bad(reason)),
        None => Ok(Checked {
            elements,
            width: Layout::of(content.element_type).map_or(1, Layout::bytes_in_memory),
        }),
    }
}

/// Values and indices are tensors like others; what they unfold to must be bounded as well. Whether each index lies
/// inside is left to ONNX Runtime, which refuses those that do not (seen with 1.31.1).
pub(super) fn check_sparse(
    sparse: Message<'_>,
    place: Place<'_>,
    limits: &InspectLimits,
) -> Result<(), InspectError> {
    let (mut values, mut indices, mut dims) = (None, None, Vec::new());
    let (mut checked_values, mut checked_indices) = (Checked::default(), Checked::default());
    let mut name: &[u8] = b"";
    for field in sparse.fields() {
        let field = field?;
        match field.number {
            1 => {
                let tensor = field.message_once("values of a sparse tensor", &mut values)?;
                checked_values = check_tensor(tensor, place, limits)?;
                name = tensor_name(tensor)?;
            }
            2 => {
                let tensor = field.message_once("indices of a sparse tensor", &mut indices)?;
                checked_indices = check_tensor(tensor, place, limits)?;
            }
            3 => read_dims(&field, limits, &mut dims)?,
            _ => {}
        }
    }
    let bad = |reason| InspectError::BadTensor { tensor: label(name, place), reason };
    let elements = count_elements(&dims, limits).map_err(bad)?;
    let bytes = elements.checked_mul(checked_values.width.max(1));
    if bytes.is_none_or(|bytes| bytes > limits.sparse_bytes as u64) {
        return Err(bad(format!(
            "unfolded to shape {dims:?} it takes more than {} bytes",
            limits.sparse_bytes
        )));
    }
    let (count, found) = (checked_values.elements, checked_indices.elements);
    let by_coordinates = count.checked_mul(dims.len() as u64);
    if found != count && Some(found) != by_coordinates {
        return Err(bad(format!("it has {count} values and {found} indices, for shape {dims:?}")));
    }
    Ok(())
}

pub(super) fn tensor_name(tensor: Message<'_>) -> Result<&[u8], WireError> {
    let mut name: &[u8] = b"";
    for field in tensor.fields() {
        let field = field?;
        if field.number == 8 {
            name = field.bytes()?;
        }
    }
    Ok(name)
}

/// One more than the limit is kept, for [`count_elements`] to refuse; the rest would only take memory.
fn read_dims(field: &Field<'_>, limits: &InspectLimits, dims: &mut Vec<i64>) -> Result<(), WireError> {
    for dim in field.varints()? {
        let dim = dim?;
        if dims.len() <= limits.rank {
            dims.push(dim.cast_signed());
        }
    }
    Ok(())
}

fn count_elements(dims: &[i64], limits: &InspectLimits) -> Result<u64, String> {
    if dims.len() > limits.rank {
        return Err(format!("it has more than {} dimensions", limits.rank));
    }
    let mut elements = 1_i64;
    for dim in dims {
        if *dim < 0 {
            return Err(format!("its shape {dims:?} has a negative dimension"));
        }
        elements = elements
            .checked_mul(*dim)
            .ok_or_else(|| format!("its shape {dims:?} has more elements than can be addressed"))?;
    }
    Ok(elements.cast_unsigned())
}

fn count_varints(field: &Field<'_>) -> Result<usize, WireError> {
    field.varints()?.try_fold(0_usize, |count, element| element.map(|_| count.saturating_add(1)))
}

fn add(count: &mut u64, more: usize) {
    *count = count.saturating_add(more as u64);
}

fn label(tensor: &[u8], place: Place<'_>) -> String {
    match place {
        _ if !tensor.is_empty() => format!("tensor {}", quoted(tensor)),
        Place::Initializer => "an unnamed initializer".to_owned(),
        Place::Attribute { name, node } => {
            format!("the tensor of attribute {} of {}", quoted(name), quoted(node))
        }
    }
}
