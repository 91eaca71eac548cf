//! The wire plan of a request: protobuf bytes straight into input buffers.
//!
//! Compiled from a [`Layout`] when a contract is bound (here), followed when a request comes (`run`). At run time nothing
//! is looked up by name and no message is built: a table per message type maps field numbers to places in the buffers
//! (`buffer`). Packed floats are one bounds check and one copy. Its oracle in the tests is the dynamic message.

mod buffer;
mod run;

use std::collections::HashMap;

use bytes::Bytes;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

pub use self::run::{Decoded, Decoding};
use super::bind::{Form, Layout, Leaf, Place};
use super::shape::{Batch, RowShape};
use super::value::{Number, Scalar};
use crate::config::Limits;
use crate::engine::TensorSpec;
use crate::error::Result;
use crate::tensor::Dtype;

/// Field numbers below this are found by index.
const DENSE: u32 = 64;

/// A request's plan.
#[derive(Debug)]
pub struct Decoder {
    tables: Vec<Table>,
    /// The table of a row; the message's own is the first.
    row: usize,
    form: Form,
    inputs: Vec<Input>,
    cells: Vec<Cell>,
    /// How many columns of a batch are filled, and their names.
    columns: Vec<String>,
    has_flags: bool,
    rows_limit: usize,
    bytes_limit: usize,
    depth_limit: usize,
}

/// The fields of one message type.
#[derive(Debug, Default)]
struct Table {
    dense: Vec<Option<Entry>>,
    sparse: HashMap<u32, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Path from the row, for errors.
    name: String,
    op: Op,
    /// What other members of the same `oneof` have set.
    clears: Vec<Clear>,
}

/// What setting a field unsets.
#[derive(Debug, Clone, Copy)]
enum Clear {
    Cell(usize),
    /// All elements of the row of an input.
    Row(usize),
}

#[derive(Debug)]
enum Op {
    /// A single value: a cell of the row.
    Cell(usize),
    /// The elements of a row.
    Whole {
        input: usize,
        scalar: Scalar,
        names: Option<Names>,
    },
    /// A row as it lies in memory.
    Raw {
        input: usize,
    },
    /// A column of a batch.
    Column {
        input: usize,
        offset: usize,
        column: usize,
        scalar: Scalar,
        names: Option<Names>,
    },
    Message {
        table: usize,
        wrapped: Option<usize>,
    },
    Rows {
        table: usize,
    },
    /// Not bound: walked for its depth only.
    Ignored {
        table: Option<usize>,
    },
}

/// Names of an enum's values, for string inputs.
type Names = HashMap<i64, Bytes>;

#[derive(Debug)]
struct Cell {
    input: usize,
    offset: usize,
    scalar: Scalar,
    names: Option<Names>,
    /// Tracked: whether it was set decides what it is.
    nullable: bool,
    /// A missing value has no form in this datatype.
    required: bool,
    name: String,
}

#[derive(Debug)]
struct Input {
    name: String,
    dtype: Dtype,
    /// Bytes an element; 0 for BYTES.
    width: usize,
    shape: RowShape,
    /// One row of cells with nothing set; `None` if a field holds whole rows.
    cells: Option<Template>,
    /// The field that holds whole rows, for errors.
    whole: String,
}

#[derive(Debug)]
struct Template {
    count: usize,
    bytes: Vec<u8>,
    /// For BYTES.
    texts: Vec<Bytes>,
}

