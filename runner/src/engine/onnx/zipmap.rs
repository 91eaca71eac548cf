//! Turns the dictionaries of a classifier back into the tensor they were made of.
//!
//! skl2onnx ends a classifier by default with a ZipMap node, whose output (a sequence of maps from label to
//! probability) no inference protocol can carry. Its input is exactly the tensor `[N, labels]` that is wanted. So the
//! node is replaced by an Identity and the output declared as that tensor; the labels are kept for the metadata.
//!
//! The model is edited as bytes, not decoded and encoded: every other byte, with fields that no one here knows, stays
//! what was pushed. A ZipMap inside a subgraph, or one whose output is used by another node, stays as it is.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::inspect::{ClassLabels, Dim, InspectError, InspectLimits, ValueInfo, ValueKind};
use super::wire::{Fault, Field, Message, WireError, Writer};

pub(super) const DOMAIN: &[u8] = b"ai.onnx.ml";
pub(super) const OPERATOR: &[u8] = b"ZipMap";

/// ONNX's number of the element type float.
const FLOAT: i32 = 1;

/// A ZipMap node of the top-level graph whose output is an output of the model.
pub(super) struct ZipMap<'a> {
    /// Where the node begins in the model.
    offset: usize,
    name: &'a [u8],
    input: &'a [u8],
    output: &'a str,
    pub(super) labels: ClassLabels,
}

/// By the name of the output.
pub(super) type ZipMaps<'a> = HashMap<&'a str, ZipMap<'a>>;

/// Finds the ZipMap nodes that give the model's `outputs` and nothing else.
pub(super) fn served<'a>(
    graph: Message<'a>,
    outputs: &HashSet<&str>,
    limits: &InspectLimits,
) -> Result<ZipMaps<'a>, InspectError> {
    let mut found = ZipMaps::new();
    let mut labels = 0_usize;
    for field in graph.fields() {
        let field = field?;
        if field.number != 1 {
            continue;
        }
        let zipmap = ZipMap::read(&field, limits)?;
        let Some(zipmap) = zipmap.filter(|zipmap| outputs.contains(zipmap.output)) else { continue };
        labels = labels.saturating_add(zipmap.labels.len());
        check_count(labels, limits)?;
        if found.insert(zipmap.output, zipmap).is_some() {
            return Err(graph.fault(Fault::Twice("the output of a ZipMap")).into());
        }
    }
    if !found.is_empty() {
        forget_used(graph, &mut found)?;
    }
    Ok(found)
}

/// A node that takes the dictionaries would get a tensor that it does not expect. In a subgraph ONNX Runtime's check of
/// types would find it.
fn forget_used(graph: Message<'_>, found: &mut ZipMaps<'_>) -> Result<(), WireError> {
    for field in graph.fields() {
        let field = field?;
        if field.number != 1 {
            continue;
        }
        for field in field.message("node")?.fields() {
            let field = field?;
            if field.number == 1
                && let Ok(input) = field.text()
            {
                found.remove(input);
            }
        }
    }
    Ok(())
}

impl<'a> ZipMap<'a> {
    /// Reads a node of the graph; `None` if it is another operator or not one that ONNX Runtime would run.
    fn read(field: &Field<'a>, limits: &InspectLimits) -> Result<Option<Self>, InspectError> {
        let node = field.message("node")?;
        if !is_zipmap(node)? {
            return Ok(None);
        }
        let mut name: &[u8] = b"";
        let (mut input, mut output, mut connections) = (None, None, 0_usize);
        let mut labels = Labels::default();
        for field in node.fields() {
            let field = field?;
            match field.number {
                1 => (input, connections) = (Some(field.bytes()?), connections.saturating_add(1)),
                2 => (output, connections) = (field.text().ok(), connections.saturating_add(1)),
                3 => name = field.bytes()?,
                5 => labels.read(field.message("attribute")?, limits)?,
                _ => {}
            }
        }
        Ok(match (input, output, connections, labels.known()) {
            (Some(input), Some(output), 2, Some(labels)) => {
                Some(Self { offset: field.offset, name, input, output, labels })
            }
            _ => None,
        })
    }

    /// The output as it is after the rewrite.
    pub(super) fn value(&self) -> ValueInfo {
        let labels = i64::try_from(self.labels.len()).map_or(Dim::Unknown, Dim::Fixed);
        ValueInfo {
            name: self.output.to_owned(),
            kind: ValueKind::Tensor(FLOAT),
            shape: Some(vec![Dim::Unknown, labels]),
        }
    }

    fn identity(&self) -> Writer {
        let node = Writer::default().bytes(1, self.input).bytes(2, self.output.as_bytes());
        let node = if self.name.is_empty() { node } else { node.bytes(3, self.name) };
        node.bytes(4, b"Identity")
    }

    /// A TypeProto: `tensor(float)` of any number of rows and a column for each label.
    fn type_of_output(&self) -> Writer {
        let rows = Writer::default();
        let columns = Writer::default().int(1, i64::try_from(self.labels.len()).unwrap_or(-1));
        let shape = Writer::default().message(1, rows).message(1, columns);
        Writer::default().message(1, Writer::default().int(1, i64::from(FLOAT)).message(2, shape))
    }
}

