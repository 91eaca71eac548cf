//! Reads the graph's declared inputs and outputs and says which of them cannot be served, and what to do about it.
//!
//! An input that an initialiser fills is a default or (before IR version 4, always) a mere weight: callers do not see
//! it, as with ONNX Runtime, in every IR version.

use std::collections::HashSet;

use super::super::wire::{Fault, Field, Message, WireError};
use super::tensor::tensor_name;
use super::{Dim, InspectError, InspectLimits, ValueInfo, ValueKind, quoted, too_many};

/// What the graph declares.
pub(super) struct Declared {
    pub(super) inputs: Vec<Value>,
    pub(super) outputs: Vec<Value>,
}

pub(super) struct Value {
    pub(super) info: ValueInfo,
    /// Why it cannot be served as it is.
    pub(super) refusal: Option<InspectError>,
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Input,
    Output,
}

pub(super) fn declared(graph: Message<'_>, limits: &InspectLimits) -> Result<Declared, InspectError> {
    let mut initialised: HashSet<&[u8]> = HashSet::new();
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for field in graph.fields() {
        let field = field?;
        match field.number {
            5 => {
                initialised.insert(tensor_name(field.message("initializer")?)?);
            }
            15 => {
                initialised.insert(sparse_name(field.message("sparse initializer")?)?);
            }
            11 => inputs.push(field.message("input")?),
            12 => outputs.push(field.message("output")?),
            _ => continue,
        }
        if inputs.len().saturating_add(outputs.len()) > limits.values {
            return Err(too_many("inputs and outputs", limits.values));
        }
    }
    let read = |messages: Vec<Message<'_>>, side| -> Result<Vec<Value>, InspectError> {
        messages.into_iter().map(|message| Value::read(message, side, limits)).collect()
    };
    let mut inputs = read(inputs, Side::Input)?;
    inputs.retain(|input| !initialised.contains(input.info.name.as_bytes()));
    Ok(Declared { inputs, outputs: read(outputs, Side::Output)? })
}

/// A sparse initialiser has the name of its values.
fn sparse_name(sparse: Message<'_>) -> Result<&[u8], WireError> {
    let mut name: &[u8] = b"";
    for field in sparse.fields() {
        let field = field?;
        if field.number == 1 {
            name = tensor_name(field.message("values of a sparse tensor")?)?;
        }
    }
    Ok(name)
}

impl Value {
    fn read(message: Message<'_>, side: Side, limits: &InspectLimits) -> Result<Self, InspectError> {
        let (mut name, mut declared) = ("", None);
        for field in message.fields() {
            let field = field?;
            match field.number {
                1 => name = field.text()?,
                2 => drop(field.message_once("type", &mut declared)?),
                _ => {}
            }
        }
        let declared =
            declared.map(|message| Type::read(message, limits)).transpose()?.unwrap_or(Type::UNKNOWN);
        let refusal = declared.refusal(side).map(|(kind, advice)| InspectError::UnsupportedValue {
            name: format!("{} {}", side.word(), quoted(name.as_bytes())),
            kind,
            advice,
        });
        Ok(Self {
            info: ValueInfo { name: name.to_owned(), kind: declared.kind, shape: declared.shape },
            refusal,
        })
    }
}

impl Side {
    fn word(self) -> &'static str {
        match self {
            Side::Input => "input",
            Side::Output => "output",
        }
    }
}

/// A TypeProto, as far as it decides about serving.
struct Type {
    kind: ValueKind,
    shape: Option<Vec<Dim>>,
    /// A sequence of maps: what classifiers put out by default.
    of_maps: bool,
    opaque: bool,
}

impl Type {
    const UNKNOWN: Self = Self { kind: ValueKind::Unknown, shape: None, of_maps: false, opaque: false };

    fn read(message: Message<'_>, limits: &InspectLimits) -> Result<Self, InspectError> {
        let mut found = None;
        for field in message.fields() {
            let field = field?;
            let one = |kind| Self { kind, ..Self::UNKNOWN };
            let read = match field.number {
                1 => {
                    let (element, shape) = read_tensor_type(field.message("tensor type")?, limits)?;
                    let kind = if element == 0 { ValueKind::Unknown } else { ValueKind::Tensor(element) };
                    Self { shape, ..one(kind) }
                }
                4 => {
                    Self { of_maps: holds_maps(field.message("sequence type")?)?, ..one(ValueKind::Sequence) }
                }
                5 => field.message("map type").map(|_| one(ValueKind::Map))?,
                7 => field.message("opaque type").map(|_| Self { opaque: true, ..Self::UNKNOWN })?,
                8 => {
                    let (_, shape) = read_tensor_type(field.message("sparse tensor type")?, limits)?;
                    Self { shape, ..one(ValueKind::SparseTensor) }
                }
                9 => field.message("optional type").map(|_| one(ValueKind::Optional))?,
                _ => continue,
            };
            // A parser takes the last of several; no exporter writes several.
            if found.replace(read).is_some() {
                return Err(message.fault(Fault::Twice("the kind of type")).into());
            }
        }
        Ok(found.unwrap_or(Self::UNKNOWN))
    }

