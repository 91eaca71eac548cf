//! One value between the wire and a tensor: which protobuf types go with which datatypes, and the conversions.
//!
//! Two questions, two answers: [`fits`] is asked when a contract is bound and never again; [`Number::write`] and
//! [`Number::read`] convert and say no to a value that is out of range.

use std::cmp::Ordering;

use half::{bf16, f16};
use prost_reflect::Kind;

use crate::tensor::Dtype;

/// Which way values go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From fields to inputs.
    Request,
    /// From outputs to fields.
    Response,
}

/// How a scalar is written on the wire, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Double,
    Float,
    /// `int32` and enums.
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
}

impl Scalar {
    /// The scalar of a field's kind; `None` for messages.
    pub(super) fn of(kind: &Kind) -> Option<Self> {
        Some(match kind {
            Kind::Double => Self::Double,
            Kind::Float => Self::Float,
            Kind::Int32 | Kind::Enum(_) => Self::Int32,
            Kind::Int64 => Self::Int64,
            Kind::Uint32 => Self::Uint32,
            Kind::Uint64 => Self::Uint64,
            Kind::Sint32 => Self::Sint32,
            Kind::Sint64 => Self::Sint64,
            Kind::Fixed32 => Self::Fixed32,
            Kind::Fixed64 => Self::Fixed64,
            Kind::Sfixed32 => Self::Sfixed32,
            Kind::Sfixed64 => Self::Sfixed64,
            Kind::Bool => Self::Bool,
            Kind::String => Self::String,
            Kind::Bytes => Self::Bytes,
            Kind::Message(_) => return None,
        })
    }

    /// Bytes of each value, if they are the same for all.
    pub(super) fn width(self) -> Option<usize> {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => Some(8),
            Self::Float | Self::Fixed32 | Self::Sfixed32 => Some(4),
            _ => None,
        }
    }

    /// Are the bytes on the wire those of the tensor?
    pub(super) fn is_raw(self, dtype: Dtype) -> bool {
        matches!(
            (self, dtype),
            (Self::Float, Dtype::Fp32)
                | (Self::Double, Dtype::Fp64)
                | (Self::Fixed32, Dtype::Uint32)
                | (Self::Fixed64, Dtype::Uint64)
                | (Self::Sfixed32, Dtype::Int32)
                | (Self::Sfixed64, Dtype::Int64)
        )
    }
}

/// Do values of this kind go to (or come from) tensors of this datatype? See `docs/contracts.md`, "Values".
pub(super) fn fits(kind: &Kind, dtype: Dtype, direction: Direction) -> bool {
    let is_float = matches!(dtype, Dtype::Fp16 | Dtype::Bf16 | Dtype::Fp32 | Dtype::Fp64);
    match (kind, direction) {
        // Elements of a string tensor, or the raw elements of any other.
        (Kind::Bytes, _) => true,
        (Kind::String, _) => dtype == Dtype::Bytes,
        (Kind::Message(_), _) => false,
        // By name.
        (Kind::Enum(_), _) if dtype == Dtype::Bytes => true,
        (_, _) if dtype == Dtype::Bytes => false,
        (Kind::Bool, Direction::Request) => true,
        (Kind::Bool, Direction::Response) => dtype == Dtype::Bool,
        (Kind::Float | Kind::Double, Direction::Request) => is_float,
        (Kind::Float | Kind::Double, Direction::Response) => true,
        (_, Direction::Request) => dtype != Dtype::Bool,
        (_, Direction::Response) => !is_float,
    }
}

/// A number on its way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Signed(i64),
    Unsigned(u64),
    /// Kept apart from [`Number::Double`], so that a NaN's bits survive.
    Float(f32),
    Double(f64),
}

/// A value that its target cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misfit;

impl std::fmt::Display for Number {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Signed(value) => value.fmt(formatter),
            Self::Unsigned(value) => value.fmt(formatter),
            Self::Float(value) => value.fmt(formatter),
            Self::Double(value) => value.fmt(formatter),
        }
    }
}

impl Number {
    /// The same integer in another type.
    #[inline]
    pub(super) fn integer<T: TryFrom<i64> + TryFrom<u64>>(self) -> Result<T, Misfit> {
        match self {
            Self::Signed(value) => T::try_from(value).map_err(|_| Misfit),
            Self::Unsigned(value) => T::try_from(value).map_err(|_| Misfit),
            Self::Float(_) | Self::Double(_) => Err(Misfit),
        }
    }

    /// The nearest double.
    pub(super) fn double(self) -> f64 {
        match self {
            Self::Signed(value) => value as f64,
            Self::Unsigned(value) => value as f64,
            Self::Float(value) => f64::from(value),
            Self::Double(value) => value,
        }
    }

    /// The nearest float; a finite number must not become an infinite one.
    pub(super) fn float(self) -> Result<f32, Misfit> {
        let value = match self {
            Self::Signed(value) => value as f32,
            Self::Unsigned(value) => value as f32,
            Self::Float(value) => return Ok(value),
            Self::Double(value) => value as f32,
        };
        if value.is_infinite() && self.double().is_finite() { Err(Misfit) } else { Ok(value) }
    }

