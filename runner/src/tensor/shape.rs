//! Shape arithmetic. Every product is checked: a shape from outside is a request for memory.

use super::TensorError;

/// Dimensions a tensor may have.
const MAX_RANK: usize = 16;

/// A declared dimension of a model's input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// Exactly this many.
    Fixed(i64),
    /// Any number; the name, if the model gives one, ties equal dimensions together for the reader.
    Any(Option<String>),
}

impl Dim {
    /// The dimension as the Open Inference Protocol writes it: -1 for one that varies.
    pub fn wire(&self) -> i64 {
        match self {
            Dim::Fixed(size) => *size,
            Dim::Any(_) => -1,
        }
    }
}

/// The number of elements of `shape`; 1 for a scalar.
///
/// # Errors
/// [`TensorError::Shape`] for a negative dimension, a rank over 16, or a product that does not fit.
pub fn element_count(shape: &[i64]) -> Result<usize, TensorError> {
    if shape.len() > MAX_RANK {
        return Err(TensorError::Shape(format!("of rank {}", shape.len()), "the rank is at most 16"));
    }
    // A zero empties the tensor, but does not excuse an absurd neighbour: the non-zero product must fit as well.
    let mut count: usize = 1;
    let mut empty = false;
    for &size in shape {
        let size = usize::try_from(size)
            .map_err(|_| TensorError::Shape(format_shape(shape), "a dimension is negative"))?;
        empty |= size == 0;
        count = count
            .checked_mul(size.max(1))
            .filter(|count| *count <= isize::MAX as usize / 8)
            .ok_or_else(|| TensorError::Shape(format_shape(shape), "too many elements"))?;
    }
    Ok(if empty { 0 } else { count })
}

/// Does a tensor of this shape fit the declared dimensions?
pub fn matches(shape: &[i64], declared: &[Dim]) -> bool {
    shape.len() == declared.len()
        && shape.iter().zip(declared).all(|(size, dim)| match dim {
            Dim::Fixed(wanted) => size == wanted,
            Dim::Any(_) => true,
        })
}

/// `[2,3]`
pub fn format_shape(shape: &[i64]) -> String {
    let sizes: Vec<String> = shape.iter().map(i64::to_string).collect();
    format!("[{}]", sizes.join(","))
}

/// `[-1,3]`, with names where the model gives them: `[batch,3]`
pub fn format_dims(dims: &[Dim]) -> String {
    let sizes: Vec<String> = dims
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => size.to_string(),
            Dim::Any(Some(name)) => name.clone(),
            Dim::Any(None) => "-1".to_owned(),
        })
        .collect();
    format!("[{}]", sizes.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_elements() {
        for (shape, count) in [(vec![], 1), (vec![3], 3), (vec![2, 3], 6), (vec![0], 0), (vec![5, 0, 7], 0)] {
            assert_eq!(element_count(&shape), Ok(count), "{shape:?}");
        }
    }

    #[test]
    fn refuses_what_cannot_be_addressed() {
        for shape in [
            vec![-1],
            vec![-1, 1 << 62],
            vec![1 << 32, 1 << 32],
            vec![i64::MIN],
            vec![0, 1 << 62, 1 << 62],
            vec![1; 17],
        ] {
            assert!(matches!(element_count(&shape), Err(TensorError::Shape(..))), "{shape:?}");
        }
    }
}
