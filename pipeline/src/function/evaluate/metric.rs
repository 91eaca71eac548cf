//! Figures of a model on a holdout.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

/// What may decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Metric {
    Accuracy,
    F1Macro,
    LogLoss,
    Rmse,
    Mae,
    R2,
}

impl Metric {
    pub(super) fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::F1Macro => "f1_macro",
            Metric::LogLoss => "log_loss",
            Metric::Rmse => "rmse",
            Metric::Mae => "mae",
            Metric::R2 => "r2",
        }
    }

    pub(super) fn higher_is_better(self) -> bool {
        matches!(self, Metric::Accuracy | Metric::F1Macro | Metric::R2)
    }

    /// Is the label a number to come close to, rather than a class to hit?
    pub(super) fn is_regression(self) -> bool {
        matches!(self, Metric::Rmse | Metric::Mae | Metric::R2)
    }
}

/// What a model answered for all rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answers {
    Classes {
        /// `None` for scores that are not numbers.
        labels: Vec<Option<String>>,
        /// The probability that the model gives the right class, above 0; else why there is none.
        right: Result<Vec<f64>, String>,
    },
    Numbers(Vec<f64>),
}

/// Figures by name, and the time of one row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Metrics {
    pub values: BTreeMap<&'static str, f64>,
    /// Why a classifier has none.
    pub no_log_loss: Option<String>,
    pub rows: usize,
    /// Median of single rows, milliseconds.
    pub latency_ms: f64,
}

impl Metrics {
    /// Figures of answers against the truth, row by row. `truth` and the answers have the same length, at least one.
    pub(super) fn of(truth: &[String], answers: &Answers, latency_ms: f64) -> Self {
        let (values, no_log_loss) = match answers {
            Answers::Classes { labels, right } => {
                (classes(truth, labels, right.as_deref().ok()), right.as_ref().err().cloned())
            }
            Answers::Numbers(numbers) => (numeric(truth, numbers), None),
        };
        Self { values, no_log_loss, rows: truth.len(), latency_ms }
    }

    /// Of a model that could not be measured.
    pub(super) fn none() -> Self {
        Self { values: BTreeMap::new(), no_log_loss: None, rows: 0, latency_ms: 0.0 }
    }

    pub(super) fn value(&self, metric: Metric) -> Option<f64> {
        self.values.get(metric.name()).copied().filter(|value| value.is_finite())
    }

    /// Why there is no such figure.
    pub(super) fn why_not(&self, metric: Metric) -> String {
        let name = metric.name();
        match (&self.no_log_loss, metric) {
            (Some(reason), Metric::LogLoss) => format!("{name} cannot be computed: {reason}"),
            _ => format!(
                "{name} cannot be computed: an answer or a label is no number, or there are too few rows"
            ),
        }
    }

    /// Figures that are not finite are left out: JSON has no word for them.
    pub(super) fn json(&self) -> Value {
        let mut object: BTreeMap<&str, Value> = BTreeMap::new();
        for (name, value) in &self.values {
            if value.is_finite() {
                object.insert(name, json!(value));
            }
        }
        object.insert("rows", json!(self.rows));
        object.insert("latency_ms", json!((self.latency_ms * 1e4).round() / 1e4));
        json!(object)
    }
}

/// Accuracy, F1 averaged over the classes of truth and answers without weights (as scikit-learn's `average="macro"`), and log loss.
fn classes(
    truth: &[String],
    labels: &[Option<String>],
    right: Option<&[f64]>,
) -> BTreeMap<&'static str, f64> {
    let rows = truth.len() as f64;
    let hits = truth.iter().zip(labels).filter(|(truth, label)| Some(*truth) == label.as_ref()).count();
    // true positives, in the truth, in the answers
    let mut counts: BTreeMap<Option<&str>, [f64; 3]> = BTreeMap::new();
    for (truth, label) in truth.iter().zip(labels) {
        let (truth, label) = (Some(truth.as_str()), label.as_deref());
        counts.entry(truth).or_default()[1] += 1.0;
        counts.entry(label).or_default()[2] += 1.0;
        if truth == label {
            counts.entry(truth).or_default()[0] += 1.0;
        }
    }
    let f1: f64 = counts.values().map(|[hits, truths, answers]| 2.0 * hits / (truths + answers)).sum();
    let mut values =
        BTreeMap::from([("accuracy", hits as f64 / rows), ("f1_macro", f1 / counts.len() as f64)]);
    if let Some(right) = right {
        let loss: f64 = right.iter().map(|share| -share.ln()).sum();
        values.insert("log_loss", loss / rows);
    }
    values
}

