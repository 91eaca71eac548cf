//! Rows that are unlike the others.
//!
//! | method | marks | source |
//! | --- | --- | --- |
//! | sigma | cells further than k standard deviations from the mean | the three-sigma rule |
//! | box | cells beyond the whiskers of a box plot | Tukey 1977 |
//! | dbscan | noise | Ester, Kriegel, Sander, Xu 1996 |
//! | isolation_forest | rows that few random cuts isolate | Liu, Ting, Zhou 2008 |
//! | random_cut_forest | rows whose absence makes a tree much smaller | Guha, Mishra, Roy, Schrijvers 2016 |
//!
//! The first two look at one column at a time, the others at whole rows, in which a missing value is the column's
//! median and every column has mean 0 and standard deviation 1 (with n in the denominator), so that no unit counts more
//! than another.

mod dbscan;
mod isolation;
mod kdtree;
mod one_column;
mod random_cut;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::finding::{Code, Finding, shown};
use crate::policy::{Action, ForestPolicy, MethodName, OutlierPolicy, Policy};
use crate::rng::Random;
use crate::rules::is_feature;
use crate::stats;
use crate::table::{Column, Kind, Table};

/// Marked rows that a report lists for a method.
const MOST_LISTED: usize = 1000;
/// Points of the drawing.
const MOST_POINTS: usize = 400;
/// Widths of the box of all scores above which a row is marked. Of 30 rows planted around clouds of 1,500 (normal, uniform,
/// skewed, in clusters; 2 to 10 columns) 2 misses few and marks few others; 3, Tukey's "far out", misses a third.
const FENCE: f64 = 2.0;
/// A box of logarithms that is narrower says nothing of the spread.
const CLOSED: f64 = 0.05;
/// Cells that the random cut forest is given unasked: it takes microseconds for each.
const MOST_CUT: usize = 2_000_000;
/// Fewer rows have no outliers that could be told from chance.
const FEWEST_ROWS: usize = 8;

/// The numbers of a table, by rows.
#[derive(Debug, Clone)]
pub struct Matrix {
    pub names: Vec<String>,
    pub rows: usize,
    /// Row after row; a missing value is the median of its column.
    values: Vec<f64>,
}

impl Matrix {
    /// One row, in the order of `names`.
    pub fn row(&self, row: usize) -> &[f64] {
        let width = self.names.len();
        self.values.get(row * width..(row + 1) * width).unwrap_or_default()
    }

    fn column(&self, column: usize) -> Vec<f64> {
        self.values.iter().skip(column).step_by(self.names.len().max(1)).copied().collect()
    }
}

/// An isolation forest that the trainer of the active model left behind.
pub trait Forest {
    /// Judges all rows of a matrix with all columns of numbers that may be looked at, constant ones too.
    ///
    /// # Errors
    /// Why it cannot, in words: other columns, or a runtime that is not there.
    fn judge(&self, matrix: &Matrix) -> Result<ForestAnswer, String>;
}

/// What such a forest says of each row.
#[derive(Debug, Clone)]
pub struct ForestAnswer {
    pub outlier: Vec<bool>,
    /// Higher is more unlike.
    pub scores: Vec<f64>,
}

/// What was marked, by which methods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutlierReport {
    /// The columns that were looked at.
    pub columns: Vec<String>,
    pub methods: Vec<MethodReport>,
    /// Rows that any method has marked, and their share.
    pub flagged: u64,
    pub share: f64,
    pub action: Action,
    pub scatter: Option<Scatter>,
}

/// One method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodReport {
    pub method: String,
    /// Why this one.
    pub why: String,
    /// Those that were used, the computed ones too.
    pub parameters: BTreeMap<String, Value>,
    pub flagged: u64,
    /// The first 1,000 marked rows, from 1.
    pub rows: Vec<u64>,
    /// Of methods that look at columns: marked cells by column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, u64>,
}

/// The two columns in which marked rows deviate most, for a drawing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scatter {
    pub x: String,
    pub y: String,
    /// x, y, and is it marked?
    pub points: Vec<(f64, f64, bool)>,
}

