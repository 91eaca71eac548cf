//! DBSCAN, of which only the noise is wanted: rows that are no core point (fewer than `min_samples` rows within `eps`, itself
//! among them) and have none within `eps`. That is the label -1 of scikit-learn, exactly; clusters need not be told apart.
//!
//! Exact up to [`MOST_ROWS`] rows, in [`FEW_COLUMNS`] columns up to [`MOST_ROWS_THERE`]. Of more, a sample of so many is
//! clustered, with as much smaller a `min_samples` as it is thinner, and every other row is noise if no core point of the
//! sample is within `eps`.

use std::cmp::Ordering;
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
/// In so few columns a tree finds neighbours without looking at most rows.
const FEW_COLUMNS: usize = 4;
const MOST_ROWS_THERE: usize = 200_000;
/// Rows whose neighbours are measured to find `eps`; of more, a sample. All that the automatic choice gives to this method; more
/// where the tree makes it cheap (of 20,000 rows and 10 columns all would cost 4 seconds, 5,000 cost one).
const MOST_MEASURED: usize = 5_000;
const MOST_MEASURED_THERE: usize = 20_000;

pub(super) fn dbscan(standard: &Matrix, policy: &DbscanPolicy, seed: u64) -> Marks {
    let mut random = Random::new(seed ^ 0xdb5c_a000);
    let most = if few_columns(standard) { MOST_ROWS_THERE } else { MOST_ROWS };
    let sampled = standard.rows > most;
    let rows: Vec<usize> = match sampled {
        true => random.sample(standard.rows, most),
        false => (0..standard.rows).collect(),
    };
    // More than a quarter of the rows makes no core point of any.
    let enough = || (2 * standard.names.len()).min(standard.rows / 4).max(5);
    let wanted = policy.min_samples.unwrap_or_else(enough);
    let min_samples = match sampled {
        true => scaled(wanted, rows.len() as f64 / standard.rows as f64),
        false => wanted,
    };
    let tree = KdTree::new(standard, rows.clone());
    let (eps, eps_by, eps_rows) = match policy.eps {
        Some(eps) => (eps, "policy", 0),
        None => automatic_eps(standard, &tree, &rows, min_samples, &mut random),
    };
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
            "dbscan: clustered {most} of {} rows with min_samples {min_samples}, the others are judged by these",
            standard.rows
        );
        Finding::new(Code::Sampled, text)
    });
    let parameters = BTreeMap::from([
        ("eps".to_owned(), json!(eps)),
        ("eps_by".to_owned(), json!(eps_by)),
        ("eps_rows".to_owned(), json!(eps_rows)),
        ("min_samples".to_owned(), json!(wanted)),
        ("min_samples_there".to_owned(), json!(min_samples)),
        ("clustered_rows".to_owned(), json!(rows.len())),
    ]);
    Marks { flagged, scores, cells: None, parameters, note }
}

fn few_columns(standard: &Matrix) -> bool {
    standard.names.len() <= FEW_COLUMNS
}

/// `min_samples` for a sample of this share of the rows: the point itself, and its neighbours as far as they are there.
fn scaled(min_samples: usize, share: f64) -> usize {
    let neighbours = min_samples.saturating_sub(1) as f64;
    1 + (neighbours * share).round().max(neighbours.min(1.0)) as usize
}

/// Three box widths above the box of the distances to the `min_samples`-th neighbours: most rows are core points then, and
/// what is left is far from all of them. (The knee of the sorted distances, the paper's way, is found by eye.) And what it
/// was taken from, and of how many rows.
fn automatic_eps(
    standard: &Matrix,
    tree: &KdTree<'_>,
    rows: &[usize],
    min_samples: usize,
    random: &mut Random,
) -> (f64, &'static str, usize) {
    let most = if few_columns(standard) { MOST_MEASURED_THERE } else { MOST_MEASURED };
    let measured = random.sample(rows.len(), most);
    let distances: Vec<f64> =
        measured.iter().map(|at| tree.nearest(standard.row(rows[*at]), min_samples).sqrt()).collect();
    let distances = stats::sorted(&distances);
    let (low, high) = (stats::quantile(&distances, 0.25), stats::quantile(&distances, 0.75));
    // A little more than a distance that occurs: of two rows exactly so far apart rounding would decide.
    let beyond = 1.0 + 1e-9;
    let eps = high + 3.0 * (high - low);
    if eps > 0.0 {
        return (eps * beyond, "k-distances", measured.len());
    }
    // Three quarters of the rows have copies enough; how far different rows are from each other says what near is. Half of
    // these may be outliers, so the box is closed by the mirror image of its lower half.
    let mut different = rows.to_vec();
    let order = |one: &usize, other: &usize| {
        let cells = standard.row(*one).iter().zip(standard.row(*other));
        cells.map(|(one, other)| one.total_cmp(other)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    };
    different.sort_unstable_by(order);
    different.dedup_by(|one, other| order(one, other).is_eq());
    let tree = KdTree::new(standard, different.clone());
    let measured = random.sample(different.len(), most);
    let distances: Vec<f64> =
        measured.iter().map(|at| tree.nearest(standard.row(different[*at]), 2).sqrt()).collect();
    let distances = stats::sorted(&distances);
    let (low, middle) = (stats::quantile(&distances, 0.25), stats::quantile(&distances, 0.5));
    let eps = middle + 7.0 * (middle - low);
    (if eps > 0.0 { eps * beyond } else { 1.0 }, "distances of different rows", measured.len())
}
