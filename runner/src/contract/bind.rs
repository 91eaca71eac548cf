//! Which field belongs to which tensor. Decided once, when a contract is pushed; the answer is a [`Layout`].
//!
//! Every way to read a message that the rules of `docs/contracts.md` allow is tried. One that fits is taken; two that
//! fit are an error that lists both; none is an error that lists everything that does not fit. Nothing is guessed.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::compile::is_well_known;
use super::options::Options;
use super::shape::{Batch, RowShape, RowSize};
use super::value::{Direction, fits};
use crate::engine::TensorSpec;
use crate::tensor::{Dtype, format_dims};

/// Messages inside each other that are followed.
const MAX_DEPTH: usize = 16;
/// Fields that are looked at in one message and those in it.
const MAX_VISITS: usize = 10_000;
/// Fields that are settled by type alone; more need names.
const MAX_BY_TYPE: usize = 8;

/// How a message holds rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// It is one row.
    Row,
    /// A `repeated` field, at the end of this path, holds a message a row.
    Rows(Vec<FieldDescriptor>),
    /// Each field is a column of a batch.
    Columns,
}

/// Where a field stands in its tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// One element of the row.
    Cell(usize),
    /// All elements of the row.
    Whole,
    /// `bytes`: all elements of the row as they lie in memory.
    Raw,
    /// One column of the batch.
    Column(usize),
    /// All elements of the row by their labels.
    Map(Vec<String>),
}

/// A field that is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    /// From the row's message to the field. The last but one may be a wrapper such as `DoubleValue`.
    pub path: Vec<FieldDescriptor>,
    /// Position among the inputs or outputs.
    pub tensor: usize,
    pub place: Place,
    /// Can the field be missing, rather than zero?
    pub nullable: bool,
}

/// A message, bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub form: Form,
    /// The message of one row; the message itself unless the form is [`Form::Rows`].
    pub row: MessageDescriptor,
    pub leaves: Vec<Leaf>,
}

impl Layout {
    /// Does the message hold any number of rows?
    pub(super) fn is_batch(&self) -> bool {
        self.form != Form::Row
    }
}

/// Why a message cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Mismatch { field: Option<String>, tensor: Option<String>, text: String },
    Ambiguous { text: String, readings: Vec<String> },
}

type Faults = Vec<Fault>;

/// A scalar, repeated or map field that may be bound, and what was said about it.
#[derive(Debug, Clone)]
struct Candidate {
    path: Vec<FieldDescriptor>,
    /// The field's name: that of the outermost field for a wrapper.
    name: String,
    full_name: String,
    kind: Kind,
    cardinality: Cardinality,
    nullable: bool,
    tensor: Option<usize>,
    column: Option<usize>,
    labels: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Cardinality {
    Single,
    Repeated,
    /// With the kinds of key and value.
    Map(Kind, Kind),
}

/// One side of a method: the tensors, and what is said about fields.
pub(super) struct Side<'a> {
    pub specs: &'a [TensorSpec],
    pub direction: Direction,
    pub options: &'a Options<'a>,
}

