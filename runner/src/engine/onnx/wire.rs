//! Protobuf's wire format, by hand: messages are read as fields over borrowed bytes, and written field by field.
//!
//! Nothing here knows ONNX. Generated code is not used on purpose: it would copy every weight, lose unknown fields when
//! a model is written again, and recurse as deep as the bytes say. Where this reader is stricter than Google's (groups,
//! overlong tags) the error is on the refusing side: no ONNX exporter writes such bytes.

/// A varint has at most this many bytes; what the last one holds beyond 64 bits is dropped, as Google's parsers do.
const VARINT_BYTES: usize = 10;

/// Bytes that do not follow the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {message} at byte {offset}: {fault}")]
pub(super) struct WireError {
    /// What the message is called in ONNX.
    pub(super) message: &'static str,
    /// From the beginning of the model.
    pub(super) offset: usize,
    pub(super) fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("a number is cut off")]
    CutOff,
    #[error("a number has more than {VARINT_BYTES} bytes")]
    LongNumber,
    #[error("a field of {wanted} bytes begins where only {left} are left")]
    PastEnd { wanted: u64, left: usize },
    #[error("no field has number {0}")]
    FieldNumber(u64),
    #[error("wire type {0} has no use in ONNX")]
    WireType(u8),
    #[error("field {0} has another wire type than it should")]
    WrongType(u32),
    #[error("packed elements do not fill field {0}")]
    Unpacked(u32),
    #[error("{0} is given twice")]
    Twice(&'static str),
    #[error("a name is not UTF-8")]
    Text,
}

/// An embedded message (or the whole model): borrowed bytes that know where they lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) name: &'static str,
    bytes: &'a [u8],
    /// Where its content begins in the model.
    pub(super) offset: usize,
}

impl<'a> Message<'a> {
    pub(super) fn whole(name: &'static str, bytes: &'a [u8]) -> Self {
        Self { name, bytes, offset: 0 }
    }

    /// The fields in the order of the bytes. Ends after the first error.
    pub(super) fn fields(self) -> Fields<'a> {
        Fields { message: self.name, rest: self.bytes, offset: self.offset }
    }

    /// Its bytes from one offset in the model to another; empty if they do not lie in it.
    pub(super) fn between(&self, start: usize, end: usize) -> &'a [u8] {
        let inside = |offset: usize| offset.checked_sub(self.offset);
        let range = inside(start).zip(inside(end));
        range.and_then(|(start, end)| self.bytes.get(start..end)).unwrap_or_default()
    }

    /// Where it ends in the model.
    pub(super) fn end(&self) -> usize {
        self.offset.saturating_add(self.bytes.len())
    }

    /// An error about this message as a whole.
    pub(super) fn fault(&self, fault: Fault) -> WireError {
        WireError { message: self.name, offset: self.offset, fault }
    }
}

/// A field's content as the wire tells it.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    /// Wire types 1 and 5 (8 and 4 bytes) and 2.
    Fixed(&'a [u8]),
    Bytes(&'a [u8]),
}

/// One field of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    message: &'static str,
    pub(super) number: u32,
    value: Value<'a>,
    /// Tag and content as they stand in the model.
    pub(super) whole: &'a [u8],
    /// Where that begins in the model.
    pub(super) offset: usize,
}

