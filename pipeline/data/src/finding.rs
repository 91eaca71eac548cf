//! What a check can have to say: a closed list of codes, each with a line in `docs/dataset-checks.md`.

use serde::{Deserialize, Serialize};

/// Rows that a finding lists; it counts all.
pub(crate) const MOST_ROWS: usize = 20;

macro_rules! codes {
    ($($variant:ident $id:literal $meaning:literal)*) => {
        /// What was found.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $(#[doc = $meaning] #[serde(rename = $id)] $variant,)*
        }

        impl Code {
            /// All codes.
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            /// The code as it is written.
            pub fn id(self) -> &'static str {
                match self { $(Code::$variant => $id,)* }
            }

            /// What it means, in a line.
            pub fn meaning(self) -> &'static str {
                match self { $(Code::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    EmptyFile "EMPTY_FILE" "there is nothing in the file"
    NoRows "NO_ROWS" "there is a header and no row"
    TooLarge "TOO_LARGE" "the file, or what it unpacks to, is larger than max_bytes"
    ArchiveBomb "ARCHIVE_BOMB" "a compressed file that unpacks to far more than a dataset would"
    Damaged "DAMAGED" "a compressed file that ends early or does not fit its checksum"
    WrongFormat "WRONG_FORMAT" "the content is not what the file's name says"
    FormatUnsupported "FORMAT_UNSUPPORTED" "a format of data that is not read here"
    Pickle "PICKLE" "a Python pickle, or something that holds one: loading it runs code"
    Executable "EXECUTABLE" "a program or a script"
    NulBytes "NUL_BYTES" "text with zero bytes"
    NotUtf8 "NOT_UTF8" "text in another encoding than UTF-8"
    Formula "FORMULA" "cells that a spreadsheet would run as formulas"
    ControlCharacters "CONTROL_CHARACTERS" "cells with control characters"
    RaggedRows "RAGGED_ROWS" "rows with more or fewer cells than the header"
    BadQuotes "BAD_QUOTES" "a quoted cell that does not end, or goes on after its end"
    BadJson "BAD_JSON" "a line that is no JSON object, or names a member twice"
    Nested "NESTED" "a value that is an object or a list"
    HeaderDuplicate "HEADER_DUPLICATE" "two columns with one name"
    HeaderEmpty "HEADER_EMPTY" "a column without a name"
    HeaderMissing "HEADER_MISSING" "the first line looks like data"
    HeaderLikeData "HEADER_LIKE_DATA" "a column whose name is a value of its type: is the header missing?"
    TooManyColumns "TOO_MANY_COLUMNS" "more columns than max_columns"
    TooManyRows "TOO_MANY_ROWS" "more rows than max_rows"
    TooManyCells "TOO_MANY_CELLS" "more cells than max_cells"
    TooFewRows "TOO_FEW_ROWS" "fewer rows than min_rows"
    CellTooLarge "CELL_TOO_LARGE" "a cell larger than max_cell_bytes"
    ColumnMissing "COLUMN_MISSING" "a column that the policy requires is not there"
    ColumnExtra "COLUMN_EXTRA" "a column that the policy does not name"
    BadType "BAD_TYPE" "cells that are not of the column's type"
    MixedTypes "MIXED_TYPES" "a few cells of another type than all the others of the column"
    BelowMin "BELOW_MIN" "values below min"
    AboveMax "ABOVE_MAX" "values above max"
    ValueUnknown "VALUE_UNKNOWN" "values that are not in values"
    PatternMismatch "PATTERN" "cells that the pattern does not fit"
    TooManyNulls "TOO_MANY_NULLS" "a larger share of empty cells than nulls"
    NotUnique "NOT_UNIQUE" "values that occur twice in a column that is unique"
    Constant "CONSTANT" "a column with one value only"
    NullColumn "NULL_COLUMN" "a column with no value at all"
    Contract "CONTRACT" "columns or cells that the model's contract does not take"
    ContractAbsent "CONTRACT_ABSENT" "there is no contract to compare with"
    KeyMissing "KEY_MISSING" "the key column is not there"
    KeyNull "KEY_NULL" "rows without a key"
    KeyDuplicate "KEY_DUPLICATE" "rows with one key"
    LabelMissing "LABEL_MISSING" "the label column is not there"
    LabelNull "LABEL_NULL" "rows without a label"
    LabelConstant "LABEL_CONSTANT" "one label only: nothing can be learnt"
    LabelNew "LABEL_NEW" "labels that the version before did not have"
    LabelGone "LABEL_GONE" "labels that only the version before had"
    DuplicateRows "DUPLICATE_ROWS" "rows that are equal in every cell"
    ColumnAdded "COLUMN_ADDED" "a column that the version before did not have"
    ColumnRemoved "COLUMN_REMOVED" "a column that only the version before had"
    ColumnRetyped "COLUMN_RETYPED" "a column of another type than in the version before"
    ColumnReordered "COLUMN_REORDERED" "the columns come in another order than in the version before"
    NoComparison "NO_COMPARISON" "the version before cannot be read"
    Drift "DRIFT" "a column is distributed otherwise than in the reference"
    Growth "GROWTH" "a size or number of rows unlike those of the versions before"
    Outliers "OUTLIERS" "a larger share of outliers than max_share"
    OutliersSkipped "OUTLIERS_SKIPPED" "a method that could not be used on this data"
    Sampled "SAMPLED" "a method that was used on a sample"
    OriginUnknown "ORIGIN_UNKNOWN" "the event's origin is none of the policy's: somebody must look"
    WrongDataset "WRONG_DATASET" "the policy is for another dataset"
    SplitEmpty "SPLIT_EMPTY" "no row is left for training, or none for the holdout"
    LabelUnsplit "LABEL_UNSPLIT" "a label that training or holdout lacks"
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub code: Code,
    /// For people; names places and expectations.
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The first of the rows concerned, counted from 1 without the header.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<u64>,
    /// How many rows are concerned; 0 if it is not about rows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub count: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Finding {
    /// A finding about the whole file.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), column: None, rows: Vec::new(), count: 0 }
    }

    /// The same, about a column.
    #[must_use]
    pub fn in_column(mut self, name: &str) -> Self {
        self.column = Some(shown(name));
        self
    }

    /// The same, about rows.
    #[must_use]
    pub(crate) fn at(mut self, rows: &Rows) -> Self {
        self.rows.clone_from(&rows.first);
        self.count = rows.count;
        self
    }
}

/// Rows that have something in common: all are counted, the first are kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rows {
    first: Vec<u64>,
    pub(crate) count: u64,
}

impl Rows {
    /// Adds the row at this position, from 0.
    pub(crate) fn add(&mut self, row: usize) {
        if self.first.len() < MOST_ROWS {
            self.first.push(row as u64 + 1);
        }
        self.count += 1;
    }

    /// The first of them, from 1.
    pub(crate) fn first(&self) -> &[u64] {
        &self.first
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// `row 3`, or `3 rows (1, 5, 9)`, for texts.
    pub(crate) fn text(&self) -> String {
        match (self.first.as_slice(), self.count) {
            ([one], 1) => format!("row {one}"),
            (first, count) => {
                let shown: Vec<String> = first.iter().take(5).map(u64::to_string).collect();
                let more = if count > 5 { ", ..." } else { "" };
                format!("{count} rows ({}{more})", shown.join(", "))
            }
        }
    }
}

/// A name or cell as it may stand in a text: on one line and not too long.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN: usize = 60;
    let line: String =
        text.chars().take(SHOWN).map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect();
    if text.chars().nth(SHOWN).is_some() { format!("{line}...") } else { line }
}
