//! The wire plan of an answer: output tensors straight to protobuf bytes.
//!
//! The counterpart of `decode`: compiled from a [`Layout`], tags prebuilt, floats copied as they lie in memory. Fields
//! without presence are left out when zero, as every protobuf library does.

use std::collections::HashMap;

use bytes::Bytes;
use prost_reflect::{FieldDescriptor, Kind};

use super::bind::{Form, Layout, Leaf, Place};
use super::shape::{Batch, RowShape};
use super::value::{Number, Scalar};
use super::wire::{WireType, put_bytes, put_number, put_part, put_varint, tag};
use crate::engine::TensorSpec;
use crate::error::{Code, Error, Result};
use crate::tensor::{Dtype, Elements, Tensor};

/// An answer's plan.
#[derive(Debug)]
pub struct Encoder {
    outputs: Vec<Output>,
    /// Of the message itself, when it is a row or columns.
    root: Vec<Put>,
    /// Fields around the rows, outermost first, the last one repeated; empty if rows are no messages.
    rows: Vec<Vec<u8>>,
    is_batch: bool,
}

#[derive(Debug)]
struct Output {
    /// Position among the model's outputs.
    position: usize,
    name: String,
    has_batch: bool,
}

#[derive(Debug)]
struct Put {
    tag: Vec<u8>,
    name: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Cell {
        source: Source,
        column: usize,
        explicit: bool,
    },
    /// All elements of the row.
    Whole(Source),
    Raw {
        output: usize,
        explicit: bool,
    },
    Column {
        source: Source,
        column: usize,
    },
    /// A prebuilt key for each element of the row.
    Map {
        source: Source,
        value_tag: Vec<u8>,
        keys: Vec<Vec<u8>>,
    },
    Message(Vec<Put>),
}

/// Where a field's values come from.
#[derive(Debug)]
struct Source {
    /// Position among the plan's outputs.
    output: usize,
    scalar: Scalar,
    /// Numbers of an enum's values, for string outputs.
    names: Option<HashMap<Bytes, i32>>,
}

/// An output at hand.
struct View<'a> {
    name: &'a str,
    dtype: Dtype,
    width: usize,
    elements: &'a Elements,
    /// `None` if it has no batch dimension: the same row for all.
    rows: Option<usize>,
    /// Elements of a row.
    size: usize,
}

impl Encoder {
    pub(super) fn new(layout: &Layout, specs: &[TensorSpec]) -> Self {
        let mut positions: Vec<usize> = layout.leaves.iter().map(|leaf| leaf.tensor).collect();
        positions.sort_unstable();
        positions.dedup();
        let output = |position: &usize| {
            let spec = specs.get(*position)?;
            let has_batch = RowShape::of(spec).batch != Batch::None;
            Some(Output { position: *position, name: spec.name.clone(), has_batch })
        };
        let outputs: Vec<Output> = positions.iter().filter_map(output).collect();
        let mut root = Vec::new();
        for leaf in &layout.leaves {
            let index = positions.iter().position(|position| *position == leaf.tensor).unwrap_or(0);
            let dtype = specs.get(leaf.tensor).map_or(Dtype::Fp32, |spec| spec.dtype);
            add(&mut root, &leaf.path, "", leaf, index, dtype);
        }
        let rows = match &layout.form {
            Form::Rows(path) => path.iter().map(|field| tag(field.number(), WireType::Length)).collect(),
            _ => Vec::new(),
        };
        Self { outputs, root, rows, is_batch: layout.is_batch() }
    }

    /// The outputs that the answer needs, as positions in the model's signature.
    pub fn outputs(&self) -> impl Iterator<Item = usize> {
        self.outputs.iter().map(|output| output.position)
    }

    /// Can one message hold any number of rows?
    pub fn is_batch(&self) -> bool {
        self.is_batch
    }

    /// Does each field of a message hold a column?
    pub fn is_columns(&self) -> bool {
        self.is_batch && self.rows.is_empty()
    }

