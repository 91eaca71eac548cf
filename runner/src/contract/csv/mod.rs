//! CSV records and the messages they stand for: [`RecordReader`] turns records into protobuf bytes, [`RecordWriter`] and
//! [`ColumnWriter`] turn messages into records. What the columns are called is said in `docs/contracts.md`, "CSV".
//!
//! Nothing here reads a file or knows a model: splitting a file into records is the `csv` crate's work, and what the
//! bytes mean is the wire plan's. Reading ends in wire bytes rather than in a dynamic message because those bytes are
//! what the plan takes anyway, and a file may have a hundred million cells.

mod cell;
mod field;
mod guard;
mod read;
mod table;
#[cfg(test)]
mod tests;
mod write;

pub use guard::Guard;
pub use read::RecordReader;
pub use table::Table;
pub use write::{ColumnWriter, RecordWriter};

/// Characters shown of a cell or a column's name.
const SHOWN: usize = 60;

/// Why a header or a record cannot be read or written, in words for the sender of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CsvError {
    /// The line of the file, from 1, that the record begins in; `None` if the fault is in no line.
    pub line: Option<u64>,
    /// Names the line, the column and what was expected.
    pub text: String,
}

impl CsvError {
    fn new(text: impl Into<String>) -> Self {
        Self { line: None, text: text.into() }
    }

    fn at(line: Option<u64>, text: &str) -> Self {
        let place = line.map_or_else(String::new, |line| format!("line {line}, "));
        Self { line, text: format!("{place}{text}") }
    }
}

/// What the `csv` crate has to say about a file, in our words.
impl CsvError {
    /// The same, of a file whose last good record is in `line`, if nothing better is known.
    #[must_use]
    pub fn after(self, line: u64) -> Self {
        match self.line {
            Some(_) => self,
            None => Self { line: Some(line), text: format!("after line {line}: {}", self.text) },
        }
    }
}

impl From<::csv::Error> for CsvError {
    fn from(error: ::csv::Error) -> Self {
        use ::csv::ErrorKind;
        let line = error.position().map(::csv::Position::line);
        match error.kind() {
            ErrorKind::Utf8 { .. } => Self::at(line, "the text is not UTF-8"),
            ErrorKind::UnequalLengths { expected_len, len, .. } => {
                Self::at(line, &unequal(*len, *expected_len))
            }
            ErrorKind::Io(error) => Self::new(format!("the file cannot be read: {error}")),
            _ => Self::new(error.to_string()),
        }
    }
}

fn unequal(cells: impl std::fmt::Display, columns: impl std::fmt::Display) -> String {
    format!("the record has {cells} cells, the header has {columns}")
}

/// `text` as it may stand in a message: quoted, on one line, and not too long.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// A line's byte order mark is no part of the first column's name.
fn without_mark(name: &str) -> &str {
    name.strip_prefix('\u{feff}').unwrap_or(name)
}