impl Decoder {
    pub(super) fn new(
        root: &MessageDescriptor,
        layout: &Layout,
        specs: &[TensorSpec],
        limits: &Limits,
    ) -> Self {
        let mut decoder = Self {
            tables: vec![Table::default()],
            row: 0,
            form: layout.form.clone(),
            inputs: specs.iter().enumerate().map(|(index, spec)| Input::new(index, spec, layout)).collect(),
            cells: Vec::new(),
            columns: Vec::new(),
            has_flags: false,
            rows_limit: limits.rows,
            bytes_limit: limits.tensor_bytes,
            depth_limit: limits.decode_depth,
        };
        let mut known = HashMap::new();
        if let Form::Rows(path) = &layout.form {
            decoder.row = decoder.new_table();
            decoder.add_rows(path);
        }
        for leaf in &layout.leaves {
            decoder.add_leaf(leaf);
        }
        decoder.add_ignored(0, root, &mut known);
        if decoder.row != 0 {
            decoder.add_ignored(decoder.row, &layout.row, &mut known);
        }
        decoder.link_choices(decoder.row, &layout.row);
        decoder.has_flags = decoder.cells.iter().any(|cell| cell.nullable);
        decoder
    }

    fn new_table(&mut self) -> usize {
        self.tables.push(Table::default());
        self.tables.len() - 1
    }

    fn add_rows(&mut self, path: &[FieldDescriptor]) {
        let Some((last, messages)) = path.split_last() else { return };
        let table = self.descend(0, messages, "");
        let op = Op::Rows { table: self.row };
        self.put(table, last.number(), Entry { name: last.name().to_owned(), op, clears: Vec::new() });
    }

    /// The table at the end of a path of messages, made where there is none yet.
    fn descend(&mut self, from: usize, messages: &[FieldDescriptor], prefix: &str) -> usize {
        let mut at = from;
        let mut name = prefix.to_owned();
        for field in messages {
            name = format!("{name}{}.", field.name());
            let known = match self.tables.get(at).and_then(|table| table.get(field.number())) {
                Some(Entry { op: Op::Message { table, .. }, .. }) => Some(*table),
                _ => None,
            };
            at = known.unwrap_or_else(|| {
                let table = self.new_table();
                let op = Op::Message { table, wrapped: None };
                let name = name.trim_end_matches('.').to_owned();
                self.put(at, field.number(), Entry { name, op, clears: Vec::new() });
                table
            });
        }
        at
    }

    fn add_leaf(&mut self, leaf: &Leaf) {
        let Some((field, messages)) = leaf.path.split_last() else { return };
        let (input, Some(scalar)) = (leaf.tensor, Scalar::of(&field.kind())) else { return };
        let Some(dtype) = self.inputs.get(input).map(|input| input.dtype) else { return };
        let wrapper = messages.last().filter(|outer| is_wrapper(outer));
        let mut name: Vec<&str> = messages.iter().map(FieldDescriptor::name).collect();
        if wrapper.is_none() {
            name.push(field.name());
        }
        let name = name.join(".");
        let table = self.descend(self.row, messages, "");
        let names = names(field, dtype);
        let op = match &leaf.place {
            Place::Cell(offset) => {
                let is_float = matches!(dtype, Dtype::Fp16 | Dtype::Bf16 | Dtype::Fp32 | Dtype::Fp64);
                let required = leaf.nullable && !is_float && dtype != Dtype::Bytes;
                // An enum that is not sent is the value 0, which has a name.
                let zero = names.as_ref().and_then(|names| names.get(&0).cloned());
                let cell = self.cells.len();
                self.cells.push(Cell {
                    input,
                    offset: *offset,
                    scalar,
                    names,
                    nullable: leaf.nullable,
                    required,
                    name: name.clone(),
                });
                if let Some(outer) = wrapper {
                    let above = self.descend(self.row, &messages[..messages.len() - 1], "");
                    if let Some(Entry { op: Op::Message { wrapped, .. }, .. }) =
                        self.tables.get_mut(above).and_then(|table| table.get_mut(outer.number()))
                    {
                        *wrapped = Some(cell);
                    }
                }
                if let Some(template) = self.inputs.get_mut(input).and_then(|input| input.cells.as_mut()) {
                    template.set_absent(dtype, *offset, leaf.nullable, zero);
                }
                Op::Cell(cell)
            }
            Place::Raw => Op::Raw { input },
            Place::Column(offset) => {
                self.columns.push(name.clone());
                Op::Column { input, offset: *offset, column: self.columns.len() - 1, scalar, names }
            }
            // Maps are answers only.
            Place::Whole | Place::Map(_) => Op::Whole { input, scalar, names },
        };
        self.put(table, field.number(), Entry { name, op, clears: Vec::new() });
    }

