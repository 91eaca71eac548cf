//! DBSCAN, of which only the noise is wanted: rows that are no core point (fewer than `min_samples` rows within `eps`, itself
//! among them) and have none within `eps`. That is the label -1 of scikit-learn, exactly; clusters need not be told apart.
//!
//! Exact up to [`MOST_ROWS`] rows. Of more, a sample of so many is clustered exactly, and every other row is noise if no
//! core point of the sample is within `eps`.

use std::collections::BTreeMap;

use serde_json::json;

use super::kdtree::KdTree;
use super::{Marks, Matrix};
use crate::finding::{Code, Finding};
use crate::policy::DbscanPolicy;
use crate::rng::Random;
use crate::stats;

/// Rows that are clustered exactly.
const MOST_ROWS: usize = 20_000;
/// Rows whose neighbours are measured to find `eps`.
const MOST_MEASURED: usize = 2_000;

pub(super) fn dbscan(standard: &Matrix, policy: &DbscanPolicy, seed: u64) -> Marks {
    let mut random = Random::new(seed ^ 0xdb5c_a000);
    let sampled = standard.rows > MOST_ROWS;
    let rows: Vec<usize> = match sampled {
        true => random.sample(standard.rows, MOST_ROWS),
        false => (0..standard.rows).collect(),
    };
    let min_samples = policy.min_samples.unwrap_or_else(|| (2 * standard.names.len()).max(5));
    let tree = KdTree::new(standard, rows.clone());
    let eps = policy.eps.unwrap_or_else(|| automatic_eps(standard, &tree, &rows, min_samples, &mut random));
    let radius = eps * eps;
    let mut is_core = vec![false; standard.rows];
    for row in &rows {
        is_core[*row] = tree.has(standard.row(*row), radius, min_samples);
    }
    let cores: Vec<usize> = rows.iter().copied().filter(|row| is_core[*row]).collect();
    let has_cores = !cores.is_empty();
    let of_cores = KdTree::new(standard, cores);
    let mut flagged = vec![false; standard.rows];
    // The score: distance to the nearest core point, in radii; above 1 is noise. Without any core point all are, alike.
    let mut scores = vec![0.0; standard.rows];
    for row in (0..standard.rows).filter(|row| !is_core[*row]) {
        let point = standard.row(row);
        flagged[row] = !of_cores.any(point, radius, &|_| true);
        scores[row] = if has_cores { of_cores.nearest(point, 1).sqrt() / eps } else { 2.0 };
    }
    let note = sampled.then(|| {
        let text = format!(
            "dbscan: clustered {MOST_ROWS} of {} rows, the others are judged by these",
            standard.rows
        );
        Finding::new(Code::Sampled, text)
    });
    let parameters = BTreeMap::from([
        ("eps".to_owned(), json!(eps)),
        ("eps_by".to_owned(), json!(if policy.eps.is_some() { "policy" } else { "k-distances" })),
        ("min_samples".to_owned(), json!(min_samples)),
        ("clustered_rows".to_owned(), json!(rows.len())),
    ]);
    Marks { flagged, scores, cells: None, parameters, note }
}

/// Three box widths above the box of the distances to the `min_samples`-th neighbours: most rows are core points then, and
/// what is left is far from all of them. (The knee of the sorted distances, the paper's way, is found by eye.)
fn automatic_eps(
    standard: &Matrix,
    tree: &KdTree<'_>,
    rows: &[usize],
    min_samples: usize,
    random: &mut Random,
) -> f64 {
    let measured = random.sample(rows.len(), MOST_MEASURED);
    let distances: Vec<f64> =
        measured.iter().map(|at| tree.nearest(standard.row(rows[*at]), min_samples).sqrt()).collect();
    let distances = stats::sorted(&distances);
    let (low, high) = (stats::quantile(&distances, 0.25), stats::quantile(&distances, 0.75));
    // A little more than a distance that occurs: of two rows exactly so far apart rounding would decide.
    let beyond = 1.0 + 1e-9;
    let eps = high + 3.0 * (high - low);
    if eps > 0.0 {
        return eps * beyond;
    }
    // Three quarters of the rows have copies enough; the others' distances say what near is.
    let positive: Vec<f64> = distances.into_iter().filter(|distance| *distance > 0.0).collect();
    if positive.is_empty() { 1.0 } else { stats::quantile(&positive, 0.5) * beyond }
}
