//! The static check of an ONNX model, made on its bytes before ONNX Runtime sees them.
//!
//! `format` names what is no model, `walk` visits every node and tensor wherever it sits, `tensor` checks one tensor,
//! `calls` checks how functions call one another, `value` reads the signature. No file is opened here and ONNX Runtime
//! is not called.
//!
//! Why a walk of our own when ONNX Runtime checks too: releases differ in what they refuse, some faults kill the
//! process (a chain of some thousand functions does so in 1.31.1), and whoever pushes a model is owed the reason in
//! words. What is merely wrong (types that do not fit, unknown operators) is left to ONNX Runtime.

mod calls;
mod format;
mod tensor;
#[cfg(test)]
mod tests;
mod value;
mod walk;

use std::collections::HashMap;

use super::wire::{Field, Message, WireError};
use super::zipmap::{self, ZipMap};

/// What the walk learned.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Inspection {
    pub(super) ir_version: i64,
    /// Domain (`""` is ONNX's own) and version.
    pub(super) opset: Vec<(String, i64)>,
    /// The name of the exporter, empty if not given.
    pub(super) producer: String,
    /// Declared graph inputs without those that an initialiser fills, in the graph's order.
    pub(super) inputs: Vec<ValueInfo>,
    pub(super) outputs: Vec<ValueInfo>,
    /// The bytes to load instead, if outputs of ZipMap were turned into tensors.
    pub(super) rewritten: Option<Vec<u8>>,
    /// What the columns of each such output stand for, by the output's name.
    pub(super) class_labels: Vec<(String, ClassLabels)>,
}

/// The labels of a classifier's columns, in the columns' order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClassLabels {
    Int64(Vec<i64>),
    Text(Vec<String>),
}

impl ClassLabels {
    pub(super) fn len(&self) -> usize {
        match self {
            ClassLabels::Int64(labels) => labels.len(),
            ClassLabels::Text(labels) => labels.len(),
        }
    }
}

/// A declared input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ValueInfo {
    pub(super) name: String,
    pub(super) kind: ValueKind,
    /// Empty for a scalar, `None` if the model does not declare a rank.
    pub(super) shape: Option<Vec<Dim>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// With the element type's number in ONNX.
    Tensor(i32),
    SparseTensor,
    Sequence,
    Map,
    Optional,
    /// The model does not say; ONNX Runtime may find out.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dim {
    Fixed(i64),
    Named(String),
    Unknown,
}

/// How much a model may hold. The counts bound time and memory of the check itself and of ONNX Runtime's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InspectLimits {
    /// Subgraphs in subgraphs, functions counted as if inlined: the time to load doubles with each level before 1.29.
    pub(super) subgraph_depth: usize,
    /// Functions that call one another in a chain: ONNX Runtime recurses once a link.
    pub(super) call_depth: usize,
    /// Nodes as written, in graphs, subgraphs and functions.
    pub(super) nodes: usize,
    /// Nodes that appear when functions are inlined: twice two calls, 16 times over, are 65,536 nodes and 18 s.
    pub(super) inlined_nodes: usize,
    /// Tensors, with those in attributes.
    pub(super) tensors: usize,
    pub(super) functions: usize,
    /// Graph inputs (initialisers among them) and outputs.
    pub(super) values: usize,
    /// Dimensions of a tensor or of a declared shape.
    pub(super) rank: usize,
    /// Bytes of a sparse tensor once unfolded: ONNX Runtime makes it dense while it loads.
    pub(super) sparse_bytes: usize,
    /// Class labels of all ZipMap nodes.
    pub(super) labels: usize,
}

impl Default for InspectLimits {
    fn default() -> Self {
        Self {
            subgraph_depth: 8,
            call_depth: 64,
            nodes: 500_000,
            inlined_nodes: 50_000,
            tensors: 500_000,
            functions: 10_000,
            values: 10_000,
            rank: 64,
            sparse_bytes: 2 << 30,
            labels: 100_000,
        }
    }
}

/// Why a model is refused. The texts are for whoever pushed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InspectError {
    #[error("cannot read the model: it has no bytes")]
    Empty,
    #[error("cannot read the model: it is {what}")]
    WrongFormat { what: &'static str },
    #[error("cannot read {where_} at byte {offset}: {reason}")]
    Malformed { where_: &'static str, offset: usize, reason: String },
    #[error(
        "cannot load {tensor}: its data is kept outside the model file; save the model with all tensors inside"
    )]
    ExternalData { tensor: String },
    #[error("cannot load the model: subgraphs are nested deeper than {limit} levels")]
    TooDeep { limit: usize },
    #[error("cannot load the model: function {function} calls itself")]
    FunctionCycle { function: String },
    #[error("cannot load {tensor}: {reason}")]
    BadTensor { tensor: String, reason: String },
    #[error("cannot load the model: it has more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
    #[error("cannot serve {name}: it is {kind}; {advice}")]
    UnsupportedValue { name: String, kind: String, advice: &'static str },
}

impl From<WireError> for InspectError {
    fn from(error: WireError) -> Self {
        Self::Malformed { where_: error.message, offset: error.offset, reason: error.fault.to_string() }
    }
}

