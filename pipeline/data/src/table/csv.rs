//! CSV and its siblings, after RFC 4180: cells in double quotes may hold delimiters, line ends, and quotes written twice.
//!
//! Not by the `csv` crate, which takes whatever comes: a cell whose quotes are not closed swallows the rest of the file,
//! and a checker must tell that from a long cell. Lines end with LF, CRLF or CR; blank lines are skipped.

use super::{Cells, Raw, check_names};
use crate::finding::{Code, Finding, MOST_ROWS, Rows, shown};
use crate::policy::Limits;

/// What stands after a cell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Cell,
    Line,
    End,
}

/// Splits text into cells.
struct Splitter<'a> {
    text: &'a str,
    at: usize,
    delimiter: u8,
    /// Of the next cell, from 1.
    line: u32,
}

/// A cell that is not one.
struct Fault {
    line: u32,
    text: &'static str,
}

impl<'a> Splitter<'a> {
    /// The next cell's text, appended to `cell`, and what stands after it.
    fn next(&mut self, cell: &mut String) -> Result<After, Fault> {
        let bytes = self.text.as_bytes();
        let begin = self.line;
        if bytes.get(self.at) == Some(&b'"') {
            self.at += 1;
            loop {
                let rest = bytes.get(self.at..).unwrap_or_default();
                let Some(quote) = rest.iter().position(|byte| *byte == b'"') else {
                    return Err(Fault { line: begin, text: "a quoted cell that begins here does not end" });
                };
                let part = self.text.get(self.at..self.at + quote).unwrap_or_default();
                self.line += lines(part);
                cell.push_str(part);
                self.at += quote + 1;
                if bytes.get(self.at) != Some(&b'"') {
                    break;
                }
                cell.push('"');
                self.at += 1;
            }
            return match bytes.get(self.at) {
                Some(byte) if *byte != self.delimiter && *byte != b'\n' && *byte != b'\r' => Err(Fault {
                    line: self.line,
                    text: "text after the end of a quoted cell; a quote inside of one is written twice",
                }),
                _ => Ok(self.after()),
            };
        }
        let rest = bytes.get(self.at..).unwrap_or_default();
        let ends = |byte: &u8| *byte == self.delimiter || *byte == b'\n' || *byte == b'\r';
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        cell.push_str(self.text.get(self.at..self.at + length).unwrap_or_default());
        self.at += length;
        Ok(self.after())
    }

    fn after(&mut self) -> After {
        let bytes = self.text.as_bytes();
        match bytes.get(self.at) {
            None => After::End,
            Some(byte) if *byte == self.delimiter => {
                self.at += 1;
                After::Cell
            }
            Some(byte) => {
                self.at += 1;
                if *byte == b'\r' && bytes.get(self.at) == Some(&b'\n') {
                    self.at += 1;
                }
                self.line += 1;
                After::Line
            }
        }
    }

    /// Goes over line ends to the next text; false at the end.
    fn skip_blank(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        while let Some(b'\n' | b'\r') = bytes.get(self.at) {
            self.after();
        }
        self.at < bytes.len()
    }
}

fn lines(text: &str) -> u32 {
    let bytes = text.as_bytes();
    let lone = |at: &usize| bytes[*at] == b'\r' && bytes.get(at + 1) != Some(&b'\n');
    (0..bytes.len()).filter(|at| bytes[*at] == b'\n' || lone(at)).count() as u32
}

