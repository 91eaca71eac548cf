//! Answers as a CSV table: a record for each row, whichever way the answer's message holds them.

use std::io::Write;

use bytes::Bytes;
use prost_reflect::DynamicMessage;

use super::{ColumnWriter, CsvError, RecordWriter};
use crate::contract::Method;
use crate::error::{Code, Error, Result};
use crate::tensor::Tensor;

/// A table being written.
pub struct Table<W: Write> {
    writer: ::csv::Writer<W>,
    rows: Option<RecordWriter>,
    columns: Option<ColumnWriter>,
    has_header: bool,
    record: ::csv::StringRecord,
}

impl<W: Write> Table<W> {
    /// A table without a header yet: it follows from the first row.
    pub fn new(to: W) -> Self {
        let writer = ::csv::Writer::from_writer(to);
        Self { writer, rows: None, columns: None, has_header: false, record: ::csv::StringRecord::new() }
    }

    /// Writes the rows of an answer; `tensors` are those of the method's [`crate::contract::Encoder::outputs`].
    ///
    /// # Errors
    /// `MODEL_FAILED` if the answer is no table, `STORE_IO` or `STORE_FULL` if it cannot be written.
    pub fn write(&mut self, method: &Method, tensors: &[&Tensor]) -> Result<()> {
        if !self.has_header && method.response.is_columns() {
            self.columns = ColumnWriter::new(&method.response_row).map_err(unwritable)?;
        }
        let decode = |bytes: Vec<u8>| {
            DynamicMessage::decode(method.response_row.clone(), Bytes::from(bytes))
                .map_err(|error| Error::new(Code::Internal, "an answer cannot be read back").caused_by(error))
        };
        if let Some(columns) = &self.columns {
            let message = decode(method.response.encode(tensors)?)?;
            if !self.has_header {
                put(&mut self.writer, &columns.header())?;
                self.has_header = true;
            }
            for row in 0..columns.rows(&message).map_err(unwritable)? {
                columns.write(&message, row, &mut self.record);
                put(&mut self.writer, &self.record)?;
            }
            return Ok(());
        }
        for bytes in method.response.encode_rows(tensors)? {
            let message = decode(bytes)?;
            if self.rows.is_none() {
                let rows = RecordWriter::new(&method.response_row, Some(&message)).map_err(unwritable)?;
                put(&mut self.writer, &rows.header())?;
                self.has_header = true;
                self.rows = Some(rows);
            }
            if let Some(rows) = &self.rows {
                rows.write(&message, &mut self.record).map_err(unwritable)?;
                put(&mut self.writer, &self.record)?;
            }
        }
        Ok(())
    }

    /// What was written; a header alone if there were no rows.
    ///
    /// # Errors
    /// `STORE_IO`, `STORE_FULL`.
    pub fn finish(mut self, method: &Method) -> Result<W> {
        if !self.has_header {
            let header = match ColumnWriter::new(&method.response_row) {
                Ok(Some(columns)) if method.response.is_columns() => Some(columns.header()),
                _ => RecordWriter::new(&method.response_row, None).ok().map(|rows| rows.header()),
            };
            if let Some(header) = header {
                put(&mut self.writer, &header)?;
            }
        }
        self.writer.into_inner().map_err(|error| cannot_write(error.into_error()))
    }
}

fn put<W: Write>(writer: &mut ::csv::Writer<W>, record: &::csv::StringRecord) -> Result<()> {
    writer.write_record(record).map_err(|error| cannot_write(std::io::Error::other(error)))
}

fn unwritable(error: CsvError) -> Error {
    Error::new(Code::ModelFailed, format!("the answer does not make a table: {}", error.text))
}

fn cannot_write(error: std::io::Error) -> Error {
    let code = if error.kind() == std::io::ErrorKind::StorageFull { Code::StoreFull } else { Code::StoreIo };
    Error::new(code, "the answers cannot be kept until they are sent").caused_by(error)
}

impl From<CsvError> for Error {
    fn from(error: CsvError) -> Self {
        Error::new(Code::BadCsv, error.text).with_details(serde_json::json!({ "line": error.line }))
    }
}
