//! Methods that look at one column at a time. Cells without a value are neither counted nor marked.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Marks, Matrix, Missing};
use crate::stats;

/// Cells further than `k` sample standard deviations (`numpy.std(x, ddof=1)`) from the mean. The score of a row is the
/// largest of its cells' distances in standard deviations.
pub(super) fn sigma(matrix: &Matrix, k: f64, missing: Missing<'_>) -> Marks {
    marks(matrix, missing, &[("k", k)], &|values| {
        let moments = stats::Moments::of(values, 1);
        Box::new(move |value| (moments.is_beyond(value, k), moments.standard(value).abs()))
    })
}

/// Cells below Q1 - w * (Q3 - Q1) or above Q3 + w * (Q3 - Q1), with quartiles linear between values. The score of a row
/// is the largest of its cells' distances to the box, in box widths.
pub(super) fn box_plot(matrix: &Matrix, whisker: f64, missing: Missing<'_>) -> Marks {
    marks(matrix, missing, &[("whisker", whisker)], &|values| {
        let sorted = stats::sorted(values);
        let (low, high) = (stats::quantile(&sorted, 0.25), stats::quantile(&sorted, 0.75));
        let width = high - low;
        Box::new(move |value| {
            let beyond = (low - value).max(value - high).max(0.0);
            let marked = value < low - whisker * width || value > high + whisker * width;
            (marked, if width > 0.0 { beyond / width } else { beyond })
        })
    })
}

type Judge = Box<dyn Fn(f64) -> (bool, f64)>;

fn marks(
    matrix: &Matrix,
    missing: Missing<'_>,
    parameters: &[(&str, f64)],
    judge: &dyn Fn(&[f64]) -> Judge,
) -> Marks {
    let mut flagged = vec![false; matrix.rows];
    let mut scores = vec![0.0_f64; matrix.rows];
    let mut cells = Vec::new();
    for column in 0..matrix.names.len() {
        let values = matrix.column(column);
        let there: Vec<f64> = values
            .iter()
            .enumerate()
            .filter(|(row, _)| !missing(*row, column))
            .map(|(_, value)| *value)
            .collect();
        let judge = judge(&there);
        for (row, value) in values.iter().enumerate().filter(|(row, _)| !missing(*row, column)) {
            let (marked, score) = judge(*value);
            scores[row] = scores[row].max(score);
            if marked {
                flagged[row] = true;
                cells.push((row, column));
            }
        }
    }
    let parameters: BTreeMap<_, _> =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    Marks { flagged, scores, cells: Some(cells), parameters, note: None }
}