/// Reads all rows.
///
/// # Errors
/// Everything that is wrong with header and rows, each kind of fault once with the rows that have it.
pub(super) fn read(text: &str, delimiter: char, limits: &Limits) -> Result<Raw, Vec<Finding>> {
    let delimiter = u8::try_from(delimiter).unwrap_or(b',');
    let mut splitter = Splitter { text, at: 0, delimiter, line: 1 };
    let quotes =
        |fault: &Fault| Finding::new(Code::BadQuotes, format!("line {}: {}", fault.line, fault.text));
    let names = header(&mut splitter, limits).map_err(|found| match found {
        Ok(fault) => vec![quotes(&fault)],
        Err(findings) => findings,
    })?;
    let mut raw = Raw { cells: vec![Cells::default(); names.len()], names, ..Raw::default() };
    let mut faults: Vec<Finding> = Vec::new();
    let (mut ragged, mut ragged_text, mut huge) = (Rows::default(), String::new(), Rows::default());
    let mut huge_text = String::new();
    let mut cell = String::new();
    let mut rows = 0_usize;
    while splitter.skip_blank() {
        let line = splitter.line;
        if rows as u64 >= limits.max_rows {
            let text = format!("more than {} rows, which is max_rows", limits.max_rows);
            faults.push(Finding::new(Code::TooManyRows, text));
            break;
        }
        if (rows as u64 + 1) * raw.names.len() as u64 > limits.max_cells {
            let text = format!("more than {} cells, which is max_cells", limits.max_cells);
            faults.push(Finding::new(Code::TooManyCells, text));
            break;
        }
        let mut column = 0;
        loop {
            cell.clear();
            let after = match splitter.next(&mut cell) {
                Ok(after) => after,
                Err(fault) => {
                    faults.push(quotes(&fault));
                    return Err(faults);
                }
            };
            if cell.len() as u64 > limits.max_cell_bytes {
                if huge.is_empty() {
                    let name = raw.names.get(column).map(|name| shown(name)).unwrap_or_default();
                    let most = limits.max_cell_bytes;
                    huge_text = format!(
                        "line {line}, column {name}: a cell of {} bytes, max_cell_bytes is {most}",
                        cell.len()
                    );
                }
                huge.add(rows);
            }
            if let Some(cells) = raw.cells.get_mut(column) {
                cells.push(&cell);
            }
            column += 1;
            if after != After::Cell {
                break;
            }
        }
        if column != raw.names.len() {
            if ragged.is_empty() {
                ragged_text = format!(
                    "row {} (line {line}) has {column} cells, the header has {}",
                    rows + 1,
                    raw.names.len()
                );
            }
            ragged.add(rows);
            // The table is refused; what is still looked for are further faults, in columns of one length.
            for cells in raw.cells.iter_mut().filter(|cells| cells.len() <= rows) {
                cells.push("");
            }
        }
        raw.lines.push(line);
        rows += 1;
    }
    if !ragged.is_empty() {
        let text = match ragged.count {
            1 => ragged_text,
            count => format!("{count} rows have more or fewer cells than the header; {ragged_text}"),
        };
        faults.push(Finding::new(Code::RaggedRows, text).at(&ragged));
    }
    if !huge.is_empty() {
        faults.push(Finding::new(Code::CellTooLarge, huge_text).at(&huge));
    }
    if faults.is_empty() { Ok(raw) } else { Err(faults) }
}

/// The names of the columns, or what is wrong: a fault of quotes (`Ok`), or findings.
fn header(splitter: &mut Splitter<'_>, limits: &Limits) -> Result<Vec<String>, Result<Fault, Vec<Finding>>> {
    splitter.skip_blank();
    let mut names = Vec::new();
    loop {
        let mut name = String::new();
        let after = splitter.next(&mut name).map_err(Ok)?;
        names.push(name.trim().to_owned());
        // Enough to say that there are too many.
        if names.len() as u64 > limits.max_columns + MOST_ROWS as u64 {
            break;
        }
        if after != After::Cell {
            break;
        }
    }
    let findings = check_names(&names, limits);
    if !findings.is_empty() {
        return Err(Err(findings));
    }
    if looks_like_data(&names) {
        let text = "the first line has nothing but numbers; it must name the columns";
        return Err(Err(vec![Finding::new(Code::HeaderMissing, text)]));
    }
    Ok(names)
}

/// Nothing but numbers, and not the positions that pandas gives as names to columns without any.
fn looks_like_data(names: &[String]) -> bool {
    let numbers: Option<Vec<f64>> = names.iter().map(|name| name.parse().ok()).collect();
    let Some(numbers) = numbers else { return false };
    let counts_from =
        |first: f64| numbers.iter().enumerate().all(|(at, number)| *number == first + at as f64);
    !counts_from(0.0) && !counts_from(1.0)
}