/// What all methods together say.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) report: OutlierReport,
    /// One a row: is it marked?
    pub(crate) marked: Vec<bool>,
    /// Cells to be replaced where rows are imputed: row, column's name.
    pub(crate) cells: Vec<(usize, String)>,
    /// Method, and one score a row; higher is more unlike.
    pub(crate) scores: Vec<(String, Vec<f64>)>,
    pub(crate) reasons: Vec<Finding>,
    pub(crate) warnings: Vec<Finding>,
}

/// Has the matrix a median in the place of a value, in this row and column?
type Missing<'a> = &'a dyn Fn(usize, usize) -> bool;

/// What one method found.
struct Marks {
    flagged: Vec<bool>,
    scores: Vec<f64>,
    /// Row and column, of methods that look at columns.
    cells: Option<Vec<(usize, usize)>>,
    parameters: BTreeMap<String, Value>,
    /// What must be said of the way it was done.
    note: Option<Finding>,
}

/// Looks for outliers.
pub(crate) fn find(table: &Table, policy: &Policy, forest: Option<&dyn Forest>) -> Outcome {
    let rules = &policy.outliers;
    let (matrix, mut warnings) = matrix(table, policy);
    let mut outcome = Outcome {
        report: OutlierReport {
            columns: matrix.names.clone(),
            methods: Vec::new(),
            flagged: 0,
            share: 0.0,
            action: rules.action,
            scatter: None,
        },
        marked: vec![false; table.rows()],
        cells: Vec::new(),
        scores: Vec::new(),
        reasons: Vec::new(),
        warnings: Vec::new(),
    };
    let standard = standardised(&matrix);
    let columns: Vec<Option<&Column>> = matrix.names.iter().map(|name| table.column(name)).collect();
    let missing = |row: usize, column: usize| {
        let values = columns.get(column).copied().flatten();
        values.is_none_or(|values| !values.numbers().get(row).is_some_and(|value| value.is_finite()))
    };
    for (method, why) in chosen(rules, &matrix, forest.is_some()) {
        let found = match method {
            _ if matrix.rows < FEWEST_ROWS => {
                Err(format!("{} rows are too few, there must be {FEWEST_ROWS}", matrix.rows))
            }
            _ if matrix.names.is_empty()
                && (method, forest.is_some()) != (MethodName::IsolationForest, true) =>
            {
                Err("no column of numbers that varies".to_owned())
            }
            MethodName::Sigma => Ok(one_column::sigma(&matrix, rules.sigma.k, &missing)),
            MethodName::Box => Ok(one_column::box_plot(&matrix, rules.box_plot.whisker, &missing)),
            MethodName::Dbscan => Ok(dbscan::dbscan(&standard, &rules.dbscan, rules.seed)),
            MethodName::RandomCutForest => {
                let (scores, sample) = random_cut::scores(&standard, &rules.random_cut_forest, rules.seed);
                // A row that half a sample is parted from is one, however widely the scores of tied rows lie apart.
                let fence = Fence::Logarithm { most: sample as f64 / 2.0 };
                Ok(by_score(scores, &rules.random_cut_forest, fence))
            }
            MethodName::IsolationForest | MethodName::Auto => {
                let all = forest.map(|forest| (forest, numbers(table, &meant(table, policy))));
                isolation_forest(all, &standard, rules, &mut outcome.warnings)
            }
        };
        match found {
            Ok(marks) => outcome.take(method, why, marks, &matrix, &standard, policy),
            Err(text) => {
                let text = format!("{}: {text}", method.id());
                outcome.warnings.push(Finding::new(Code::OutliersSkipped, text));
            }
        }
    }
    outcome.warnings.append(&mut warnings);
    outcome.finish(&matrix, &standard, &missing, rules);
    outcome
}

/// The columns of numbers that the policy means, in the file's order.
fn meant<'a>(table: &'a Table, policy: &Policy) -> Vec<&'a Column> {
    let is_meant = |column: &&Column| match &policy.outliers.columns {
        Some(wanted) => matches!(column.kind, Kind::Number | Kind::Integer) && wanted.contains(&column.name),
        None => is_feature(column, policy),
    };
    table.columns.iter().filter(is_meant).collect()
}

