//! A robust random cut forest (Guha, Mishra, Roy, Schrijvers: Robust Random Cut Forest Based Anomaly Detection On Streams,
//! ICML 2016). The Python package that people know (`rrcf`) is no longer maintained; this is written after the paper.
//!
//! A tree cuts a sample's bounding box: the column at random in proportion to its side, the place uniformly. A row's
//! collusive displacement in a tree is the largest ratio, over all subtrees that hold it, of the size of the subtree's
//! sibling to its own: how much nearer to the root others would come if it and its like were gone. The score is the mean
//! over the trees. A row outside of a tree's sample is inserted by the paper's rule (its InsertPoint), only that the tree
//! itself need not change.

use super::Matrix;
use crate::policy::ForestPolicy;
use crate::rng::Random;

const TREES: usize = 100;
const SAMPLE: usize = 256;

struct Tree {
    nodes: Vec<Node>,
    /// Sides of every node's box, `width` numbers a node.
    low: Vec<f64>,
    high: Vec<f64>,
}

struct Node {
    /// Rows of the sample in it.
    size: usize,
    split: Option<Split>,
}

struct Split {
    column: usize,
    at: f64,
    low: usize,
    high: usize,
}

/// The score of every row, the mean collusive displacement; and the rows of a sample, which no score is above.
pub(super) fn scores(standard: &Matrix, policy: &ForestPolicy, seed: u64) -> (Vec<f64>, usize) {
    let trees = policy.trees.unwrap_or(TREES);
    let sample = policy.sample.unwrap_or(SAMPLE).min(standard.rows);
    let mut random = Random::new(seed ^ 0x4c4f_0000);
    let mut sums = vec![0.0; standard.rows];
    for _ in 0..trees {
        let rows = random.sample(standard.rows, sample);
        let mut is_inside = vec![false; standard.rows];
        rows.iter().for_each(|row| is_inside[*row] = true);
        let tree = Tree::grow(standard, rows, &mut random);
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum += tree.displacement(standard.row(row), is_inside[row], &mut random);
        }
    }
    (sums.into_iter().map(|sum| sum / trees as f64).collect(), sample)
}

impl Tree {
    fn grow(standard: &Matrix, rows: Vec<usize>, random: &mut Random) -> Self {
        let mut tree = Self { nodes: Vec::new(), low: Vec::new(), high: Vec::new() };
        tree.add(standard, &rows);
        let mut open = vec![(0_usize, rows)];
        while let Some((node, rows)) = open.pop() {
            let (low, high) = tree.sides(node, standard.names.len());
            let Some((column, at)) = cut(low, high, random) else { continue };
            // A cut at the very end would leave nothing behind it.
            let at = if at < high[column] { at } else { low[column] };
            let (low_rows, high_rows): (Vec<usize>, Vec<usize>) =
                rows.into_iter().partition(|row| standard.row(*row)[column] <= at);
            let low = tree.add(standard, &low_rows);
            let high = tree.add(standard, &high_rows);
            tree.nodes[node].split = Some(Split { column, at, low, high });
            open.push((low, low_rows));
            open.push((high, high_rows));
        }
        tree
    }

    /// A node with these rows, and their box.
    fn add(&mut self, standard: &Matrix, rows: &[usize]) -> usize {
        let width = standard.names.len();
        let start = self.low.len();
        self.low.extend(std::iter::repeat_n(f64::INFINITY, width));
        self.high.extend(std::iter::repeat_n(f64::NEG_INFINITY, width));
        for row in rows {
            for (column, value) in standard.row(*row).iter().enumerate() {
                self.low[start + column] = self.low[start + column].min(*value);
                self.high[start + column] = self.high[start + column].max(*value);
            }
        }
        self.nodes.push(Node { size: rows.len(), split: None });
        self.nodes.len() - 1
    }

    fn sides(&self, node: usize, width: usize) -> (&[f64], &[f64]) {
        (&self.low[node * width..(node + 1) * width], &self.high[node * width..(node + 1) * width])
    }

    /// The collusive displacement of a point, which is in the sample, or is to be inserted.
    fn displacement(&self, point: &[f64], is_inside: bool, random: &mut Random) -> f64 {
        // What an insertion adds to every subtree that holds the point.
        let own = usize::from(!is_inside);
        let mut most = 0.0_f64;
        let mut node = 0;
        loop {
            let (low, high) = self.sides(node, point.len());
            let size = self.nodes[node].size;
            if !is_inside && is_separated(point, low, high, random) {
                // The point and this whole subtree become siblings.
                return most.max(size as f64);
            }
            let Some(split) = &self.nodes[node].split else { return most };
            let (next, sibling) = match point[split.column] <= split.at {
                true => (split.low, split.high),
                false => (split.high, split.low),
            };
            most = most.max(self.nodes[sibling].size as f64 / (self.nodes[next].size + own) as f64);
            node = next;
        }
    }
}

/// Does a random cut of the box that holds point and box part the two?
fn is_separated(point: &[f64], low: &[f64], high: &[f64], random: &mut Random) -> bool {
    let outside =
        point.iter().zip(low.iter().zip(high)).any(|(value, (low, high))| value < low || value > high);
    if !outside {
        return false;
    }
    let low_there: Vec<f64> = low.iter().zip(point).map(|(low, value)| low.min(*value)).collect();
    let high_there: Vec<f64> = high.iter().zip(point).map(|(high, value)| high.max(*value)).collect();
    match cut(&low_there, &high_there, random) {
        Some((column, at)) => at < low[column] || at >= high[column],
        None => false,
    }
}

/// A column in proportion to its side, and a place on it; `None` if the box is a point.
fn cut(low: &[f64], high: &[f64], random: &mut Random) -> Option<(usize, f64)> {
    let sides = || low.iter().zip(high).map(|(low, high)| high - low);
    let all: f64 = sides().sum();
    if all <= 0.0 || !all.is_finite() {
        return None;
    }
    let mut left = random.unit() * all;
    let mut last = None;
    for (column, side) in sides().enumerate().filter(|(_, side)| *side > 0.0) {
        if left < side {
            return Some((column, low[column] + left));
        }
        left -= side;
        last = Some((column, low[column]));
    }
    last
}