impl Side<'_> {
    /// Binds a message.
    pub(super) fn bind(&self, root: &MessageDescriptor) -> Result<Layout, Faults> {
        self.bind_as(root, Part::Whole)
    }

    fn bind_as(&self, root: &MessageDescriptor, part: Part) -> Result<Layout, Faults> {
        let Opened { rows, prefix, row, tensor } = self.open(root)?;
        let mut found = Collected::default();
        self.collect(&row, &prefix, tensor, &mut found);
        self.refuse_choices(&mut found);
        self.refuse_unresolved(&row, &found, part)?;
        let mut leaves = self.assign(&row, &found.candidates)?;
        let form = match rows {
            Some(path) => Form::Rows(path),
            None if self.is_columns(&leaves, &found.candidates) => {
                for leaf in &mut leaves {
                    if leaf.place == Place::Whole {
                        leaf.place = Place::Column(0);
                    }
                }
                Form::Columns
            }
            None => Form::Row,
        };
        let in_columns = |leaf: &&Leaf| matches!(leaf.place, Place::Column(_));
        if let (Form::Rows(_), Some(leaf)) = (&form, leaves.iter().find(in_columns)) {
            return Err(vec![self.misfit(
                &leaf.path,
                leaf.tensor,
                "a repeated field inside a row is no column",
            )]);
        }
        let row = match &form {
            Form::Rows(path) => path.last().and_then(bindable_message).unwrap_or(row),
            _ => root.clone(),
        };
        Ok(Layout { form, row, leaves })
    }

    /// Goes through messages that hold nothing but one other message.
    fn open(&self, root: &MessageDescriptor) -> Result<Opened, Faults> {
        let mut opened = Opened { rows: None, prefix: Vec::new(), row: root.clone(), tensor: None };
        for _ in 0..MAX_DEPTH {
            let live = self.live(&opened.row);
            let [field] = live.as_slice() else { return Ok(opened) };
            let Some(message) = bindable_message(field) else { return Ok(opened) };
            if let Some(name) = self.options.of(field).tensor {
                opened.tensor = Some(self.position(&name).ok_or_else(|| vec![self.no_tensor(field, &name)])?);
            }
            if field.is_list() {
                if opened.rows.is_some() {
                    return Err(vec![mismatch(field, "rows cannot hold rows")]);
                }
                opened.prefix.push(field.clone());
                opened.rows = Some(std::mem::take(&mut opened.prefix));
            } else {
                opened.prefix.push(field.clone());
            }
            opened.row = message;
        }
        let text =
            "it holds itself, or messages nested too deeply to be bound; mark it [(baton.ignore) = true]";
        let first = opened.rows.iter().flatten().chain(&opened.prefix).next();
        Err(vec![first.map_or_else(|| fault(text.to_owned()), |field| mismatch(field, text))])
    }

    /// The fields that are to be bound, in the order of their numbers.
    fn live(&self, message: &MessageDescriptor) -> Vec<FieldDescriptor> {
        let mut live: Vec<FieldDescriptor> =
            message.fields().filter(|field| !self.options.of(field).ignore).collect();
        live.sort_by_key(FieldDescriptor::number);
        live
    }

    /// Gathers what can be bound, through messages that stand for an input or hold fields with options.
    fn collect(
        &self,
        message: &MessageDescriptor,
        prefix: &[FieldDescriptor],
        tensor: Option<usize>,
        found: &mut Collected,
    ) {
        for field in self.live(message) {
            // Messages that hold each other many times over have more paths than anybody wrote fields.
            found.visits += 1;
            if found.visits > MAX_VISITS {
                if found.visits == MAX_VISITS + 1 {
                    found.faults.push(mismatch(&field, "the message holds too many fields to be bound"));
                }
                return;
            }
            let path: Vec<FieldDescriptor> = prefix.iter().cloned().chain([field.clone()]).collect();
            let said = self.options.of(&field);
            let own = match said.tensor.as_deref().map(|name| self.position(name)) {
                Some(None) => {
                    found.faults.push(self.no_tensor(&field, &said.tensor.unwrap_or_default()));
                    continue;
                }
                Some(position) => position,
                None => None,
            };
            let tensor = own.or(tensor);
            if let Some(inner) = bindable_message(&field) {
                let named = tensor.or_else(|| self.agreeing(field.name()).first().copied());
                let above = |field: &FieldDescriptor| field.parent_message() == &inner;
                let single = !field.is_list() && path.len() < MAX_DEPTH && !path.iter().any(above);
                if single && (named.is_some() || self.has_options(&inner, &mut BTreeSet::new())) {
                    self.collect(&inner, &path, named, found);
                } else {
                    found.unresolved.push(field);
                }
                continue;
            }
            match candidate(&field, path) {
                Some(candidate) => found.candidates.push(Candidate {
                    tensor,
                    column: said.column.map(|column| column as usize),
                    labels: said.label,
                    ..candidate
                }),
                None => found.faults.push(mismatch(
                    &field,
                    "a field of this type cannot be bound; mark it [(baton.ignore) = true] to accept and not read it",
                )),
            }
        }
    }

    fn has_options(&self, message: &MessageDescriptor, seen: &mut BTreeSet<String>) -> bool {
        seen.insert(message.full_name().to_owned())
            && message.fields().any(|field| {
                let said = self.options.of(&field);
                let inner = bindable_message(&field);
                said.tensor.is_some()
                    || said.column.is_some()
                    || inner.is_some_and(|inner| self.has_options(&inner, seen))
            })
    }

    /// At most one member of a `oneof` can be set, so an answer cannot fill two.
    fn refuse_choices(&self, found: &mut Collected) {
        let mut seen = BTreeMap::new();
        for candidate in found.candidates.iter().filter(|_| self.direction == Direction::Response) {
            let choice = candidate.path.first().and_then(FieldDescriptor::containing_oneof);
            if let (Some(choice), Some(field)) = (choice, candidate.path.first())
                && !choice.is_synthetic()
                && *seen.entry(choice.full_name().to_owned()).or_insert(field.number()) != field.number()
            {
                found
                    .faults
                    .push(mismatch(field, "an answer can fill one member of a oneof; ignore the others"));
            }
        }
    }

    fn no_tensor(&self, field: &FieldDescriptor, name: &str) -> Fault {
        let known: Vec<&str> = self.specs.iter().map(|spec| spec.name.as_str()).collect();
        mismatch(field, &format!("{name:?} is no {} of the model; there are {known:?}", self.noun()))
    }

    /// Message fields beside others: either could be meant, or neither.
    fn refuse_unresolved(
        &self,
        row: &MessageDescriptor,
        found: &Collected,
        part: Part,
    ) -> Result<(), Faults> {
        let mut faults = found.faults.clone();
        let alone: Vec<String> = found
            .unresolved
            .iter()
            .filter(|_| part == Part::Whole)
            .filter(|field| {
                let inner = bindable_message(field);
                inner.is_some_and(|message| self.bind_as(&message, Part::Inner).is_ok())
            })
            .map(|field| format!("{} alone", field.full_name()))
            .collect();
        if alone.len() > 1 {
            faults.push(Fault::Ambiguous {
                text: format!(
                    "several messages in {} could be the {}s; mark all but one [(baton.ignore) = true], or say \
                     [(baton.tensor) = \"...\"] on each",
                    row.full_name(),
                    self.noun()
                ),
                readings: alone,
            });
            return Err(faults);
        }
        for field in &found.unresolved {
            let why = match field.is_list() {
                true => "rows stand alone in their message",
                false => "its name is none of the model's",
            };
            faults.push(mismatch(
                field,
                &format!("{why}; mark fields that are not to be read [(baton.ignore) = true]"),
            ));
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Finds the one way to give every candidate its place.
    fn assign(&self, row: &MessageDescriptor, candidates: &[Candidate]) -> Result<Vec<Leaf>, Faults> {
        if candidates.is_empty() {
            let unfed = (0..self.specs.len()).filter(|_| self.direction == Direction::Request);
            let empty = fault(format!("{} has no field to bind", row.full_name()));
            return Err([empty].into_iter().chain(unfed.map(|tensor| self.unfed(row, tensor))).collect());
        }
        let (told, free): (Vec<&Candidate>, Vec<&Candidate>) =
            candidates.iter().partition(|candidate| candidate.tensor.is_some());
        let mut faults = Vec::new();
        let mut leaves = Vec::new();
        let mut used = BTreeSet::new();
        for tensor in 0..self.specs.len() {
            let group: Vec<&Candidate> =
                told.iter().copied().filter(|candidate| candidate.tensor == Some(tensor)).collect();
            if !group.is_empty() {
                used.insert(tensor);
                take(self.group(&group, tensor), &mut leaves, &mut faults);
            }
        }
        let rest: Vec<usize> = (0..self.specs.len()).filter(|tensor| !used.contains(tensor)).collect();
        if free.is_empty() {
            if self.direction == Direction::Request {
                faults.extend(rest.iter().map(|tensor| self.unfed(row, *tensor)));
            }
        } else {
            match self.choose(row, &free, &rest) {
                Ok(found) => leaves.extend(found),
                Err(more) => faults.extend(more),
            }
        }
        if faults.is_empty() { Ok(leaves) } else { Err(faults) }
    }

    /// All readings of fields about which nothing is said.
    fn choose(
        &self,
        row: &MessageDescriptor,
        free: &[&Candidate],
        rest: &[usize],
    ) -> Result<Vec<Leaf>, Faults> {
        let own = self.by_name(row, free, rest);
        // Names are what people mean; other readings count where some field has none.
        let named = |candidate: &&Candidate| !self.agreeing(&candidate.name).is_empty();
        if free.iter().all(named) && own.is_ok() {
            return own;
        }
        let as_columns: Vec<(usize, Result<Vec<Leaf>, Faults>)> = rest
            .iter()
            .filter(|_| free.len() > 1 && (self.direction == Direction::Response || rest.len() == 1))
            .map(|tensor| (*tensor, self.columns(free, *tensor)))
            .collect();
        let mut readings: Vec<Vec<Leaf>> = Vec::new();
        let fitting = as_columns.iter().filter_map(|(_, leaves)| leaves.clone().ok());
        for mut reading in own.clone().ok().into_iter().chain(fitting) {
            reading.sort_by_key(|leaf| leaf.path.iter().map(FieldDescriptor::number).collect::<Vec<_>>());
            if !readings.contains(&reading) {
                readings.push(reading);
            }
        }
        if readings.len() > 1 {
            return Err(vec![self.ambiguous(row, &readings)]);
        }
        if let Some(reading) = readings.pop() {
            return Ok(reading);
        }
        let faults = own.err().unwrap_or_default();
        let is_ambiguous = faults.iter().any(|fault| matches!(fault, Fault::Ambiguous { .. }));
        let named = free.iter().any(named);
        // What a person most likely meant is what is reported.
        match as_columns.into_iter().next() {
            Some((_, Err(columns))) if rest.len() == 1 && !named && !is_ambiguous => Err(columns),
            _ => Err(faults),
        }
    }

    /// Each field is a tensor of its own: by name, and what is left by type if there is one way only.
    fn by_name(
        &self,
        row: &MessageDescriptor,
        free: &[&Candidate],
        rest: &[usize],
    ) -> Result<Vec<Leaf>, Faults> {
        let mut faults = Vec::new();
        let mut leaves = Vec::new();
        let mut unnamed = Vec::new();
        let mut left: Vec<usize> = rest.to_vec();
        for candidate in free {
            let agreeing: Vec<usize> =
                self.agreeing(&candidate.name).into_iter().filter(|tensor| rest.contains(tensor)).collect();
            match agreeing.as_slice() {
                [] => unnamed.push(*candidate),
                [tensor] => {
                    if !left.contains(tensor) {
                        faults.push(self.misfit(&candidate.path, *tensor, "another field has this name too"));
                    }
                    left.retain(|free| free != tensor);
                    take(self.whole(candidate, *tensor).map(|leaf| vec![leaf]), &mut leaves, &mut faults);
                }
                several => faults.push(Fault::Ambiguous {
                    text: format!("the name of {} agrees with several {}s", candidate.full_name, self.noun()),
                    readings: several.iter().map(|tensor| self.show(*tensor)).collect(),
                }),
            }
        }
        take(self.by_type(row, &unnamed, &left), &mut leaves, &mut faults);
        if faults.is_empty() { Ok(leaves) } else { Err(faults) }
    }

    fn by_type(
        &self,
        row: &MessageDescriptor,
        fields: &[&Candidate],
        tensors: &[usize],
    ) -> Result<Vec<Leaf>, Faults> {
        let request = self.direction == Direction::Request;
        if let ([field], [tensor]) = (fields, tensors) {
            return self.whole(field, *tensor).map(|leaf| vec![leaf]);
        }
        // The columns of the one tensor that is left, beside fields that have their own by name.
        if let ([_, _, ..], [tensor]) = (fields, tensors) {
            return self.columns(fields, *tensor);
        }
        if fields.is_empty() && (tensors.is_empty() || !request) {
            return Ok(Vec::new());
        }
        let nowhere = |field: &&Candidate| {
            let text = format!(
                "it belongs to no {}; mark it [(baton.ignore) = true] if it is not to be {}",
                self.noun(),
                if request { "read" } else { "filled" }
            );
            match field.path.first() {
                Some(field) => mismatch(field, &text),
                None => fault(text),
            }
        };
        if (request && fields.len() != tensors.len()) || fields.len() > tensors.len() {
            let unfed = tensors.iter().filter(|_| request).map(|tensor| self.unfed(row, *tensor));
            return Err(fields.iter().map(nowhere).chain(unfed).collect());
        }
        if fields.len() > MAX_BY_TYPE || tensors.len() > 2 * MAX_BY_TYPE {
            return Err(vec![Fault::Ambiguous {
                text: format!(
                    "{} has {} fields whose names are none of the model's, too many to be settled by type; say \
                     [(baton.tensor) = \"...\"] on each",
                    row.full_name(),
                    fields.len()
                ),
                readings: Vec::new(),
            }]);
        }
        let mut readings = Vec::new();
        self.matchings(fields, tensors, &mut Vec::new(), &mut readings);
        match readings.len() {
            0 => {
                let mut faults: Faults = fields
                    .iter()
                    .filter(|field| tensors.iter().all(|tensor| self.whole(field, *tensor).is_err()))
                    .map(nowhere)
                    .collect();
                if faults.is_empty() {
                    faults = fields.iter().map(nowhere).collect();
                }
                if request {
                    faults.extend(tensors.iter().map(|tensor| self.unfed(row, *tensor)));
                }
                Err(faults)
            }
            1 => Ok(readings.pop().unwrap_or_default()),
            _ => Err(vec![self.ambiguous(row, &readings)]),
        }
    }

    /// Up to two ways to give each field a tensor of its own.
    fn matchings(
        &self,
        fields: &[&Candidate],
        tensors: &[usize],
        so_far: &mut Vec<Leaf>,
        found: &mut Vec<Vec<Leaf>>,
    ) {
        let Some((field, others)) = fields.split_first() else {
            found.push(so_far.clone());
            return;
        };
        for tensor in tensors {
            if let Ok(leaf) = self.whole(field, *tensor)
                && found.len() < 2
            {
                let left: Vec<usize> = tensors.iter().copied().filter(|other| other != tensor).collect();
                so_far.push(leaf);
                self.matchings(others, &left, so_far, found);
                so_far.pop();
            }
        }
    }

    /// The fields that say which tensor they belong to.
    fn group(&self, group: &[&Candidate], tensor: usize) -> Result<Vec<Leaf>, Faults> {
        match group {
            [single] if single.column.is_none() => match self.whole(single, tensor) {
                Ok(leaf) => Ok(vec![leaf]),
                // One column of one.
                Err(faults) => self.columns(group, tensor).map_err(|_| faults),
            },
            _ => self.columns(group, tensor),
        }
    }

    /// A field that is a row of its tensor.
    fn whole(&self, candidate: &Candidate, tensor: usize) -> Result<Leaf, Faults> {
        let Some(spec) = self.specs.get(tensor) else { return Err(Vec::new()) };
        let shape = RowShape::of(spec);
        let kind = match &candidate.cardinality {
            Cardinality::Map(_, value) => value,
            _ => &candidate.kind,
        };
        let refuse = |why: &str| Err(vec![self.misfit(&candidate.path, tensor, why)]);
        if candidate.column.is_some() {
            return refuse("a column needs the name of its tensor, [(baton.tensor) = \"...\"]");
        }
        if !fits(kind, spec.dtype, self.direction) {
            return refuse("the types do not go together");
        }
        let request = self.direction == Direction::Request;
        // How large an output's row is shows when it is there.
        let single = shape.takes(1) && shape.size == RowSize::Fixed(1)
            || !request && shape.size != RowSize::Fixed(0) && !matches!(shape.size, RowSize::Fixed(_));
        let place = match &candidate.cardinality {
            Cardinality::Map(..) if request => return refuse("a map cannot be an input"),
            Cardinality::Map(key, _) => Place::Map(self.labels(candidate, key, tensor, &shape)?),
            Cardinality::Repeated if matches!(kind, Kind::Bytes) && spec.dtype != Dtype::Bytes => {
                return refuse("raw elements are one bytes field, not a repeated one");
            }
            Cardinality::Repeated if request && shape.size == RowSize::Open => {
                return refuse("several dimensions of a row vary, so its elements do not tell its shape");
            }
            Cardinality::Repeated => Place::Whole,
            Cardinality::Single if matches!(kind, Kind::Bytes) && spec.dtype != Dtype::Bytes => {
                if request && shape.size == RowSize::Open {
                    return refuse("several dimensions of a row vary, so its elements do not tell its shape");
                }
                Place::Raw
            }
            Cardinality::Single if single => Place::Cell(0),
            Cardinality::Single => return refuse("it is one value, and a row has several"),
        };
        Ok(self.leaf(candidate, tensor, place))
    }

    fn labels(
        &self,
        candidate: &Candidate,
        key: &Kind,
        tensor: usize,
        shape: &RowShape,
    ) -> Result<Vec<String>, Faults> {
        let refuse = |why: String| Err(vec![self.misfit(&candidate.path, tensor, &why)]);
        let known = self.specs.get(tensor).and_then(|spec| spec.labels.clone());
        let labels = match (candidate.labels.is_empty(), known) {
            (false, _) => candidate.labels.clone(),
            (true, Some(labels)) => labels,
            (true, None) => {
                return refuse(
                    "the model does not label its columns; say [(baton.label) = \"...\"] for each".to_owned(),
                );
            }
        };
        let unique: BTreeSet<&String> = labels.iter().collect();
        if unique.len() != labels.len() {
            return refuse("a label is given twice".to_owned());
        }
        if matches!(shape.size, RowSize::Fixed(_)) && !shape.takes(labels.len()) {
            return refuse(format!("there are {} labels", labels.len()));
        }
        let is_key = |label: &String| match key {
            Kind::String => true,
            Kind::Bool => false,
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => label.parse::<i32>().is_ok(),
            Kind::Uint32 | Kind::Fixed32 => label.parse::<u32>().is_ok(),
            Kind::Uint64 | Kind::Fixed64 => label.parse::<u64>().is_ok(),
            _ => label.parse::<i64>().is_ok(),
        };
        match labels.iter().find(|label| !is_key(label)) {
            Some(label) => refuse(format!("the label {label:?} is no key of the map")),
            None => Ok(labels),
        }
    }

    /// Fields that are the columns of one tensor.
    fn columns(&self, group: &[&Candidate], tensor: usize) -> Result<Vec<Leaf>, Faults> {
        let Some(spec) = self.specs.get(tensor) else { return Err(Vec::new()) };
        let shape = RowShape::of(spec);
        let mut faults = Vec::new();
        for candidate in group {
            let why = match candidate.cardinality {
                Cardinality::Map(..) => Some("a map is no column"),
                _ if candidate.cardinality
                    != group.first().map_or(Cardinality::Single, |first| first.cardinality.clone()) =>
                {
                    Some("columns are all single or all repeated")
                }
                _ if matches!(candidate.kind, Kind::Bytes) && spec.dtype != Dtype::Bytes => {
                    Some("raw elements are no column")
                }
                _ if !fits(&candidate.kind, spec.dtype, self.direction) => {
                    Some("the types do not go together")
                }
                _ => None,
            };
            faults.extend(why.map(|why| self.misfit(&candidate.path, tensor, why)));
        }
        let order = self.order(group, spec);
        let columns = match &order {
            Ok(columns) => columns.clone(),
            Err(text) => {
                faults.push(Fault::Mismatch {
                    field: None,
                    tensor: Some(spec.name.clone()),
                    text: text.clone(),
                });
                Vec::new()
            }
        };
        let complete = match shape.size {
            RowSize::Open if self.direction == Direction::Response => true,
            _ => shape.takes(group.len()),
        };
        // An answer may leave columns out if it names those that it takes.
        let picked =
            self.direction == Direction::Response && group.iter().all(|field| field.column.is_some());
        let inside = match shape.size {
            RowSize::Fixed(size) => columns.iter().all(|column| *column < size),
            _ => true,
        };
        if !(complete || picked && inside) {
            let names: Vec<&str> = group.iter().map(|candidate| candidate.name.as_str()).collect();
            faults.push(Fault::Mismatch {
                field: None,
                tensor: Some(spec.name.clone()),
                text: format!(
                    "{} cannot be the columns {names:?}: there are {}",
                    self.show(tensor),
                    names.len()
                ),
            });
        }
        let repeated = group.iter().all(|candidate| candidate.cardinality == Cardinality::Repeated);
        if repeated && shape.batch != Batch::Varies {
            faults.push(Fault::Mismatch {
                field: None,
                tensor: Some(spec.name.clone()),
                text: format!("{} takes one row, so its columns cannot be repeated", self.show(tensor)),
            });
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let place = |column| if repeated { Place::Column(column) } else { Place::Cell(column) };
        Ok(group.iter().zip(columns).map(|(field, column)| self.leaf(field, tensor, place(column))).collect())
    }

    /// The column of each field: as they say, by the tensor's labels, or in their own order.
    fn order(&self, group: &[&Candidate], spec: &TensorSpec) -> Result<Vec<usize>, String> {
        let told: Vec<usize> = group.iter().filter_map(|candidate| candidate.column).collect();
        if !told.is_empty() {
            let unique: BTreeSet<usize> = told.iter().copied().collect();
            let gapless = unique.last().is_some_and(|last| last + 1 == unique.len());
            return match told.len() == group.len() && unique.len() == told.len() {
                true if gapless || self.direction == Direction::Response => Ok(told),
                _ => Err(format!("the columns {told:?} are not each of 0 to {} once", group.len() - 1)),
            };
        }
        let labels: Vec<String> = spec.labels.iter().flatten().map(|label| plain(label)).collect();
        let positions: Vec<Option<usize>> = group
            .iter()
            .map(|candidate| labels.iter().position(|label| *label == plain(&candidate.name)))
            .collect();
        let unique: BTreeSet<usize> = positions.iter().flatten().copied().collect();
        match unique.len() {
            0 => Ok((0..group.len()).collect()),
            count if count == group.len() => Ok(positions.into_iter().flatten().collect()),
            _ => Err(format!("some fields have the names of the labels {:?}, others do not", spec.labels)),
        }
    }

    /// Do all fields hold a column each?
    fn is_columns(&self, leaves: &[Leaf], candidates: &[Candidate]) -> bool {
        candidates.iter().all(|candidate| candidate.cardinality == Cardinality::Repeated)
            && leaves.iter().all(|leaf| {
                let shape = self.specs.get(leaf.tensor).map(RowShape::of);
                matches!(leaf.place, Place::Column(_))
                    || leaf.place == Place::Whole
                        && shape.is_some_and(|shape| {
                            shape.batch == Batch::Varies && shape.size == RowSize::Fixed(1)
                        })
            })
    }

    fn leaf(&self, candidate: &Candidate, tensor: usize, place: Place) -> Leaf {
        Leaf { path: candidate.path.clone(), tensor, place, nullable: candidate.nullable }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.specs.iter().position(|spec| spec.name == name)
    }

    /// The tensors whose name agrees with a field's: the same one if there is one, else all that agree in letters.
    fn agreeing(&self, name: &str) -> Vec<usize> {
        if let Some(position) = self.position(name) {
            return vec![position];
        }
        let name = plain(name);
        (0..self.specs.len())
            .filter(|tensor| self.specs.get(*tensor).is_some_and(|spec| plain(&spec.name) == name))
            .collect()
    }

    fn noun(&self) -> &'static str {
        match self.direction {
            Direction::Request => "input",
            Direction::Response => "output",
        }
    }

    /// `input "x" (FP32 [-1,4])`
    fn show(&self, tensor: usize) -> String {
        let Some(spec) = self.specs.get(tensor) else { return String::new() };
        let shape = spec.shape.as_ref().map_or_else(|| "of any shape".to_owned(), |dims| format_dims(dims));
        format!("{} {:?} ({} {shape})", self.noun(), spec.name, spec.dtype)
    }

    fn misfit(&self, path: &[FieldDescriptor], tensor: usize, why: &str) -> Fault {
        let Some(field) = path.last() else { return fault(why.to_owned()) };
        Fault::Mismatch {
            field: Some(field.full_name().to_owned()),
            tensor: self.specs.get(tensor).map(|spec| spec.name.clone()),
            text: format!("{} and {}: {why}", describe(field), self.show(tensor)),
        }
    }

    fn unfed(&self, row: &MessageDescriptor, tensor: usize) -> Fault {
        Fault::Mismatch {
            field: None,
            tensor: self.specs.get(tensor).map(|spec| spec.name.clone()),
            text: format!("{} is fed by no field of {}", self.show(tensor), row.full_name()),
        }
    }

    fn ambiguous(&self, row: &MessageDescriptor, readings: &[Vec<Leaf>]) -> Fault {
        let show = |reading: &Vec<Leaf>| {
            let parts = reading.iter().map(|leaf| {
                let name = leaf.path.last().map_or("", |field| field.name());
                let column = match leaf.place {
                    Place::Cell(column) | Place::Column(column) => format!(" column {column}"),
                    _ => String::new(),
                };
                format!("{name} is {}{column}", self.show(leaf.tensor))
            });
            parts.collect::<Vec<_>>().join(", ")
        };
        Fault::Ambiguous {
            text: format!(
                "{} can be read in several ways; say [(baton.tensor) = \"...\"] on its fields",
                row.full_name()
            ),
            readings: readings.iter().map(show).collect(),
        }
    }
}

/// What of a request or answer a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// A field's message, looked at to see whether it could be meant. It is not looked into any further: messages may
    /// hold themselves.
    Inner,
}

