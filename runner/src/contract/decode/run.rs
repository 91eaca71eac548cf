//! A request on its way through the plan.

use bytes::Bytes;
use prost_reflect::FieldDescriptor;

use super::buffer::{Buffer, too_large};
use super::{Cell, Clear, Decoder, Entry, Input, Names, Op, Template};
use crate::contract::bind::Form;
use crate::contract::shape::{Batch, RowSize};
use crate::contract::value::{Number, Scalar};
use crate::contract::wire::{Malformed, Reader, WireType};
use crate::error::{Code, Error, Result};
use crate::tensor::{Dtype, Tensor};

/// Packed elements of this many bytes are taken as they lie in the message.
const SHARE_FROM: usize = 16 << 10;

/// Decoded requests become one set of inputs.
#[derive(Debug)]
pub struct Decoded {
    /// In the model's order.
    pub inputs: Vec<(String, Tensor)>,
    pub rows: usize,
}

/// A request being decoded.
#[derive(Debug)]
pub struct Decoding<'a> {
    plan: &'a Decoder,
    buffers: Vec<Buffer>,
    /// Elements of each buffer when the current row began.
    row_starts: Vec<usize>,
    /// Elements of the first row, which the others must have too.
    row_sizes: Vec<Option<usize>>,
    filled: Vec<usize>,
    /// Which nullable cells of the row are set.
    seen: Vec<bool>,
    rows: usize,
}

impl<'a> Decoding<'a> {
    pub(super) fn new(plan: &'a Decoder) -> Self {
        let buffer = |input: &Input| match input.dtype {
            Dtype::Bytes => Buffer::Text(Vec::new()),
            _ => Buffer::Raw(Vec::new()),
        };
        Decoding {
            plan,
            buffers: plan.inputs.iter().map(buffer).collect(),
            row_starts: vec![0; plan.inputs.len()],
            row_sizes: vec![None; plan.inputs.len()],
            filled: vec![0; plan.columns.len()],
            seen: if plan.has_flags { vec![false; plan.cells.len()] } else { Vec::new() },
            rows: 0,
        }
    }
}