fn is_zipmap(node: Message<'_>) -> Result<bool, WireError> {
    let (mut operator, mut domain): (&[u8], &[u8]) = (b"", b"");
    for field in node.fields() {
        let field = field?;
        match field.number {
            4 => operator = field.bytes()?,
            7 => domain = field.bytes()?,
            _ => {}
        }
    }
    Ok((domain, operator) == (DOMAIN, OPERATOR))
}

/// The two attributes that name the columns.
#[derive(Default)]
struct Labels {
    integers: Vec<i64>,
    texts: Vec<String>,
}

impl Labels {
    fn read(&mut self, attribute: Message<'_>, limits: &InspectLimits) -> Result<(), InspectError> {
        let mut name: &[u8] = b"";
        for field in attribute.fields() {
            let field = field?;
            if field.number == 1 {
                name = field.bytes()?;
            }
        }
        for field in attribute.fields() {
            let field = field?;
            match (field.number, name) {
                (8, b"classlabels_int64s") => {
                    for label in field.varints()? {
                        self.integers.push(label?.cast_signed());
                        check_count(self.integers.len(), limits)?;
                    }
                }
                (9, b"classlabels_strings") => {
                    self.texts.push(String::from_utf8_lossy(field.bytes()?).into_owned());
                    check_count(self.texts.len(), limits)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// ONNX Runtime wants exactly one of the two lists.
    fn known(self) -> Option<ClassLabels> {
        match (self.integers.is_empty(), self.texts.is_empty()) {
            (false, true) => Some(ClassLabels::Int64(self.integers)),
            (true, false) => Some(ClassLabels::Text(self.texts)),
            _ => None,
        }
    }
}

fn check_count(labels: usize, limits: &InspectLimits) -> Result<(), InspectError> {
    match labels > limits.labels {
        true => Err(InspectError::TooMany { what: "class labels", limit: limits.labels }),
        false => Ok(()),
    }
}

/// The model's bytes with an Identity in place of each of `zipmaps`. `missing_opset` is the version of ONNX's own
/// operators to import, if the model does not: Identity is one of them.
pub(super) fn rewrite(
    model: &[u8],
    missing_opset: Option<i64>,
    zipmaps: &ZipMaps<'_>,
) -> Result<Vec<u8>, InspectError> {
    let mut written = Writer::with_capacity(model.len().saturating_add(1024));
    for field in Message::whole("model", model).fields() {
        let field = field?;
        if field.number == 7 {
            let pieces = rewrite_graph(field.message("graph")?, zipmaps)?;
            written = written.announce(7, pieces.iter().map(|piece| piece.len()).sum());
            for piece in pieces {
                written = written.verbatim(&piece);
            }
        } else {
            written = written.verbatim(field.whole);
        }
    }
    if let Some(version) = missing_opset {
        written = written.message(8, Writer::default().bytes(1, b"").int(2, version));
    }
    Ok(written.finish())
}

/// The graph's content in pieces, which the caller joins: a forest of some hundred megabytes is then copied once.
fn rewrite_graph<'a>(graph: Message<'a>, zipmaps: &ZipMaps<'_>) -> Result<Vec<Cow<'a, [u8]>>, WireError> {
    let nodes: HashMap<usize, &ZipMap<'_>> = zipmaps.values().map(|zipmap| (zipmap.offset, zipmap)).collect();
    let mut pieces = Vec::new();
    let mut kept_from = graph.offset;
    for field in graph.fields() {
        let field = field?;
        let replacement = match field.number {
            1 => nodes.get(&field.offset).map(|zipmap| zipmap.identity()),
            // Outputs, and what the model says about values inside it.
            12 | 13 => {
                let value = field.message("value")?;
                zipmaps.get(value_name(value)?).map(|zipmap| retype(value, zipmap)).transpose()?
            }
            _ => None,
        };
        if let Some(replacement) = replacement {
            pieces.push(Cow::Borrowed(graph.between(kept_from, field.offset)));
            pieces.push(Cow::Owned(Writer::default().message(field.number, replacement).finish()));
            kept_from = field.end();
        }
    }
    pieces.push(Cow::Borrowed(graph.between(kept_from, graph.end())));
    Ok(pieces)
}

fn value_name(value: Message<'_>) -> Result<&str, WireError> {
    let mut name = "";
    for field in value.fields() {
        let field = field?;
        if field.number == 1 {
            name = field.text().unwrap_or_default();
        }
    }
    Ok(name)
}

fn retype(value: Message<'_>, zipmap: &ZipMap<'_>) -> Result<Writer, WireError> {
    let mut written = Writer::default();
    for field in value.fields() {
        let field = field?;
        if field.number != 2 {
            written = written.verbatim(field.whole);
        }
    }
    Ok(written.message(2, zipmap.type_of_output()))
}