/// A message after unwrapping.
struct Opened {
    rows: Option<Vec<FieldDescriptor>>,
    /// From the root, or from the row, to `row`.
    prefix: Vec<FieldDescriptor>,
    row: MessageDescriptor,
    /// What was said of the fields gone through.
    tensor: Option<usize>,
}

#[derive(Default)]
struct Collected {
    candidates: Vec<Candidate>,
    unresolved: Vec<FieldDescriptor>,
    faults: Faults,
    visits: usize,
}

/// The message of a field that can be looked into: no map, no type with a meaning of its own.
fn bindable_message(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) if !field.is_map() && !is_well_known(&message) => Some(message),
        _ => None,
    }
}

fn candidate(field: &FieldDescriptor, mut path: Vec<FieldDescriptor>) -> Option<Candidate> {
    let mut kind = field.kind();
    let mut nullable = field.supports_presence() && !matches!(kind, Kind::Message(_));
    let mut cardinality = if field.is_list() { Cardinality::Repeated } else { Cardinality::Single };
    if let Kind::Message(message) = kind.clone() {
        if field.is_map() {
            let (key, value) = (message.map_entry_key_field().kind(), message.map_entry_value_field().kind());
            if matches!(value, Kind::Message(_)) {
                return None;
            }
            cardinality = Cardinality::Map(key, value);
        } else {
            // A wrapper is its value, which may be missing.
            let value = message.get_field_by_name("value").filter(|_| {
                message.full_name().ends_with("Value") && message.fields().len() == 1 && !field.is_list()
            })?;
            kind = value.kind();
            if matches!(kind, Kind::Message(_)) {
                return None;
            }
            nullable = true;
            path.push(value);
        }
    }
    Some(Candidate {
        path,
        name: field.name().to_owned(),
        full_name: field.full_name().to_owned(),
        kind,
        cardinality,
        nullable,
        tensor: None,
        column: None,
        labels: Vec::new(),
    })
}

fn take(result: Result<Vec<Leaf>, Faults>, leaves: &mut Vec<Leaf>, faults: &mut Faults) {
    match result {
        Ok(found) => leaves.extend(found),
        Err(more) => faults.extend(more),
    }
}

/// A name without everything but letters and digits, and without case.
fn plain(name: &str) -> String {
    name.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// `repeated float pixels`
fn describe(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        Kind::Message(_) if field.is_map() => "map".to_owned(),
        Kind::Message(message) => message.name().to_owned(),
        Kind::Enum(kind) => format!("enum {}", kind.name()),
        kind => format!("{kind:?}").to_lowercase(),
    };
    let repeated = if field.is_list() { "repeated " } else { "" };
    format!("field {} ({repeated}{kind})", field.full_name())
}

fn fault(text: String) -> Fault {
    Fault::Mismatch { field: None, tensor: None, text }
}

fn mismatch(field: &FieldDescriptor, why: &str) -> Fault {
    Fault::Mismatch {
        field: Some(field.full_name().to_owned()),
        tensor: None,
        text: format!("{}: {why}", describe(field)),
    }
}