/// Checks a model and reads its signature. Takes time linear in the bytes that are not weights; typed (not raw) weights
/// are counted, raw ones are skipped.
///
/// # Errors
/// [`InspectError`]: the first fault found, in no promised order.
pub(super) fn inspect(model: &[u8], limits: &InspectLimits) -> Result<Inspection, InspectError> {
    if model.is_empty() {
        return Err(InspectError::Empty);
    }
    if let Some(what) = format::recognise(model) {
        return Err(InspectError::WrongFormat { what });
    }
    let parts = ModelParts::read(model, limits)?;
    let calls = walk::check(&parts, limits)?;

    let declared = value::declared(parts.graph, limits)?;
    // A model may define a function of that name itself, which then is what its nodes call.
    let zipmaps = if calls.defines(zipmap::DOMAIN, zipmap::OPERATOR) {
        HashMap::new()
    } else {
        let outputs = declared.outputs.iter().map(|output| output.info.name.as_str()).collect();
        zipmap::served(parts.graph, &outputs, limits)?
    };
    let kept = declared.outputs.iter().filter(|output| !zipmaps.contains_key(output.info.name.as_str()));
    if let Some(refusal) = declared.inputs.iter().chain(kept).find_map(|value| value.refusal.clone()) {
        return Err(refusal);
    }

    let rewritten = match zipmaps.is_empty() {
        true => None,
        false => Some(zipmap::rewrite(model, parts.missing_opset(), &zipmaps)?),
    };
    // A rewrite moves bytes; what is loaded must not have become something else (`ORTM` at offset 4) by that.
    if let Some(what) = rewritten.as_deref().and_then(format::recognise) {
        return Err(InspectError::WrongFormat { what });
    }
    let (mut outputs, mut class_labels) = (Vec::new(), Vec::new());
    for output in &declared.outputs {
        let zipmap = zipmaps.get(output.info.name.as_str());
        outputs.push(zipmap.map_or_else(|| output.info.clone(), ZipMap::value));
        class_labels.extend(zipmap.map(|zipmap| (output.info.name.clone(), zipmap.labels.clone())));
    }
    let inputs = declared.inputs.into_iter().map(|input| input.info).collect();
    let ModelParts { ir_version, opset, producer, .. } = parts;
    Ok(Inspection { ir_version, opset, producer, inputs, outputs, rewritten, class_labels })
}

/// The fields of a ModelProto that matter here.
struct ModelParts<'a> {
    ir_version: i64,
    opset: Vec<(String, i64)>,
    producer: String,
    graph: Message<'a>,
    training: Vec<Message<'a>>,
    functions: Vec<Message<'a>>,
}

impl<'a> ModelParts<'a> {
    fn read(model: &'a [u8], limits: &InspectLimits) -> Result<Self, InspectError> {
        let mut ir_version = 0;
        let (mut opset, mut producer) = (Vec::new(), String::new());
        let (mut graph, mut training, mut functions) = (None, Vec::new(), Vec::new());
        let message = Message::whole("model", model);
        let mut known = false;
        let mut read = |field: Field<'a>| -> Result<(), InspectError> {
            match field.number {
                1 => ir_version = field.int64()?,
                2 => producer = lossy(field.bytes()?),
                3 | 4 | 6 | 14 | 26 => drop(field.bytes()?),
                5 => drop(field.varint()?),
                7 => drop(field.message_once("graph", &mut graph)?),
                8 => opset.push(read_opset(field.message("opset import")?)?),
                20 => training.push(field.message("training info")?),
                25 => functions.push(field.message("function")?),
                _ => return Ok(()),
            }
            known = true;
            // Counted at once: an empty message takes two bytes in the file and twenty times that in a list.
            if functions.len().max(training.len()).max(opset.len()) > limits.functions {
                return Err(too_many("functions, training graphs or opset imports", limits.functions));
            }
            Ok(())
        };
        let outcome = message.fields().try_for_each(|field| read(field?));
        match (outcome, graph) {
            (Ok(()), Some(graph)) => Ok(Self { ir_version, opset, producer, graph, training, functions }),
            (Ok(()), None) => Err(InspectError::WrongFormat { what: "no ONNX model (it holds no graph)" }),
            // A cut-off model breaks off after fields that only a model has; anything else was never one.
            (Err(error), _) if known || begins_like_a_model(model) => Err(error),
            (Err(_), _) => Err(InspectError::WrongFormat { what: "no ONNX model" }),
        }
    }

    /// The version of ONNX's own operators to import if the model uses none of them.
    fn missing_opset(&self) -> Option<i64> {
        let imports = |(domain, _): &(String, i64)| matches!(domain.as_str(), "" | "ai.onnx");
        // What each IR version came with at first; Identity of a tensor means the same in all of them.
        let version = match self.ir_version {
            ..=3 => 8,
            4 => 9,
            5 => 10,
            6 => 11,
            _ => 13,
        };
        (!self.opset.iter().any(imports)).then_some(version)
    }
}

/// Does the first field announce a part that only ends too early?
fn begins_like_a_model(model: &[u8]) -> bool {
    matches!(model, [0x08 | 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42 | 0x72, ..])
}

fn read_opset(message: Message<'_>) -> Result<(String, i64), WireError> {
    let (mut domain, mut version) = (String::new(), 0);
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => domain = lossy(field.bytes()?),
            2 => version = field.int64()?,
            _ => {}
        }
    }
    Ok((domain, version))
}

/// Text that is only shown or compared with what is well known.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A name from the model as errors show it: quoted, escaped, not longer than a line.
fn quoted(name: &[u8]) -> String {
    const SHOWN: usize = 80;
    let text = String::from_utf8_lossy(name.get(..SHOWN).unwrap_or(name));
    if name.len() > SHOWN { format!("{text:?}...") } else { format!("{text:?}") }
}

fn too_many(what: &'static str, limit: usize) -> InspectError {
    InspectError::TooMany { what, limit }
}