/// Errors of rows whose truth is a number; others count as infinitely wrong.
fn numeric(truth: &[String], numbers: &[f64]) -> BTreeMap<&'static str, f64> {
    let rows = truth.len() as f64;
    let truth: Vec<f64> = truth.iter().map(|text| text.parse().unwrap_or(f64::INFINITY)).collect();
    let errors = || truth.iter().zip(numbers).map(|(truth, number)| truth - number);
    let squared: f64 = errors().map(|error| error * error).sum();
    let absolute: f64 = errors().map(f64::abs).sum();
    let mean = truth.iter().sum::<f64>() / rows;
    let spread: f64 = truth.iter().map(|value| (value - mean) * (value - mean)).sum();
    let mut values = BTreeMap::from([("rmse", (squared / rows).sqrt()), ("mae", absolute / rows)]);
    // As scikit-learn's: of a constant truth 1 or 0, of one row nothing.
    if spread == 0.0 && squared.is_finite() {
        if truth.len() > 1 {
            values.insert("r2", if squared == 0.0 { 1.0 } else { 0.0 });
        }
    } else {
        values.insert("r2", 1.0 - squared / spread);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn classification_is_counted_as_scikit_learn_does() {
        let truth = texts(&["0", "0", "1", "1", "2"]);
        let labels = texts(&["0", "1", "1", "1", "0"]).into_iter().map(Some).collect();
        let right = Ok(vec![0.5, 0.25, 1.0, 0.5, f64::EPSILON]);
        let values = Metrics::of(&truth, &Answers::Classes { labels, right }, 0.0).values;
        // f1_score(..., average="macro") and log_loss of scikit-learn 1.9.1
        assert!((values["accuracy"] - 0.6).abs() < 1e-12);
        assert!((values["f1_macro"] - 0.43333333333333335).abs() < 1e-12, "{values:?}");
        let expected = (0.5f64.ln() + 0.25f64.ln() + 0.0 + 0.5f64.ln() + f64::EPSILON.ln()) / -5.0;
        assert!((values["log_loss"] - expected).abs() < 1e-12);
    }

    #[test]
    fn regression_is_counted_as_scikit_learn_does() {
        let truth = texts(&["3", "-0.5", "2", "7"]);
        let values = Metrics::of(&truth, &Answers::Numbers(vec![2.5, 0.0, 2.0, 8.0]), 0.0).values;
        assert!((values["rmse"] - 0.6123724356957945).abs() < 1e-12);
        assert!((values["mae"] - 0.5).abs() < 1e-12);
        assert!((values["r2"] - 0.9486081370449679).abs() < 1e-12);
    }

    #[test]
    fn a_truth_that_is_no_number_never_looks_good() {
        let metrics = Metrics::of(&texts(&["1", "x"]), &Answers::Numbers(vec![1.0, 1.0]), 0.0);
        assert_eq!(metrics.value(Metric::Rmse), None);
        assert_eq!(metrics.json()["rmse"], Value::Null);
    }
    #[test]
    fn a_constant_truth_has_the_r2_of_scikit_learn() {
        let r2 = |truth: &[&str], numbers: &[f64]| {
            Metrics::of(&texts(truth), &Answers::Numbers(numbers.to_vec()), 0.0).value(Metric::R2)
        };
        assert_eq!(r2(&["2", "2"], &[2.0, 2.0]), Some(1.0));
        assert_eq!(r2(&["2", "2"], &[2.0, 3.0]), Some(0.0));
        assert_eq!(r2(&["2", "2"], &[2.0, f64::NAN]), None);
        assert_eq!(r2(&["2"], &[2.0]), None);
    }
}
