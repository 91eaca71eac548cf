//! What a bound field promises to clients beyond its type, and which changes of the model break that promise.
//!
//! Names of tensors and the order of columns are not part of it: no client sees them.

use prost_reflect::MethodDescriptor;

use super::bind::{Layout, Place};
use super::compat::Breaking;
use super::shape::{RowShape, RowSize};
use super::value::Direction;
use crate::engine::TensorSpec;
use crate::tensor::Dtype;

/// The rules of this file, as `compat::RULES`.
pub(super) const RULES: &[(&str, &str)] = &[
    ("BINDING_SAME_ELEMENTS", "a row has another number of elements than before"),
    ("BINDING_LABEL_NO_DELETE", "a class label, which is a key of a map, is gone"),
    ("BINDING_SAME_RANGE", "the model takes fewer integers than before"),
    ("BINDING_SAME_NULLABLE", "a missing value was accepted and is not any more"),
];

/// What a field of one method means.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Meaning {
    /// Elements that the field must have, or has.
    elements: Option<usize>,
    labels: Vec<String>,
    /// The integers that it may have, if it is bounded.
    range: Option<(i128, i128)>,
    takes_missing: bool,
}

/// The meanings of a message's fields, with the fields' names.
pub(super) fn meanings(
    method: &MethodDescriptor,
    layout: &Layout,
    specs: &[TensorSpec],
    direction: Direction,
) -> Vec<(String, Meaning)> {
    let meaning = |leaf: &super::bind::Leaf| {
        let (field, spec) = (leaf.path.last()?, specs.get(leaf.tensor)?);
        let request = direction == Direction::Request;
        let elements = match (&leaf.place, RowShape::of(spec).size) {
            (Place::Whole | Place::Raw, RowSize::Fixed(size)) => Some(size),
            _ => None,
        };
        let labels = match &leaf.place {
            Place::Map(labels) => labels.clone(),
            _ => Vec::new(),
        };
        let range = range(spec.dtype).filter(|_| request);
        let is_float = range.is_none() && spec.dtype != Dtype::Bool;
        let takes_missing = request && leaf.nullable && is_float;
        let name = format!("{} of {}", field.full_name(), method.full_name());
        Some((name, Meaning { elements, labels, range, takes_missing }))
    };
    layout.leaves.iter().filter_map(meaning).collect()
}

/// What of the change from `self` to `new` breaks clients.
impl Meaning {
    pub(super) fn breaking(&self, new: &Self, element: &str) -> Vec<Breaking> {
        let mut found = Vec::new();
        let mut broken = |rule, before: String, after: String| {
            found.push(Breaking { rule, element: element.to_owned(), before, after });
        };
        if let (Some(before), Some(after)) = (self.elements, new.elements)
            && before != after
        {
            broken("BINDING_SAME_ELEMENTS", format!("{before} elements"), format!("{after} elements"));
        }
        if self.labels.iter().any(|label| !new.labels.contains(label)) {
            broken("BINDING_LABEL_NO_DELETE", format!("{:?}", self.labels), format!("{:?}", new.labels));
        }
        let show = |(low, high): (i128, i128)| format!("{low} to {high}");
        match (self.range, new.range) {
            (Some(before), Some(after)) if after.0 > before.0 || after.1 < before.1 => {
                broken("BINDING_SAME_RANGE", show(before), show(after));
            }
            (None, Some(after)) if !self.takes_missing => {
                broken("BINDING_SAME_RANGE", "any number".to_owned(), show(after));
            }
            _ => {}
        }
        if self.takes_missing && !new.takes_missing {
            broken("BINDING_SAME_NULLABLE", "may be missing".to_owned(), "must be set".to_owned());
        }
        found
    }
}

fn range(dtype: Dtype) -> Option<(i128, i128)> {
    Some(match dtype {
        Dtype::Int8 => (i8::MIN.into(), i8::MAX.into()),
        Dtype::Int16 => (i16::MIN.into(), i16::MAX.into()),
        Dtype::Int32 => (i32::MIN.into(), i32::MAX.into()),
        Dtype::Int64 => (i64::MIN.into(), i64::MAX.into()),
        Dtype::Uint8 => (0, u8::MAX.into()),
        Dtype::Uint16 => (0, u16::MAX.into()),
        Dtype::Uint32 => (0, u32::MAX.into()),
        Dtype::Uint64 => (0, u64::MAX.into()),
        _ => return None,
    })
}
