//! Messages to records.
//!
//! A file has one header, so lists and maps take their columns from the first message, and a later one of another
//! length or with other keys is refused rather than cut. Names are the fields' own, not lowerCamel.

use std::borrow::Cow;

use ::csv::StringRecord;
use prost_reflect::{DynamicMessage, FieldDescriptor, MapKey, MessageDescriptor, Value};

use super::CsvError;
use super::cell::Codec;
use super::field::{Columns, Fields};

/// Writes one message as one record.
#[derive(Debug)]
pub struct RecordWriter {
    fields: Vec<Field>,
}

/// A field with its columns.
#[derive(Debug)]
struct Field {
    field: FieldDescriptor,
    /// As in the header, without brackets.
    path: String,
    cells: Cells,
}

#[derive(Debug)]
enum Cells {
    One(Codec),
    Wrapped(Codec),
    List { codec: Codec, length: usize },
    Map { codec: Codec, keys: Vec<MapKey> },
    Nested(Vec<Field>),
}

impl RecordWriter {
    /// A writer for messages like `first`; without one, lists and maps have no columns.
    ///
    /// # Errors
    /// If the message has too many fields for a file.
    pub fn new(row: &MessageDescriptor, first: Option<&DynamicMessage>) -> Result<Self, CsvError> {
        Ok(Self { fields: layout(&mut Fields::new(), row, "", first)? })
    }

    /// The names of the columns.
    pub fn header(&self) -> StringRecord {
        let mut header = StringRecord::new();
        self.fields.iter().for_each(|field| field.header(&mut header));
        header
    }

    /// Makes `out` the record of `message`.
    ///
    /// # Errors
    /// If a list or a map has not the columns of the first message; names the column.
    pub fn write(&self, message: &DynamicMessage, out: &mut StringRecord) -> Result<(), CsvError> {
        out.clear();
        self.fields.iter().try_for_each(|field| field.write(Some(message), out))
    }
}

fn layout(
    fields: &mut Fields,
    message: &MessageDescriptor,
    prefix: &str,
    first: Option<&DynamicMessage>,
) -> Result<Vec<Field>, CsvError> {
    let mut found = Vec::new();
    for field in message.fields() {
        let path = format!("{prefix}{}", field.name());
        let value = first.and_then(|message| present(message, &field));
        let cells = match fields.columns(&field)? {
            Columns::One(codec) => Cells::One(codec),
            Columns::Wrapped(codec) => Cells::Wrapped(codec),
            Columns::List(codec) => {
                let length = value.as_deref().and_then(Value::as_list).map_or(0, <[Value]>::len);
                Cells::List { codec, length }
            }
            Columns::Map { value: codec, .. } => {
                let entries = value.as_deref().and_then(Value::as_map);
                let mut keys: Vec<MapKey> = entries.into_iter().flat_map(|map| map.keys().cloned()).collect();
                // A map has no order; its columns have.
                keys.sort_unstable();
                Cells::Map { codec, keys }
            }
            Columns::Nested(inner) => {
                let first = value.as_deref().and_then(Value::as_message);
                Cells::Nested(layout(fields, &inner, &format!("{path}."), first)?)
            }
            Columns::None => continue,
        };
        found.push(Field { field, path, cells });
    }
    Ok(found)
}

/// The field's value, unless it is absent.
fn present<'a>(message: &'a DynamicMessage, field: &FieldDescriptor) -> Option<Cow<'a, Value>> {
    (!field.supports_presence() || message.has_field(field)).then(|| message.get_field(field))
}

impl Field {
    fn header(&self, header: &mut StringRecord) {
        let path = &self.path;
        match &self.cells {
            Cells::One(_) | Cells::Wrapped(_) => header.push_field(path),
            Cells::List { length, .. } => {
                (0..*length).for_each(|index| header.push_field(&format!("{path}[{index}]")));
            }
            Cells::Map { keys, .. } => {
                keys.iter().for_each(|key| header.push_field(&format!("{path}[{}]", key_text(key))));
            }
            Cells::Nested(fields) => fields.iter().for_each(|field| field.header(header)),
        }
    }

