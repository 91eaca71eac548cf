//! What the parts of a tensor are called in a row: the names that a CSV file of the method has, without brackets.
//!
//! For those who write rows of tensors under the contract's names without going through its messages.

use super::bind::{Layout, Leaf, Place};
use super::compile::is_well_known;
use super::shape::{Batch, RowShape, RowSize};
use crate::engine::TensorSpec;

/// A field, and the part of a tensor's row that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// From the row's message to the field, with dots: `person.age`.
    pub name: String,
    /// Position among the model's inputs or outputs.
    pub tensor: usize,
    pub part: Part,
}

/// A part of a tensor's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// One element.
    Cell(usize),
    /// All elements, as a list.
    Whole,
    /// All elements as they lie in memory, as one value.
    Raw,
    /// All elements by their labels.
    Labels(Vec<String>),
}

/// How a declared tensor holds rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowForm {
    /// Its first dimension counts rows; else it is one row, whatever its shape.
    pub counts_rows: bool,
    /// A row is exactly one element.
    pub is_single: bool,
}

impl RowForm {
    /// The form of a tensor.
    pub fn of(spec: &TensorSpec) -> Self {
        let shape = RowShape::of(spec);
        Self { counts_rows: shape.batch == Batch::Varies, is_single: shape.size == RowSize::Fixed(1) }
    }
}

/// The columns of a bound message, in the order of its fields.
pub(super) fn of(layout: &Layout) -> Vec<Column> {
    layout.leaves.iter().map(column).collect()
}

fn column(leaf: &Leaf) -> Column {
    // The value inside a wrapper such as `DoubleValue` has no name of its own in CSV.
    let named = leaf.path.iter().filter(|field| !is_well_known(field.parent_message()));
    let names: Vec<&str> = named.map(prost_reflect::FieldDescriptor::name).collect();
    let part = match &leaf.place {
        Place::Cell(index) | Place::Column(index) => Part::Cell(*index),
        Place::Whole => Part::Whole,
        Place::Raw => Part::Raw,
        Place::Map(labels) => Part::Labels(labels.clone()),
    };
    Column { name: names.join("."), tensor: leaf.tensor, part }
}
