//! Training and holdout parts.
//!
//! A row's side follows from its key, or without a key from all its cells: as the dataset grows or is sorted anew, no row
//! changes sides, and without a key copies of a row never stand on both. What the policy wants done to outliers is done to the training
//! part alone: a holdout without them would flatter every model.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::finding::{Code, Finding, shown};
use crate::outliers::Outcome;
use crate::policy::{Action, Policy};
use crate::stats;
use crate::table::{Kind, Table, first_bytes};

/// What became of the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitReport {
    pub training_rows: u64,
    pub holdout_rows: u64,
    /// Marked rows that the training part lacks.
    pub dropped_rows: u64,
    /// Cells of the training part that were replaced.
    pub imputed_cells: u64,
}

/// The parts as CSV, with commas and a header.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) training: Vec<u8>,
    pub(crate) holdout: Vec<u8>,
    pub(crate) report: SplitReport,
    pub(crate) reasons: Vec<Finding>,
    pub(crate) warnings: Vec<Finding>,
}

pub(crate) fn split(table: &Table, hashes: &[u128], outliers: &Outcome, policy: &Policy) -> Parts {
    let is_held = held(table, hashes, policy);
    let dropped = |row: usize| outliers.report.action == Action::Drop && outliers.marked[row];
    let training: Vec<usize> = (0..table.rows()).filter(|row| !is_held[*row] && !dropped(*row)).collect();
    let holdout: Vec<usize> = (0..table.rows()).filter(|row| is_held[*row]).collect();
    let replaced = match outliers.report.action {
        Action::Impute => replacements(table, &training, outliers, policy),
        Action::Annotate | Action::Drop | Action::Reject => HashMap::new(),
    };
    let mut parts = Parts {
        training: csv(table, &training, &replaced),
        holdout: csv(table, &holdout, &HashMap::new()),
        report: SplitReport {
            training_rows: training.len() as u64,
            holdout_rows: holdout.len() as u64,
            dropped_rows: (table.rows() - training.len() - holdout.len()) as u64,
            imputed_cells: replaced.len() as u64,
        },
        reasons: Vec::new(),
        warnings: Vec::new(),
    };
    let empty = match (training.is_empty(), holdout.is_empty() && policy.holdout > 0.0) {
        (true, _) => Some("training"),
        (false, true) => Some("the holdout"),
        (false, false) => None,
    };
    if let Some(part) = empty {
        let text = format!(
            "of {} rows none is left for {part} (holdout = {}); more rows are needed, or another share",
            table.rows(),
            policy.holdout
        );
        parts.reasons.push(Finding::new(Code::SplitEmpty, text));
    } else if policy.holdout > 0.0 {
        parts.warnings.extend(lonely_classes(table, &training, &holdout, policy));
    }
    parts
}

/// Which rows are held out: those whose hash, as a share of all hashes, is below the policy's share. A small table may have
/// none on one side by chance; then those with the hash that is nearest to it change sides.
fn held(table: &Table, hashes: &[u128], policy: &Policy) -> Vec<bool> {
    let by_key: Vec<u128>;
    let hashes = match policy.key.as_deref().and_then(|key| table.column(key)) {
        Some(key) => {
            let hash = |row| first_bytes(Sha256::new_with_prefix(key.cell(row).trim()));
            by_key = (0..table.rows()).map(hash).collect();
            &by_key
        }
        None => hashes,
    };
    let bound = policy.holdout * (u64::MAX as f64);
    let mut is_held: Vec<bool> = hashes.iter().map(|hash| ((hash >> 64) as u64 as f64) < bound).collect();
    let held = is_held.iter().filter(|is_held| **is_held).count();
    let lonely = match () {
        () if policy.holdout <= 0.0 || hashes.iter().min() == hashes.iter().max() => None,
        () if held == 0 => hashes.iter().min(),
        () if held == hashes.len() => hashes.iter().max(),
        () => None,
    };
    for (row, _) in hashes.iter().enumerate().filter(|(_, hash)| lonely == Some(*hash)) {
        is_held[row] = held == 0;
    }
    is_held
}

/// Values for cells, by row and column's position.
type Replaced = HashMap<(usize, usize), String>;

/// For every marked cell of the training part the column's median over rows that are not marked; of whole numbers the
/// lower one, so that it is whole too.
fn replacements(table: &Table, training: &[usize], outliers: &Outcome, policy: &Policy) -> Replaced {
    let training_rows: BTreeSet<usize> = training.iter().copied().collect();
    let mut medians: HashMap<&str, Option<String>> = HashMap::new();
    let mut replaced = HashMap::new();
    for (row, name) in outliers.cells.iter().filter(|(row, _)| training_rows.contains(row)) {
        let Some(position) = table.position(name) else { continue };
        let column = &table.columns[position];
        if policy.is_label(name) || policy.is_key(name) || column.is_null(*row) {
            continue;
        }
        let median = medians.entry(&column.name).or_insert_with(|| {
            let values: Vec<f64> = training
                .iter()
                .filter(|row| !outliers.marked[**row])
                .filter_map(|row| column.numbers().get(*row).copied().filter(|value| value.is_finite()))
                .collect();
            let sorted = stats::sorted(&values);
            let last = sorted.len().checked_sub(1)?;
            Some(match column.kind {
                Kind::Integer => format!("{}", sorted[last / 2] as i64),
                _ => format!("{}", stats::quantile(&sorted, 0.5)),
            })
        });
        if let Some(median) = median {
            replaced.insert((*row, position), median.clone());
        }
    }
    replaced
}

/// Rows as CSV. Cells are as they came; those that stand for no value are empty, for readers who know no `null_values`.
pub(crate) fn csv(table: &Table, rows: &[usize], replaced: &Replaced) -> Vec<u8> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    // Memory takes everything, and the records are of one length: there is nothing that can fail.
    let _ = writer.write_record(table.columns.iter().map(|column| column.name.as_str()));
    for row in rows {
        let cells = table.columns.iter().enumerate().map(|(position, column)| {
            let cell = || if column.is_null(*row) { "" } else { column.cell(*row) };
            replaced.get(&(*row, position)).map_or_else(cell, String::as_str)
        });
        let _ = writer.write_record(cells);
    }
    writer.into_inner().unwrap_or_default()
}

/// Labels that one of the parts lacks. None for a label that is a number with many values.
fn lonely_classes(table: &Table, training: &[usize], holdout: &[usize], policy: &Policy) -> Vec<Finding> {
    const MOST_CLASSES: usize = 100;
    let Some(label) = policy.label.as_deref().and_then(|label| table.column(label)) else {
        return Vec::new();
    };
    let classes = |rows: &[usize]| -> BTreeSet<&str> {
        rows.iter().filter(|row| !label.is_null(**row)).map(|row| label.cell(*row).trim()).collect()
    };
    let (learnt, held) = (classes(training), classes(holdout));
    if learnt.union(&held).count() > MOST_CLASSES
        || label.kind == Kind::Number
        || policy.is_masked(&label.name)
    {
        return Vec::new();
    }
    let lacks = |class: &&str, part: &str| {
        let text = format!("the label {:?} does not occur in {part}", shown(class));
        Finding::new(Code::LabelUnsplit, text).in_column(&label.name)
    };
    let unlearnt = held.difference(&learnt).map(|class| lacks(class, "the training part"));
    let unheld = learnt.difference(&held).map(|class| lacks(class, "the holdout"));
    unlearnt.chain(unheld).collect()
}