    /// What it is in words, and what the author of the model can do.
    fn refusal(&self, side: Side) -> Option<(String, &'static str)> {
        const NO_ZIPMAP: &str =
            "export the classifier with options={id(model): {'zipmap': False}} (skl2onnx)";
        let (kind, advice) = match (self.kind, side) {
            (ValueKind::Tensor(element), _) => {
                let name = unserved_element(element)?;
                return Some((
                    format!("a tensor of {name}"),
                    "add a Cast to a type that the Open Inference Protocol has",
                ));
            }
            (ValueKind::Unknown, _) if self.opaque => ("of an opaque type", "only tensors can be served"),
            (ValueKind::Unknown, _) => return None,
            (ValueKind::SparseTensor, _) => ("a sparse tensor", "declare it as a dense tensor"),
            (ValueKind::Sequence, Side::Output) if self.of_maps => ("a sequence of maps", NO_ZIPMAP),
            (ValueKind::Sequence, Side::Input) if self.of_maps => {
                ("a sequence of maps", "take its values as one tensor")
            }
            (ValueKind::Sequence, Side::Input) => {
                ("a sequence", "take one tensor and cut it up inside (SplitToSequence)")
            }
            (ValueKind::Sequence, Side::Output) => {
                ("a sequence", "concatenate into one tensor inside (ConcatFromSequence)")
            }
            (ValueKind::Map, Side::Input) => ("a map", "take its values as one tensor (no DictVectorizer)"),
            (ValueKind::Map, Side::Output) => ("a map", NO_ZIPMAP),
            (ValueKind::Optional, _) => ("an optional", "declare it as a plain tensor"),
        };
        Some((kind.to_owned(), advice))
    }
}

/// The name of an element type that the Open Inference Protocol cannot carry. Numbers beyond the table are left to ONNX
/// Runtime.
fn unserved_element(element: i32) -> Option<&'static str> {
    Some(match element {
        14 => "complex64",
        15 => "complex128",
        17 => "float8e4m3fn",
        18 => "float8e4m3fnuz",
        19 => "float8e5m2",
        20 => "float8e5m2fnuz",
        21 => "uint4",
        22 => "int4",
        23 => "float4e2m1",
        24 => "float8e8m0",
        25 => "uint2",
        26 => "int2",
        27 => "float6e2m3",
        28 => "float6e3m2",
        _ => return None,
    })
}

fn holds_maps(sequence: Message<'_>) -> Result<bool, WireError> {
    for field in sequence.fields() {
        let field = field?;
        if field.number == 1 {
            for field in field.message("element type")?.fields() {
                if field?.number == 5 {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

fn read_tensor_type(
    message: Message<'_>,
    limits: &InspectLimits,
) -> Result<(i32, Option<Vec<Dim>>), InspectError> {
    let (mut element, mut shape) = (0, None);
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => element = field.int32()?,
            2 => drop(field.message_once("shape", &mut shape)?),
            _ => {}
        }
    }
    Ok((element, shape.map(|message| read_shape(message, limits)).transpose()?))
}

fn read_shape(message: Message<'_>, limits: &InspectLimits) -> Result<Vec<Dim>, InspectError> {
    let mut dims = Vec::new();
    for field in message.fields() {
        let field = field?;
        if field.number == 1 {
            if dims.len() >= limits.rank {
                return Err(too_many("dimensions in a declared shape", limits.rank));
            }
            dims.push(read_dim(&field)?);
        }
    }
    Ok(dims)
}

/// Exporters write an unknown size as nothing, as an empty name or as -1.
fn read_dim(field: &Field<'_>) -> Result<Dim, WireError> {
    let mut dim = Dim::Unknown;
    for field in field.message("dimension")?.fields() {
        let field = field?;
        dim = match field.number {
            1 => match field.int64()? {
                size @ 0.. => Dim::Fixed(size),
                _ => Dim::Unknown,
            },
            2 => match field.text()? {
                "" => Dim::Unknown,
                name => Dim::Named(name.to_owned()),
            },
            _ => continue,
        };
    }
    Ok(dim)
}
