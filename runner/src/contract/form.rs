//! The forms that a message may have outside of gRPC, for whole messages in memory: trial runs and conversions. (The
//! data port streams CSV; see `inference/typed/csv`.)

use bytes::Bytes;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

use super::compile::is_well_known;
use super::csv::{CsvError, Guard, RecordReader, Table};
use super::wire::{WireType, put_bytes, tag};
use super::{Decoded, Method, Schema, json};
use crate::config::Limits;
use crate::error::{Code, Error, Result};
use crate::tensor::Tensor;

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    Csv,
    Protobuf,
}

impl Form {
    /// The media type of the form.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Protobuf => "application/protobuf",
        }
    }
}

impl Method {
    /// A whole request in any form.
    ///
    /// # Errors
    /// `BAD_JSON`, `BAD_CSV`, and those of [`super::Decoder::decode`].
    pub fn request(&self, form: Form, bytes: Vec<u8>) -> Result<Decoded> {
        match form {
            Form::Json => self.request.decode(&self.request_from_json(&bytes)?.into()),
            Form::Protobuf => self.request.decode(&bytes.into()),
            Form::Csv => {
                let mut decoding = self.request.start();
                let ignored = |field: &FieldDescriptor| self.is_ignored(field);
                each_row(&bytes, &self.request_row, &ignored, |row| {
                    decoding.row(&Bytes::copy_from_slice(row))
                })?;
                decoding.finish()
            }
        }
    }

    /// A whole answer in any form.
    ///
    /// # Errors
    /// `MODEL_FAILED` if a value has no place in its field.
    pub fn response(&self, form: Form, tensors: &[&Tensor]) -> Result<Vec<u8>> {
        match form {
            Form::Json => self.response_to_json(self.response.encode(tensors)?.into()),
            Form::Protobuf => self.response.encode(tensors),
            Form::Csv => {
                let mut table = Table::new(Vec::new());
                table.write(self, tensors)?;
                table.finish(self)
            }
        }
    }
}

/// The protobuf bytes of a method's request, from another form. No model is needed.
///
/// # Errors
/// `BAD_JSON`, `BAD_CSV`.
pub fn convert(
    descriptor: &MethodDescriptor,
    form: Form,
    bytes: Vec<u8>,
    limits: &Limits,
) -> Result<Vec<u8>> {
    let message = descriptor.input();
    match form {
        Form::Protobuf => Ok(bytes),
        Form::Json => json::read(&message, &bytes, limits.json_values),
        Form::Csv => {
            let (path, row) = rows(&message);
            let tags: Vec<Vec<u8>> = path.iter().map(|field| tag(field.number(), WireType::Length)).collect();
            let Some((last, around)) = tags.split_last() else { return single(&bytes, &row) };
            let mut out = Vec::new();
            each_row(&bytes, &row, &|_| false, |row| {
                out.extend_from_slice(last);
                put_bytes(row, &mut out);
                Ok(())
            })?;
            for tag in around.iter().rev() {
                let mut outer = tag.clone();
                put_bytes(&out, &mut outer);
                out = outer;
            }
            Ok(out)
        }
    }
}

/// Where a message holds rows, as far as that shows without a model; and what one is.
fn rows(message: &MessageDescriptor) -> (Vec<FieldDescriptor>, MessageDescriptor) {
    let (mut path, mut at) = (Vec::new(), message.clone());
    for _ in 0..16 {
        let mut fields = at.fields();
        let (Some(field), None) = (fields.next(), fields.next()) else { break };
        let Kind::Message(inner) = field.kind() else { break };
        if field.is_map() || is_well_known(&inner) {
            break;
        }
        drop(fields);
        path.push(field.clone());
        at = inner;
        if field.is_list() {
            return (path, at);
        }
    }
    (Vec::new(), message.clone())
}

/// A file that is one message: one record, or a data frame's.
fn single(bytes: &[u8], message: &MessageDescriptor) -> Result<Vec<u8>> {
    let columns = message.fields().all(|field| field.is_list());
    let mut out = Vec::new();
    let mut count = 0;
    each_row(bytes, message, &|_| false, |row| {
        count += 1;
        out.extend_from_slice(row);
        Ok(())
    })?;
    if count == 1 || columns {
        return Ok(out);
    }
    Err(Error::new(
        Code::BadCsv,
        format!(
            "{} holds one row, the file has {count}; choose a method that takes a batch",
            message.full_name()
        ),
    ))
}

fn each_row(
    bytes: &[u8],
    row: &MessageDescriptor,
    ignored: &dyn Fn(&FieldDescriptor) -> bool,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut records = ::csv::Reader::from_reader(Guard::new(bytes));
    let header = records.headers().map_err(CsvError::from)?.clone();
    let columns = RecordReader::new(row, &header, ignored)?;
    let mut message = Vec::new();
    for record in records.records() {
        message.clear();
        columns.read(&record.map_err(CsvError::from)?, &mut message)?;
        take(&message)?;
    }
    Ok(())
}

impl Schema {
    /// The method of this name: `Method`, `Service/Method` or `/package.Service/Method`; the only one if none is given.
    ///
    /// # Errors
    /// `BAD_REQUEST` with the names that there are.
    pub fn method(&self, name: Option<&str>) -> Result<MethodDescriptor> {
        let all: Vec<MethodDescriptor> =
            self.file().services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
        let path =
            |method: &MethodDescriptor| format!("{}/{}", method.parent_service().full_name(), method.name());
        let named: Vec<&MethodDescriptor> = match name {
            None => all.iter().collect(),
            Some(name) => {
                let name = name.trim_start_matches('/');
                let is_meant = |method: &&MethodDescriptor| {
                    let path = path(method);
                    method.name() == name || path == name || path.ends_with(&format!(".{name}"))
                };
                all.iter().filter(is_meant).collect()
            }
        };
        match named.as_slice() {
            [method] => Ok((*method).clone()),
            _ => Err(Error::new(
                Code::BadRequest,
                format!(
                    "say which method is meant; there are {:?}",
                    all.iter().map(path).collect::<Vec<_>>()
                ),
            )),
        }
    }
}