    /// One message with all rows of `tensors`, which are those of [`Encoder::outputs`].
    ///
    /// # Errors
    /// `MODEL_FAILED` if a value has no place in its field.
    pub fn encode(&self, tensors: &[&Tensor]) -> Result<Vec<u8>> {
        let (views, rows) = self.views(tensors)?;
        let mut out = Vec::with_capacity(64 + tensors.iter().map(|tensor| tensor.byte_len()).sum::<usize>());
        if self.is_batch {
            match self.rows.split_last() {
                Some((tag, around)) => wrap(around, &mut out, &mut |out| {
                    for row in 0..rows {
                        out.extend_from_slice(tag);
                        put_part(out, |out| put_all(&self.root, &views, row, rows, out))?;
                    }
                    Ok(())
                })?,
                None => put_all(&self.root, &views, 0, rows, &mut out)?,
            }
            return Ok(out);
        }
        if rows != 1 {
            return Err(Error::new(
                Code::ModelFailed,
                format!("the model gave {rows} rows, and the method's answer holds one"),
            ));
        }
        put_all(&self.root, &views, 0, rows, &mut out)?;
        Ok(out)
    }

    /// A message for each row; one with all of them if the message holds a batch.
    ///
    /// # Errors
    /// Those of [`Encoder::encode`].
    pub fn encode_each(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<u8>>> {
        if self.is_batch {
            return Ok(vec![self.encode(tensors)?]);
        }
        self.encode_rows(tensors)
    }

    /// The message of each row, even if they are held by one message.
    ///
    /// # Errors
    /// Those of [`Encoder::encode`].
    pub fn encode_rows(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<u8>>> {
        let (views, rows) = self.views(tensors)?;
        let one = |row| {
            let mut out = Vec::new();
            put_all(&self.root, &views, row, rows, &mut out)?;
            Ok(out)
        };
        (0..rows).map(one).collect()
    }

    /// The outputs as rows, and how many there are.
    fn views<'a>(&'a self, tensors: &[&'a Tensor]) -> Result<(Vec<View<'a>>, usize)> {
        let mut views = Vec::with_capacity(tensors.len());
        let mut rows: Option<(usize, &str)> = None;
        for (output, tensor) in self.outputs.iter().zip(tensors) {
            let width = tensor.dtype().width().unwrap_or(0);
            let count = match tensor.elements() {
                Elements::Raw(bytes) => bytes.len() / width.max(1),
                Elements::Text(elements) => elements.len(),
            };
            let own = output.has_batch.then(|| tensor.shape().first().copied().unwrap_or(1));
            let own = own.map(|size| usize::try_from(size).unwrap_or(0));
            if let Some(own) = own {
                match rows {
                    Some((known, name)) if known != own => {
                        return Err(Error::new(
                            Code::ModelFailed,
                            format!(
                                "the model's outputs have different numbers of rows: {name:?} has {known}, {:?} has {own}",
                                output.name
                            ),
                        ));
                    }
                    _ => rows = Some((own, &output.name)),
                }
            }
            views.push(View {
                name: &output.name,
                dtype: tensor.dtype(),
                width,
                elements: tensor.elements(),
                rows: own,
                size: count / own.unwrap_or(1).max(1),
            });
        }
        Ok((views, rows.map_or(1, |(rows, _)| rows)))
    }
}

/// Adds a leaf to a tree of messages.
fn add(
    puts: &mut Vec<Put>,
    path: &[FieldDescriptor],
    prefix: &str,
    leaf: &Leaf,
    output: usize,
    dtype: Dtype,
) {
    let Some((field, inner)) = path.split_first() else { return };
    let name = format!("{prefix}{}", field.name());
    if !inner.is_empty() {
        let tag = tag(field.number(), WireType::Length);
        let known = puts.iter_mut().find(|put| put.tag == tag);
        if let Some(Put { what: What::Message(inside), .. }) = known {
            add(inside, inner, &format!("{name}."), leaf, output, dtype);
            return;
        }
        let mut inside = Vec::new();
        add(&mut inside, inner, &format!("{name}."), leaf, output, dtype);
        puts.push(Put { tag, name, what: What::Message(inside) });
        return;
    }
    let value = match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field(),
        _ => field.clone(),
    };
    let Some(scalar) = Scalar::of(&value.kind()) else { return };
    let source = Source { output, scalar, names: numbers(&value, dtype) };
    let packed = !matches!(scalar, Scalar::String | Scalar::Bytes);
    let (wire_type, what) = match &leaf.place {
        Place::Cell(column) => {
            (scalar.wire_type(), What::Cell { source, column: *column, explicit: field.supports_presence() })
        }
        Place::Whole => (if packed { WireType::Length } else { scalar.wire_type() }, What::Whole(source)),
        Place::Raw => (WireType::Length, What::Raw { output, explicit: field.supports_presence() }),
        Place::Column(column) => (WireType::Length, What::Column { source, column: *column }),
        Place::Map(labels) => {
            let keys = labels.iter().map(|label| map_key(field, label)).collect();
            let value_tag = tag(2, scalar.wire_type());
            (WireType::Length, What::Map { source, value_tag, keys })
        }
    };
    puts.push(Put { tag: tag(field.number(), wire_type), name, what });
}

fn numbers(field: &FieldDescriptor, dtype: Dtype) -> Option<HashMap<Bytes, i32>> {
    let Kind::Enum(kind) = field.kind() else { return None };
    let entry = |value: prost_reflect::EnumValueDescriptor| {
        (Bytes::copy_from_slice(value.name().as_bytes()), value.number())
    };
    (dtype == Dtype::Bytes).then(|| kind.values().map(entry).collect())
}

/// A map entry's key field, tag and value.
fn map_key(field: &FieldDescriptor, label: &str) -> Vec<u8> {
    let Kind::Message(entry) = field.kind() else { return Vec::new() };
    let Some(scalar) = Scalar::of(&entry.map_entry_key_field().kind()) else { return Vec::new() };
    let mut out = tag(1, scalar.wire_type());
    if scalar == Scalar::String {
        put_bytes(label.as_bytes(), &mut out);
        return out;
    }
    let number = match label.parse::<i64>() {
        Ok(number) => Number::Signed(number),
        Err(_) => Number::Unsigned(label.parse().unwrap_or(0)),
    };
    // Labels were checked to be keys when the contract was bound.
    let _ = put_number(scalar, number, &mut out);
    out
}

type Write<'a> = &'a mut dyn FnMut(&mut Vec<u8>) -> Result<()>;

/// Writes inside of messages that hold nothing else.
fn wrap(around: &[Vec<u8>], out: &mut Vec<u8>, write: Write<'_>) -> Result<()> {
    match around.split_first() {
        None => write(out),
        Some((tag, inner)) => {
            out.extend_from_slice(tag);
            put_part(out, |out| wrap(inner, out, write))
        }
    }
}

fn put_all(puts: &[Put], views: &[View<'_>], row: usize, rows: usize, out: &mut Vec<u8>) -> Result<()> {
    puts.iter().try_for_each(|put| put.write(views, row, rows, out))
}

impl Put {
    fn write(&self, views: &[View<'_>], row: usize, rows: usize, out: &mut Vec<u8>) -> Result<()> {
        let view = |output: usize| {
            views.get(output).ok_or_else(|| Error::new(Code::Internal, "an output of the plan is missing"))
        };
        match &self.what {
            What::Message(inside) => {
                out.extend_from_slice(&self.tag);
                put_part(out, |out| put_all(inside, views, row, rows, out))
            }
            What::Cell { source, column, explicit } => {
                let view = view(source.output)?;
                if view.size <= *column {
                    return Err(self.misfit(view, "the output has fewer columns"));
                }
                let presence = if *explicit { Presence::Always } else { Presence::UnlessZero };
                self.value(source, view, view.at(row) + column, presence, out)
            }
            What::Column { source, column } => {
                let view = view(source.output)?;
                if rows > 0 && view.size <= *column {
                    return Err(self.misfit(view, "the output has fewer columns"));
                }
                if matches!(source.scalar, Scalar::String | Scalar::Bytes) {
                    return (0..rows).try_for_each(|row| {
                        self.value(source, view, view.at(row) + column, Presence::Always, out)
                    });
                }
                self.packed(out, |out| {
                    (0..rows).try_for_each(|row| self.bare(source, view, view.at(row) + column, out))
                })
            }
            What::Whole(source) => {
                let view = view(source.output)?;
                let start = view.at(row);
                if matches!(source.scalar, Scalar::String | Scalar::Bytes) {
                    return (start..start + view.size)
                        .try_for_each(|index| self.value(source, view, index, Presence::Always, out));
                }
                self.packed(out, |out| match view.raw(start, view.size) {
                    Some(bytes) if source.scalar.is_raw(view.dtype) => {
                        out.extend_from_slice(bytes);
                        Ok(())
                    }
                    _ => (start..start + view.size).try_for_each(|index| self.bare(source, view, index, out)),
                })
            }
            What::Raw { output, explicit } => {
                let view = view(*output)?;
                let bytes = view.raw(view.at(row), view.size).unwrap_or_default();
                if !bytes.is_empty() || *explicit {
                    out.extend_from_slice(&self.tag);
                    put_bytes(bytes, out);
                }
                Ok(())
            }
            What::Map { source, value_tag, keys } => {
                let view = view(source.output)?;
                if view.size != keys.len() {
                    let why = format!("a row has {} elements, there are {} labels", view.size, keys.len());
                    return Err(self.misfit(view, &why));
                }
                for (index, key) in keys.iter().enumerate() {
                    out.extend_from_slice(&self.tag);
                    put_part(out, |out| {
                        out.extend_from_slice(key);
                        out.extend_from_slice(value_tag);
                        self.bare(source, view, view.at(row) + index, out)
                    })?;
                }
                Ok(())
            }
        }
    }

    /// The tag, and a length before what `write` writes; nothing for an empty list.
    fn packed(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        let start = out.len();
        out.extend_from_slice(&self.tag);
        let values = out.len();
        put_part(out, write)?;
        if out.len() == values + 1 {
            out.truncate(start);
        }
        Ok(())
    }

    /// A tag and a value, or nothing for one that need not be sent.
    fn value(
        &self,
        source: &Source,
        view: &View<'_>,
        index: usize,
        presence: Presence,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let start = out.len();
        out.extend_from_slice(&self.tag);
        let value = out.len();
        self.bare(source, view, index, out)?;
        let is_zero = out.get(value..).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0));
        if is_zero && presence == Presence::UnlessZero {
            out.truncate(start);
        }
        Ok(())
    }

    /// A value without its tag.
    fn bare(&self, source: &Source, view: &View<'_>, index: usize, out: &mut Vec<u8>) -> Result<()> {
        if let Elements::Text(elements) = view.elements {
            let text = elements.get(index).map(Bytes::as_ref).unwrap_or_default();
            if let Some(names) = &source.names {
                let number = names.get(text).ok_or_else(|| {
                    let shown: String = String::from_utf8_lossy(text).chars().take(64).collect();
                    self.misfit(view, &format!("{shown:?} is no value of the enum"))
                })?;
                put_varint(i64::from(*number) as u64, out);
                return Ok(());
            }
            if source.scalar == Scalar::String && std::str::from_utf8(text).is_err() {
                return Err(self.misfit(view, "the text is not UTF-8"));
            }
            put_bytes(text, out);
            return Ok(());
        }
        let number = view
            .raw(index, 1)
            .and_then(|bytes| Number::read(view.dtype, bytes))
            .ok_or_else(|| self.misfit(view, "the output has fewer elements"))?;
        put_number(source.scalar, number, out)
            .map_err(|_| self.misfit(view, &format!("{number} does not fit")))
    }

    fn misfit(&self, view: &View<'_>, why: &str) -> Error {
        let text = format!(
            "output {:?} of the model has no place in the answer's field {}: {why}",
            view.name, self.name
        );
        Error::new(Code::ModelFailed, text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Always,
    UnlessZero,
}

impl View<'_> {
    /// The first element of a row.
    fn at(&self, row: usize) -> usize {
        if self.rows.is_some() { row * self.size } else { 0 }
    }

    fn raw(&self, index: usize, count: usize) -> Option<&[u8]> {
        match self.elements {
            Elements::Raw(bytes) => bytes.get(index * self.width..(index + count) * self.width),
            Elements::Text(_) => None,
        }
    }
}
