//! Comparison of two tensors within a tolerance, for golden rows.

use half::{bf16, f16};
use serde::Deserialize;

use super::{Dtype, Elements, Tensor, format_shape};

/// How far a floating-point element may lie from what was expected:
/// `|got - expected| <= absolute + relative * |expected|` (the rule of `numpy.isclose`). Other datatypes are exact.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tolerance {
    pub absolute: f64,
    pub relative: f64,
}

impl Default for Tolerance {
    /// What two machines' float kernels differ by.
    fn default() -> Self {
        Self { absolute: 1e-5, relative: 1e-4 }
    }
}

/// One element that is not what was expected.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Position in the tensor, e.g. `[0,2]`.
    pub position: String,
    pub expected: String,
    pub got: String,
}

/// The elements that differ (at most `limit` of them) and how many there are in all.
pub fn compare(
    expected: &Tensor,
    got: &Tensor,
    tolerance: Tolerance,
    limit: usize,
) -> (Vec<Difference>, usize) {
    if expected.shape() != got.shape() || expected.dtype() != got.dtype() {
        let describe = |tensor: &Tensor| format!("{} {}", tensor.dtype(), format_shape(tensor.shape()));
        let whole =
            Difference { position: "shape".to_owned(), expected: describe(expected), got: describe(got) };
        return (vec![whole], 1);
    }
    let mut differences = Vec::new();
    let mut count = 0;
    let mut note = |index: usize, expected_element: String, got_element: String| {
        count += 1;
        if differences.len() < limit {
            differences.push(Difference {
                position: format_position(index, got.shape()),
                expected: expected_element,
                got: got_element,
            });
        }
    };
    match (expected.elements(), got.elements()) {
        (Elements::Text(expected), Elements::Text(got)) => {
            for (index, (expected, got)) in expected.iter().zip(got).enumerate() {
                if expected != got {
                    note(index, format!("{expected:?}"), format!("{got:?}"));
                }
            }
        }
        (Elements::Raw(expected_bytes), Elements::Raw(got_bytes)) => {
            let width = expected.dtype().width().unwrap_or(1);
            let pairs = expected_bytes.chunks_exact(width).zip(got_bytes.chunks_exact(width));
            for (index, (expected_element, got_element)) in pairs.enumerate() {
                if expected_element == got_element {
                    continue;
                }
                let (wanted, came) =
                    (number(expected.dtype(), expected_element), number(got.dtype(), got_element));
                let close = match (&wanted, &came) {
                    (Number::Float(wanted), Number::Float(came)) => is_close(*wanted, *came, tolerance),
                    _ => false,
                };
                if !close {
                    note(index, wanted.to_string(), came.to_string());
                }
            }
        }
        _ => note(0, "text".to_owned(), "numbers".to_owned()),
    }
    (differences, count)
}

fn is_close(expected: f64, got: f64, tolerance: Tolerance) -> bool {
    if expected.is_nan() || got.is_nan() {
        return expected.is_nan() && got.is_nan();
    }
    if expected.is_infinite() || got.is_infinite() {
        return expected == got;
    }
    (got - expected).abs() <= tolerance.absolute + tolerance.relative * expected.abs()
}

enum Number {
    Float(f64),
    Integer(i128),
}

impl std::fmt::Display for Number {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // What came is often a 32-bit value widened; nine digits show it without noise.
            Number::Float(value) => write!(formatter, "{}", format_float(*value)),
            Number::Integer(value) => write!(formatter, "{value}"),
        }
    }
}

fn format_float(value: f64) -> String {
    let short = value as f32;
    if f64::from(short) == value || short.is_infinite() { short.to_string() } else { value.to_string() }
}

fn number(dtype: Dtype, element: &[u8]) -> Number {
    let mut wide = [0_u8; 8];
    for (slot, byte) in wide.iter_mut().zip(element) {
        *slot = *byte;
    }
    let low = u64::from_le_bytes(wide);
    match dtype {
        Dtype::Fp16 => Number::Float(f16::from_bits(low as u16).into()),
        Dtype::Bf16 => Number::Float(bf16::from_bits(low as u16).into()),
        Dtype::Fp32 => Number::Float(f32::from_bits(low as u32).into()),
        Dtype::Fp64 => Number::Float(f64::from_bits(low)),
        Dtype::Int8 => Number::Integer((low as u8 as i8).into()),
        Dtype::Int16 => Number::Integer((low as u16 as i16).into()),
        Dtype::Int32 => Number::Integer((low as u32 as i32).into()),
        Dtype::Int64 => Number::Integer((low as i64).into()),
        Dtype::Bool | Dtype::Uint8 | Dtype::Uint16 | Dtype::Uint32 | Dtype::Uint64 | Dtype::Bytes => {
            Number::Integer(low.into())
        }
    }
}

fn format_position(mut index: usize, shape: &[i64]) -> String {
    let mut position = vec![0; shape.len()];
    for (slot, &size) in position.iter_mut().zip(shape).rev() {
        let size = usize::try_from(size).unwrap_or(1).max(1);
        *slot = (index % size) as i64;
        index /= size;
    }
    format_shape(&position)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn floats(values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::raw(Dtype::Fp32, vec![1, values.len() as i64], Bytes::from(bytes)).expect("a tensor")
    }

    #[test]
    fn floats_within_tolerance_are_equal() {
        let tolerance = Tolerance { absolute: 1e-3, relative: 0.0 };
        assert_eq!(compare(&floats(&[1.0, 2.0]), &floats(&[1.0005, 2.0]), tolerance, 5).1, 0);
        let (differences, count) = compare(&floats(&[1.0, 2.0]), &floats(&[1.0, 2.5]), tolerance, 5);
        assert_eq!(count, 1);
        assert_eq!((differences[0].position.as_str(), differences[0].got.as_str()), ("[0,1]", "2.5"));
        assert_eq!(compare(&floats(&[f32::NAN]), &floats(&[f32::NAN]), tolerance, 5).1, 0);
        assert_eq!(compare(&floats(&[f32::INFINITY]), &floats(&[1.0]), tolerance, 5).1, 1);
    }

    #[test]
    fn a_different_shape_is_one_difference() {
        let (differences, count) = compare(&floats(&[1.0]), &floats(&[1.0, 2.0]), Tolerance::default(), 5);
        assert_eq!((count, differences[0].position.as_str()), (1, "shape"));
    }
}