    fn width(&self) -> usize {
        match &self.cells {
            Cells::One(_) | Cells::Wrapped(_) => 1,
            Cells::List { length, .. } => *length,
            Cells::Map { keys, .. } => keys.len(),
            Cells::Nested(fields) => fields.iter().map(Self::width).sum(),
        }
    }

    /// Appends the cells of the field in `message`; empty ones if the message, or in it the field, is absent.
    fn write(&self, message: Option<&DynamicMessage>, out: &mut StringRecord) -> Result<(), CsvError> {
        let value = message.and_then(|message| present(message, &self.field));
        match (&self.cells, value.as_deref()) {
            (Cells::One(codec), Some(value)) => codec.write(value, out),
            (Cells::Wrapped(codec), Some(Value::Message(wrapper))) => match wrapper.get_field_by_number(1) {
                Some(value) => codec.write(&value, out),
                None => out.push_field(""),
            },
            (Cells::List { codec, length }, Some(Value::List(values))) => {
                if values.len() != *length {
                    return Err(self.differs(&format!("{} elements", values.len()), *length));
                }
                values.iter().for_each(|value| codec.write(value, out));
            }
            (Cells::Map { codec, keys }, Some(Value::Map(entries))) => {
                if entries.len() != keys.len() {
                    return Err(self.differs(&format!("{} entries", entries.len()), keys.len()));
                }
                for key in keys {
                    let value = entries.get(key).ok_or_else(|| self.lacks(key))?;
                    codec.write(value, out);
                }
            }
            (Cells::Nested(fields), value) => {
                let inner = value.and_then(Value::as_message);
                fields.iter().try_for_each(|field| field.write(inner, out))?;
            }
            (_, _) => (0..self.width()).for_each(|_| out.push_field("")),
        }
        Ok(())
    }

    fn differs(&self, found: &str, first: usize) -> CsvError {
        CsvError::new(format!("column {}: {found}, the first row has {first}; CSV has one header", self.path))
    }

    fn lacks(&self, key: &MapKey) -> CsvError {
        let path = &self.path;
        CsvError::new(format!("column {path}[{}]: not in this row; CSV has one header", key_text(key)))
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

/// Writes a data frame - a message of nothing but lists, each a column - as one record an element.
#[derive(Debug)]
pub struct ColumnWriter {
    columns: Vec<(FieldDescriptor, Codec)>,
}

impl ColumnWriter {
    /// A writer for such messages; `None` if the message is not one.
    ///
    /// # Errors
    /// If the message has too many fields for a file.
    pub fn new(message: &MessageDescriptor) -> Result<Option<Self>, CsvError> {
        let mut fields = Fields::new();
        let mut columns = Vec::new();
        for field in message.fields() {
            match fields.columns(&field)? {
                Columns::List(codec) => columns.push((field, codec)),
                _ => return Ok(None),
            }
        }
        Ok((!columns.is_empty()).then_some(Self { columns }))
    }

    /// The names of the columns.
    pub fn header(&self) -> StringRecord {
        self.columns.iter().map(|(field, _)| field.name()).collect()
    }

    /// How many records the message makes: the length of its lists. One that is empty stays so, as a column of empty
    /// cells: it may be a field that no output fills.
    ///
    /// # Errors
    /// If two lists have elements, but not as many; names the column.
    pub fn rows(&self, message: &DynamicMessage) -> Result<usize, CsvError> {
        let mut rows = 0;
        for (field, _) in &self.columns {
            let length = message.get_field(field).as_list().map_or(0, <[Value]>::len);
            if length != rows && length != 0 && rows != 0 {
                return Err(CsvError::new(format!(
                    "column {}: {length} elements, columns before it have {rows}",
                    field.name()
                )));
            }
            rows = rows.max(length);
        }
        Ok(rows)
    }

    /// Makes `out` the record of the elements at `index`.
    pub fn write(&self, message: &DynamicMessage, index: usize, out: &mut StringRecord) {
        out.clear();
        for (field, codec) in &self.columns {
            match message.get_field(field).as_list().and_then(|values| values.get(index)) {
                Some(value) => codec.write(value, out),
                None => out.push_field(""),
            }
        }
    }
}