/// The numbers of the columns that are looked at: those that are meant and vary.
fn matrix(table: &Table, policy: &Policy) -> (Matrix, Vec<Finding>) {
    let varies = |column: &&Column| column.values().windows(2).any(|pair| pair[0] != pair[1]);
    let varying: Vec<&Column> = meant(table, policy).into_iter().filter(varies).collect();
    let matrix = numbers(table, &varying);
    let skipped = policy.outliers.columns.iter().flatten().filter(|name| !matrix.names.contains(name));
    let warnings = skipped.map(|name| {
        let what = match table.column(name).map(|column| column.kind) {
            None => "is no column",
            Some(Kind::Number | Kind::Integer) => "has no numbers that vary",
            Some(_) => "is no column of numbers",
        };
        let text = format!("outliers.columns names {}, which {what}", shown(name));
        Finding::new(Code::OutliersSkipped, text)
    });
    let warnings = warnings.collect();
    (matrix, warnings)
}

/// These columns by rows, a missing value being the median.
fn numbers(table: &Table, columns: &[&Column]) -> Matrix {
    let filled = |column: &&Column| {
        let median = stats::quantile(&stats::sorted(&column.values()), 0.5);
        let value = |value: &f64| if value.is_finite() { *value } else { median };
        column.numbers().iter().map(value).collect::<Vec<f64>>()
    };
    let filled: Vec<Vec<f64>> = columns.iter().map(filled).collect();
    let rows = table.rows();
    let mut values = Vec::with_capacity(rows * filled.len());
    for row in 0..rows {
        values.extend(filled.iter().map(|column| column[row]));
    }
    Matrix { names: columns.iter().map(|column| column.name.clone()).collect(), rows, values }
}

/// Every column with mean 0 and standard deviation 1, as scikit-learn's `StandardScaler`.
fn standardised(matrix: &Matrix) -> Matrix {
    let mut standard = matrix.clone();
    let width = matrix.names.len();
    for column in 0..width {
        let values = matrix.column(column);
        let moments = stats::Moments::of(&values, 0);
        for value in standard.values.iter_mut().skip(column).step_by(width) {
            *value = moments.standard(*value);
        }
    }
    standard
}

/// The methods with the reason for each.
fn chosen(rules: &OutlierPolicy, matrix: &Matrix, has_forest: bool) -> Vec<(MethodName, String)> {
    let mut chosen: Vec<(MethodName, String)> = Vec::new();
    for method in &rules.methods {
        let (method, why) = match method {
            MethodName::Auto => automatic(matrix, has_forest),
            named => (*named, "the policy names it".to_owned()),
        };
        if !chosen.iter().any(|(known, _)| *known == method) {
            chosen.push((method, why));
        }
    }
    chosen
}

/// The method that fits the data.
fn automatic(matrix: &Matrix, has_forest: bool) -> (MethodName, String) {
    let (rows, columns) = (matrix.rows, matrix.names.len());
    let of = format!("{rows} rows, {columns} columns of numbers");
    match () {
        () if has_forest => (
            MethodName::IsolationForest,
            "the active model has one, fitted on data that was accepted: what is new is judged by what is known".into(),
        ),
        () if columns <= 1 => {
            (MethodName::Box, format!("{of}: quartiles of one column do not move with the outliers, as mean and deviation do"))
        }
        () if columns <= 6 && rows <= 5_000 => (
            MethodName::Dbscan,
            format!("{of}: few enough for exact distances, which find outliers between clusters too"),
        ),
        () if columns > 30 && rows.saturating_mul(columns) <= MOST_CUT => (
            MethodName::RandomCutForest,
            format!("{of}: cuts follow the spread of columns, so that columns which say nothing do not drown the others"),
        ),
        () => (
            MethodName::IsolationForest,
            format!("{of}: linear in rows, and distances say little in so many columns or cost too much"),
        ),
    }
}

