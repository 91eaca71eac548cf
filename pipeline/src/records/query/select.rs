//! Reads of a JSON document only the values that somebody wants, and skips over the rest without making anything of it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Where a wanted value is found in what [`Wanted::read`] gives.
pub(super) type Slot = usize;

/// The paths that are wanted, as a tree.
#[derive(Debug, Default, Clone)]
pub(super) struct Wanted {
    root: Node,
    slots: usize,
}

#[derive(Debug, Default, Clone)]
struct Node {
    slot: Option<Slot>,
    below: Vec<(String, Node)>,
}

impl Wanted {
    /// Wants the value at this path; twice the same is one slot.
    pub(super) fn slot(&mut self, path: &[&str]) -> Slot {
        let mut node = &mut self.root;
        for part in path {
            let index = node.below.iter().position(|(name, _)| name == part).unwrap_or_else(|| {
                node.below.push(((*part).to_owned(), Node::default()));
                node.below.len() - 1
            });
            node = &mut node.below[index].1;
        }
        *node.slot.get_or_insert_with(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// The wanted values by their slots, `None` for what is absent or null. Of a text that is no JSON, those before the fault.
    pub(super) fn read(&self, document: &str) -> Vec<Option<Value>> {
        let mut values = vec![None; self.slots];
        let mut reader = serde_json::Deserializer::from_str(document);
        let _ = Reading { node: &self.root, values: &mut values }.deserialize(&mut reader);
        values
    }

    /// The same from a value.
    pub(super) fn pick(&self, document: &Value) -> Vec<Option<Value>> {
        let mut values = vec![None; self.slots];
        Reading { node: &self.root, values: &mut values }.keep(document);
        values
    }
}

struct Reading<'a> {
    node: &'a Node,
    values: &'a mut [Option<Value>],
}

impl Reading<'_> {
    fn keep(self, value: &Value) {
        let Reading { node, values } = self;
        for (name, below) in &node.below {
            if let Some(value) = value.get(name) {
                Reading { node: below, values }.keep(value);
            }
        }
        if let Some(slot) = node.slot {
            values[slot] = Some(value.clone()).filter(|value| !value.is_null());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.node.slot.is_some() {
            let value = <Value as serde::Deserialize>::deserialize(deserializer)?;
            self.keep(&value);
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

/// Goes into objects; anything else has nothing below it.
impl<'de> Visitor<'de> for Reading<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(found) = map.next_key_seed(Name(self.node))? {
            match found {
                Some(node) => map.next_value_seed(Reading { node, values: self.values })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Which of a node's children a key names.
struct Name<'a>(&'a Node);

impl<'a, 'de> DeserializeSeed<'de> for Name<'a> {
    type Value = Option<&'a Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Name<'a> {
    type Value = Option<&'a Node>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.below.iter().find(|(name, _)| name == key).map(|(_, node)| node))
    }
}
