//! Records to protobuf bytes.
//!
//! [`RecordReader::new`] matches the header with the message and leaves a plan: a tree of nodes with their tags as
//! bytes. [`RecordReader::read`] walks it, and looks at nothing but the record. A scalar is written also if it is zero
//! and fields come in the order of their numbers, not of the columns; both are free to choose on the wire.

use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};

use ::csv::StringRecord;
use prost::encoding::{WireType, encode_key};
use prost_reflect::{FieldDescriptor, MessageDescriptor};

use super::cell::{Codec, delimited};
use super::field::{Columns, Fields};
use super::{CsvError, shown, unequal, without_mark};

/// Faults of a header that are told, and columns that are listed as possible.
const MOST_TOLD: usize = 20;

/// The field of a wrapper message.
const WRAPPED: u32 = 1;
/// The fields of a map's entry.
const KEY: u32 = 1;
const VALUE: u32 = 2;

/// Turns records into the wire bytes of one message type.
#[derive(Debug)]
pub struct RecordReader {
    header: StringRecord,
    nodes: Vec<Node>,
}

/// Something that a record puts on the wire.
#[derive(Debug)]
enum Node {
    Cell(Cell),
    /// Elements of a repeated field of numbers.
    Packed {
        tag: Vec<u8>,
        elements: Vec<Cell>,
    },
    Message {
        tag: Vec<u8>,
        nodes: Vec<Node>,
    },
    /// Nodes of which one at most has cells that are filled: a oneof, or alone, what is `optional`.
    AtMostOne(Vec<Node>),
}

#[derive(Debug)]
struct Cell {
    column: usize,
    codec: Codec,
    tag: Vec<u8>,
    /// What precedes the value inside a message of its own: a map's key, or a wrapper's tag.
    inside: Option<Vec<u8>>,
}

/// Why a record is refused, by columns.
enum Refusal {
    Cell(usize, String),
    Both(usize, usize),
}

impl RecordReader {
    /// Matches a header with the fields of `row`. Columns of a field that `is_ignored` are accepted and not read.
    ///
    /// # Errors
    /// Lists unknown columns, those given twice and those missing, and which columns there are.
    pub fn new(
        row: &MessageDescriptor,
        header: &StringRecord,
        is_ignored: &dyn Fn(&FieldDescriptor) -> bool,
    ) -> Result<Self, CsvError> {
        let header: StringRecord = header
            .iter()
            .enumerate()
            .map(|(column, name)| if column == 0 { without_mark(name) } else { name }.trim())
            .collect();
        let named = header.iter().enumerate().map(|(column, rest)| Named { column, rest }).collect();
        let mut planner = Planner { header: &header, is_ignored, fields: Fields::new(), faults: Vec::new() };
        let nodes = planner.message(row, "", named)?;
        if planner.faults.is_empty() { Ok(Self { header, nodes }) } else { Err(planner.refusal(row)?) }
    }

    /// Appends the bytes of one record's message to `out`, without a length.
    ///
    /// # Errors
    /// Names the line and the column. `out` is as before.
    pub fn read(&self, record: &StringRecord, out: &mut Vec<u8>) -> Result<(), CsvError> {
        let line = record.position().map(::csv::Position::line);
        if record.len() != self.header.len() {
            return Err(CsvError::at(line, &unequal(record.len(), self.header.len())));
        }
        let start = out.len();
        write_all(&self.nodes, record, out).map_err(|refusal| {
            out.truncate(start);
            CsvError::at(line, &self.explain(refusal))
        })
    }

    fn explain(&self, refusal: Refusal) -> String {
        let name = |column| self.header.get(column).unwrap_or_default();
        match refusal {
            Refusal::Cell(column, why) => format!("column {}: {why}", name(column)),
            Refusal::Both(one, other) => {
                let (one, other) = (name(one), name(other));
                format!("columns {one} and {other} are of one oneof; one of them at most may be filled")
            }
        }
    }
}

fn write_all(nodes: &[Node], record: &StringRecord, out: &mut Vec<u8>) -> Result<(), Refusal> {
    nodes.iter().try_for_each(|node| node.write(record, out))
}

