//! What can be said of every column in numbers, and the bins that a later version is counted into.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::stats;
use crate::table::{Column, Kind, Table};

/// Different values that are counted; beyond, the count is a lower bound.
const MOST_DISTINCT: usize = 1_000_000;
/// Values of a category that have a count of their own; the rest is one.
const MOST_VALUES: usize = 50;
/// Bins of the drawing.
const SHAPE_BINS: usize = 24;
/// Numbers that may have a bin each, and the rows that there must be for each on average: deciles say more of fewer.
const MOST_ALONE: usize = 100;
const ROWS_ALONE: usize = 10;
/// Values that a label may have to count as classes.
const MOST_CLASSES: usize = 100;

/// Shares at which quantiles are told.
pub(crate) const QUANTILES: [f64; 7] = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];

/// All columns of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    pub rows: u64,
    /// Rows that are equal to one before them in every cell.
    pub duplicate_rows: u64,
    pub columns: Vec<ColumnProfile>,
    /// The label's values with their numbers of rows, most first; empty without a label, or if it has more than 100.
    pub classes: Vec<(String, u64)>,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnProfile {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub nulls: u64,
    /// Different values.
    pub distinct: u64,
    /// Are there more than `distinct`, which were not counted?
    pub distinct_more: bool,
    /// Numbers; times as seconds since 1970. `None` for other types, without values, and as all that follows of a column that
    /// the policy masks.
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub mean: Option<f64>,
    /// Of a sample: with n - 1.
    pub std: Option<f64>,
    /// At 1, 5, 25, 50, 75, 95 and 99 %, linear between values.
    pub quantiles: Vec<f64>,
    /// What the next version is compared by.
    pub histogram: Option<Histogram>,
    /// For drawing: bins of equal width.
    pub shape: Option<Shape>,
}

/// Counts in bins. They stay in the report, so that the next version is counted into the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Histogram {
    /// Bin i holds values above `edges[i-1]`, up to and with `edges[i]`; the first and last are open. The edges are the
    /// column's own quantiles, and those of values that many rows share (see [`edges`]).
    /// `nulls` are the rows without a number.
    Quantiles { edges: Vec<f64>, counts: Vec<u64>, nulls: u64 },
    /// The most frequent values; `other` are all the others.
    Values { values: Vec<String>, counts: Vec<u64>, other: u64, nulls: u64 },
}

/// Bins of equal width from `from` to `to`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    pub from: f64,
    pub to: f64,
    pub counts: Vec<u64>,
}

/// Profiles a table. `hashes`: of its rows.
pub(crate) fn profile(table: &Table, hashes: &[u128], policy: &Policy) -> Profile {
    let mut sorted = hashes.to_vec();
    sorted.sort_unstable();
    let duplicates = sorted.windows(2).filter(|pair| pair[0] == pair[1]).count();
    let label = policy.label.as_deref().filter(|label| !policy.is_masked(label));
    let label = label.and_then(|label| table.column(label));
    Profile {
        rows: table.rows() as u64,
        duplicate_rows: duplicates as u64,
        columns: table.columns.iter().map(|column| column_profile(column, table, policy)).collect(),
        classes: label.map(|label| classes(label, table.rows())).unwrap_or_default(),
    }
}

fn column_profile(column: &Column, table: &Table, policy: &Policy) -> ColumnProfile {
    let mut profile = ColumnProfile {
        name: column.name.clone(),
        kind: column.kind,
        nulls: column.nulls,
        distinct: 0,
        distinct_more: false,
        min: None,
        max: None,
        mean: None,
        std: None,
        quantiles: Vec::new(),
        histogram: None,
        shape: None,
    };
    let rows = table.rows();
    let is_private = policy.is_masked(&column.name);
    match column.kind {
        Kind::Number | Kind::Integer | Kind::Time => {
            let values = column.values();
            let sorted = stats::sorted(&values);
            profile.distinct = match column.kind {
                Kind::Integer => distinct_integers(column, rows),
                _ => distinct(&sorted),
            };
            if let (Some(&min), Some(&max), false) = (sorted.first(), sorted.last(), is_private) {
                let moments = stats::Moments::of(&values, 1);
                profile.min = Some(min);
                profile.max = Some(max);
                profile.mean = Some(moments.mean());
                profile.std = Some(moments.std());
                profile.quantiles = QUANTILES.iter().map(|share| stats::quantile(&sorted, *share)).collect();
                profile.shape = shape(&sorted, min, max);
                if !policy.is_key(&column.name) && column.kind != Kind::Time {
                    profile.histogram =
                        Some(by_quantiles(&sorted, (rows - sorted.len()) as u64, policy.drift.bins));
                }
            }
        }
        Kind::Boolean | Kind::Category => {
            let counts = value_counts(column, rows);
            profile.distinct = counts.len() as u64;
            if !policy.is_key(&column.name) && !is_private {
                profile.histogram = Some(by_values(counts, column.nulls));
            }
        }
        Kind::Text => {
            let mut seen = HashSet::new();
            for row in (0..rows).filter(|row| !column.is_null(*row)) {
                if seen.len() >= MOST_DISTINCT {
                    profile.distinct_more = !seen.contains(column.cell(row).trim()) || profile.distinct_more;
                } else {
                    seen.insert(column.cell(row).trim());
                }
            }
            profile.distinct = seen.len() as u64;
        }
    }
    profile
}

