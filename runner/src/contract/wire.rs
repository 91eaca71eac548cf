//! The protobuf wire format: varints, tags, and walking over a message's fields.
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

use bytes::Bytes;

use super::value::{Misfit, Number, Scalar};

/// How a field's value lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Length = 2,
    StartGroup = 3,
    EndGroup = 4,
    Fixed32 = 5,
}

impl Scalar {
    /// The wire type of a single value.
    pub(super) fn wire_type(self) -> WireType {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => WireType::Fixed64,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => WireType::Fixed32,
            Self::String | Self::Bytes => WireType::Length,
            _ => WireType::Varint,
        }
    }
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// The bytes end within a value.
    Truncated,
    /// A varint of more than ten bytes, a field number or wire type that does not exist.
    Invalid,
    /// Groups inside each other beyond the limit.
    TooDeep,
}

/// Reads from a part of a message.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    pub bytes: &'a Bytes,
    pub at: usize,
    pub end: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0, end: bytes.len() }
    }

    pub(super) fn is_done(&self) -> bool {
        self.at >= self.end
    }

    /// What is left, as it lies there.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..self.end).unwrap_or_default()
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        let rest = self.rest();
        match rest.first() {
            Some(byte) if *byte < 0x80 => {
                self.at += 1;
                return Ok(u64::from(*byte));
            }
            None => return Err(Malformed::Truncated),
            Some(_) => {}
        }
        let mut value = 0_u64;
        for (index, byte) in rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if index == 9 && *byte > 1 {
                return Err(Malformed::Invalid);
            }
            value |= bits << (7 * index);
            if *byte < 0x80 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(if rest.len() < 10 { Malformed::Truncated } else { Malformed::Invalid })
    }

    /// A field's number and wire type.
    #[inline]
    pub(super) fn tag(&mut self) -> Result<(u32, WireType), Malformed> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed::Invalid)?;
        let wire_type = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Length,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            _ => return Err(Malformed::Invalid),
        };
        if tag >> 3 == 0 { Err(Malformed::Invalid) } else { Ok((tag >> 3, wire_type)) }
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.rest().first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.at += N;
        Ok(*bytes)
    }

    /// A length and the part that it covers.
    pub(super) fn part(&mut self) -> Result<Reader<'a>, Malformed> {
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Truncated)?;
        if length > self.end - self.at {
            return Err(Malformed::Truncated);
        }
        let part = Reader { bytes: self.bytes, at: self.at, end: self.at + length };
        self.at += length;
        Ok(part)
    }

    /// Goes past a value.
    pub(super) fn skip(&mut self, number: u32, wire_type: WireType, depth: usize) -> Result<(), Malformed> {
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.fixed::<8>().map(drop),
            WireType::Fixed32 => self.fixed::<4>().map(drop),
            WireType::Length => self.part().map(drop),
            WireType::EndGroup => Err(Malformed::Invalid),
            WireType::StartGroup if depth == 0 => Err(Malformed::TooDeep),
            WireType::StartGroup => loop {
                match self.tag()? {
                    (end, WireType::EndGroup) if end == number => return Ok(()),
                    (inner, wire_type) => self.skip(inner, wire_type, depth - 1)?,
                }
            },
        }
    }

    /// A number of this kind. Strings and bytes have none.
    #[inline]
    pub(super) fn number(&mut self, scalar: Scalar) -> Result<Number, Malformed> {
        Ok(match scalar {
            Scalar::Float => Number::Float(f32::from_le_bytes(self.fixed()?)),
            Scalar::Double => Number::Double(f64::from_le_bytes(self.fixed()?)),
            // Negative ones are sent as 64 bits; longer ones are cut, as everywhere.
            Scalar::Int32 => Number::Signed((self.varint()? as i32).into()),
            Scalar::Int64 => Number::Signed(self.varint()? as i64),
            Scalar::Uint32 => Number::Unsigned((self.varint()? as u32).into()),
            Scalar::Uint64 => Number::Unsigned(self.varint()?),
            Scalar::Sint32 => Number::Signed(i64::from(unzigzag(self.varint()? & 0xffff_ffff) as i32)),
            Scalar::Sint64 => Number::Signed(unzigzag(self.varint()?)),
            Scalar::Fixed32 => Number::Unsigned(u32::from_le_bytes(self.fixed()?).into()),
            Scalar::Fixed64 => Number::Unsigned(u64::from_le_bytes(self.fixed()?)),
            Scalar::Sfixed32 => Number::Signed(i32::from_le_bytes(self.fixed()?).into()),
            Scalar::Sfixed64 => Number::Signed(i64::from_le_bytes(self.fixed()?)),
            Scalar::Bool => Number::Unsigned(u64::from(self.varint()? != 0)),
            Scalar::String | Scalar::Bytes => return Err(Malformed::Invalid),
        })
    }
}

fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A tag's bytes.
pub(super) fn tag(number: u32, wire_type: WireType) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(u64::from(number) << 3 | wire_type as u64, &mut bytes);
    bytes
}

/// A length and that many bytes.
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Writes what `write` writes, with its length before it.
pub(super) fn put_part<E>(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    // One byte is enough for most; longer ones are moved up.
    let start = out.len();
    out.push(0);
    write(out)?;
    let length = out.len() - start - 1;
    match out.get_mut(start) {
        Some(byte) if length < 0x80 => *byte = length as u8,
        _ => {
            let mut prefix = Vec::with_capacity(10);
            put_varint(length as u64, &mut prefix);
            out.splice(start..=start, prefix);
        }
    }
    Ok(())
}

/// Writes a number that is known to fit as a value of this kind, without a tag.
#[inline]
pub(super) fn put_number(scalar: Scalar, number: Number, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match scalar {
        Scalar::Float => out.extend_from_slice(&number.float()?.to_le_bytes()),
        Scalar::Double => out.extend_from_slice(&number.double().to_le_bytes()),
        Scalar::Int32 => put_varint(i64::from(number.integer::<i32>()?) as u64, out),
        Scalar::Int64 => put_varint(number.integer::<i64>()? as u64, out),
        Scalar::Uint32 => put_varint(number.integer::<u32>()?.into(), out),
        Scalar::Uint64 => put_varint(number.integer::<u64>()?, out),
        Scalar::Sint32 => {
            let value = number.integer::<i32>()?;
            put_varint((((value << 1) ^ (value >> 31)) as u32).into(), out);
        }
        Scalar::Sint64 => {
            let value = number.integer::<i64>()?;
            put_varint(((value << 1) ^ (value >> 63)) as u64, out);
        }
        Scalar::Fixed32 => out.extend_from_slice(&number.integer::<u32>()?.to_le_bytes()),
        Scalar::Fixed64 => out.extend_from_slice(&number.integer::<u64>()?.to_le_bytes()),
        Scalar::Sfixed32 => out.extend_from_slice(&number.integer::<i32>()?.to_le_bytes()),
        Scalar::Sfixed64 => out.extend_from_slice(&number.integer::<i64>()?.to_le_bytes()),
        Scalar::Bool => out.push(u8::from(number.double() != 0.0)),
        Scalar::String | Scalar::Bytes => return Err(Misfit),
    }
    Ok(())
}