impl Node {
    fn write(&self, record: &StringRecord, out: &mut Vec<u8>) -> Result<(), Refusal> {
        match self {
            Self::Cell(cell) => cell.write(record, out),
            Self::Packed { tag, elements } => {
                out.extend_from_slice(tag);
                delimited(out, |out| elements.iter().try_for_each(|cell| cell.write(record, out)))
            }
            Self::Message { tag, nodes } => {
                out.extend_from_slice(tag);
                delimited(out, |out| write_all(nodes, record, out))
            }
            Self::AtMostOne(members) => {
                let mut filled =
                    members.iter().filter_map(|member| Some((member, member.filled_column(record)?)));
                match (filled.next(), filled.next()) {
                    (Some((_, one)), Some((_, other))) => Err(Refusal::Both(one, other)),
                    (Some((member, _)), None) => member.write(record, out),
                    (None, _) => Ok(()),
                }
            }
        }
    }

    /// The first of the node's columns in which the record has something.
    fn filled_column(&self, record: &StringRecord) -> Option<usize> {
        match self {
            Self::Cell(cell) => cell.filled_column(record),
            Self::Packed { elements, .. } => elements.iter().find_map(|cell| cell.filled_column(record)),
            Self::Message { nodes, .. } | Self::AtMostOne(nodes) => {
                nodes.iter().find_map(|node| node.filled_column(record))
            }
        }
    }
}

impl Cell {
    fn write(&self, record: &StringRecord, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let text = self.text(record);
        out.extend_from_slice(&self.tag);
        let written = match &self.inside {
            None => self.codec.read(text, out),
            Some(inside) => delimited(out, |out| {
                out.extend_from_slice(inside);
                self.codec.read(text, out)
            }),
        };
        written.map_err(|fault| Refusal::Cell(self.column, self.codec.complaint(text, fault)))
    }

    fn filled_column(&self, record: &StringRecord) -> Option<usize> {
        self.codec.is_filled(self.text(record)).then_some(self.column)
    }

    /// The record is as long as the header.
    fn text<'a>(&self, record: &'a StringRecord) -> &'a str {
        record.get(self.column).unwrap_or_default()
    }
}

/// A column, and what of its name is left to be matched at this depth.
#[derive(Debug, Clone, Copy)]
struct Named<'a> {
    column: usize,
    rest: &'a str,
}

/// What a column's name says after the name of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    /// Nothing: `age`.
    Whole,
    /// `person.` and this.
    Inner(&'a str),
    /// This in brackets: `pixels[0]`.
    Index(&'a str),
}

/// The columns that a header has for one field.
type Given<'a> = Vec<(usize, Part<'a>)>;

/// Makes the plan, and collects what is wrong with the header rather than stopping at the first fault.
struct Planner<'a> {
    header: &'a StringRecord,
    is_ignored: &'a dyn Fn(&FieldDescriptor) -> bool,
    fields: Fields,
    faults: Vec<String>,
}

impl<'a> Planner<'a> {
    /// The nodes of a message, whose fields' names follow `prefix`.
    fn message(
        &mut self,
        message: &MessageDescriptor,
        prefix: &str,
        named: Vec<Named<'a>>,
    ) -> Result<Vec<Node>, CsvError> {
        let mut given = self.sort(message, named);
        let has_whole_lists = self.has_whole_lists(message, &given)?;
        let mut nodes = Vec::new();
        // By the oneof's name; what is `optional` is alone in one of the compiler's making.
        let mut oneofs: BTreeMap<String, Vec<Node>> = BTreeMap::new();
        for field in message.fields() {
            let given = given.remove(&field.number()).unwrap_or_default();
            if (self.is_ignored)(&field) {
                continue;
            }
            let path = format!("{prefix}{}", field.name());
            let found = match self.fields.columns(&field)? {
                Columns::List(codec) if has_whole_lists => self.one(&field, codec, &path, given),
                columns => self.field(&field, columns, &path, given)?,
            };
            match field.containing_oneof() {
                Some(oneof) if !found.is_empty() => {
                    oneofs.entry(oneof.name().to_owned()).or_default().extend(found);
                }
                _ => nodes.extend(found),
            }
        }
        nodes.extend(oneofs.into_values().map(Node::AtMostOne));
        Ok(nodes)
    }

