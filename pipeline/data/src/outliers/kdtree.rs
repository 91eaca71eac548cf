//! A k-d tree over the rows of a matrix, for neighbours within a radius and the k-th nearest.

use super::Matrix;

const LEAF: usize = 16;

pub(super) struct KdTree<'a> {
    matrix: &'a Matrix,
    /// Rows, in the order of the leaves.
    order: Vec<usize>,
    nodes: Vec<Node>,
}

enum Node {
    Leaf { from: usize, to: usize },
    Split { column: usize, at: f64, low: usize, high: usize },
}

impl<'a> KdTree<'a> {
    /// A tree of these rows.
    pub(super) fn new(matrix: &'a Matrix, rows: Vec<usize>) -> Self {
        let mut tree = Self { matrix, order: rows, nodes: Vec::new() };
        let size = tree.order.len();
        tree.build(0, size);
        tree
    }

    /// Halves by number of rows, so that its depth is the logarithm even if all rows are equal.
    fn build(&mut self, from: usize, to: usize) -> usize {
        let matrix = self.matrix;
        let node = self.nodes.len();
        self.nodes.push(Node::Leaf { from, to });
        if to - from <= LEAF {
            return node;
        }
        let rows = &mut self.order[from..to];
        let width = matrix.names.len();
        let (mut low, mut high) = (vec![f64::INFINITY; width], vec![f64::NEG_INFINITY; width]);
        for row in rows.iter() {
            for (column, value) in matrix.row(*row).iter().enumerate() {
                low[column] = low[column].min(*value);
                high[column] = high[column].max(*value);
            }
        }
        let spread = |column: &usize| high[*column] - low[*column];
        let Some(column) = (0..width).max_by(|one, other| spread(one).total_cmp(&spread(other))) else {
            return node;
        };
        let middle = rows.len() / 2;
        rows.select_nth_unstable_by(middle, |one, other| {
            matrix.row(*one)[column].total_cmp(&matrix.row(*other)[column])
        });
        let at = matrix.row(rows[middle])[column];
        let low = self.build(from, from + middle);
        let high = self.build(from + middle, to);
        self.nodes[node] = Node::Split { column, at, low, high };
        node
    }

    /// Calls `visit` with rows and their squared distances to `point`, nearest boxes first, as long as they may be within the
    /// squared radius that it answers; `None` ends the walk.
    fn walk(&self, point: &[f64], mut radius: f64, visit: &mut dyn FnMut(usize, f64) -> Option<f64>) {
        // Node, and the squared distance to its half along the columns split so far, a lower bound: the largest single
        // one, since two splits of one column must not count twice.
        let mut open = vec![(0_usize, 0.0_f64)];
        while let Some((node, bound)) = open.pop() {
            if bound > radius {
                continue;
            }
            match &self.nodes[node] {
                Node::Leaf { from, to } => {
                    for row in &self.order[*from..*to] {
                        let distance = squared_distance(point, self.matrix.row(*row));
                        if distance <= radius {
                            match visit(*row, distance) {
                                Some(next) => radius = next,
                                None => return,
                            }
                        }
                    }
                }
                Node::Split { column, at, low, high } => {
                    let side = point[*column] - at;
                    let (near, far) = if side < 0.0 { (*low, *high) } else { (*high, *low) };
                    open.push((far, bound.max(side * side)));
                    open.push((near, bound));
                }
            }
        }
    }

    /// Has it `wanted` rows within this squared radius?
    pub(super) fn has(&self, point: &[f64], radius: f64, wanted: usize) -> bool {
        let mut count = 0;
        self.walk(point, radius, &mut |_, _| {
            count += 1;
            (count < wanted).then_some(radius)
        });
        count >= wanted
    }

    /// Is there a row within this squared radius that satisfies this?
    pub(super) fn any(&self, point: &[f64], radius: f64, is: &dyn Fn(usize) -> bool) -> bool {
        let mut found = false;
        self.walk(point, radius, &mut |row, _| {
            found = is(row);
            (!found).then_some(radius)
        });
        found
    }

    /// The squared distance to the k-th nearest row, counted from 1 (a row of the tree is its own first); to the furthest if
    /// there are not as many.
    pub(super) fn nearest(&self, point: &[f64], k: usize) -> f64 {
        let mut nearest: Vec<f64> = Vec::with_capacity(k + 1);
        self.walk(point, f64::INFINITY, &mut |_, distance| {
            let place = nearest.partition_point(|known| *known <= distance);
            nearest.insert(place, distance);
            nearest.truncate(k);
            Some(if nearest.len() == k { nearest[k - 1] } else { f64::INFINITY })
        });
        nearest.last().copied().unwrap_or(0.0)
    }
}

pub(super) fn squared_distance(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| (one - other) * (one - other)).sum()
}
