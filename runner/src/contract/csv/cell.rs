//! One cell: its text to the bytes of a protobuf value, and a value to its text.
//!
//! The bytes come without a tag: tags belong to fields, and the same cell may stand behind a field's tag, inside a
//! wrapper, as a map's value or in a packed list. Numbers are read by the standard library, whose grammar is the
//! documented one: decimal, NaN and infinities in any case, and no hexadecimal.

use std::str::FromStr;

use ::csv::StringRecord;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::encoding::{WireType, encode_varint};
use prost_reflect::{EnumDescriptor, Kind, Value};

use super::super::value::Scalar;
use super::shown;

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
/// Taken as well when reading, as the JSON mapping does.
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

/// Values of an enum that a complaint lists.
const SHOWN_VALUES: usize = 8;

/// How the cells of a column are read and written.
#[derive(Debug, Clone)]
pub(super) enum Codec {
    Scalar(Scalar),
    Enum(EnumDescriptor),
}

/// Why a text is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is no text.
    Empty,
    /// It is a number, but too large or too small.
    Range,
    /// It is something else.
    Unreadable,
}

impl Codec {
    /// The codec of a field's kind; `None` for messages.
    pub(super) fn of(kind: &Kind) -> Option<Self> {
        match kind {
            Kind::Enum(descriptor) => Some(Self::Enum(descriptor.clone())),
            kind => Scalar::of(kind).map(Self::Scalar),
        }
    }

    pub(super) fn wire_type(&self) -> WireType {
        match self {
            Self::Scalar(Scalar::String | Scalar::Bytes) => WireType::LengthDelimited,
            Self::Scalar(scalar) => match scalar.width() {
                Some(8) => WireType::SixtyFourBit,
                Some(_) => WireType::ThirtyTwoBit,
                None => WireType::Varint,
            },
            Self::Enum(_) => WireType::Varint,
        }
    }

    /// What is wrong with a cell, and what it has to be.
    pub(super) fn complaint(&self, text: &str, fault: Fault) -> String {
        match fault {
            Fault::Empty => "an empty cell; the field is not optional".to_owned(),
            Fault::Range => format!("{} does not fit {}", shown(text), self.name()),
            Fault::Unreadable => format!("{} is not {}", shown(text), self.expected()),
        }
    }

    fn expected(&self) -> String {
        match self {
            Self::Enum(descriptor) => {
                let names: Vec<String> =
                    descriptor.values().take(SHOWN_VALUES).map(|value| value.name().to_owned()).collect();
                let more = if descriptor.values().len() > names.len() { ", ..." } else { "" };
                format!("a value of {} ({}{more}) or its number", descriptor.name(), names.join(", "))
            }
            Self::Scalar(Scalar::Bool) => "true, false, 1 or 0".to_owned(),
            Self::Scalar(Scalar::Bytes) => "base64".to_owned(),
            Self::Scalar(_) => format!("a number ({})", self.name()),
        }
    }

    /// The type as in the contract.
    fn name(&self) -> &str {
        match self {
            Self::Enum(descriptor) => descriptor.name(),
            Self::Scalar(scalar) => match scalar {
                Scalar::Double => "double",
                Scalar::Float => "float",
                Scalar::Int32 => "int32",
                Scalar::Int64 => "int64",
                Scalar::Uint32 => "uint32",
                Scalar::Uint64 => "uint64",
                Scalar::Sint32 => "sint32",
                Scalar::Sint64 => "sint64",
                Scalar::Fixed32 => "fixed32",
                Scalar::Fixed64 => "fixed64",
                Scalar::Sfixed32 => "sfixed32",
                Scalar::Sfixed64 => "sfixed64",
                Scalar::Bool => "bool",
                Scalar::String => "string",
                Scalar::Bytes => "bytes",
            },
        }
    }

    /// Does this text say anything? Spaces are text for a string, and nothing around everything else.
    pub(super) fn is_filled(&self, text: &str) -> bool {
        !self.trimmed(text).is_empty()
    }