impl Decoding<'_> {
    /// Decodes a message: a row, some rows, or parts of columns.
    ///
    /// # Errors
    /// `BAD_MESSAGE`, `BAD_FIELD` or `DECODE_LIMIT`.
    pub fn message(&mut self, message: &Bytes) -> Result<()> {
        let reader = Reader::new(message);
        match self.plan.form {
            Form::Row => self.one_row(reader, 0, 0),
            Form::Rows(_) | Form::Columns => self.fields(reader, 0, 0),
        }
    }

    /// Decodes the message of one row (of the whole message, unless its rows are messages).
    ///
    /// # Errors
    /// Those of [`Decoding::message`].
    pub fn row(&mut self, message: &Bytes) -> Result<()> {
        let reader = Reader::new(message);
        match self.plan.form {
            Form::Columns => self.fields(reader, 0, 0),
            Form::Row | Form::Rows(_) => self.one_row(reader, self.plan.row, 0),
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.filled.iter().copied().max().unwrap_or(self.rows)
    }

    /// Elements so far, in bytes; text counts with its length.
    pub fn byte_len(&self) -> usize {
        self.buffers.iter().map(Buffer::byte_len).sum()
    }

    /// The inputs of all that was decoded.
    ///
    /// # Errors
    /// `BAD_FIELD` for columns of different length, `BAD_SHAPE` for several rows where the model takes one.
    pub fn finish(self) -> Result<Decoded> {
        let rows = self.rows();
        if let Some(position) = self.filled.iter().position(|count| *count != rows) {
            let (name, count) = (self.plan.columns.get(position), self.filled.get(position).copied());
            let longest = self.filled.iter().position(|count| *count == rows);
            let longest = longest.and_then(|position| self.plan.columns.get(position));
            return Err(Error::new(
                Code::BadField,
                format!(
                    "columns have different lengths: {} has {}, {} has {rows}",
                    name.map_or("", String::as_str),
                    count.unwrap_or(0),
                    longest.map_or("", String::as_str)
                ),
            ));
        }
        let mut inputs = Vec::with_capacity(self.buffers.len());
        for ((buffer, input), size) in self.buffers.into_iter().zip(&self.plan.inputs).zip(self.row_sizes) {
            if rows != 1 && input.shape.batch != Batch::Varies {
                return Err(Error::new(
                    Code::BadShape,
                    format!("input {:?} of the model takes one row at a time, {rows} came", input.name),
                ));
            }
            let elements = input.cells.as_ref().map_or(size.unwrap_or(0), |cells| cells.count);
            let shape = input.shape.shape(rows, elements);
            let tensor = match buffer {
                Buffer::Raw(bytes) => Tensor::raw(input.dtype, shape, bytes.into()),
                Buffer::Shared(bytes) => Tensor::raw(input.dtype, shape, bytes),
                Buffer::Text(elements) => Tensor::text(shape, elements),
            };
            let tensor = tensor.map_err(|error| {
                Error::new(Code::BadShape, format!("input {:?} of the model: {error}", input.name))
            })?;
            inputs.push((input.name.clone(), tensor));
        }
        Ok(Decoded { inputs, rows })
    }

    fn one_row(&mut self, reader: Reader<'_>, table: usize, depth: usize) -> Result<()> {
        if self.rows >= self.plan.rows_limit {
            return Err(too_many_rows(self.plan.rows_limit));
        }
        for (index, (input, buffer)) in self.plan.inputs.iter().zip(&mut self.buffers).enumerate() {
            match &input.cells {
                Some(template) => buffer.extend(template, self.plan.bytes_limit)?,
                None => {
                    if let Some(start) = self.row_starts.get_mut(index) {
                        *start = buffer.count(input.width);
                    }
                }
            }
        }
        self.seen.fill(false);
        self.fields(reader, table, depth)?;
        self.check_row()?;
        self.rows += 1;
        Ok(())
    }

    /// What shows only when all fields of a row have been read.
    fn check_row(&mut self) -> Result<()> {
        for (index, input) in self.plan.inputs.iter().enumerate() {
            let (None, Some(buffer), Some(start)) =
                (&input.cells, self.buffers.get(index), self.row_starts.get(index))
            else {
                continue;
            };
            let elements = buffer.count(input.width) - start;
            let first = self.row_sizes.get_mut(index).map(|size| *size.get_or_insert(elements));
            if !input.shape.takes(elements) || first != Some(elements) {
                let wanted = match (input.shape.size, first) {
                    (RowSize::Multiple(factor), Some(first)) if first != elements => {
                        format!("{first} elements as the first row (a multiple of {factor})")
                    }
                    (RowSize::Multiple(factor), _) => format!("a multiple of {factor} elements"),
                    (RowSize::Fixed(size), _) => format!("{size} elements"),
                    (RowSize::Open, _) => "another number of elements".to_owned(),
                };
                return Err(Error::new(
                    Code::BadShape,
                    format!("{}: a row has {wanted}, {elements} came", self.path(&input.whole, None)),
                ));
            }
        }
        let missing = self.plan.cells.iter().zip(&self.seen).find(|(cell, seen)| cell.required && !**seen);
        if let Some((cell, _)) = missing {
            let dtype = self.plan.inputs.get(cell.input).map_or("", |input| input.dtype.name());
            return Err(Error::new(
                Code::BadField,
                format!("{}: not set, and {dtype} has no missing value", self.path(&cell.name, None)),
            ));
        }
        Ok(())
    }

    fn fields(&mut self, mut reader: Reader<'_>, table: usize, depth: usize) -> Result<()> {
        if depth > self.plan.depth_limit {
            return Err(too_deep(self.plan.depth_limit));
        }
        let plan = self.plan;
        let Some(table) = plan.tables.get(table) else { return Ok(()) };
        while !reader.is_done() {
            let (number, wire_type) = reader.tag().map_err(|fault| self.malformed(fault))?;
            match table.get(number) {
                Some(entry) => self.field(entry, &mut reader, wire_type, number, depth)?,
                None => {
                    reader.skip(number, wire_type, plan.depth_limit).map_err(|fault| self.malformed(fault))?
                }
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<'_>,
        wire_type: WireType,
        number: u32,
        depth: usize,
    ) -> Result<()> {
        for clear in &entry.clears {
            match *clear {
                Clear::Cell(cell) => self.clear(cell),
                Clear::Row(input) => self.clear_row(input),
            }
        }
        let wrong = |decoding: &Self| {
            let path = decoding.path(&entry.name, None);
            Error::new(Code::BadMessage, format!("{path} is not of the type that the contract gives it"))
        };
        let part = |reader: &mut Reader<'_>, decoding: &Self| match wire_type {
            WireType::Length => {
                let part = reader.part().map_err(|fault| decoding.malformed(fault))?;
                Ok((part.at, part.end))
            }
            _ => Err(wrong(decoding)),
        };
        match &entry.op {
            Op::Cell(cell) => {
                let Some(cell_plan) = self.plan.cells.get(*cell) else { return Ok(()) };
                if wire_type != cell_plan.scalar.wire_type() {
                    return Err(wrong(self));
                }
                self.mark(*cell);
                self.cell(cell_plan, entry, reader)
            }
            Op::Message { table, wrapped } => {
                let (at, end) = part(reader, self)?;
                if let Some(cell) = wrapped
                    && self.mark(*cell)
                {
                    self.zero(*cell);
                }
                self.fields(Reader { bytes: reader.bytes, at, end }, *table, depth + 1)
            }
            Op::Rows { table } => {
                let (at, end) = part(reader, self)?;
                self.one_row(Reader { bytes: reader.bytes, at, end }, *table, depth + 1)
            }
            Op::Raw { input } => {
                let (at, end) = part(reader, self)?;
                self.raw(*input, reader.bytes.get(at..end).unwrap_or_default(), &entry.name)
            }
            Op::Ignored { table: Some(table) } if wire_type == WireType::Length => {
                let (at, end) = part(reader, self)?;
                self.fields(Reader { bytes: reader.bytes, at, end }, *table, depth + 1)
            }
            Op::Ignored { .. } => {
                reader.skip(number, wire_type, self.plan.depth_limit).map_err(|fault| self.malformed(fault))
            }
            Op::Whole { scalar, .. } | Op::Column { scalar, .. } => {
                let packable = !matches!(scalar, Scalar::String | Scalar::Bytes);
                if packable && wire_type == WireType::Length {
                    let (at, end) = part(reader, self)?;
                    return self.packed(entry, Reader { bytes: reader.bytes, at, end });
                }
                if wire_type != scalar.wire_type() {
                    return Err(wrong(self));
                }
                self.element(entry, reader)
            }
        }
    }

    /// All values of a packed field.
    fn packed(&mut self, entry: &Entry, mut part: Reader<'_>) -> Result<()> {
        if let Op::Whole { input, scalar, names: None } = &entry.op
            && let (Some(plan), Some(buffer)) = (self.plan.inputs.get(*input), self.buffers.get_mut(*input))
            && scalar.is_raw(plan.dtype)
        {
            let bytes = part.rest();
            if buffer.byte_len() + bytes.len() > self.plan.bytes_limit {
                return Err(too_large(self.plan.bytes_limit));
            }
            if !bytes.len().is_multiple_of(plan.width) {
                return Err(self.malformed(Malformed::Truncated));
            }
            if buffer.byte_len() == 0 && bytes.len() >= SHARE_FROM {
                *buffer = Buffer::Shared(part.bytes.slice(part.at..part.end));
            } else if let Some(own) = buffer.own() {
                own.extend_from_slice(bytes);
            }
            return Ok(());
        }
        if let (Op::Whole { input, scalar, .. }, Some(width)) = (&entry.op, self.packed_width(entry)) {
            self.reserve(*input, part.rest().len() / scalar.width().unwrap_or(1) * width);
        }
        while !part.is_done() {
            self.element(entry, &mut part)?;
        }
        Ok(())
    }

    fn packed_width(&self, entry: &Entry) -> Option<usize> {
        match &entry.op {
            Op::Whole { input, scalar, .. } if scalar.width().is_some() => {
                self.plan.inputs.get(*input).map(|input| input.width)
            }
            _ => None,
        }
    }

    fn reserve(&mut self, input: usize, bytes: usize) {
        if let Some(buffer) = self.buffers.get_mut(input).and_then(Buffer::own) {
            buffer.reserve(bytes.min(self.plan.bytes_limit));
        }
    }

    /// One value of a repeated field.
    fn element(&mut self, entry: &Entry, reader: &mut Reader<'_>) -> Result<()> {
        let (input, scalar, names) = match &entry.op {
            Op::Whole { input, scalar, names } | Op::Column { input, scalar, names, .. } => {
                (*input, *scalar, names)
            }
            _ => return Ok(()),
        };
        let Some(plan) = self.plan.inputs.get(input) else { return Ok(()) };
        // A column's cell is made first; where it lies follows from how many there are.
        let position = match &entry.op {
            Op::Column { offset, column, .. } => self.next_in_column(input, *offset, *column)?,
            _ => None,
        };
        if plan.dtype == Dtype::Bytes {
            let text = self.text(scalar, names.as_ref(), entry, reader)?;
            let Some(Buffer::Text(elements)) = self.buffers.get_mut(input) else { return Ok(()) };
            match position {
                Some(position) => {
                    if let Some(element) = elements.get_mut(position) {
                        *element = text;
                    }
                }
                None => {
                    if (elements.len() + 1).saturating_mul(size_of::<Bytes>()) > self.plan.bytes_limit {
                        return Err(too_large(self.plan.bytes_limit));
                    }
                    elements.push(text);
                }
            }
            return Ok(());
        }
        let number = reader.number(scalar).map_err(|fault| self.malformed(fault))?;
        let mut bytes = [0; 8];
        let written = bytes.get_mut(..plan.width).map(|bytes| number.write(plan.dtype, bytes));
        if written != Some(Ok(())) {
            let index = self.element_index(entry, input);
            return Err(self.misfit(&entry.name, Some(index), number, plan.dtype));
        }
        let bytes = bytes.get(..plan.width).unwrap_or_default();
        let Some(buffer) = self.buffers.get_mut(input).and_then(Buffer::own) else { return Ok(()) };
        match position {
            Some(position) => {
                let at = position * plan.width;
                if let Some(element) = buffer.get_mut(at..at + plan.width) {
                    element.copy_from_slice(bytes);
                }
            }
            None => {
                if buffer.len() + plan.width > self.plan.bytes_limit {
                    return Err(too_large(self.plan.bytes_limit));
                }
                buffer.extend_from_slice(bytes);
            }
        }
        Ok(())
    }

    /// Makes room for the next value of a column; its position in the buffer.
    fn next_in_column(&mut self, input: usize, offset: usize, column: usize) -> Result<Option<usize>> {
        let Some(filled) = self.filled.get_mut(column) else { return Ok(None) };
        let row = *filled;
        if row >= self.plan.rows_limit {
            return Err(too_many_rows(self.plan.rows_limit));
        }
        *filled += 1;
        let (Some(plan), Some(buffer)) = (self.plan.inputs.get(input), self.buffers.get_mut(input)) else {
            return Ok(None);
        };
        let Some(template) = &plan.cells else { return Ok(None) };
        if row * template.count >= buffer.count(plan.width) {
            buffer.extend(template, self.plan.bytes_limit)?;
        }
        Ok(Some(row * template.count + offset))
    }

    /// Where in its field the value stands that has just been read.
    fn element_index(&self, entry: &Entry, input: usize) -> usize {
        match &entry.op {
            Op::Column { column, .. } => {
                self.filled.get(*column).map_or(0, |filled| filled.saturating_sub(1))
            }
            _ => {
                let width = self.plan.inputs.get(input).map_or(0, |input| input.width);
                let count = self.buffers.get(input).map_or(0, |buffer| buffer.count(width));
                count - self.row_starts.get(input).copied().unwrap_or(0)
            }
        }
    }

    fn cell(&mut self, cell: &Cell, entry: &Entry, reader: &mut Reader<'_>) -> Result<()> {
        let Some(plan) = self.plan.inputs.get(cell.input) else { return Ok(()) };
        let count = plan.cells.as_ref().map_or(0, |cells| cells.count);
        let position = self.rows * count + cell.offset;
        if plan.dtype == Dtype::Bytes {
            let text = self.text(cell.scalar, cell.names.as_ref(), entry, reader)?;
            if let Some(Buffer::Text(elements)) = self.buffers.get_mut(cell.input)
                && let Some(element) = elements.get_mut(position)
            {
                *element = text;
            }
            return Ok(());
        }
        let number = reader.number(cell.scalar).map_err(|fault| self.malformed(fault))?;
        let Some(buffer) = self.buffers.get_mut(cell.input).and_then(Buffer::own) else { return Ok(()) };
        let at = position * plan.width;
        let written = buffer.get_mut(at..at + plan.width).map(|bytes| number.write(plan.dtype, bytes));
        match written {
            Some(Err(_)) => Err(self.misfit(&entry.name, None, number, plan.dtype)),
            _ => Ok(()),
        }
    }

    fn text(
        &self,
        scalar: Scalar,
        names: Option<&Names>,
        entry: &Entry,
        reader: &mut Reader<'_>,
    ) -> Result<Bytes> {
        let malformed = |fault| self.malformed(fault);
        if let Some(names) = names {
            let number = reader.number(scalar).map_err(malformed)?;
            let name = match number {
                Number::Signed(number) => names.get(&number),
                _ => None,
            };
            return name.cloned().ok_or_else(|| {
                let path = self.path(&entry.name, None);
                Error::new(Code::BadField, format!("{path}: {number} is no value of the enum"))
            });
        }
        let part = reader.part().map_err(malformed)?;
        let bytes = part.bytes.slice(part.at..part.end);
        if scalar == Scalar::String && std::str::from_utf8(&bytes).is_err() {
            let path = self.path(&entry.name, None);
            return Err(Error::new(Code::BadMessage, format!("{path}: a string is not UTF-8")));
        }
        Ok(bytes)
    }

    /// A row as it lies in memory; the last one of a field counts.
    fn raw(&mut self, input: usize, bytes: &[u8], name: &str) -> Result<()> {
        let start = self.row_starts.get(input).copied().unwrap_or(0);
        let Some(plan) = self.plan.inputs.get(input) else { return Ok(()) };
        let Some(buffer) = self.buffers.get_mut(input).and_then(Buffer::own) else { return Ok(()) };
        if !bytes.len().is_multiple_of(plan.width.max(1)) {
            let path = self.path(name, None);
            return Err(Error::new(
                Code::BadField,
                format!("{path}: {} bytes are not elements of {} bytes each", bytes.len(), plan.width),
            ));
        }
        buffer.truncate(start * plan.width);
        if buffer.len() + bytes.len() > self.plan.bytes_limit {
            return Err(too_large(self.plan.bytes_limit));
        }
        buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Marks a nullable cell as set; was it not yet?
    fn mark(&mut self, cell: usize) -> bool {
        self.seen.get_mut(cell).is_some_and(|seen| !std::mem::replace(seen, true))
    }

    /// Sets a cell to zero or the empty string.
    fn zero(&mut self, cell: usize) {
        self.reset(cell, None);
    }

    /// Sets a cell to what it is when nothing is sent.
    fn clear(&mut self, cell: usize) {
        if let Some(seen) = self.seen.get_mut(cell) {
            *seen = false;
        }
        let input = self.plan.cells.get(cell).and_then(|cell| self.plan.inputs.get(cell.input));
        let template = input.and_then(|input| input.cells.as_ref());
        self.reset(cell, template);
    }

    /// Drops the elements that a field of whole rows has given the row.
    fn clear_row(&mut self, input: usize) {
        let start = self.row_starts.get(input).copied().unwrap_or(0);
        let width = self.plan.inputs.get(input).map_or(0, |input| input.width);
        match self.buffers.get_mut(input) {
            Some(Buffer::Text(elements)) => elements.truncate(start),
            Some(buffer) => {
                if let Some(own) = buffer.own() {
                    own.truncate(start * width);
                }
            }
            None => {}
        }
    }

    fn reset(&mut self, cell: usize, to: Option<&Template>) {
        let Some(cell) = self.plan.cells.get(cell) else { return };
        let Some(plan) = self.plan.inputs.get(cell.input) else { return };
        let count = plan.cells.as_ref().map_or(0, |cells| cells.count);
        let position = self.rows * count + cell.offset;
        match self.buffers.get_mut(cell.input) {
            Some(Buffer::Text(elements)) => {
                if let Some(element) = elements.get_mut(position) {
                    let default = to.and_then(|template| template.texts.get(cell.offset));
                    *element = default.cloned().unwrap_or_default();
                }
            }
            Some(Buffer::Raw(buffer)) => {
                let at = cell.offset * plan.width;
                let default = to.and_then(|template| template.bytes.get(at..at + plan.width));
                let at = position * plan.width;
                if let Some(bytes) = buffer.get_mut(at..at + plan.width) {
                    match default {
                        Some(default) => bytes.copy_from_slice(default),
                        None => bytes.fill(0),
                    }
                }
            }
            // Cells have buffers of their own.
            Some(Buffer::Shared(_)) | None => {}
        }
    }

    /// `rows[3].person.age[7]`
    fn path(&self, name: &str, index: Option<usize>) -> String {
        let row = match &self.plan.form {
            Form::Rows(path) if !name.is_empty() => {
                let names: Vec<&str> = path.iter().map(FieldDescriptor::name).collect();
                format!("{}[{}].", names.join("."), self.rows)
            }
            _ => String::new(),
        };
        let index = index.map_or_else(String::new, |index| format!("[{index}]"));
        format!("{row}{name}{index}")
    }

    fn misfit(&self, name: &str, index: Option<usize>, number: Number, dtype: Dtype) -> Error {
        Error::new(Code::BadField, format!("{}: {number} does not fit {dtype}", self.path(name, index)))
    }

    fn malformed(&self, fault: Malformed) -> Error {
        match fault {
            Malformed::TooDeep => too_deep(self.plan.depth_limit),
            Malformed::Truncated => Error::new(Code::BadMessage, "the message ends within a field"),
            Malformed::Invalid => Error::new(Code::BadMessage, "the bytes are no protobuf message"),
        }
    }
}

fn too_many_rows(limit: usize) -> Error {
    Error::new(
        Code::DecodeLimit,
        format!("the request has more than {limit} rows, which is the limit; send several, or CSV"),
    )
}
fn too_deep(limit: usize) -> Error {
    Error::new(Code::DecodeLimit, format!("the message is nested more than {limit} levels deep"))
}