impl<'a> Field<'a> {
    pub(super) fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.fault(Fault::WrongType(self.number))),
        }
    }

    pub(super) fn text(&self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| self.fault(Fault::Text))
    }

    /// An embedded message, called `name` in errors about it.
    pub(super) fn message(&self, name: &'static str) -> Result<Message<'a>, WireError> {
        let bytes = self.bytes()?;
        Ok(Message { name, bytes, offset: self.end().saturating_sub(bytes.len()) })
    }

    /// Puts a singular message into `slot`. Protobuf would merge a second one into the first, which lets two harmless
    /// halves make a harmful whole; no exporter writes that.
    pub(super) fn message_once(
        &self,
        name: &'static str,
        slot: &mut Option<Message<'a>>,
    ) -> Result<Message<'a>, WireError> {
        let message = self.message(name)?;
        match slot.replace(message) {
            None => Ok(message),
            Some(_) => Err(self.fault(Fault::Twice(name))),
        }
    }

    pub(super) fn varint(&self) -> Result<u64, WireError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(self.fault(Fault::WrongType(self.number))),
        }
    }

    pub(super) fn int64(&self) -> Result<i64, WireError> {
        self.varint().map(u64::cast_signed)
    }

    /// The low 32 bits: what a parser keeps of an int32 or an enum, and so what it acts on.
    pub(super) fn int32(&self) -> Result<i32, WireError> {
        self.varint().map(|value| (value & u64::from(u32::MAX)) as u32).map(u32::cast_signed)
    }

    /// Elements of a repeated integer field, packed or not.
    pub(super) fn varints(&self) -> Result<Varints<'a>, WireError> {
        let (single, packed): (_, &[u8]) = match self.value {
            Value::Varint(value) => (Some(value), &[]),
            Value::Bytes(bytes) => (None, bytes),
            Value::Fixed(_) => return Err(self.fault(Fault::WrongType(self.number))),
        };
        let offset = self.end().saturating_sub(packed.len());
        Ok(Varints { single, packed: Fields { message: self.message, rest: packed, offset } })
    }

    /// How many elements of `width` bytes (4 or 8) a repeated field holds, packed or not.
    pub(super) fn count_fixed(&self, width: usize) -> Result<usize, WireError> {
        match self.value {
            Value::Fixed(bytes) if bytes.len() == width => Ok(1),
            Value::Bytes(bytes) if bytes.len().is_multiple_of(width) => Ok(bytes.len() / width),
            Value::Bytes(_) => Err(self.fault(Fault::Unpacked(self.number))),
            _ => Err(self.fault(Fault::WrongType(self.number))),
        }
    }

    fn fault(&self, fault: Fault) -> WireError {
        WireError { message: self.message, offset: self.offset, fault }
    }

    /// Where it ends in the model.
    pub(super) fn end(&self) -> usize {
        self.offset.saturating_add(self.whole.len())
    }
}

/// The fields of a message.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    message: &'static str,
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let start = self.offset;
        let field = self.read().map_err(|fault| WireError { message: self.message, offset: start, fault });
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<Field<'a>, Fault> {
        let (begin, offset) = (self.rest, self.offset);
        let tag = self.varint()?;
        let number = match u32::try_from(tag >> 3) {
            Ok(number @ 1..=0x1fff_ffff) => number,
            _ => return Err(Fault::FieldNumber(tag >> 3)),
        };
        let value = match (tag & 7) as u8 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed(self.take(8)?),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed(self.take(4)?),
            other => return Err(Fault::WireType(other)),
        };
        let whole = begin.get(..begin.len().saturating_sub(self.rest.len())).unwrap_or_default();
        Ok(Field { message: self.message, number, value, whole, offset })
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for (index, byte) in self.rest.iter().take(VARINT_BYTES).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.take(index as u64 + 1)?;
                return Ok(value);
            }
        }
        Err(if self.rest.len() < VARINT_BYTES { Fault::CutOff } else { Fault::LongNumber })
    }

    fn take(&mut self, wanted: u64) -> Result<&'a [u8], Fault> {
        let past_end = Fault::PastEnd { wanted, left: self.rest.len() };
        let length = usize::try_from(wanted).map_err(|_| past_end)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(past_end)?;
        self.rest = rest;
        self.offset = self.offset.saturating_add(length);
        Ok(taken)
    }
}

/// Elements of a repeated integer field.
pub(super) struct Varints<'a> {
    single: Option<u64>,
    packed: Fields<'a>,
}

impl Iterator for Varints<'_> {
    type Item = Result<u64, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(single) = self.single.take() {
            return Some(Ok(single));
        }
        if self.packed.rest.is_empty() {
            return None;
        }
        let (message, offset) = (self.packed.message, self.packed.offset);
        let element = self.packed.varint().map_err(|fault| WireError { message, offset, fault });
        if element.is_err() {
            self.packed.rest = &[];
        }
        Some(element)
    }
}

