//! The datatypes of the Open Inference Protocol v2 and their widths.

use std::fmt;

/// An element type, named as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    /// Byte strings of any length; text is UTF-8.
    Bytes,
}

impl Dtype {
    /// Every datatype.
    pub const ALL: [Dtype; 14] = [
        Dtype::Bool,
        Dtype::Uint8,
        Dtype::Uint16,
        Dtype::Uint32,
        Dtype::Uint64,
        Dtype::Int8,
        Dtype::Int16,
        Dtype::Int32,
        Dtype::Int64,
        Dtype::Fp16,
        Dtype::Bf16,
        Dtype::Fp32,
        Dtype::Fp64,
        Dtype::Bytes,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Bool => "BOOL",
            Dtype::Uint8 => "UINT8",
            Dtype::Uint16 => "UINT16",
            Dtype::Uint32 => "UINT32",
            Dtype::Uint64 => "UINT64",
            Dtype::Int8 => "INT8",
            Dtype::Int16 => "INT16",
            Dtype::Int32 => "INT32",
            Dtype::Int64 => "INT64",
            Dtype::Fp16 => "FP16",
            Dtype::Bf16 => "BF16",
            Dtype::Fp32 => "FP32",
            Dtype::Fp64 => "FP64",
            Dtype::Bytes => "BYTES",
        }
    }

    /// The datatype of this wire name.
    pub fn from_name(name: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes an element; `None` for BYTES.
    pub fn width(self) -> Option<usize> {
        match self {
            Dtype::Bool | Dtype::Uint8 | Dtype::Int8 => Some(1),
            Dtype::Uint16 | Dtype::Int16 | Dtype::Fp16 | Dtype::Bf16 => Some(2),
            Dtype::Uint32 | Dtype::Int32 | Dtype::Fp32 => Some(4),
            Dtype::Uint64 | Dtype::Int64 | Dtype::Fp64 => Some(8),
            Dtype::Bytes => None,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