    /// The float next to the number whose last bit is odd, unless the number is a float: rounding that to fewer bits
    /// gives what rounding the number itself gives.
    fn odd_float(self) -> f32 {
        let (nearest, order) = match self {
            Self::Float(value) => return value,
            Self::Signed(value) => (value as f32, (value as f32 as i128).cmp(&value.into())),
            Self::Unsigned(value) => (value as f32, (value as f32 as i128).cmp(&value.into())),
            Self::Double(value) => {
                let nearest = value as f32;
                (nearest, f64::from(nearest).partial_cmp(&value).unwrap_or(Ordering::Equal))
            }
        };
        let outward = if nearest.is_sign_negative() { Ordering::Less } else { Ordering::Greater };
        match order {
            Ordering::Equal => nearest,
            order if order == outward => f32::from_bits((nearest.to_bits() - 1) | 1),
            _ => f32::from_bits(nearest.to_bits() | 1),
        }
    }

    /// Writes the number as one element of `dtype` to `to`, which has the element's width.
    pub(super) fn write(self, dtype: Dtype, to: &mut [u8]) -> Result<(), Misfit> {
        let mut put = |bytes: &[u8]| to.copy_from_slice(bytes);
        match dtype {
            Dtype::Bool => put(&[u8::from(self.double() != 0.0)]),
            Dtype::Int8 => put(&self.integer::<i8>()?.to_le_bytes()),
            Dtype::Int16 => put(&self.integer::<i16>()?.to_le_bytes()),
            Dtype::Int32 => put(&self.integer::<i32>()?.to_le_bytes()),
            Dtype::Int64 => put(&self.integer::<i64>()?.to_le_bytes()),
            Dtype::Uint8 => put(&self.integer::<u8>()?.to_le_bytes()),
            Dtype::Uint16 => put(&self.integer::<u16>()?.to_le_bytes()),
            Dtype::Uint32 => put(&self.integer::<u32>()?.to_le_bytes()),
            Dtype::Uint64 => put(&self.integer::<u64>()?.to_le_bytes()),
            Dtype::Fp32 => put(&self.float()?.to_le_bytes()),
            Dtype::Fp64 => put(&self.double().to_le_bytes()),
            Dtype::Fp16 => {
                let value = f16::from_f32(self.odd_float());
                finite(value.is_infinite(), self)?;
                put(&value.to_le_bytes());
            }
            Dtype::Bf16 => {
                let value = bf16::from_f32(self.odd_float());
                finite(value.is_infinite(), self)?;
                put(&value.to_le_bytes());
            }
            Dtype::Bytes => return Err(Misfit),
        }
        Ok(())
    }

    /// Reads one element; `None` for BYTES or too few bytes.
    pub(super) fn read(dtype: Dtype, from: &[u8]) -> Option<Self> {
        macro_rules! take {
            ($type:ty) => {
                <$type>::from_le_bytes(from.get(..size_of::<$type>())?.try_into().ok()?)
            };
        }
        Some(match dtype {
            Dtype::Bool | Dtype::Uint8 => Self::Unsigned(take!(u8).into()),
            Dtype::Uint16 => Self::Unsigned(take!(u16).into()),
            Dtype::Uint32 => Self::Unsigned(take!(u32).into()),
            Dtype::Uint64 => Self::Unsigned(take!(u64)),
            Dtype::Int8 => Self::Signed(take!(i8).into()),
            Dtype::Int16 => Self::Signed(take!(i16).into()),
            Dtype::Int32 => Self::Signed(take!(i32).into()),
            Dtype::Int64 => Self::Signed(take!(i64)),
            Dtype::Fp16 => Self::Float(take!(f16).to_f32()),
            Dtype::Bf16 => Self::Float(take!(bf16).to_f32()),
            Dtype::Fp32 => Self::Float(take!(f32)),
            Dtype::Fp64 => Self::Double(take!(f64)),
            Dtype::Bytes => return None,
        })
    }
}

fn finite(became_infinite: bool, number: Number) -> Result<(), Misfit> {
    if became_infinite && number.double().is_finite() { Err(Misfit) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_arrives_and_what_does_not_is_refused() {
        for (number, dtype, expected) in [
            (Number::Signed(-129), Dtype::Int8, None),
            (Number::Signed(-128), Dtype::Int8, Some(Number::Signed(-128))),
            (Number::Signed(-1), Dtype::Uint64, None),
            (Number::Unsigned(u64::MAX), Dtype::Int64, None),
            (Number::Unsigned(u64::MAX), Dtype::Uint64, Some(Number::Unsigned(u64::MAX))),
            (Number::Signed(1 << 40), Dtype::Fp32, Some(Number::Float(1.0995116e12))),
            (Number::Double(1e300), Dtype::Fp32, None),
            (Number::Double(f64::INFINITY), Dtype::Fp32, Some(Number::Float(f32::INFINITY))),
            (Number::Double(70_000.0), Dtype::Fp16, None),
            (Number::Float(0.5), Dtype::Fp16, Some(Number::Float(0.5))),
            (Number::Signed(i64::MAX), Dtype::Bf16, Some(Number::Float(9.223372e18))),
            (Number::Signed(7), Dtype::Bool, Some(Number::Unsigned(1))),
            (Number::Float(1.0), Dtype::Int32, None),
        ] {
            let mut bytes = vec![0; dtype.width().unwrap_or(0)];
            let written = number.write(dtype, &mut bytes).ok().and_then(|()| Number::read(dtype, &bytes));
            assert_eq!(written, expected, "{number:?} as {dtype}");
        }
    }
}