    /// Which columns are which field's, by number. Those of no field are faults.
    fn sort(&mut self, message: &MessageDescriptor, named: Vec<Named<'a>>) -> HashMap<u32, Given<'a>> {
        let json = message.fields().map(|field| (field.json_name().to_owned(), field.number()));
        // The second of two equal names counts: a field's own name is never another's.
        let own = message.fields().map(|field| (field.name().to_owned(), field.number()));
        let numbers: HashMap<String, u32> = json.chain(own).collect();
        let mut given: HashMap<u32, Given<'a>> = HashMap::new();
        for Named { column, rest } in named {
            let (name, part) = split(rest);
            match (numbers.get(rest), numbers.get(name)) {
                (Some(number), _) => given.entry(*number).or_default().push((column, Part::Whole)),
                (None, Some(number)) => given.entry(*number).or_default().push((column, part)),
                (None, None) => self.unknown(column),
            }
        }
        given
    }

    /// Is the message a data frame, of whose lists each record holds one element? That is so if it has nothing but
    /// lists, and a column has the bare name of one.
    fn has_whole_lists(
        &mut self,
        message: &MessageDescriptor,
        given: &HashMap<u32, Given<'a>>,
    ) -> Result<bool, CsvError> {
        let is_whole = |field: &FieldDescriptor| {
            given.get(&field.number()).is_some_and(|given| given.iter().any(|(_, part)| *part == Part::Whole))
        };
        let read: Vec<FieldDescriptor> = message.fields().filter(|field| !(self.is_ignored)(field)).collect();
        if !read.iter().any(|field| field.is_list() && is_whole(field)) {
            return Ok(false);
        }
        for field in &read {
            if !matches!(self.fields.columns(field)?, Columns::List(_)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn field(
        &mut self,
        field: &FieldDescriptor,
        columns: Columns,
        path: &str,
        given: Given<'a>,
    ) -> Result<Vec<Node>, CsvError> {
        let is_optional = field.containing_oneof().is_some();
        Ok(match columns {
            Columns::One(_) if is_optional && given.is_empty() => Vec::new(),
            Columns::One(codec) => self.one(field, codec, path, given),
            Columns::Wrapped(_) if given.is_empty() => Vec::new(),
            Columns::Wrapped(codec) => {
                let inside = tag(WRAPPED, codec.wire_type());
                let cell = |column| Cell {
                    column,
                    codec,
                    tag: tag(field.number(), WireType::LengthDelimited),
                    inside: Some(inside),
                };
                let found: Vec<Node> =
                    self.whole(path, given).map(cell).map(Node::Cell).into_iter().collect();
                if is_optional || found.is_empty() { found } else { vec![Node::AtMostOne(found)] }
            }
            Columns::List(codec) => self.list(field, &codec, path, given),
            Columns::Map { key, value } => self.map(field, &key, &value, given),
            Columns::Nested(_) if is_optional && given.is_empty() => Vec::new(),
            Columns::Nested(message) => {
                let inner = self.inner(given);
                let nodes = self.message(&message, &format!("{path}."), inner)?;
                let tag = tag(field.number(), WireType::LengthDelimited);
                if nodes.is_empty() { nodes } else { vec![Node::Message { tag, nodes }] }
            }
            Columns::None => {
                given.iter().for_each(|(column, _)| self.unknown(*column));
                Vec::new()
            }
        })
    }

    /// A cell that is the field's whole value, or one element of it.
    fn one(&mut self, field: &FieldDescriptor, codec: Codec, path: &str, given: Given<'a>) -> Vec<Node> {
        let tag = tag(field.number(), codec.wire_type());
        let cell = |column| Node::Cell(Cell { column, codec, tag, inside: None });
        self.whole(path, given).map(cell).into_iter().collect()
    }

    /// The one column of a field that has one.
    fn whole(&mut self, path: &str, given: Given<'a>) -> Option<usize> {
        let mut found = None;
        for (column, part) in &given {
            match (part, found) {
                (Part::Whole, None) => found = Some(*column),
                (Part::Whole, Some(_)) => self.twice(*column),
                _ => self.unknown(*column),
            }
        }
        if given.is_empty() {
            self.missing(path);
        }
        found
    }

    /// `pixels[0]`, `pixels[1]` ... without a gap, in any order.
    fn list(&mut self, field: &FieldDescriptor, codec: &Codec, path: &str, given: Given<'a>) -> Vec<Node> {
        let mut columns: BTreeMap<usize, usize> = BTreeMap::new();
        for (column, part) in given {
            match part {
                Part::Index(index) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
                    match index.parse().map(|index| columns.entry(index)) {
                        Ok(Entry::Vacant(entry)) => {
                            entry.insert(column);
                        }
                        Ok(Entry::Occupied(_)) => self.twice(column),
                        Err(_) => self.unknown(column),
                    }
                }
                _ => self.unknown(column),
            }
        }
        if let Some((gap, _)) = columns.keys().enumerate().find(|(position, index)| position != *index) {
            self.missing(&format!("{path}[{gap}]"));
        }
        let cell = |tag: Vec<u8>| {
            columns.values().map(move |column| Cell {
                column: *column,
                codec: codec.clone(),
                tag: tag.clone(),
                inside: None,
            })
        };
        match codec.wire_type() {
            _ if columns.is_empty() => Vec::new(),
            // Texts have their lengths and cannot be packed.
            WireType::LengthDelimited => {
                cell(tag(field.number(), WireType::LengthDelimited)).map(Node::Cell).collect()
            }
            _ => {
                let tag = tag(field.number(), WireType::LengthDelimited);
                vec![Node::Packed { tag, elements: cell(Vec::new()).collect() }]
            }
        }
    }

    /// One entry a column.
    fn map(&mut self, field: &FieldDescriptor, key: &Codec, value: &Codec, given: Given<'a>) -> Vec<Node> {
        // Two texts may be one key: `1` and `01`.
        let mut entries: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (column, part) in given {
            let mut bytes = tag(KEY, key.wire_type());
            match part {
                Part::Index(text) if key.read(text, &mut bytes).is_ok() => {
                    bytes.extend(tag(VALUE, value.wire_type()));
                    match entries.entry(bytes) {
                        Entry::Vacant(entry) => {
                            entry.insert(column);
                        }
                        Entry::Occupied(_) => self.twice(column),
                    }
                }
                _ => self.unknown(column),
            }
        }
        let cell = |(inside, column)| Cell {
            column,
            codec: value.clone(),
            tag: tag(field.number(), WireType::LengthDelimited),
            inside: Some(inside),
        };
        entries.into_iter().map(cell).map(Node::Cell).collect()
    }

    /// The columns of a nested message, for the next depth.
    fn inner(&mut self, given: Given<'a>) -> Vec<Named<'a>> {
        let mut inner = Vec::new();
        for (column, part) in given {
            match part {
                Part::Inner(rest) => inner.push(Named { column, rest }),
                _ => self.unknown(column),
            }
        }
        inner
    }

    fn unknown(&mut self, column: usize) {
        let fault = format!("unknown column {}", self.name(column));
        self.faults.push(fault);
    }

    fn twice(&mut self, column: usize) {
        let fault = format!("column {} is given twice", self.name(column));
        self.faults.push(fault);
    }

    fn missing(&mut self, path: &str) {
        self.faults.push(format!("column {} is missing", shown(path)));
    }

    fn name(&self, column: usize) -> String {
        shown(self.header.get(column).unwrap_or_default())
    }

    /// All that is wrong, and what would be right.
    fn refusal(&mut self, row: &MessageDescriptor) -> Result<CsvError, CsvError> {
        let mut columns = Vec::new();
        self.fields = Fields::new();
        self.list_columns(row, "", &mut columns)?;
        let columns = match columns.len() {
            0 => format!("{} has no columns", row.full_name()),
            _ => format!("the columns of {} are {}", row.full_name(), listed(&columns)),
        };
        Ok(CsvError::at(Some(1), &format!("the header: {}; {columns}", listed(&self.faults))))
    }

    /// The columns that a header could have, until there are enough for [`listed`].
    fn list_columns(
        &mut self,
        message: &MessageDescriptor,
        prefix: &str,
        found: &mut Vec<String>,
    ) -> Result<(), CsvError> {
        for field in message.fields().filter(|field| !(self.is_ignored)(field)) {
            if found.len() > MOST_TOLD {
                return Ok(());
            }
            let path = format!("{prefix}{}", field.name());
            match self.fields.columns(&field)? {
                Columns::One(_) | Columns::Wrapped(_) => found.push(path),
                Columns::List(_) => found.push(format!("{path}[0]...")),
                Columns::Map { .. } => found.push(format!("{path}[...]")),
                Columns::Nested(inner) => self.list_columns(&inner, &format!("{path}."), found)?,
                Columns::None => {}
            }
        }
        Ok(())
    }
}

/// A name and what follows it.
fn split(text: &str) -> (&str, Part<'_>) {
    let Some((name, mark)) = text.find(['.', '[']).and_then(|at| text.split_at_checked(at)) else {
        return (text, Part::Whole);
    };
    match mark.strip_prefix('.') {
        Some(rest) => (name, Part::Inner(rest)),
        None => match mark.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(index) => (name, Part::Index(index)),
            None => (text, Part::Whole),
        },
    }
}

fn listed(items: &[String]) -> String {
    let told: Vec<&str> = items.iter().take(MOST_TOLD).map(String::as_str).collect();
    let more = if items.len() > told.len() { ", ..." } else { "" };
    format!("{}{more}", told.join(", "))
}

fn tag(number: u32, wire_type: WireType) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(number, wire_type, &mut bytes);
    bytes
}