fn isolation_forest(
    forest: Option<(&dyn Forest, Matrix)>,
    standard: &Matrix,
    rules: &OutlierPolicy,
    warnings: &mut Vec<Finding>,
) -> Result<Marks, String> {
    let rules_here = &rules.isolation_forest;
    if let Some((forest, matrix)) = forest {
        match forest.judge(&matrix) {
            Ok(answer) if answer.outlier.len() == matrix.rows && answer.scores.len() == matrix.rows => {
                let parameters =
                    BTreeMap::from([("fitted_on".to_owned(), json!("the active model's training data"))]);
                if rules_here.threshold.is_some() {
                    let text = "isolation_forest.threshold is one of scores from 0 to 1; the active model's forest has \
                                scores, and a threshold, of its own";
                    warnings.push(Finding::new(Code::OutliersSkipped, text));
                }
                let marks = match rules_here.quantile.is_some() {
                    true => by_score(answer.scores, rules_here, Fence::Plain { least: f64::MIN }),
                    false => Marks {
                        flagged: answer.outlier,
                        scores: answer.scores,
                        cells: None,
                        parameters: BTreeMap::new(),
                        note: None,
                    },
                };
                return Ok(Marks {
                    parameters: marks.parameters.into_iter().chain(parameters).collect(),
                    ..marks
                });
            }
            Ok(_) => warnings.push(Finding::new(
                Code::OutliersSkipped,
                "the active model's forest did not judge every row; one is fitted on the data itself",
            )),
            Err(text) => warnings.push(Finding::new(
                Code::OutliersSkipped,
                format!("the active model's forest cannot be used: {text}; one is fitted on the data itself"),
            )),
        }
    }
    if standard.names.is_empty() {
        return Err("no column of numbers that varies".to_owned());
    }
    let (scores, sample) = isolation::scores(standard, rules_here, rules.seed);
    let mut marks = by_score(scores, rules_here, Fence::Plain { least: 0.5 });
    marks.parameters.insert("fitted_on".into(), json!("the data itself"));
    marks.parameters.insert("sample".into(), json!(sample));
    Ok(marks)
}

/// How the threshold is found if the policy gives none.
#[derive(Clone, Copy)]
enum Fence {
    /// [`FENCE`] box widths above the scores' box, but not below `least`.
    Plain { least: f64 },
    /// The same of the logarithms of the scores and 1, for scores that are ratios, 0 among them; but not above `most`.
    Logarithm { most: f64 },
}

/// Marks the rows with scores above a threshold.
fn by_score(scores: Vec<f64>, rules: &ForestPolicy, fence: Fence) -> Marks {
    let sorted = stats::sorted(&scores);
    let far_out = |sorted: &[f64]| {
        let (low, high) = (stats::quantile(sorted, 0.25), stats::quantile(sorted, 0.75));
        high + FENCE * (high - low)
    };
    let (threshold, by) = match (rules.threshold, rules.quantile, fence) {
        (Some(threshold), ..) => (threshold, "policy"),
        (None, Some(share), _) => (stats::quantile(&sorted, share), "quantile"),
        (None, None, Fence::Plain { least }) => (far_out(&sorted).max(least), "fence"),
        (None, None, Fence::Logarithm { most }) => {
            let logs: Vec<f64> = sorted.iter().map(|score| score.ln_1p()).collect();
            // Where half of the rows score alike there is no box.
            let is_closed = stats::quantile(&logs, 0.75) - stats::quantile(&logs, 0.25) < CLOSED;
            // The way to logarithms and back must not put equal scores above their own fence.
            let fence = far_out(&logs).exp_m1() * (1.0 + 1e-9);
            (if is_closed { most } else { fence.min(most) }, "fence")
        }
    };
    Marks {
        flagged: scores.iter().map(|score| *score > threshold).collect(),
        scores,
        cells: None,
        parameters: BTreeMap::from([
            ("threshold".to_owned(), json!(threshold)),
            ("threshold_by".to_owned(), json!(by)),
            ("trees".to_owned(), json!(rules.trees.unwrap_or(isolation::TREES))),
        ]),
        note: None,
    }
}