fn distinct(sorted: &[f64]) -> u64 {
    let changes = sorted.windows(2).filter(|pair| pair[0] != pair[1]).count();
    (changes + usize::from(!sorted.is_empty())) as u64
}

/// Of whole numbers, which from 2^53 on share their floats with others.
fn distinct_integers(column: &Column, rows: usize) -> u64 {
    let mut values: Vec<i64> = (0..rows).filter_map(|row| column.cell(row).trim().parse().ok()).collect();
    values.sort_unstable();
    values.dedup();
    values.len() as u64
}

fn by_quantiles(sorted: &[f64], nulls: u64, bins: usize) -> Histogram {
    let edges = edges(sorted, bins);
    let counts = quantile_counts(&edges, sorted.iter().copied());
    Histogram::Quantiles { edges, counts, nulls }
}

/// Quantiles, and what must not hide in a bin with others: values that half a bin's rows share, or all values if they are
/// few, and what is about or beyond the smallest and the largest.
fn edges(sorted: &[f64], bins: usize) -> Vec<f64> {
    let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else { return Vec::new() };
    let different = distinct(sorted) as usize;
    let few = different <= MOST_ALONE && different * ROWS_ALONE <= sorted.len();
    let is_alone = |equal: &&[f64]| few || equal.len() * 2 * bins >= sorted.len();
    let alone = sorted.chunk_by(|one, other| one == other).filter(is_alone);
    let mut edges: Vec<f64> = alone.flat_map(|equal| [equal[0].next_down(), equal[0]]).collect();
    if !few {
        edges.extend((1..bins).map(|bin| stats::quantile(sorted, bin as f64 / bins as f64)));
        // With the smallest and the largest themselves in them, whose like is expected, one new row beyond is no surprise.
        edges.extend([*min, max.next_down()]);
    }
    // Below the smallest number there is infinity, which JSON lacks.
    edges.retain(|edge| edge.is_finite());
    edges.sort_unstable_by(f64::total_cmp);
    edges.dedup();
    edges
}

/// How many values each bin of these edges holds.
pub(crate) fn quantile_counts(edges: &[f64], values: impl Iterator<Item = f64>) -> Vec<u64> {
    let mut counts = vec![0; edges.len() + 1];
    for value in values {
        counts[edges.partition_point(|edge| *edge < value)] += 1;
    }
    counts
}

/// Values with their numbers of rows, most first, then by name.
fn value_counts(column: &Column, rows: usize) -> Vec<(String, u64)> {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for row in (0..rows).filter(|row| !column.is_null(*row)) {
        *counts.entry(column.cell(row).trim()).or_default() += 1;
    }
    let mut counts: Vec<(String, u64)> =
        counts.into_iter().map(|(value, count)| (value.to_owned(), count)).collect();
    counts.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    counts
}

fn by_values(mut counts: Vec<(String, u64)>, nulls: u64) -> Histogram {
    let other = counts.split_off(MOST_VALUES.min(counts.len())).iter().map(|(_, count)| count).sum();
    let (values, counts) = counts.into_iter().unzip();
    Histogram::Values { values, counts, other, nulls }
}

fn shape(sorted: &[f64], from: f64, to: f64) -> Option<Shape> {
    let width = to - from;
    if !(width > 0.0 && width.is_finite()) {
        return None;
    }
    let mut counts = vec![0; SHAPE_BINS];
    for value in sorted {
        let bin = ((value - from) / width * SHAPE_BINS as f64) as usize;
        counts[bin.min(SHAPE_BINS - 1)] += 1;
    }
    Some(Shape { from, to, counts })
}

/// The label's classes; none if it has too many to be classes.
fn classes(label: &Column, rows: usize) -> Vec<(String, u64)> {
    let counts = value_counts(label, rows);
    if counts.len() <= MOST_CLASSES { counts } else { Vec::new() }
}