    fn trimmed<'a>(&self, text: &'a str) -> &'a str {
        match self {
            Self::Scalar(Scalar::String) => text,
            _ => text.trim(),
        }
    }

    /// Appends the value's bytes, with the length where the wire type has one.
    pub(super) fn read(&self, text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
        let text = self.trimmed(text);
        let scalar = match self {
            Self::Scalar(scalar) => *scalar,
            Self::Enum(descriptor) => {
                varint(signed(enum_number(descriptor, text)?), out);
                return Ok(());
            }
        };
        match scalar {
            Scalar::String => {
                varint(text.len() as u64, out);
                out.extend_from_slice(text.as_bytes());
            }
            Scalar::Bytes => delimited(out, |out| base64(text, out))?,
            Scalar::Bool => out.push(u8::from(boolean(text)?)),
            Scalar::Double => {
                out.extend_from_slice(&finite(text, float(text)?, f64::is_infinite)?.to_le_bytes())
            }
            Scalar::Float => {
                out.extend_from_slice(&finite(text, float(text)?, f32::is_infinite)?.to_le_bytes())
            }
            Scalar::Int32 => varint(signed(integer::<i32>(text)?), out),
            Scalar::Int64 => varint(signed(integer::<i64>(text)?), out),
            Scalar::Uint32 => varint(integer::<u32>(text)?.into(), out),
            Scalar::Uint64 => varint(integer(text)?, out),
            Scalar::Sint32 => varint(zigzag(integer::<i32>(text)?), out),
            Scalar::Sint64 => varint(zigzag(integer::<i64>(text)?), out),
            Scalar::Fixed32 => out.extend_from_slice(&integer::<u32>(text)?.to_le_bytes()),
            Scalar::Fixed64 => out.extend_from_slice(&integer::<u64>(text)?.to_le_bytes()),
            Scalar::Sfixed32 => out.extend_from_slice(&integer::<i32>(text)?.to_le_bytes()),
            Scalar::Sfixed64 => out.extend_from_slice(&integer::<i64>(text)?.to_le_bytes()),
        }
        Ok(())
    }

    /// Appends the value's text as one cell. The type of a value of a dynamic message is that of its field; one that
    /// is none of a cell's (a message) has no text.
    pub(super) fn write(&self, value: &Value, out: &mut StringRecord) {
        match (self, value) {
            (Self::Enum(descriptor), Value::EnumNumber(number)) => match descriptor.get_value(*number) {
                Some(known) => out.push_field(known.name()),
                None => out.push_field(itoa::Buffer::new().format(*number)),
            },
            (_, Value::Bool(value)) => out.push_field(if *value { "true" } else { "false" }),
            (_, Value::I32(value)) => out.push_field(itoa::Buffer::new().format(*value)),
            (_, Value::I64(value)) => out.push_field(itoa::Buffer::new().format(*value)),
            (_, Value::U32(value)) => out.push_field(itoa::Buffer::new().format(*value)),
            (_, Value::U64(value)) => out.push_field(itoa::Buffer::new().format(*value)),
            (_, Value::F32(value)) => out.push_field(ryu::Buffer::new().format(*value)),
            (_, Value::F64(value)) => out.push_field(ryu::Buffer::new().format(*value)),
            (_, Value::String(value)) => out.push_field(value),
            (_, Value::Bytes(value)) => out.push_field(&BASE64.encode(value)),
            _ => out.push_field(""),
        }
    }
}

/// Appends what `content` appends, behind its length. The length goes to the end and is rotated to the front: nothing
/// is measured beforehand or built elsewhere.
pub(super) fn delimited<E>(
    out: &mut Vec<u8>,
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    content(out)?;
    let end = out.len();
    varint((end - start) as u64, out);
    let prefix = out.len() - end;
    if let Some(written) = out.get_mut(start..) {
        written.rotate_right(prefix);
    }
    Ok(())
}

fn varint(value: u64, out: &mut Vec<u8>) {
    encode_varint(value, out);
}

/// A negative number is ten bytes long on the wire, also one of 32 bits.
fn signed(value: impl Into<i64>) -> u64 {
    value.into().cast_unsigned()
}

fn zigzag(value: impl Into<i64>) -> u64 {
    let value = value.into();
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn integer<T: FromStr>(text: &str) -> Result<T, Fault> {
    text.parse().map_err(|_| {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        match digits {
            "" if text.is_empty() => Fault::Empty,
            "" => Fault::Unreadable,
            _ if digits.bytes().all(|byte| byte.is_ascii_digit()) => Fault::Range,
            _ => Fault::Unreadable,
        }
    })
}

fn float<T: FromStr>(text: &str) -> Result<T, Fault> {
    text.parse().map_err(|_| if text.is_empty() { Fault::Empty } else { Fault::Unreadable })
}

/// The standard library rounds what is too large to infinity; only the word means it.
fn finite<T: Copy>(text: &str, value: T, is_infinite: fn(T) -> bool) -> Result<T, Fault> {
    if is_infinite(value) && text.bytes().any(|byte| byte.is_ascii_digit()) {
        Err(Fault::Range)
    } else {
        Ok(value)
    }
}

fn boolean(text: &str) -> Result<bool, Fault> {
    match text {
        "1" => Ok(true),
        "0" => Ok(false),
        "" => Err(Fault::Empty),
        _ if text.eq_ignore_ascii_case("true") => Ok(true),
        _ if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(Fault::Unreadable),
    }
}

/// proto3's enums are open: a number without a name passes.
fn enum_number(descriptor: &EnumDescriptor, text: &str) -> Result<i32, Fault> {
    match descriptor.get_value_by_name(text) {
        Some(value) => Ok(value.number()),
        None => integer(text),
    }
}

fn base64(text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    let alphabet = if text.contains(['-', '_']) { &BASE64_URL } else { &BASE64 };
    alphabet.decode_vec(text, out).map_err(|_| Fault::Unreadable)
}