impl Outcome {
    fn take(
        &mut self,
        method: MethodName,
        why: String,
        marks: Marks,
        matrix: &Matrix,
        standard: &Matrix,
        policy: &Policy,
    ) {
        let rows: Vec<usize> = (0..marks.flagged.len()).filter(|row| marks.flagged[*row]).collect();
        let mut columns = BTreeMap::new();
        match &marks.cells {
            Some(cells) => {
                for (row, column) in cells {
                    *columns.entry(matrix.names[*column].clone()).or_insert(0) += 1;
                    self.cells.push((*row, matrix.names[*column].clone()));
                }
            }
            // Of a row that deviates as a whole, the cells that sigma would mark, at least the one that deviates most.
            None => {
                let is_replaced = |name: &str| !policy.is_label(name) && !policy.is_key(name);
                let columns: Vec<usize> =
                    (0..matrix.names.len()).filter(|column| is_replaced(&matrix.names[*column])).collect();
                for row in &rows {
                    let deviation = |column: &usize| standard.row(*row)[*column].abs();
                    let most =
                        columns.iter().max_by(|one, other| deviation(one).total_cmp(&deviation(other)));
                    let far = |column: &&usize| {
                        deviation(column) > policy.outliers.sigma.k || Some(*column) == most
                    };
                    let far = columns.iter().filter(far);
                    self.cells.extend(far.map(|column| (*row, matrix.names[*column].clone())));
                }
            }
        }
        rows.iter().for_each(|row| self.marked[*row] = true);
        self.warnings.extend(marks.note);
        self.scores.push((method.id().to_owned(), marks.scores));
        self.report.methods.push(MethodReport {
            method: method.id().to_owned(),
            why,
            parameters: marks.parameters,
            flagged: rows.len() as u64,
            rows: rows.iter().take(MOST_LISTED).map(|row| *row as u64 + 1).collect(),
            columns,
        });
    }

    fn finish(&mut self, matrix: &Matrix, standard: &Matrix, missing: Missing<'_>, rules: &OutlierPolicy) {
        self.cells.sort();
        self.cells.dedup();
        let flagged = self.marked.iter().filter(|marked| **marked).count();
        self.report.flagged = flagged as u64;
        self.report.share = flagged as f64 / self.marked.len().max(1) as f64;
        self.report.scatter = scatter(matrix, standard, &self.marked, missing);
        let share = self.report.share;
        if let Some(most) = rules.max_share.filter(|most| share > *most) {
            let text = format!(
                "{flagged} rows are marked as outliers, a share of {share:.4}; at most {most} are allowed"
            );
            self.reasons.push(Finding::new(Code::Outliers, text));
        } else if rules.action == Action::Reject && flagged > 0 {
            let mut rows = crate::finding::Rows::default();
            (0..self.marked.len()).filter(|row| self.marked[*row]).for_each(|row| rows.add(row));
            let text = format!("{} marked as outliers, and the policy's action is reject", rows.text());
            self.reasons.push(Finding::new(Code::Outliers, text).at(&rows));
        }
    }
}

/// Points of the two columns in which marked rows deviate most; only rows that have a value in both, since medians in the
/// place of missing values would draw rows that there are not.
fn scatter(matrix: &Matrix, standard: &Matrix, marked: &[bool], missing: Missing<'_>) -> Option<Scatter> {
    let width = matrix.names.len();
    if width < 2 || !marked.iter().any(|marked| *marked) {
        return None;
    }
    let mut deviations: Vec<(f64, usize)> = (0..width).map(|column| (0.0, column)).collect();
    for row in (0..matrix.rows).filter(|row| marked[*row]) {
        for (deviation, value) in deviations.iter_mut().zip(standard.row(row)) {
            deviation.0 += value.abs();
        }
    }
    deviations.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
    let (x, y) = (deviations[0].1, deviations[1].1);
    let drawn = (0..matrix.rows).filter(|row| !missing(*row, x) && !missing(*row, y));
    let (mut bad, mut good): (Vec<usize>, Vec<usize>) = drawn.partition(|row| marked[*row]);
    if bad.is_empty() {
        return None;
    }
    let mut random = Random::new(0);
    for (rows, most) in [(&mut bad, MOST_POINTS / 2), (&mut good, MOST_POINTS / 2)] {
        if rows.len() > most {
            let mut kept: Vec<usize> =
                random.sample(rows.len(), most).into_iter().map(|at| rows[at]).collect();
            kept.sort_unstable();
            *rows = kept;
        }
    }
    let point = |row: &usize| (matrix.row(*row)[x], matrix.row(*row)[y], marked[*row]);
    let points = good.iter().chain(&bad).map(point).collect();
    Some(Scatter { x: matrix.names[x].clone(), y: matrix.names[y].clone(), points })
}

#[cfg(test)]
mod tests;
