//! JSON in the protobuf mapping <-> protobuf bytes, through the dynamic message.
//!
//! Only people and scripts speak JSON; so this goes the well-trodden way over `prost-reflect`, and the bytes then take
//! the same plan as those of any other client. A dynamic value takes 56 bytes, hence a limit on their number.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::{Code, Error, Result};
use crate::tensor::json::quote_non_finite;

/// The bytes of a message written as JSON.
///
/// # Errors
/// `BAD_JSON` with the place, `DECODE_LIMIT` for more than `max_values` values.
pub(super) fn read(message: &MessageDescriptor, text: &[u8], max_values: usize) -> Result<Vec<u8>> {
    let text =
        std::str::from_utf8(text).map_err(|_| Error::new(Code::BadJson, "the body is no UTF-8 text"))?;
    let values = text.bytes().filter(|byte| matches!(byte, b',' | b':')).count();
    if values > max_values {
        return Err(Error::new(
            Code::DecodeLimit,
            format!("the JSON has more than {max_values} values; send protobuf or CSV"),
        ));
    }
    let text = spell_out_largest(quote_non_finite(text));
    let mut unique = serde_json::Deserializer::from_str(&text);
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let bad = |error: serde_json::Error| {
        // The library quotes names and values of the body, and knows nothing else.
        let what: String = error.to_string().chars().take(300).collect();
        Error::new(Code::BadJson, format!("the body is no JSON of {}: {what}", message.full_name()))
    };
    Unique.deserialize(&mut unique).map_err(bad)?;
    let decoded = DynamicMessage::deserialize(message.clone(), &mut deserializer).map_err(bad)?;
    deserializer.end().map_err(bad)?;
    Ok(decoded.encode_to_vec())
}

/// The shortest text of the largest `float`, which Go's and Rust's protobuf libraries print, is a larger number as a
/// `double`, and `prost-reflect` takes it for one that has no place in a `float`.
fn spell_out_largest(text: Cow<'_, str>) -> Cow<'_, str> {
    const SHORTEST: &str = "3.4028235e";
    if !text.contains(SHORTEST) {
        return text;
    }
    let spell = |text: String, exponent: &str| {
        text.replace(&format!("{SHORTEST}{exponent}"), &format!("3.4028234663852886e{exponent}"))
    };
    Cow::Owned(spell(spell(text.into_owned(), "38"), "+38"))
}

/// Reads any JSON and keeps nothing; a name that is given twice in one object is an error, as nobody can tell which of
/// the two is meant.
struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        while items.next_element_seed(Unique)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> std::result::Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if !names.insert(name.clone()) {
                let shown: String = name.chars().take(64).collect();
                return Err(serde::de::Error::custom(format!("the name {shown:?} is given twice")));
            }
            members.next_value_seed(Unique)?;
        }
        Ok(())
    }
}

/// A message as JSON: every field without presence is printed, names are lowerCamel.
///
/// # Errors
/// `INTERNAL` for bytes that are no such message.
pub(super) fn write(message: &MessageDescriptor, bytes: Bytes) -> Result<Vec<u8>> {
    let internal = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(Code::Internal, "the answer cannot be written as JSON").caused_by(error)
    };
    let decoded = DynamicMessage::decode(message.clone(), bytes).map_err(|error| internal(error.into()))?;
    let options = SerializeOptions::new().skip_default_fields(false);
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut out);
    decoded.serialize_with_options(&mut serializer, &options).map_err(|error| internal(error.into()))?;
    Ok(out)
}