    /// Fields that are not bound, in the message and in those of its messages that are.
    fn add_ignored(&mut self, table: usize, message: &MessageDescriptor, known: &mut HashMap<String, usize>) {
        for field in message.fields() {
            let Kind::Message(inner) = field.kind() else { continue };
            match self.tables.get(table).and_then(|table| table.get(field.number())) {
                Some(Entry { op: Op::Message { table, .. }, .. }) => self.add_ignored(*table, &inner, known),
                Some(_) => {}
                None => {
                    let walked = self.walked(&inner, known);
                    let op = Op::Ignored { table: Some(walked) };
                    self.put(
                        table,
                        field.number(),
                        Entry { name: field.name().to_owned(), op, clears: Vec::new() },
                    );
                }
            }
        }
    }

    /// A table that only follows messages, once for each type: types may hold themselves.
    fn walked(&mut self, message: &MessageDescriptor, known: &mut HashMap<String, usize>) -> usize {
        if let Some(table) = known.get(message.full_name()) {
            return *table;
        }
        let table = self.new_table();
        known.insert(message.full_name().to_owned(), table);
        for field in message.fields() {
            if let Kind::Message(inner) = field.kind() {
                let op = Op::Ignored { table: Some(self.walked(&inner, known)) };
                self.put(
                    table,
                    field.number(),
                    Entry { name: field.name().to_owned(), op, clears: Vec::new() },
                );
            }
        }
        table
    }

    /// Setting one member of a `oneof` unsets the others.
    fn link_choices(&mut self, table: usize, message: &MessageDescriptor) {
        for choice in message.oneofs().filter(|choice| !choice.is_synthetic()) {
            let set: Vec<(u32, Vec<Clear>)> =
                choice.fields().map(|field| (field.number(), self.set_by(table, field.number()))).collect();
            for field in choice.fields() {
                let others = set.iter().filter(|(number, _)| *number != field.number());
                let clears: Vec<Clear> = others.flat_map(|(_, clears)| clears.iter().copied()).collect();
                let Some(table) = self.tables.get_mut(table) else { continue };
                match table.get_mut(field.number()) {
                    Some(entry) => entry.clears = clears,
                    None => {
                        let op = Op::Ignored { table: None };
                        table.put(field.number(), Entry { name: field.name().to_owned(), op, clears });
                    }
                }
            }
        }
        for field in message.fields() {
            if let (Kind::Message(inner), Some(Entry { op: Op::Message { table, .. }, .. })) =
                (field.kind(), self.tables.get(table).and_then(|table| table.get(field.number())))
            {
                self.link_choices(*table, &inner);
            }
        }
    }

    /// All that a field sets, through messages.
    fn set_by(&self, table: usize, number: u32) -> Vec<Clear> {
        let Some(entry) = self.tables.get(table).and_then(|table| table.get(number)) else {
            return Vec::new();
        };
        match entry.op {
            Op::Cell(cell) | Op::Message { wrapped: Some(cell), .. } => vec![Clear::Cell(cell)],
            Op::Whole { input, .. } | Op::Raw { input } => vec![Clear::Row(input)],
            Op::Message { table, wrapped: None } => {
                let numbers: Vec<u32> = self.tables.get(table).map(Table::numbers).unwrap_or_default();
                numbers.into_iter().flat_map(|number| self.set_by(table, number)).collect()
            }
            Op::Column { .. } | Op::Rows { .. } | Op::Ignored { .. } => Vec::new(),
        }
    }

    fn put(&mut self, table: usize, number: u32, entry: Entry) {
        if let Some(table) = self.tables.get_mut(table) {
            table.put(number, entry);
        }
    }

