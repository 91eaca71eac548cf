//! What the fields of a message are to a CSV file: which have columns, and of what sort.
//!
//! Reader and writer both ask here, so that what is written can be read. The walk over the fields is counted: messages
//! that each hold two of the next one have exponentially many columns, in a contract of a few lines.

use std::collections::{HashMap, HashSet};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::super::compile::is_well_known;
use super::CsvError;
use super::cell::Codec;

/// Fields visited for one message type.
const MOST_FIELDS: usize = 65_536;

/// The columns of a field.
#[derive(Debug)]
pub(super) enum Columns {
    /// `age`
    One(Codec),
    /// `age`, a wrapper: the cell is the field 1 of the message.
    Wrapped(Codec),
    /// `pixels[0]`, `pixels[1]` ...
    List(Codec),
    /// `probabilities[setosa]` ...
    Map { key: Codec, value: Codec },
    /// `person.age` ...
    Nested(MessageDescriptor),
    /// None: `Timestamp` and the like, messages that contain themselves, lists and maps of messages.
    None,
}

/// Finds the columns of fields.
#[derive(Debug)]
pub(super) struct Fields {
    left: usize,
    /// Whether a message, by its full name, contains itself.
    recursive: HashMap<String, bool>,
}

impl Fields {
    pub(super) fn new() -> Self {
        Self { left: MOST_FIELDS, recursive: HashMap::new() }
    }

    pub(super) fn columns(&mut self, field: &FieldDescriptor) -> Result<Columns, CsvError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            CsvError::new(format!("{} has too many fields for CSV", field.parent_message().full_name()))
        })?;
        Ok(match (field.kind(), Codec::of(&field.kind())) {
            (_, Some(codec)) if field.is_list() => Columns::List(codec),
            (_, Some(codec)) => Columns::One(codec),
            (Kind::Message(entry), None) if field.is_map() => map(&entry),
            (Kind::Message(_), None) if field.is_list() => Columns::None,
            (Kind::Message(message), None) if is_well_known(&message) => {
                wrapped(&message).map_or(Columns::None, Columns::Wrapped)
            }
            (Kind::Message(message), None) if !self.contains_itself(&message) => Columns::Nested(message),
            _ => Columns::None,
        })
    }

    fn contains_itself(&mut self, message: &MessageDescriptor) -> bool {
        if let Some(known) = self.recursive.get(message.full_name()) {
            return *known;
        }
        let found = contains_itself(message);
        self.recursive.insert(message.full_name().to_owned(), found);
        found
    }
}

fn map(entry: &MessageDescriptor) -> Columns {
    let codec = |field: FieldDescriptor| Codec::of(&field.kind());
    match (codec(entry.map_entry_key_field()), codec(entry.map_entry_value_field())) {
        (Some(key), Some(value)) => Columns::Map { key, value },
        _ => Columns::None,
    }
}

/// The codec of `google.protobuf.DoubleValue` and its siblings.
fn wrapped(message: &MessageDescriptor) -> Option<Codec> {
    let is_wrapper = message.name().ends_with("Value") && message.fields().len() == 1;
    let value = message.get_field_by_name("value").filter(|field| is_wrapper && !field.is_list())?;
    Codec::of(&value.kind())
}

fn contains_itself(message: &MessageDescriptor) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![message.clone()];
    while let Some(next) = open.pop() {
        for field in next.fields() {
            let Kind::Message(inner) = field.kind() else { continue };
            if inner == *message {
                return true;
            }
            if seen.insert(inner.full_name().to_owned()) {
                open.push(inner);
            }
        }
    }
    false
}
