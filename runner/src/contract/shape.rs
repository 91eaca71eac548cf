//! A tensor as rows: which part of its shape counts them, and how many elements one has.

use crate::engine::TensorSpec;
use crate::tensor::Dim;

/// What the first dimension means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Batch {
    /// It counts rows.
    Varies,
    /// It counts rows, and there is one.
    One,
    /// There is none: the tensor as a whole is one row.
    None,
}

/// Elements of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowSize {
    Fixed(usize),
    /// One dimension varies; the others multiply to this.
    Multiple(usize),
    /// Several dimensions vary, or the rank is not declared.
    Open,
}

/// The shape of a declared tensor, read as rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowShape {
    pub batch: Batch,
    pub size: RowSize,
    /// The dimensions of one row; `None` for the one that varies.
    dims: Vec<Option<i64>>,
}

impl RowShape {
    pub(super) fn of(spec: &TensorSpec) -> Self {
        let Some(shape) = &spec.shape else {
            return Self { batch: Batch::None, size: RowSize::Open, dims: Vec::new() };
        };
        let (batch, rest) = match shape.split_first() {
            Some((Dim::Any(_), rest)) => (Batch::Varies, rest),
            Some((Dim::Fixed(1), rest)) => (Batch::One, rest),
            _ => (Batch::None, shape.as_slice()),
        };
        let dims: Vec<Option<i64>> = rest
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(size) => Some(*size),
                Dim::Any(_) => None,
            })
            .collect();
        let known = dims
            .iter()
            .flatten()
            .try_fold(1_usize, |product, size| product.checked_mul(usize::try_from(*size).ok()?));
        let size = match (known, dims.iter().filter(|dim| dim.is_none()).count()) {
            (Some(product), 0) => RowSize::Fixed(product),
            (Some(product), 1) if product > 0 => RowSize::Multiple(product),
            _ => RowSize::Open,
        };
        Self { batch, size, dims }
    }

    /// Can a row have this many elements?
    pub(super) fn takes(&self, elements: usize) -> bool {
        match self.size {
            RowSize::Fixed(size) => size == elements,
            RowSize::Multiple(factor) => elements.is_multiple_of(factor),
            RowSize::Open => false,
        }
    }

    /// The shape of a tensor of `rows` rows with `elements` elements each, which [`Self::takes`] has accepted.
    pub(super) fn shape(&self, rows: usize, elements: usize) -> Vec<i64> {
        let varying = match self.size {
            RowSize::Multiple(factor) => elements / factor,
            _ => 0,
        };
        let row = self.dims.iter().map(|dim| dim.unwrap_or_else(|| dimension(varying)));
        let batch = (self.batch != Batch::None).then(|| dimension(rows));
        batch.into_iter().chain(row).collect()
    }
}

/// A dimension that counts things in memory, so it fits.
fn dimension(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;

    fn check(shape: Option<&[i64]>, batch: Batch, size: RowSize) -> RowShape {
        let dim = |size: &i64| if *size < 0 { Dim::Any(None) } else { Dim::Fixed(*size) };
        let spec = TensorSpec {
            name: "x".to_owned(),
            dtype: Dtype::Fp32,
            shape: shape.map(|dims| dims.iter().map(dim).collect()),
            labels: None,
        };
        let read = RowShape::of(&spec);
        assert_eq!((read.batch, read.size), (batch, size), "{shape:?}");
        read
    }

    #[test]
    fn shapes_are_read_as_rows() {
        let plain = check(Some(&[-1, 4]), Batch::Varies, RowSize::Fixed(4));
        assert_eq!(plain.shape(3, 4), [3, 4]);
        assert_eq!(check(Some(&[-1]), Batch::Varies, RowSize::Fixed(1)).shape(3, 1), [3]);
        assert_eq!(check(Some(&[1]), Batch::One, RowSize::Fixed(1)).shape(1, 1), [1]);
        assert_eq!(check(Some(&[]), Batch::None, RowSize::Fixed(1)).shape(1, 1), [0_i64; 0]);
        assert_eq!(check(Some(&[2, 3]), Batch::None, RowSize::Fixed(6)).shape(1, 6), [2, 3]);
        let image = check(Some(&[1, 3, -1, 8]), Batch::One, RowSize::Multiple(24));
        assert!(image.takes(48) && !image.takes(47));
        assert_eq!(image.shape(1, 48), [1, 3, 2, 8]);
        check(Some(&[-1, -1, -1]), Batch::Varies, RowSize::Open);
        check(Some(&[-1, 0]), Batch::Varies, RowSize::Fixed(0));
        check(Some(&[-1, 0, -1]), Batch::Varies, RowSize::Open);
        check(None, Batch::None, RowSize::Open);
    }
}
