//! An isolation forest (Liu, Ting, Zhou: Isolation Forest, ICDM 2008), fitted on the data that it judges.
//!
//! A tree cuts a sample at a random value of a random column until every row is alone, or the depth is the logarithm of
//! the sample's size. Rows that are alone soon are unlike the others: `score = 2 ^ (-E(depth) / c(sample))`, where `c(n)` is
//! the mean depth of a failed search in a binary tree of n. Higher is more unlike; scikit-learn's `score_samples` is the
//! same with the opposite sign.

use super::Matrix;
use crate::policy::ForestPolicy;
use crate::rng::Random;

/// As in the paper.
pub(super) const TREES: usize = 100;
pub(super) const SAMPLE: usize = 256;

enum Node {
    Leaf { depth: f64 },
    Split { column: usize, at: f64, low: usize, high: usize },
}

/// The score of every row, and the size of a tree's sample.
pub(super) fn scores(standard: &Matrix, policy: &ForestPolicy, seed: u64) -> (Vec<f64>, usize) {
    let trees = policy.trees.unwrap_or(TREES);
    let sample = policy.sample.unwrap_or(SAMPLE).min(standard.rows);
    let most_depth = (sample.max(2) as f64).log2().ceil() as usize;
    let mut random = Random::new(seed ^ 0x1f0e_5700);
    let mut depths = vec![0.0; standard.rows];
    for _ in 0..trees {
        let rows = random.sample(standard.rows, sample);
        let tree = grow(standard, rows, most_depth, &mut random);
        for (row, depth) in depths.iter_mut().enumerate() {
            *depth += depth_of(&tree, standard.row(row));
        }
    }
    let normal = mean_depth(sample) * trees as f64;
    (depths.into_iter().map(|depth| (-depth / normal).exp2()).collect(), sample)
}

fn grow(standard: &Matrix, rows: Vec<usize>, most_depth: usize, random: &mut Random) -> Vec<Node> {
    let mut nodes = vec![Node::Leaf { depth: 0.0 }];
    let mut open = vec![(0_usize, rows, 0_usize)];
    while let Some((node, rows, depth)) = open.pop() {
        let leaf = Node::Leaf { depth: depth as f64 + mean_depth(rows.len()) };
        let split = if depth < most_depth { cut(standard, &rows, random) } else { None };
        nodes[node] = match split {
            None => leaf,
            Some((column, at)) => {
                let (low_rows, high_rows): (Vec<usize>, Vec<usize>) =
                    rows.into_iter().partition(|row| standard.row(*row)[column] <= at);
                let (low, high) = (nodes.len(), nodes.len() + 1);
                nodes.extend([Node::Leaf { depth: 0.0 }, Node::Leaf { depth: 0.0 }]);
                open.push((low, low_rows, depth + 1));
                open.push((high, high_rows, depth + 1));
                Node::Split { column, at, low, high }
            }
        };
    }
    nodes
}

/// A random column of those that vary, and a random value in its range; `None` if none varies.
fn cut(standard: &Matrix, rows: &[usize], random: &mut Random) -> Option<(usize, f64)> {
    if rows.len() < 2 {
        return None;
    }
    let width = standard.names.len();
    let mut columns: Vec<usize> = (0..width).collect();
    while !columns.is_empty() {
        let column = columns.swap_remove(random.below(columns.len()));
        let values = rows.iter().map(|row| standard.row(*row)[column]);
        let (low, high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if high > low {
            let at = low + random.unit() * (high - low);
            // Both sides get a row, also where rounding reaches the end.
            return Some((column, if at < high { at } else { low }));
        }
    }
    None
}

fn depth_of(nodes: &[Node], row: &[f64]) -> f64 {
    let mut at = 0;
    loop {
        match &nodes[at] {
            Node::Leaf { depth } => return *depth,
            Node::Split { column, at: cut, low, high } => {
                at = if row[*column] <= *cut { *low } else { *high }
            }
        }
    }
}

/// `c(n)`: 0, 1, and `2 H(n - 1) - 2 (n - 1) / n` with the harmonic number as `ln(n - 1)` plus Euler's constant.
fn mean_depth(rows: usize) -> f64 {
    const EULER: f64 = 0.577_215_664_901_532_9;
    match rows {
        0 | 1 => 0.0,
        2 => 1.0,
        rows => {
            let rows = rows as f64;
            2.0 * ((rows - 1.0).ln() + EULER) - 2.0 * (rows - 1.0) / rows
        }
    }
}