/// A message being written.
#[derive(Debug, Clone, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn int(mut self, number: u32, value: i64) -> Self {
        self.put_varint(u64::from(number) << 3);
        self.put_varint(value.cast_unsigned());
        self
    }

    /// A string, bytes or an embedded message.
    pub(super) fn bytes(self, number: u32, bytes: &[u8]) -> Self {
        self.announce(number, bytes.len()).verbatim(bytes)
    }

    pub(super) fn message(self, number: u32, message: Writer) -> Self {
        self.bytes(number, &message.0)
    }

    /// Announces an embedded message of `length` bytes, which follow by [`Self::verbatim`].
    pub(super) fn announce(mut self, number: u32, length: usize) -> Self {
        self.put_varint(u64::from(number) << 3 | 2);
        self.put_varint(length as u64);
        self
    }

    /// Bytes that are fields already.
    pub(super) fn verbatim(mut self, fields: &[u8]) -> Self {
        self.0.extend_from_slice(fields);
        self
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn put_varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_fault(bytes: &[u8], offset: usize, expected: Fault) {
        let errors: Vec<_> = Message::whole("model", bytes).fields().filter_map(Result::err).collect();
        assert_eq!(errors, [WireError { message: "model", offset, fault: expected }], "{bytes:02x?}");
    }

    #[test]
    fn faults_are_named_where_they_are() {
        check_fault(&[0x08], 0, Fault::CutOff);
        check_fault(&[0x08, 0x01, 0x80], 2, Fault::CutOff);
        check_fault(&[0x08, 0x01, 0x12, 0x03, b'a'], 2, Fault::PastEnd { wanted: 3, left: 1 });
        check_fault(&[0x0d, 1, 2, 3], 0, Fault::PastEnd { wanted: 4, left: 3 });
        check_fault(&[0x00, 0x01], 0, Fault::FieldNumber(0));
        check_fault(&[0x0b], 0, Fault::WireType(3));
        check_fault(&[0x80; 12], 0, Fault::LongNumber);
        let huge = [0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        check_fault(&huge, 0, Fault::PastEnd { wanted: u64::MAX, left: 0 });
    }

    #[test]
    fn integers_are_read_packed_and_unpacked() -> Result<(), WireError> {
        let bytes = Writer::default().int(8, -1).bytes(8, &[0x05, 0x80, 0x01]).finish();
        let mut elements = Vec::new();
        for field in Message::whole("attribute", &bytes).fields() {
            for element in field?.varints()? {
                elements.push(element?.cast_signed());
            }
        }
        assert_eq!(elements, [-1, 5, 128]);
        Ok(())
    }

    #[test]
    fn an_enum_keeps_its_low_32_bits() -> Result<(), WireError> {
        let bytes = Writer::default().int(14, (1 << 32) + 1).finish();
        for field in Message::whole("tensor", &bytes).fields() {
            assert_eq!(field?.int32()?, 1);
        }
        Ok(())
    }

    #[test]
    fn what_is_written_is_read() -> Result<(), WireError> {
        let inner = Writer::default().int(300, i64::MAX);
        let bytes = Writer::default().bytes(1, b"name").message(2, inner).finish();
        let fields: Vec<_> = Message::whole("model", &bytes).fields().collect::<Result<_, _>>()?;
        let [name, message] = fields.as_slice() else {
            return Err(Message::whole("model", &bytes).fault(Fault::CutOff));
        };
        assert_eq!((name.number, name.text()?, name.whole), (1, "name", &bytes[..6]));
        let message = message.message("inner")?;
        assert_eq!((message.offset, message.bytes), (8, &bytes[8..]));
        let number = message.fields().next().map(|field| field.and_then(|field| field.int64()));
        assert_eq!(number, Some(Ok(i64::MAX)));
        Ok(())
    }
}
