//! JSON lines: an object a line, its members the columns. A member that is absent is an empty cell. Numbers stay as they
//! are written, so that nothing is rounded.

use std::collections::HashMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::{Cells, Raw, check_names};
use crate::finding::{Code, Finding, Rows, shown};
use crate::policy::Limits;

/// Members of one object: what no policy may allow more columns of. One line may be the whole file.
const MOST_MEMBERS: usize = crate::policy::MOST_COLUMNS as usize;

/// The members of an object in their order, duplicates too, which a map would swallow; one more than [`MOST_MEMBERS`] at most.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while members.len() <= MOST_MEMBERS
                    && let Some(member) = map.next_entry()?
                {
                    members.push(member);
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object).map(Members)
    }
}

/// Reads all lines.
///
/// # Errors
/// Everything that is wrong, each kind of fault once with the rows that have it.
pub(super) fn read(text: &str, limits: &Limits) -> Result<Raw, Vec<Finding>> {
    let mut raw = Raw::default();
    let mut positions: HashMap<String, usize> = HashMap::new();
    let (mut bad, mut nested, mut huge) = (Faults::default(), Faults::default(), Faults::default());
    let mut zero = Faults::default();
    let mut ends = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row = raw.lines.len();
        raw.lines.push(at as u32 + 1);
        if row as u64 >= limits.max_rows {
            let text = format!("more than {} rows, which is max_rows", limits.max_rows);
            ends.push(Finding::new(Code::TooManyRows, text));
            break;
        }
        let members: Members<'_> = match serde_json::from_str(line) {
            Ok(members) => members,
            Err(error) => {
                // The error's own text quotes values, which may be private.
                let what = match error.classify() {
                    Category::Eof => "it ends within a value",
                    Category::Data => "it is another value",
                    Category::Syntax | Category::Io => "it is no JSON",
                };
                bad.add(row, || {
                    format!("line {}: no JSON object ({what}, column {})", at + 1, error.column())
                });
                continue;
            }
        };
        if members.0.len() > MOST_MEMBERS {
            bad.add(row, || format!("line {}: more than {MOST_MEMBERS} members", at + 1));
            continue;
        }
        for (member, (name, value)) in members.0.into_iter().enumerate() {
            let column = *positions.entry(name).or_insert_with_key(|name| {
                raw.names.push(name.clone());
                raw.cells.push(Cells::default());
                raw.names.len() - 1
            });
            let cells = &mut raw.cells[column];
            if cells.len() > row {
                bad.add(row, || format!("line {}: member {} is there twice", at + 1, member + 1));
                continue;
            }
            let name = &raw.names[column];
            let cell = match cell(value.get()) {
                Cell::Text(cell) => cell,
                Cell::Nested => {
                    nested.add(row, || {
                        let name = shown(name);
                        format!("line {}: {name:?} is an object or a list; a cell is one value", at + 1)
                    });
                    continue;
                }
                Cell::NoText => {
                    bad.add(row, || {
                        format!("line {}: member {} has half of a surrogate pair", at + 1, member + 1)
                    });
                    continue;
                }
            };
            // An escape can write what no text file holds, and the parts, CSV, would hold it.
            if cell.contains('\0') || name.contains('\0') {
                zero.add(row, || format!("line {}: member {} has a zero byte (\\u0000)", at + 1, member + 1));
                continue;
            }
            if cell.len() as u64 > limits.max_cell_bytes {
                huge.add(row, || {
                    let most = limits.max_cell_bytes;
                    format!("line {}: a cell of {} bytes, max_cell_bytes is {most}", at + 1, cell.len())
                });
                continue;
            }
            fill(cells, row);
            cells.push(&cell);
        }
        // A hostile line must not make more columns than the next check finds.
        if raw.names.len() as u64 > limits.max_columns {
            break;
        }
        if (row as u64 + 1) * raw.names.len() as u64 > limits.max_cells {
            let text = format!("more than {} cells, which is max_cells", limits.max_cells);
            ends.push(Finding::new(Code::TooManyCells, text));
            break;
        }
    }
    let rows = raw.lines.len();
    let mut findings = check_names(&raw.names, limits);
    findings.extend(ends);
    findings.extend(bad.finding(Code::BadJson));
    findings.extend(nested.finding(Code::Nested));
    findings.extend(zero.finding(Code::NulBytes));
    findings.extend(huge.finding(Code::CellTooLarge));
    if raw.names.is_empty() && findings.is_empty() {
        findings.push(Finding::new(Code::HeaderEmpty, "the objects have no members"));
    }
    if !findings.is_empty() {
        return Err(findings);
    }
    for cells in &mut raw.cells {
        fill(cells, rows);
    }
    Ok(raw)
}

/// Empty cells up to this row.
fn fill(cells: &mut Cells, row: usize) {
    while cells.len() < row {
        cells.push("");
    }
}

/// What a value is as a cell.
enum Cell {
    Text(String),
    /// An object or a list.
    Nested,
    /// A string with an escape that stands for no character: the grammar of JSON allows it, Unicode does not.
    NoText,
}

fn cell(raw: &str) -> Cell {
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).map_or(Cell::NoText, Cell::Text),
        Some(b'{' | b'[') => Cell::Nested,
        Some(b'n') => Cell::Text(String::new()),
        _ => Cell::Text(raw.to_owned()),
    }
}

/// Faults of one kind: the first is told, all are counted.
#[derive(Default)]
struct Faults {
    rows: Rows,
    text: String,
}

impl Faults {
    fn add(&mut self, row: usize, text: impl FnOnce() -> String) {
        if self.rows.is_empty() {
            self.text = text();
        }
        self.rows.add(row);
    }

    fn finding(self, code: Code) -> Option<Finding> {
        let text = match self.rows.count {
            0 => return None,
            1 => self.text,
            count => format!("{count} rows; {}", self.text),
        };
        Some(Finding::new(code, text).at(&self.rows))
    }
}
