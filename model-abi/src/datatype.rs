//! Datatypes of the Open Inference Protocol, with its numbers and names.

use std::fmt;

/// What the elements of a tensor are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Datatype {
    /// One byte, 0 or 1.
    Bool = 1,
    Uint8 = 2,
    Uint16 = 3,
    Uint32 = 4,
    Uint64 = 5,
    Int8 = 6,
    Int16 = 7,
    Int32 = 8,
    Int64 = 9,
    /// IEEE 754 half precision; in Rust its bits as `u16`.
    Fp16 = 10,
    Fp32 = 11,
    Fp64 = 12,
    /// Texts or other bytes, each element behind its length.
    Bytes = 13,
    /// The upper half of an FP32; in Rust its bits as `u16`.
    Bf16 = 14,
}

impl Datatype {
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
        Self::Bf16,
    ];

    /// The datatype with a number of the binary interface.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.number() == number)
    }

    /// Its number in the binary interface.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Its name in descriptions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
            Self::Bf16 => "BF16",
        }
    }

    /// Bytes of an element; `None` for [`Datatype::Bytes`], whose elements have any length.
    pub const fn width(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_from_one_and_lead_back() {
        for (index, datatype) in Datatype::ALL.into_iter().enumerate() {
            assert_eq!(datatype.number() as usize, index + 1);
            assert_eq!(Datatype::from_number(datatype.number()), Some(datatype));
        }
        for number in [0, 15, u32::MAX] {
            assert_eq!(Datatype::from_number(number), None);
        }
    }
}
