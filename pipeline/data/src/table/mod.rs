//! A file's rows as typed columns.
//!
//! A column keeps the text of all its cells in one string with the end of each: a vector of strings costs three words a
//! cell. Beside the text, columns of numbers and times keep the numbers. Rows that cannot be read are not kept; what is wrong with
//! them is in the findings, and the file is rejected.

mod csv;
mod json_lines;
mod kind;

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use crate::finding::{Code, Finding, Rows, shown};
use crate::policy::{Limits, Policy};
use crate::sniff::{Format, Sniffed};

pub use kind::Kind;

/// Cells of one column: their text end to end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cells {
    text: String,
    ends: Vec<u32>,
}

impl Cells {
    pub(crate) fn push(&mut self, cell: &str) {
        self.text.push_str(cell);
        // A file has at most 1 GiB (`Policy::checked`).
        self.ends.push(self.text.len() as u32);
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, row: usize) -> &str {
        let Some(&end) = self.ends.get(row) else { return "" };
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }
}

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    cells: Cells,
    /// Of a column of numbers or times, one a row: NaN for no value, and for a cell that is of another type. Else empty.
    numbers: Vec<f64>,
    is_null: Vec<bool>,
    /// Rows whose cells are not of the column's type.
    pub(crate) misfits: Rows,
    pub(crate) nulls: u64,
}

impl Column {
    /// The text of a cell, as it came.
    pub fn cell(&self, row: usize) -> &str {
        self.cells.get(row)
    }

    /// Has the cell no value?
    pub fn is_null(&self, row: usize) -> bool {
        self.is_null.get(row).copied().unwrap_or(true)
    }

    /// The values of a column of numbers or times, one a row, NaN where there is none; empty for other columns.
    pub(crate) fn numbers(&self) -> &[f64] {
        &self.numbers
    }

    /// The values without those that are not there.
    pub(crate) fn values(&self) -> Vec<f64> {
        self.numbers.iter().copied().filter(|value| value.is_finite()).collect()
    }
}

/// A table in memory.
#[derive(Debug, Clone)]
pub struct Table {
    pub columns: Vec<Column>,
    /// Positions by name.
    positions: HashMap<String, usize>,
    rows: usize,
    /// The line of the file that each row begins in.
    lines: Vec<u32>,
}

/// What a reader of one format hands over.
#[derive(Debug, Default)]
struct Raw {
    names: Vec<String>,
    cells: Vec<Cells>,
    lines: Vec<u32>,
    findings: Vec<Finding>,
}

/// Reads a table. The findings are reasons for rejection if there is no table, and warnings otherwise.
///
/// # Errors
/// All that is wrong with the file's form.
pub fn read(sniffed: &Sniffed<'_>, policy: &Policy) -> Result<(Table, Vec<Finding>), Vec<Finding>> {
    let raw = match (sniffed.content.format, sniffed.content.delimiter) {
        (Format::Csv, delimiter) => csv::read(&sniffed.text, delimiter.unwrap_or(','), &policy.limits)?,
        (Format::JsonLines, _) => json_lines::read(&sniffed.text, &policy.limits)?,
    };
    let rows = raw.lines.len();
    if rows == 0 {
        return Err(vec![Finding::new(Code::NoRows, "there is a header, and no row follows")]);
    }
    if (rows as u64) < policy.limits.min_rows {
        let text = format!("{rows} rows, min_rows is {}", policy.limits.min_rows);
        return Err(vec![Finding::new(Code::TooFewRows, text)]);
    }
    let columns: Vec<Column> = raw
        .names
        .into_iter()
        .zip(raw.cells)
        .map(|(name, cells)| {
            let rules = policy.column(&name);
            kind::typed(name, cells, rules, &policy.null_values)
        })
        .collect();
    let positions = columns.iter().enumerate().map(|(at, column)| (column.name.clone(), at)).collect();
    let table = Table { columns, positions, rows, lines: raw.lines };
    let mut findings = raw.findings;
    findings.extend(header_like_data(&table));
    findings.extend(suspicious_cells(&table));
    Ok((table, findings))
}

impl Table {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The line of the file that a row begins in, from 1.
    pub fn line(&self, row: usize) -> u64 {
        self.lines.get(row).copied().unwrap_or_default().into()
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.get(self.position(name)?)
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }

    /// A hash of every row: of its cells in these columns with their names, in the order of the names, so that columns may
    /// change places. Cells are hashed as they are written, without blanks around them: `1` and `1.0` differ.
    pub(crate) fn row_hashes(&self, names: &[&str]) -> Vec<u128> {
        let mut columns: Vec<&Column> = names.iter().filter_map(|name| self.column(name)).collect();
        columns.sort_by(|one, other| one.name.cmp(&other.name));
        let mut start = Sha256::new();
        for column in &columns {
            start.update((column.name.len() as u64).to_le_bytes());
            start.update(column.name.as_bytes());
        }
        (0..self.rows)
            .map(|row| {
                let mut hash = start.clone();
                for column in &columns {
                    let cell = column.cell(row).trim();
                    hash.update((cell.len() as u64).to_le_bytes());
                    hash.update(cell.as_bytes());
                }
                first_bytes(hash)
            })
            .collect()
    }

    /// The names of all columns.
    pub fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.name.as_str()).collect()
    }
}

/// The first 16 bytes of a hash, as a number.
pub(crate) fn first_bytes(hash: Sha256) -> u128 {
    let digest = hash.finalize();
    digest.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Names of columns that cannot be: refused, not repaired, since a guess would name the wrong column.
fn check_names(names: &[String], limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    if names.len() as u64 > limits.max_columns {
        findings.push(Finding::new(
            Code::TooManyColumns,
            format!("{} columns, max_columns is {}", names.len(), limits.max_columns),
        ));
        return findings;
    }
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (at, name) in names.iter().enumerate() {
        if name.is_empty() {
            findings.push(Finding::new(
                Code::HeaderEmpty,
                format!("column {} has no name (pandas writes one for its index: use index=False)", at + 1),
            ));
        } else if let Some(first) = seen.insert(name, at) {
            let text = format!("columns {} and {} are both called {:?}", first + 1, at + 1, shown(name));
            findings.push(Finding::new(Code::HeaderDuplicate, text).in_column(name));
        }
        if findings.len() >= crate::finding::MOST_ROWS {
            break;
        }
    }
    findings
}

/// Columns whose names are values of their type. Not refused: a year may be the name of a column. The names that pandas
/// gives to columns without any count from 0.
fn header_like_data(table: &Table) -> Option<Finding> {
    let counted = table.columns.iter().enumerate().all(|(at, column)| column.name == at.to_string());
    let like: Vec<&Column> =
        table.columns.iter().filter(|column| !counted && kind::fits(column.kind, &column.name)).collect();
    let first = like.first()?;
    let text = format!(
        "{} columns are called like their values (the first is {:?}); if the first line is data, put a header before it",
        like.len(),
        shown(&first.name)
    );
    Some(Finding::new(Code::HeaderLikeData, text).in_column(&first.name))
}

/// Cells and names that harm somebody else: spreadsheets run formulas, terminals obey control characters.
fn suspicious_cells(table: &Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_formula = |cell: &str| {
        let cell = cell.trim_start();
        cell.starts_with(['=', '+', '-', '@']) && cell.len() > 1 && cell.trim_end().parse::<f64>().is_err()
    };
    for column in &table.columns {
        if is_formula(&column.name) {
            let text =
                format!("a spreadsheet would run the column's name {:?} as a formula", shown(&column.name));
            findings.push(Finding::new(Code::Formula, text).in_column(&column.name));
        }
        if !column.numbers.is_empty() && column.misfits.is_empty() {
            continue;
        }
        let (mut formulas, mut controls) = (Rows::default(), Rows::default());
        for row in 0..table.rows {
            let cell = column.cell(row);
            if is_formula(cell) {
                formulas.add(row);
            }
            if cell.bytes().any(|byte| byte < 0x20 && !matches!(byte, b'\n' | b'\r' | b'\t') || byte == 0x7f)
            {
                controls.add(row);
            }
        }
        for (code, rows, text) in [
            (Code::Formula, formulas, "a spreadsheet would run the cells as formulas"),
            (Code::ControlCharacters, controls, "cells with control characters"),
        ] {
            if !rows.is_empty() {
                let text = format!("{}: {text}", rows.text());
                findings.push(Finding::new(code, text).in_column(&column.name).at(&rows));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests;