    /// Does the model take any number of rows at once?
    pub fn takes_batches(&self) -> bool {
        self.inputs.iter().all(|input| input.shape.batch == Batch::Varies)
    }

    /// Begins a request.
    pub fn start(&self) -> Decoding<'_> {
        Decoding::new(self)
    }

    /// Decodes a whole request of one message.
    ///
    /// # Errors
    /// `BAD_MESSAGE`, `BAD_FIELD`, `BAD_SHAPE` or `DECODE_LIMIT`.
    pub fn decode(&self, message: &Bytes) -> Result<Decoded> {
        let mut decoding = self.start();
        decoding.message(message)?;
        decoding.finish()
    }
}

impl Table {
    fn get(&self, number: u32) -> Option<&Entry> {
        if number < DENSE {
            return self.dense.get(number as usize)?.as_ref();
        }
        self.sparse.get(&number)
    }

    fn get_mut(&mut self, number: u32) -> Option<&mut Entry> {
        if number < DENSE {
            return self.dense.get_mut(number as usize)?.as_mut();
        }
        self.sparse.get_mut(&number)
    }

    fn numbers(&self) -> Vec<u32> {
        let dense = (0..).zip(&self.dense).filter(|(_, entry)| entry.is_some()).map(|(number, _)| number);
        dense.chain(self.sparse.keys().copied()).collect()
    }

    fn put(&mut self, number: u32, entry: Entry) {
        if number >= DENSE {
            self.sparse.insert(number, entry);
            return;
        }
        let index = number as usize;
        if self.dense.len() <= index {
            self.dense.resize_with(index + 1, || None);
        }
        if let Some(slot) = self.dense.get_mut(index) {
            *slot = Some(entry);
        }
    }
}

impl Input {
    fn new(index: usize, spec: &TensorSpec, layout: &Layout) -> Self {
        let leaves: Vec<&Leaf> = layout.leaves.iter().filter(|leaf| leaf.tensor == index).collect();
        let whole = leaves.iter().find(|leaf| matches!(leaf.place, Place::Whole | Place::Raw));
        let width = spec.dtype.width().unwrap_or(0);
        let count = leaves.len();
        Self {
            name: spec.name.clone(),
            dtype: spec.dtype,
            width,
            shape: RowShape::of(spec),
            cells: whole.is_none().then(|| Template {
                count,
                bytes: vec![0; count * width],
                texts: vec![Bytes::new(); if spec.dtype == Dtype::Bytes { count } else { 0 }],
            }),
            whole: whole
                .and_then(|leaf| leaf.path.last())
                .map_or_else(String::new, |field| field.name().to_owned()),
        }
    }
}

impl Template {
    /// What is there when nothing is sent: NaN for a missing float, the name of zero for an enum.
    fn set_absent(&mut self, dtype: Dtype, offset: usize, nullable: bool, zero: Option<Bytes>) {
        if !nullable {
            if let (Some(zero), Some(text)) = (zero, self.texts.get_mut(offset)) {
                *text = zero;
            }
            return;
        }
        let width = dtype.width().unwrap_or(0);
        if let Some(bytes) = self.bytes.get_mut(offset * width..(offset + 1) * width) {
            // Datatypes without a NaN stay zero; their cells are required.
            let _ = Number::Float(f32::NAN).write(dtype, bytes);
        }
    }
}

fn is_wrapper(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(message) if super::compile::is_well_known(&message))
}

fn names(field: &FieldDescriptor, dtype: Dtype) -> Option<Names> {
    let Kind::Enum(kind) = field.kind() else { return None };
    (dtype == Dtype::Bytes).then(|| {
        // The first name of a number is the one that is not an alias.
        let mut names = Names::new();
        for value in kind.values() {
            let name = Bytes::copy_from_slice(value.name().as_bytes());
            names.entry(value.number().into()).or_insert(name);
        }
        names
    })
}
