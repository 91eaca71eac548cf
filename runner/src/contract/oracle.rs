//! The wire plans against the dynamic message: what one reads or writes, the other must too.
//!
//! Everything is drawn from a tape of numbers: a contract that fits its tensors, messages for it in any encoding that
//! protobuf allows, tensors for its answers. An empty tape draws the simplest of each, so that failures shrink. The
//! oracle reads and writes `DynamicMessage`s with its own conversions, rounding exactly on integers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
};

use super::bind::{Form, Layout, Leaf, Place, Side};
use super::compile::Schema;
use super::decode::{Decoded, Decoder};
use super::encode::Encoder;
use super::options::Options;
use super::value::Direction;
use crate::config::Limits;
use crate::engine::TensorSpec;
use crate::error::Code;
use crate::tensor::{Dim, Dtype, Elements, Tensor};

const PRELUDE: &str = r#"syntax = "proto3"; package t;
import "baton/options.proto"; import "google/protobuf/wrappers.proto";
enum Color { ZERO = 0; ONE = 1; UNO = 1; NEG = -5; BIG = 2147483647; option allow_alias = true; }
message Note { repeated Note more = 1; string text = 2; map<string, int32> counts = 3; fixed64 id = 70; }
service S { rpc F(Root) returns (Root); }
"#;

const INTEGERS: [&str; 10] =
    ["int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32", "sfixed64"];

// ---- the tape

/// Numbers to draw from; zeros when it ends.
struct Tape {
    items: Vec<u64>,
    at: usize,
}

impl Tape {
    fn new(items: Vec<u64>) -> Self {
        Self { items, at: 0 }
    }

    fn next(&mut self) -> u64 {
        self.at += 1;
        self.items.get(self.at - 1).copied().unwrap_or(0)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    /// True in so many of a hundred draws, never at the end of the tape.
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = last - self.below(last + 1);
            items.swap(last, other);
        }
    }
}

fn tape(length: usize) -> impl Strategy<Value = Vec<u64>> {
    vec(any::<u64>(), 0..length)
}

// ---- contracts

/// How many values a repeated field needs, or elements a field of raw bytes.
#[derive(Debug, Clone, Copy)]
enum Count {
    Fixed(usize),
    Multiple(usize),
    Column,
}

/// A contract that fits its tensors.
#[derive(Debug)]
struct Case {
    source: String,
    specs: Vec<TensorSpec>,
    /// By the fields' full names; with the width of an element for raw bytes.
    counts: BTreeMap<String, (Count, Option<usize>)>,
    ignores: bool,
    root: MessageDescriptor,
    layout: Layout,
}

/// A contract being written.
struct Draft<'a> {
    tape: &'a mut Tape,
    direction: Direction,
    columns: bool,
    specs: Vec<TensorSpec>,
    counts: BTreeMap<String, (Count, Option<usize>)>,
    /// Messages beside the row.
    messages: String,
    ignores: bool,
}

/// A message being written.
struct Body {
    name: String,
    fields: String,
    choice: String,
    numbers: BTreeSet<u32>,
    names: usize,
}

impl Body {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            fields: String::new(),
            choice: String::new(),
            numbers: BTreeSet::new(),
            names: 0,
        }
    }

    fn number(&mut self, tape: &mut Tape) -> u32 {
        let number = match tape.below(8) {
            6 => 60 + tape.below(10) as u32,
            7 => tape.pick(&[15, 16, 127, 2047, 2048, 18_999, 20_000, 536_870_911]),
            _ => 1 + tape.below(12) as u32,
        };
        let free = (number..536_870_912).chain(1..).find(|number| {
            *number < 536_870_912 && !(19_000..20_000).contains(number) && !self.numbers.contains(number)
        });
        let number = free.expect("a free number");
        self.numbers.insert(number);
        number
    }

    fn add(&mut self, tape: &mut Tape, in_choice: bool, of_type: &str, options: &str) -> String {
        let (number, name) = (self.number(tape), format!("f{}", self.names));
        self.names += 1;
        let to = if in_choice { &mut self.choice } else { &mut self.fields };
        let options = if options.is_empty() { String::new() } else { format!(" [{options}]") };
        write!(to, "{of_type} {name} = {number}{options};\n  ").unwrap();
        format!("t.{}.{name}", self.name)
    }

    fn text(&self) -> String {
        let choice = match self.choice.is_empty() {
            true => String::new(),
            false => format!("oneof choice {{\n  {}}}", self.choice),
        };
        format!("message {} {{\n  {}{choice}}}\n", self.name, self.fields)
    }
}

impl Draft<'_> {
    fn dtype(&mut self) -> Dtype {
        Dtype::ALL[self.tape.below(Dtype::ALL.len())]
    }

    /// A scalar type whose values go with these elements.
    fn scalar(&mut self, dtype: Dtype) -> &'static str {
        let request = self.direction == Direction::Request;
        let mut fitting: Vec<&'static str> = Vec::new();
        let is_float = is_float(dtype);
        if dtype == Dtype::Bytes {
            fitting.extend(["string", "bytes", "Color"]);
        } else {
            if is_float || !request {
                fitting.extend(["float", "double"]);
            }
            if request && dtype != Dtype::Bool || !request && !is_float {
                fitting.extend(INTEGERS);
                fitting.push("Color");
            }
            if request || dtype == Dtype::Bool {
                fitting.push("bool");
            }
        }
        self.tape.pick(&fitting)
    }

    fn spec(&mut self, dtype: Dtype, shape: Vec<Dim>, labels: Option<Vec<String>>) -> String {
        let name = format!("x{}", self.specs.len());
        self.specs.push(TensorSpec { name: name.clone(), dtype, shape: Some(shape), labels });
        format!("(baton.tensor) = \"{name}\"")
    }

    /// One tensor, and the fields that are its rows.
    fn tensor(&mut self, body: &mut Body) {
        let dtype = self.dtype();
        if self.columns {
            return self.batch_columns(body, dtype);
        }
        match self.tape.below(6) {
            0 | 1 => self.single(body, dtype),
            2 => self.cells(body, dtype),
            3 => self.whole(body, dtype),
            4 if dtype != Dtype::Bytes => self.raw(body, dtype),
            _ if self.direction == Direction::Response => self.map(body, dtype),
            _ => self.cells(body, dtype),
        }
    }

    fn batch(&mut self) -> Vec<Dim> {
        match self.tape.below(8) {
            6 => vec![Dim::Fixed(1)],
            7 => vec![Dim::Fixed(2)],
            _ => vec![Dim::Any(None)],
        }
    }

    fn single(&mut self, body: &mut Body, dtype: Dtype) {
        let one = || Dim::Fixed(1);
        let any = || Dim::Any(None);
        let shape = match self.tape.below(6) {
            3 => vec![any(), one()],
            4 => vec![one()],
            5 => vec![],
            _ => vec![any()],
        };
        let options = self.spec(dtype, shape, None);
        self.scalar_field(body, dtype, &options);
    }

    fn scalar_field(&mut self, body: &mut Body, dtype: Dtype, options: &str) {
        let of_type = self.scalar(dtype);
        match self.tape.below(4) {
            1 => body.add(self.tape, false, &format!("optional {of_type}"), options),
            2 if wrapper(of_type).is_some() => {
                let of_type = wrapper(of_type).expect("checked");
                let in_choice = self.may_choose(body) && self.tape.chance(30);
                body.add(self.tape, in_choice, of_type, options)
            }
            3 if self.may_choose(body) => body.add(self.tape, true, of_type, options),
            _ => body.add(self.tape, false, of_type, options),
        };
    }

    /// An answer can fill one member of a choice only.
    fn may_choose(&self, body: &Body) -> bool {
        self.direction == Direction::Request || body.choice.is_empty()
    }

    fn cells(&mut self, body: &mut Body, dtype: Dtype) {
        let count = 1 + self.tape.below(4);
        let options = self.spec(dtype, vec![Dim::Any(None), Dim::Fixed(count as i64)], None);
        let mut columns: Vec<usize> = (0..count).collect();
        self.tape.shuffle(&mut columns);
        if self.direction == Direction::Response && count > 1 && self.tape.chance(20) {
            columns.pop();
        }
        let nested = self.tape.chance(40);
        let mut inner = Body::new(&format!("{}Inner{}", body.name, self.specs.len()));
        for column in columns {
            let to = if nested { &mut inner } else { &mut *body };
            self.scalar_field(to, dtype, &format!("{options}, (baton.column) = {column}"));
        }
        if nested {
            self.noise(&mut inner);
            self.messages.push_str(&inner.text());
            let in_choice = self.direction == Direction::Request && self.tape.chance(30);
            let options = if self.tape.chance(50) { options } else { String::new() };
            body.add(self.tape, in_choice, &inner.name, &options);
        }
    }

    fn row_size(&mut self) -> (Vec<Dim>, Count) {
        let (a, b) = (self.tape.below(4), 1 + self.tape.below(3));
        let (first, second) = (Dim::Fixed(a as i64), Dim::Fixed(b as i64));
        match self.tape.below(4) {
            2 => (vec![first, second], Count::Fixed(a * b)),
            3 => (vec![Dim::Any(None), second], Count::Multiple(b)),
            _ => (vec![first], Count::Fixed(a)),
        }
    }

    fn large(&mut self) -> (Vec<Dim>, Count) {
        let (mut shape, (row, mut count)) = (self.batch(), self.row_size());
        if shape == [Dim::Fixed(2)] {
            count = match count {
                Count::Fixed(count) => Count::Fixed(2 * count),
                Count::Multiple(count) => Count::Multiple(2 * count),
                Count::Column => count,
            };
        }
        shape.extend(row);
        (shape, count)
    }

    fn whole(&mut self, body: &mut Body, dtype: Dtype) {
        let (shape, count) = self.large();
        let options = self.spec(dtype, shape, None);
        let of_type = match self.scalar(dtype) {
            "bytes" if dtype != Dtype::Bytes => "bool",
            other => other,
        };
        let packed = of_type != "string" && of_type != "bytes" && self.tape.chance(20);
        let options = if packed { format!("{options}, packed = false") } else { options };
        // An answer that is not packed is legal too, but Baton always packs.
        let name = body.add(self.tape, false, &format!("repeated {of_type}"), &options);
        self.counts.insert(name, (count, None));
    }

    fn raw(&mut self, body: &mut Body, dtype: Dtype) {
        let (shape, count) = self.large();
        let options = self.spec(dtype, shape, None);
        let in_choice = self.may_choose(body) && self.tape.chance(20);
        let types = ["bytes", "bytes", "optional bytes", "google.protobuf.BytesValue"];
        let of_type = if in_choice { "bytes" } else { self.tape.pick(&types) };
        let name = body.add(self.tape, in_choice, of_type, &options);
        self.counts.insert(name, (count, dtype.width()));
    }

    fn map(&mut self, body: &mut Body, dtype: Dtype) {
        let count = self.tape.below(4);
        let keys = ["string", "string", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32"];
        let (key, value) = (self.tape.pick(&keys), self.scalar(dtype));
        let label = |index: usize| match (key, index) {
            ("string", 0) => "\u{e4} long label \u{1f980}".to_owned(),
            ("int32" | "int64" | "sint32" | "sint64", 1) => "-7".to_owned(),
            _ => (index * 100).to_string(),
        };
        let labels: Vec<String> = (0..count).map(label).collect();
        let size = if self.tape.chance(30) { Dim::Any(None) } else { Dim::Fixed(count as i64) };
        let options = self.spec(dtype, vec![Dim::Any(None), size], Some(labels));
        let name = body.add(self.tape, false, &format!("map<{key}, {value}>"), &options);
        self.counts.insert(name, (Count::Fixed(count), None));
    }

    fn batch_columns(&mut self, body: &mut Body, dtype: Dtype) {
        let single = self.tape.chance(50);
        let count = if single { 1 } else { 1 + self.tape.below(3) };
        let mut shape = vec![Dim::Any(None)];
        if !single || self.tape.chance(30) {
            shape.push(Dim::Fixed(count as i64));
        }
        let options = self.spec(dtype, shape, None);
        let mut columns: Vec<usize> = (0..count).collect();
        self.tape.shuffle(&mut columns);
        for column in columns {
            let of_type = format!("repeated {}", self.scalar(dtype));
            let options = match single {
                true => options.clone(),
                false => format!("{options}, (baton.column) = {column}"),
            };
            let name = body.add(self.tape, false, &of_type, &options);
            self.counts.insert(name, (Count::Column, None));
        }
    }

    /// A field that is not bound, now and then.
    fn noise(&mut self, body: &mut Body) {
        if !self.ignores || !self.tape.chance(60) {
            return;
        }
        let types = ["Note", "repeated Note", "string", "repeated int32", "map<int32, Note>", "Color"];
        let of_type = self.tape.pick(&types);
        let single = !of_type.contains("repeated") && !of_type.contains('<');
        let in_choice = single && self.tape.chance(50);
        body.add(self.tape, in_choice, of_type, "(baton.ignore) = true");
    }

    fn case(mut self) -> Case {
        let rows = !self.columns && self.tape.chance(50);
        let outer = self.tape.chance(30);
        let mut row = Body::new(if rows || outer { "Row" } else { "Root" });
        for _ in 0..=self.tape.below(4) {
            self.tensor(&mut row);
        }
        self.noise(&mut row);
        let mut source = format!("{PRELUDE}{}{}", self.messages, row.text());
        let mut inner = row.name;
        let mut layers: Vec<&str> = Vec::new();
        if rows {
            layers.push("repeated ");
        }
        if outer {
            layers.push("");
        }
        for (index, layer) in layers.iter().enumerate() {
            let name = if index + 1 == layers.len() { "Root" } else { "Batch" };
            let mut body = Body::new(name);
            body.add(self.tape, false, &format!("{layer}{inner}"), "");
            self.noise(&mut body);
            source.push_str(&body.text());
            inner = body.name;
        }
        let schema = Schema::compile("t.proto", source.as_bytes(), &Limits::default())
            .unwrap_or_else(|error| panic!("{error:?}\n{source}"));
        let manifest = BTreeMap::new();
        let options = Options::new(schema.pool(), &manifest);
        let root = schema.pool().get_message_by_name("t.Root").expect("Root");
        let side = Side { specs: &self.specs, direction: self.direction, options: &options };
        let layout = side.bind(&root).unwrap_or_else(|faults| panic!("{faults:?}\n{source}"));
        let Self { specs, counts, ignores, .. } = self;
        Case { source, specs, counts, ignores, root, layout }
    }
}

fn wrapper(of_type: &str) -> Option<&'static str> {
    Some(match of_type {
        "double" => "google.protobuf.DoubleValue",
        "float" => "google.protobuf.FloatValue",
        "int64" => "google.protobuf.Int64Value",
        "uint64" => "google.protobuf.UInt64Value",
        "int32" => "google.protobuf.Int32Value",
        "uint32" => "google.protobuf.UInt32Value",
        "bool" => "google.protobuf.BoolValue",
        "string" => "google.protobuf.StringValue",
        "bytes" => "google.protobuf.BytesValue",
        _ => return None,
    })
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Fp16 | Dtype::Bf16 | Dtype::Fp32 | Dtype::Fp64)
}

fn draw_case(items: Vec<u64>, direction: Direction, ignores: bool) -> Case {
    let tape = &mut Tape::new(items);
    let columns = tape.chance(20);
    let (specs, counts, messages) = (Vec::new(), BTreeMap::new(), String::new());
    Draft { tape, direction, columns, specs, counts, messages, ignores }.case()
}

// ---- messages in any encoding

/// Writes messages of a contract in whatever form protobuf allows.
struct Writer<'a> {
    tape: &'a mut Tape,
    case: &'a Case,
    /// Values of any size, else such as fit everywhere.
    wild: bool,
    /// Now and then another number of values than the tensor takes.
    ragged: bool,
    column: usize,
    multiple: usize,
}

fn writer<'a>(tape: &'a mut Tape, case: &'a Case) -> Writer<'a> {
    let (wild, ragged) = (tape.chance(35), tape.chance(15));
    let (column, multiple) = (tape.below(5), tape.below(3));
    Writer { tape, case, wild, ragged, column, multiple }
}

impl Writer<'_> {
    /// A varint, now and then longer than need be.
    fn varint(&mut self, mut value: u64, out: &mut Vec<u8>) {
        let start = out.len();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        if self.tape.chance(6) {
            let room = 10 - (out.len() - start);
            let more = self.tape.below(room + 1);
            for _ in 0..more {
                *out.last_mut().unwrap() |= 0x80;
                out.push(0);
            }
        }
    }

    fn tag(&mut self, number: u32, wire_type: u32, out: &mut Vec<u8>) {
        self.varint(u64::from(number << 3 | wire_type), out);
    }

    fn part(&mut self, number: u32, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.tag(number, 2, &mut out);
        self.varint(content.len() as u64, &mut out);
        out.extend_from_slice(content);
        out
    }

    fn integer(&mut self, wild: bool) -> i64 {
        if !wild {
            return [0, 1, 7, 100][self.tape.below(4)];
        }
        let edges = [127, 128, 255, 256, 32_767, 65_504, 65_535, 65_536, 1 << 31, 1 << 32, i64::MAX];
        match self.tape.below(4) {
            0 => self.tape.pick(&edges),
            1 => (-self.tape.pick(&edges)).wrapping_sub(self.tape.below(3) as i64),
            // Close to halves between neighbouring floats.
            2 => {
                ((1_i64 << (20 + self.tape.below(40))) | (1 << self.tape.below(60)))
                    + self.tape.below(3) as i64
                    - 1
            }
            _ => self.tape.next() as i64,
        }
    }

    fn double(&mut self, wild: bool) -> f64 {
        if !wild {
            return [0.0, -0.0, 1.5, 0.1][self.tape.below(4)];
        }
        let edges =
            [65_504.0, 65_519.99, 65_520.0, 3.4028234663852886e38, 3.4028235677973366e38, 1e300, 1e-40, 5e-8];
        match self.tape.below(5) {
            0 => self.tape.pick(&edges),
            1 => self.tape.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1e-45, 3.39e38]),
            // Close to halves between neighbouring floats.
            2 => f64::from_bits(
                ((1.0 + self.tape.pick(&[2f64.powi(-11), 2f64.powi(-8), 2f64.powi(-24)])).to_bits())
                    .wrapping_add(self.tape.below(3) as u64)
                    .wrapping_sub(1),
            ),
            3 => f64::from(f32::from_bits(self.tape.next() as u32)),
            _ => f64::from_bits(self.tape.next()),
        }
    }

    /// A value without its tag.
    fn value(&mut self, kind: &Kind, wild: bool, out: &mut Vec<u8>) {
        match kind {
            Kind::Double => out.extend(self.double(wild).to_le_bytes()),
            Kind::Float if wild && self.tape.chance(50) => {
                out.extend((self.tape.next() as u32).to_le_bytes())
            }
            Kind::Float => out.extend((self.double(wild) as f32).to_le_bytes()),
            Kind::Fixed32 | Kind::Sfixed32 => out.extend((self.integer(wild) as u32).to_le_bytes()),
            Kind::Fixed64 | Kind::Sfixed64 => out.extend(self.integer(wild).to_le_bytes()),
            Kind::Enum(_) if !wild || self.tape.chance(60) => {
                let numbers = if wild { [0, -5, 1, i64::from(i32::MAX)] } else { [0, 1, 0, 1] };
                let number = self.tape.pick(&numbers);
                self.varint(number as u64, out);
            }
            Kind::String | Kind::Bytes => {
                let text: &[u8] = match (self.tape.below(6), kind) {
                    (0, _) => b"",
                    (1, _) => b"\0",
                    (2, _) => "\u{1f980} crab".as_bytes(),
                    (3, Kind::Bytes) => b"\xff\xfe",
                    (4, Kind::String) if wild => b"\xff\xfe",
                    _ => b"text",
                };
                self.varint(text.len() as u64, out);
                out.extend_from_slice(text);
            }
            Kind::Bool => {
                let value = if wild { self.tape.next() } else { self.tape.below(2) as u64 };
                self.varint(value, out);
            }
            Kind::Sint32 | Kind::Sint64 => {
                let value = self.integer(wild);
                self.varint(((value << 1) ^ (value >> 63)) as u64, out);
            }
            _ => {
                let value = self.integer(wild) as u64;
                self.varint(value, out);
            }
        }
    }

    /// The fields of a message, each in one piece or several.
    fn records(&mut self, message: &MessageDescriptor, depth: usize) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        // Members that others unset hold nothing that the plan would refuse.
        let mut several = BTreeMap::new();
        for choice in message.oneofs().filter(|choice| !choice.is_synthetic()) {
            let only = self.tape.below(choice.fields().len());
            let only = choice.fields().nth(only).filter(|_| !self.tape.chance(30));
            several.insert(choice.full_name().to_owned(), only);
        }
        for field in message.fields() {
            let choice = field.containing_oneof().and_then(|choice| several.get(choice.full_name()));
            let times = match self.tape.below(8) {
                0 => 0,
                7 => 2 + self.tape.below(2),
                _ => 1,
            };
            match choice {
                Some(Some(only)) if *only != field => {}
                Some(None) => self.field(&field, times, false, depth, &mut records),
                _ => self.field(&field, times, self.wild && times < 2, depth, &mut records),
            }
        }
        while self.tape.chance(15) {
            let record = self.unknown(message, 0);
            records.push(record);
        }
        self.tape.shuffle(&mut records);
        records
    }

    fn field(
        &mut self,
        field: &FieldDescriptor,
        times: usize,
        wild: bool,
        depth: usize,
        records: &mut Vec<Vec<u8>>,
    ) {
        let number = field.number();
        let count = self.case.counts.get(field.full_name()).copied();
        match (field.kind(), count) {
            (Kind::Message(inner), _) => self.message_field(field, &inner, times, wild, depth, records),
            (Kind::Bytes, Some((count, Some(width)))) => {
                for _ in 0..times {
                    let count = self.count(count, times < 2);
                    let bytes: Vec<u8> = (0..count * width).map(|_| self.tape.next() as u8).collect();
                    records.push(self.part(number, &bytes));
                }
            }
            (kind, count) if field.is_list() => {
                let count = match count {
                    Some((count, _)) => self.count(count, true),
                    None => self.tape.below(4),
                };
                self.list(number, &kind, count, self.wild, records);
            }
            (kind, _) => {
                // Bytes that may be elements are written once: the plan checks those that others replace too.
                let elements = field.full_name() == "google.protobuf.BytesValue.value";
                for _ in 0..if elements { times.min(1) } else { times } {
                    let mut out = Vec::new();
                    self.tag(number, wire_type(&kind), &mut out);
                    self.value(&kind, wild, &mut out);
                    records.push(out);
                }
            }
        }
    }

    fn count(&mut self, count: Count, may_be_ragged: bool) -> usize {
        if self.ragged && may_be_ragged && self.tape.chance(40) {
            return self.tape.below(6);
        }
        match count {
            Count::Fixed(count) => count,
            Count::Multiple(factor) => factor * self.multiple,
            Count::Column => self.column,
        }
    }

    /// Values packed, one by one, or some of each.
    fn list(&mut self, number: u32, kind: &Kind, count: usize, wild: bool, records: &mut Vec<Vec<u8>>) {
        let packable = !matches!(kind, Kind::String | Kind::Bytes);
        let mut left = count;
        while left > 0 || packable && self.tape.chance(5) {
            if packable && (left == 0 || self.tape.below(4) != 3) {
                let now = if self.tape.chance(30) { self.tape.below(left + 1) } else { left };
                let mut content = Vec::new();
                (0..now).for_each(|_| self.value(kind, wild, &mut content));
                left -= now;
                records.push(self.part(number, &content));
            } else {
                let mut out = Vec::new();
                self.tag(number, wire_type(kind), &mut out);
                self.value(kind, wild, &mut out);
                left -= 1;
                records.push(out);
            }
        }
    }

    fn message_field(
        &mut self,
        field: &FieldDescriptor,
        inner: &MessageDescriptor,
        times: usize,
        wild: bool,
        depth: usize,
        records: &mut Vec<Vec<u8>>,
    ) {
        let number = field.number();
        if inner.name() == "Note" && depth > 3 {
            return;
        }
        if field.is_list() || field.is_map() {
            for _ in 0..self.tape.below(4) {
                let content = self.records(inner, depth + 1).concat();
                records.push(self.part(number, &content));
            }
            return;
        }
        let was = std::mem::replace(&mut self.wild, wild);
        let inside = if times > 0 { self.records(inner, depth + 1) } else { Vec::new() };
        self.wild = was;
        let mut parts: Vec<Vec<u8>> = vec![Vec::new(); times];
        for record in inside {
            let part = self.tape.below(times);
            parts[part].extend(record);
        }
        for part in parts {
            records.push(self.part(number, &part));
        }
    }

    /// A field that the message does not have.
    fn unknown(&mut self, message: &MessageDescriptor, depth: usize) -> Vec<u8> {
        let number = 13 + self.tape.below(3000) as u32;
        let number = (number..).find(|number| message.get_field(*number).is_none()).expect("a number");
        let mut out = Vec::new();
        match self.tape.below(5) {
            0 => {
                self.tag(number, 0, &mut out);
                let value = self.tape.next();
                self.varint(value, &mut out);
            }
            1 => {
                self.tag(number, 1, &mut out);
                out.extend(self.tape.next().to_le_bytes());
            }
            2 => {
                self.tag(number, 5, &mut out);
                out.extend((self.tape.next() as u32).to_le_bytes());
            }
            3 if depth < 5 => {
                self.tag(number, 3, &mut out);
                for _ in 0..self.tape.below(3) {
                    out.extend(self.unknown(message, depth + 1));
                }
                self.tag(number, 4, &mut out);
            }
            _ => return self.part(number, b"\x08\xff any bytes \x04"),
        }
        out
    }
}

fn wire_type(kind: &Kind) -> u32 {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => 1,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => 5,
        Kind::String | Kind::Bytes | Kind::Message(_) => 2,
        _ => 0,
    }
}

// ---- numbers

/// A number as it is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Exact {
    Finite { negative: bool, mantissa: u128, exponent: i32 },
    Infinite { negative: bool },
    Nan,
}

/// Mantissa bits without the hidden one, exponent bits.
const HALF: (u32, u32) = (10, 5);
const BRAIN: (u32, u32) = (7, 8);
const FLOAT: (u32, u32) = (23, 8);
const DOUBLE: (u32, u32) = (52, 11);

impl Exact {
    fn of_integer(value: i128) -> Self {
        Self::Finite { negative: value < 0, mantissa: value.unsigned_abs(), exponent: 0 }
    }

    fn of_bits(bits: u64, (mantissa_bits, exponent_bits): (u32, u32)) -> Self {
        let negative = bits >> (mantissa_bits + exponent_bits) & 1 == 1;
        let fraction = bits & ((1 << mantissa_bits) - 1);
        let field = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
        let bias = (1 << (exponent_bits - 1)) - 1;
        if field == (1 << exponent_bits) - 1 {
            return if fraction == 0 { Self::Infinite { negative } } else { Self::Nan };
        }
        let (mantissa, field) =
            if field == 0 { (fraction, 1) } else { (fraction | 1 << mantissa_bits, field) };
        let exponent = field as i32 - bias - mantissa_bits as i32;
        Self::Finite { negative, mantissa: mantissa.into(), exponent }
    }

    /// Rounded to the nearest, ties to even; `None` if a finite number became infinite.
    fn to_bits(self, (mantissa_bits, exponent_bits): (u32, u32)) -> Option<u64> {
        let sign = |negative: bool| u64::from(negative) << (mantissa_bits + exponent_bits);
        let infinity = ((1_u64 << exponent_bits) - 1) << mantissa_bits;
        let (negative, mut mantissa, mut exponent) = match self {
            Self::Nan => return Some(infinity | 1 << (mantissa_bits - 1)),
            Self::Infinite { negative } => return Some(sign(negative) | infinity),
            Self::Finite { negative, mantissa: 0, .. } => return Some(sign(negative)),
            Self::Finite { negative, mantissa, exponent } => (negative, mantissa, exponent),
        };
        let smallest = 2 - (1 << (exponent_bits - 1)) - mantissa_bits as i32;
        while mantissa < 1 << mantissa_bits && exponent > smallest {
            mantissa <<= 1;
            exponent -= 1;
        }
        let mut sticky = false;
        let mut half = false;
        while mantissa >= 1 << (mantissa_bits + 1) || exponent < smallest {
            sticky |= half;
            half = mantissa & 1 == 1;
            mantissa >>= 1;
            exponent += 1;
        }
        // A subnormal one has the field 0, which a carry turns into 1.
        let field = if mantissa < 1 << mantissa_bits { 0 } else { (exponent - smallest + 1) as u64 };
        let mut bits = (field << mantissa_bits) + (mantissa as u64 & ((1 << mantissa_bits) - 1));
        bits += u64::from(half && (sticky || bits & 1 == 1));
        (bits < infinity).then_some(sign(negative) | bits)
    }

    fn to_integer(self) -> Option<i128> {
        match self {
            Self::Finite { negative, mantissa, exponent: 0 } => {
                Some(if negative { -(mantissa as i128) } else { mantissa as i128 })
            }
            _ => None,
        }
    }
}

fn float_format(dtype: Dtype) -> Option<(u32, u32)> {
    Some(match dtype {
        Dtype::Fp16 => HALF,
        Dtype::Bf16 => BRAIN,
        Dtype::Fp32 => FLOAT,
        Dtype::Fp64 => DOUBLE,
        _ => return None,
    })
}

fn integer_range(dtype: Dtype) -> (i128, i128) {
    let bits = 8 * dtype.width().expect("fixed width") as u32;
    match dtype {
        Dtype::Bool => (0, 1),
        Dtype::Int8 | Dtype::Int16 | Dtype::Int32 | Dtype::Int64 => {
            (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        }
        _ => (0, (1 << bits) - 1),
    }
}

/// An element's bytes, or `None` if the value does not fit.
fn element(value: &Value, dtype: Dtype) -> Option<Vec<u8>> {
    let exact = match value {
        Value::Bool(value) => Exact::of_integer(i128::from(*value)),
        Value::I32(value) | Value::EnumNumber(value) => Exact::of_integer(i128::from(*value)),
        Value::I64(value) => Exact::of_integer(i128::from(*value)),
        Value::U32(value) => Exact::of_integer(i128::from(*value)),
        Value::U64(value) => Exact::of_integer(i128::from(*value)),
        Value::F32(value) if dtype == Dtype::Fp32 => return Some(value.to_le_bytes().to_vec()),
        Value::F64(value) if dtype == Dtype::Fp64 => return Some(value.to_le_bytes().to_vec()),
        Value::F32(value) => Exact::of_bits(value.to_bits().into(), FLOAT),
        Value::F64(value) => Exact::of_bits(value.to_bits(), DOUBLE),
        _ => panic!("{value:?} is no number"),
    };
    let width = dtype.width().expect("fixed width");
    let bits = match float_format(dtype) {
        Some(format) => exact.to_bits(format)?,
        None => {
            let (low, high) = integer_range(dtype);
            exact.to_integer().filter(|value| (low..=high).contains(value))? as u64
        }
    };
    Some(bits.to_le_bytes()[..width].to_vec())
}

fn read_element(bytes: &[u8], dtype: Dtype) -> Exact {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(all);
    match float_format(dtype) {
        Some(format) => Exact::of_bits(bits, format),
        None if integer_range(dtype).0 < 0 => {
            let unused = 64 - 8 * bytes.len() as u32;
            Exact::of_integer(i128::from((bits << unused) as i64 >> unused))
        }
        None => Exact::of_integer(bits.into()),
    }
}

/// An element as a value of a field, or `None` if it does not fit.
fn value_of(bytes: &[u8], dtype: Dtype, kind: &Kind) -> Option<Value> {
    let exact = read_element(bytes, dtype);
    let four = || bytes.try_into().ok().map(f32::from_le_bytes);
    let eight = || bytes.try_into().ok().map(f64::from_le_bytes);
    Some(match kind {
        Kind::Float if dtype == Dtype::Fp32 => Value::F32(four()?),
        Kind::Double if dtype == Dtype::Fp64 => Value::F64(eight()?),
        Kind::Float => Value::F32(f32::from_bits(exact.to_bits(FLOAT)? as u32)),
        Kind::Double => Value::F64(f64::from_bits(exact.to_bits(DOUBLE)?)),
        Kind::Bool => Value::Bool(exact.to_integer()? != 0),
        Kind::Enum(_) => Value::EnumNumber(exact.to_integer()?.try_into().ok()?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(exact.to_integer()?.try_into().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(exact.to_integer()?.try_into().ok()?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(exact.to_integer()?.try_into().ok()?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(exact.to_integer()?.try_into().ok()?),
        _ => panic!("{kind:?} is no number"),
    })
}

/// Is the field's value the element, bit for bit? NaNs keep their bits only then.
fn is_same(kind: &Kind, dtype: Dtype) -> bool {
    matches!((kind, dtype), (Kind::Float, Dtype::Fp32) | (Kind::Double, Dtype::Fp64) | (Kind::Bytes, _))
}

// ---- the oracle of requests

/// A tensor's shape and elements; fixed-width ones as their bytes.
#[derive(Debug, PartialEq)]
struct Read {
    shape: Vec<i64>,
    elements: Vec<Bytes>,
}

/// The tensors of some messages, or `None` if a value has no place.
fn read(case: &Case, messages: &[DynamicMessage]) -> Option<Vec<Read>> {
    let tensors = 0..case.specs.len();
    if case.layout.form == Form::Columns {
        return tensors.map(|tensor| read_columns(case, tensor, messages)).collect();
    }
    let rows: Vec<DynamicMessage> =
        messages.iter().flat_map(|message| rows(&case.layout.form, message)).collect();
    tensors.map(|tensor| read_rows(case, tensor, &rows)).collect()
}

fn rows(form: &Form, message: &DynamicMessage) -> Vec<DynamicMessage> {
    let Form::Rows(path) = form else { return vec![message.clone()] };
    let list = get(message, path);
    list.as_list().expect("a list").iter().map(|row| row.as_message().expect("a message").clone()).collect()
}

fn get(message: &DynamicMessage, path: &[FieldDescriptor]) -> Value {
    let value = message.get_field(&path[0]).into_owned();
    if path.len() == 1 { value } else { get(value.as_message().expect("a message"), &path[1..]) }
}

/// Was the leaf sent, or has it a value all the same?
fn is_present(message: &DynamicMessage, leaf: &Leaf) -> bool {
    let (last, above) = leaf.path.split_last().expect("a path");
    let decides = if last.supports_presence() { leaf.path.len() } else { above.len() };
    let (field, above) = leaf.path[..decides].split_last().expect("a path");
    match above {
        [] => message.has_field(field),
        _ => get(message, above).as_message().expect("a message").has_field(field),
    }
}

fn leaves(case: &Case, tensor: usize) -> Vec<&Leaf> {
    case.layout.leaves.iter().filter(|leaf| leaf.tensor == tensor).collect()
}

fn read_value(value: &Value, dtype: Dtype, kind: &Kind) -> Option<Bytes> {
    match (value, kind) {
        (Value::String(text), _) => Some(Bytes::copy_from_slice(text.as_bytes())),
        (Value::Bytes(bytes), _) => Some(bytes.clone()),
        (Value::EnumNumber(number), Kind::Enum(names)) if dtype == Dtype::Bytes => {
            let name = names.values().find(|value| value.number() == *number)?;
            Some(Bytes::copy_from_slice(name.name().as_bytes()))
        }
        _ => element(value, dtype).map(Bytes::from),
    }
}

fn missing(dtype: Dtype) -> Option<Bytes> {
    match float_format(dtype) {
        Some(format) => {
            let bits = Exact::Nan.to_bits(format)?;
            Some(Bytes::copy_from_slice(&bits.to_le_bytes()[..dtype.width()?]))
        }
        None => (dtype == Dtype::Bytes).then(Bytes::new),
    }
}

/// The elements of a tensor in one row.
fn read_row(case: &Case, tensor: usize, row: &DynamicMessage) -> Option<Vec<Bytes>> {
    let (leaves, dtype) = (leaves(case, tensor), case.specs[tensor].dtype);
    let mut elements = vec![Bytes::new(); leaves.len()];
    for leaf in leaves {
        let (value, kind) = (get(row, &leaf.path), leaf.path.last()?.kind());
        match &leaf.place {
            Place::Cell(column) if leaf.nullable && !is_present(row, leaf) => {
                elements[*column] = missing(dtype)?
            }
            Place::Cell(column) => elements[*column] = read_value(&value, dtype, &kind)?,
            Place::Whole => {
                let list = value.as_list()?.iter();
                elements = list.map(|value| read_value(value, dtype, &kind)).collect::<Option<_>>()?;
            }
            Place::Raw => {
                let (bytes, width) = (value.as_bytes()?, dtype.width()?);
                if bytes.len() % width != 0 {
                    return None;
                }
                // A bool is 0 or 1 in memory.
                let own = |byte: &u8| if dtype == Dtype::Bool { u8::from(*byte != 0) } else { *byte };
                elements = bytes.chunks(width).map(|bytes| bytes.iter().map(own).collect()).collect();
            }
            Place::Column(_) | Place::Map(_) => panic!("{leaf:?} in a row"),
        }
    }
    Some(elements)
}

fn read_rows(case: &Case, tensor: usize, rows: &[DynamicMessage]) -> Option<Read> {
    let read: Vec<Vec<Bytes>> = rows.iter().map(|row| read_row(case, tensor, row)).collect::<Option<_>>()?;
    let size = read.first().map(Vec::len);
    if read.iter().any(|row| Some(row.len()) != size) {
        return None;
    }
    let shape = shape(case.specs[tensor].shape.as_deref()?, rows.len(), size)?;
    Some(Read { shape, elements: read.concat() })
}

/// The shape of so many rows of so many elements.
fn shape(declared: &[Dim], rows: usize, size: Option<usize>) -> Option<Vec<i64>> {
    let (batch, row) = match declared {
        [Dim::Any(_), row @ ..] => (Some(None), row),
        [Dim::Fixed(1), row @ ..] => (Some(Some(1)), row),
        row => (None, row),
    };
    if batch != Some(None) && rows != 1 {
        return None;
    }
    let known: usize =
        row.iter().map(|dim| if let Dim::Fixed(size) = dim { *size as usize } else { 1 }).product();
    let varies = row.iter().any(|dim| matches!(dim, Dim::Any(_)));
    let fits = size.is_none_or(|size| if varies { size % known == 0 } else { size == known });
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(size) => *size,
        Dim::Any(_) => (size.unwrap_or(0) / known) as i64,
    };
    fits.then(|| batch.map(|_| rows as i64).into_iter().chain(row.iter().map(dim)).collect())
}

fn read_columns(case: &Case, tensor: usize, messages: &[DynamicMessage]) -> Option<Read> {
    let (own, dtype) = (leaves(case, tensor), case.specs[tensor].dtype);
    let column = |leaf: &Leaf| -> Vec<Value> {
        let lists = messages.iter().map(|message| get(message, &leaf.path));
        lists.flat_map(|list| list.as_list().expect("a list").to_vec()).collect()
    };
    let lengths: BTreeSet<usize> = case.layout.leaves.iter().map(|leaf| column(leaf).len()).collect();
    if lengths.len() != 1 {
        return None;
    }
    let rows = *lengths.first()?;
    let mut elements = vec![Bytes::new(); rows * own.len()];
    for leaf in &own {
        let Place::Column(offset) = leaf.place else { panic!("{leaf:?} in columns") };
        for (row, value) in column(leaf).iter().enumerate() {
            elements[row * own.len() + offset] = read_value(value, dtype, &leaf.path.last()?.kind())?;
        }
    }
    Some(Read { shape: shape(case.specs[tensor].shape.as_deref()?, rows, Some(own.len()))?, elements })
}

/// What the plan read, in the oracle's form.
fn plain(decoded: &Decoded) -> Vec<Read> {
    let plain = |tensor: &Tensor| Read { shape: tensor.shape().to_vec(), elements: elements(tensor) };
    decoded.inputs.iter().map(|(_, tensor)| plain(tensor)).collect()
}

fn elements(tensor: &Tensor) -> Vec<Bytes> {
    match tensor.elements() {
        Elements::Text(elements) => elements.clone(),
        Elements::Raw(bytes) => {
            bytes.chunks(tensor.dtype().width().expect("a width")).map(Bytes::copy_from_slice).collect()
        }
    }
}

/// Any NaN for a NaN where a value changed its type.
fn settle_nans(case: &Case, tensors: &mut [Read]) {
    for (tensor, read) in tensors.iter_mut().enumerate() {
        let dtype = case.specs[tensor].dtype;
        let mut own = leaves(case, tensor).into_iter();
        if !is_float(dtype) || own.all(|leaf| is_same(&leaf.path.last().expect("a path").kind(), dtype)) {
            continue;
        }
        for element in &mut read.elements {
            if read_element(element, dtype) == Exact::Nan {
                *element = missing(dtype).expect("a float");
            }
        }
    }
}

fn tiny(case: &Case) -> Decoder {
    let limits = Limits::default();
    Decoder::new(&case.root, &case.layout, &case.specs, &limits)
}

/// The plan's answer and the oracle's for messages of a stream.
type Both = (crate::error::Result<Vec<Read>>, Option<Option<Vec<Read>>>);

fn both(case: &Case, plan: &Decoder, messages: &[Vec<u8>]) -> Both {
    let mut decoding = plan.start();
    let mut told = Ok(());
    for message in messages {
        told = told.and_then(|()| decoding.message(&Bytes::copy_from_slice(message)));
    }
    let decoded = told.and_then(|()| decoding.finish());
    if let Ok(decoded) = &decoded {
        let names = decoded.inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.dtype()));
        assert!(names.eq(case.specs.iter().map(|spec| (spec.name.as_str(), spec.dtype))));
    }
    let mut decoded = decoded.map(|decoded| plain(&decoded));
    let dynamic: Result<Vec<DynamicMessage>, _> = messages
        .iter()
        .map(|message| DynamicMessage::decode(case.root.clone(), message.as_slice()))
        .collect();
    let mut oracle = dynamic.ok().map(|messages| read(case, &messages));
    if let (Ok(decoded), Some(Some(oracle))) = (&mut decoded, &mut oracle) {
        settle_nans(case, decoded);
        settle_nans(case, oracle);
    }
    (decoded, oracle)
}

fn show(case: &Case, messages: &[Vec<u8>]) -> String {
    let read =
        |message: &Vec<u8>| format!("{:?}", DynamicMessage::decode(case.root.clone(), message.as_slice()));
    let read: Vec<String> = messages.iter().map(read).collect();
    format!("{}\n{:?}\n{messages:x?}\n{read:#?}", case.source, case.specs)
}

fn check_reads(case: &Case, plan: &Decoder, messages: &[Vec<u8>]) {
    match both(case, plan, messages) {
        (Ok(plan), Some(Some(oracle))) => assert_eq!(plan, oracle, "{}", show(case, messages)),
        (Err(_), Some(None) | None) => {}
        // What is ignored is walked over, not read: a string in it may be none.
        (Ok(_), None) if case.ignores => {}
        (plan, oracle) => panic!("plan {plan:?}\noracle {oracle:?}\n{}", show(case, messages)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 3000, failure_persistence: None, ..cases(400) })]

    #[test]
    fn requests_are_read_as_the_dynamic_message_is(
        contract in tape(60), messages in vec(tape(200), 1..10), ignores in any::<bool>(),
    ) {
        let case = draw_case(contract, Direction::Request, ignores);
        let plan = tiny(&case);
        for message in &messages {
            let tape = &mut Tape::new(message.clone());
            let message = writer(tape, &case).records(&case.root, 0).concat();
            check_reads(&case, &plan, &[message]);
        }
    }

    #[test]
    fn streams_are_read_as_the_dynamic_messages_are(
        contract in tape(60), messages in vec(tape(100), 0..4),
    ) {
        let case = draw_case(contract, Direction::Request, true);
        let write = |items: Vec<u64>| writer(&mut Tape::new(items), &case).records(&case.root, 0).concat();
        let messages: Vec<Vec<u8>> = messages.into_iter().map(write).collect();
        check_reads(&case, &tiny(&case), &messages);
    }
}

// ---- the oracle of answers

fn draw_tensors(case: &Case, tape: &mut Tape, plan: &Encoder) -> Vec<Tensor> {
    let used: Vec<&TensorSpec> = plan.outputs().map(|position| &case.specs[position]).collect();
    let declared = |spec: &&TensorSpec| spec.shape.clone().expect("a shape").first().cloned();
    let one = used.iter().any(|spec| declared(spec) == Some(Dim::Fixed(1))) || tape.chance(40);
    let rows = if one { 1 } else { tape.below(4) as i64 };
    let wild = tape.chance(30);
    used.iter().map(|spec| draw_tensor(spec, rows, wild, tape)).collect()
}

fn draw_tensor(spec: &TensorSpec, rows: i64, wild: bool, tape: &mut Tape) -> Tensor {
    let labels = spec.labels.as_ref().map_or(2, Vec::len) as i64;
    let dims = spec.shape.as_ref().expect("a shape").iter().enumerate();
    let dim = |(index, dim): (usize, &Dim)| match dim {
        Dim::Fixed(size) => *size,
        Dim::Any(_) if index == 0 => rows,
        Dim::Any(_) => labels,
    };
    let shape: Vec<i64> = dims.map(dim).collect();
    let count = shape.iter().product::<i64>() as usize;
    if spec.dtype == Dtype::Bytes {
        let texts: &[&[u8]] =
            if wild { &[b"ONE", b"", b"UNO", b"text", b"\xff"] } else { &[b"ZERO", b"NEG", b"UNO"] };
        return Tensor::text(
            shape,
            (0..count).map(|_| Bytes::from_static(tape.pick(texts).to_vec().leak())).collect(),
        )
        .expect("a tensor");
    }
    let bytes: Vec<u8> = (0..count).flat_map(|_| draw_element(spec.dtype, wild, tape)).collect();
    Tensor::raw(spec.dtype, shape, bytes.into()).expect("a tensor")
}

fn draw_element(dtype: Dtype, wild: bool, tape: &mut Tape) -> Vec<u8> {
    let width = dtype.width().expect("a width");
    if wild && tape.chance(50) || is_float(dtype) && tape.chance(30) {
        return tape.next().to_le_bytes()[..width].to_vec();
    }
    let value = match (is_float(dtype), tape.below(5)) {
        (true, 3) => Value::F64(-0.0),
        (true, 4) => Value::F64(f64::NAN),
        (false, 4) if wild => Value::I64(-1),
        (_, value) => Value::I64(value as i64),
    };
    element(&value, dtype).unwrap_or_else(|| vec![1; width])
}

fn field_value(elements: &Bytes, dtype: Dtype, kind: &Kind) -> Option<Value> {
    if dtype != Dtype::Bytes {
        return value_of(elements, dtype, kind);
    }
    let text = std::str::from_utf8(elements).ok();
    Some(match kind {
        Kind::Bytes => Value::Bytes(elements.clone()),
        Kind::String => Value::String(text?.to_owned()),
        Kind::Enum(names) => {
            Value::EnumNumber(names.values().find(|value| Some(value.name()) == text)?.number())
        }
        _ => panic!("{kind:?} is no text"),
    })
}

fn map_key(kind: &Kind, label: &str) -> MapKey {
    let parsed = "a number";
    match kind {
        Kind::String => MapKey::String(label.to_owned()),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(label.parse().expect(parsed)),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(label.parse().expect(parsed)),
        Kind::Uint32 | Kind::Fixed32 => MapKey::U32(label.parse().expect(parsed)),
        _ => MapKey::U64(label.parse().expect(parsed)),
    }
}

/// Sets a field, and all messages on the way to it.
fn set(message: &mut DynamicMessage, path: &[FieldDescriptor], value: Value) {
    match path {
        [field] => message.set_field(field, value),
        [field, inner @ ..] => {
            let below = message.get_field_mut(field);
            let Value::Message(below) = below else { panic!("{below:?}") };
            set(below, inner, value);
        }
        [] => panic!("no path"),
    }
}

/// The elements of each row, and how many rows there are.
fn split(tensor: &Tensor, spec: &TensorSpec) -> (Vec<Vec<Bytes>>, Option<usize>) {
    let elements = elements(tensor);
    let has_batch = matches!(spec.shape.as_deref(), Some([Dim::Any(_) | Dim::Fixed(1), ..]));
    if !has_batch {
        return (vec![elements], None);
    }
    let rows = tensor.shape()[0] as usize;
    let size = elements.len() / rows.max(1);
    let row = |row: usize| elements[row * size..(row + 1) * size].to_vec();
    ((0..rows).map(row).collect(), Some(rows))
}

type Rows = BTreeMap<usize, (Vec<Vec<Bytes>>, Option<usize>)>;

fn write_leaf(case: &Case, leaf: &Leaf, row: &[Bytes]) -> Option<Value> {
    let (dtype, field) = (case.specs[leaf.tensor].dtype, leaf.path.last()?);
    match &leaf.place {
        Place::Cell(column) => field_value(row.get(*column)?, dtype, &field.kind()),
        Place::Whole => row
            .iter()
            .map(|element| field_value(element, dtype, &field.kind()))
            .collect::<Option<_>>()
            .map(Value::List),
        Place::Raw => Some(Value::Bytes(row.concat().into())),
        Place::Map(labels) => {
            let Kind::Message(entry) = field.kind() else { panic!("{field:?}") };
            let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
            let pairs = labels.iter().zip(row);
            let pair = |(label, element): (&String, &Bytes)| {
                Some((map_key(&key, label), field_value(element, dtype, &value)?))
            };
            (labels.len() == row.len()).then(|| pairs.map(pair).collect::<Option<_>>().map(Value::Map))?
        }
        Place::Column(_) => panic!("{leaf:?} in a row"),
    }
}

fn write_row(case: &Case, tensors: &Rows, row: usize) -> Option<DynamicMessage> {
    let mut message = DynamicMessage::new(case.layout.row.clone());
    for leaf in &case.layout.leaves {
        let (rows, has_batch) = &tensors[&leaf.tensor];
        let value = write_leaf(case, leaf, &rows[if has_batch.is_some() { row } else { 0 }])?;
        set(&mut message, &leaf.path, value);
    }
    Some(message)
}

fn write_columns(case: &Case, tensors: &Rows) -> Option<DynamicMessage> {
    let mut message = DynamicMessage::new(case.root.clone());
    for leaf in &case.layout.leaves {
        let Place::Column(column) = leaf.place else { panic!("{leaf:?} in columns") };
        let (dtype, kind) = (case.specs[leaf.tensor].dtype, leaf.path.last()?.kind());
        let values = tensors[&leaf.tensor].0.iter().map(|row| field_value(&row[column], dtype, &kind));
        set(&mut message, &leaf.path, Value::List(values.collect::<Option<_>>()?));
    }
    Some(message)
}

/// Where a value changes its type, so that any NaN stands for a NaN: the numbers of the fields from the root.
fn loose(case: &Case, prefix: &[FieldDescriptor]) -> BTreeSet<Vec<u32>> {
    let leaves = case.layout.leaves.iter().filter(|leaf| {
        let kind = leaf.path.last().expect("a path").kind();
        !is_same(&kind, case.specs[leaf.tensor].dtype)
    });
    let all = |leaf: &Leaf| prefix.iter().chain(&leaf.path).map(FieldDescriptor::number).collect();
    leaves.map(all).collect()
}

fn same_value(one: &Value, other: &Value, at: &[u32], loose: &BTreeSet<Vec<u32>>) -> bool {
    let nan = |is_nan: bool| is_nan && loose.contains(at);
    match (one, other) {
        (Value::F32(one), Value::F32(other)) => {
            one.to_bits() == other.to_bits() || nan(one.is_nan() && other.is_nan())
        }
        (Value::F64(one), Value::F64(other)) => {
            one.to_bits() == other.to_bits() || nan(one.is_nan() && other.is_nan())
        }
        (Value::Message(one), Value::Message(other)) => same(one, other, at, loose),
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| same_value(one, other, at, loose))
        }
        (Value::Map(one), Value::Map(other)) => {
            let agrees = |(key, one): (&MapKey, &Value)| {
                other.get(key).is_some_and(|other| same_value(one, other, at, loose))
            };
            one.len() == other.len() && one.iter().all(agrees)
        }
        _ => one == other,
    }
}

fn same(one: &DynamicMessage, other: &DynamicMessage, at: &[u32], loose: &BTreeSet<Vec<u32>>) -> bool {
    let all_known = one.unknown_fields().count() == 0 && other.unknown_fields().count() == 0;
    all_known
        && one.descriptor().fields().all(|field| {
            let at: Vec<u32> = at.iter().copied().chain([field.number()]).collect();
            let both_set = !field.supports_presence() || one.has_field(&field) == other.has_field(&field);
            both_set && same_value(&one.get_field(&field), &other.get_field(&field), &at, loose)
        })
}

fn check_answer(
    case: &Case,
    what: &str,
    plan: Option<&Vec<u8>>,
    oracle: Option<&DynamicMessage>,
    is_row: bool,
) {
    let desc = if is_row { case.layout.row.clone() } else { case.root.clone() };
    let prefix = match &case.layout.form {
        Form::Rows(path) if !is_row => path.as_slice(),
        _ => &[],
    };
    let decoded = plan.map(|bytes| DynamicMessage::decode(desc, bytes.as_slice()).expect("a message"));
    let agree = match (&decoded, oracle) {
        (Some(plan), Some(oracle)) => same(plan, oracle, &[], &loose(case, prefix)),
        (None, None) => true,
        _ => false,
    };
    let show = |message: Option<&DynamicMessage>| message.map(|message| message.to_string());
    let (decoded, oracle) = (show(decoded.as_ref()), show(oracle));
    assert!(
        agree,
        "plan {plan:x?}\n{decoded:?}\noracle {oracle:?}\n{what}\n{}\n{:?}",
        case.source, case.specs
    );
}

fn check_writes(case: &Case, plan: &Encoder, tensors: &[Tensor]) {
    let what = format!("{tensors:?}");
    let positions = plan.outputs().zip(tensors);
    let by_output: Rows =
        positions.map(|(position, tensor)| (position, split(tensor, &case.specs[position]))).collect();
    let rows = by_output.values().find_map(|(_, rows)| *rows).unwrap_or(1);
    let tensors: Vec<&Tensor> = tensors.iter().collect();
    let encoded = plan.encode(&tensors).ok();
    if case.layout.form == Form::Columns {
        return check_answer(case, &what, encoded.as_ref(), write_columns(case, &by_output).as_ref(), false);
    }
    let expected: Option<Vec<DynamicMessage>> =
        (0..rows).map(|row| write_row(case, &by_output, row)).collect();
    let each = plan.encode_rows(&tensors).ok();
    assert_eq!(each.as_ref().map(Vec::len), expected.as_ref().map(Vec::len), "{what}\n{}", case.source);
    for (plan, oracle) in each.iter().flatten().zip(expected.iter().flatten()) {
        check_answer(case, &what, Some(plan), Some(oracle), true);
    }
    let whole = match (&case.layout.form, expected) {
        (Form::Rows(path), Some(rows)) => {
            let mut message = DynamicMessage::new(case.root.clone());
            set(&mut message, path, Value::List(rows.into_iter().map(Value::Message).collect()));
            Some(message)
        }
        (Form::Row, Some(mut rows)) if rows.len() == 1 => rows.pop(),
        _ => None,
    };
    check_answer(case, &what, encoded.as_ref(), whole.as_ref(), false);
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 3000, failure_persistence: None, ..cases(300) })]

    #[test]
    fn answers_are_what_the_dynamic_message_says(
        contract in tape(60), answers in vec(tape(120), 1..8), ignores in any::<bool>(),
    ) {
        let case = draw_case(contract, Direction::Response, ignores);
        let plan = Encoder::new(&case.layout, &case.specs);
        for items in answers {
            let tensors = draw_tensors(&case, &mut Tape::new(items), &plan);
            check_writes(&case, &plan, &tensors);
        }
    }
}

// ---- bytes that nobody wrote

/// Changes, drops or adds a few bytes.
fn damage(tape: &mut Tape, message: &mut Vec<u8>) {
    for _ in 0..=tape.below(3) {
        let at = tape.below(message.len() + 1);
        match tape.below(5) {
            0 => message.truncate(at),
            1 => message.insert(at, tape.next() as u8),
            2 if at < message.len() => drop(message.remove(at)),
            _ if at < message.len() => message[at] = tape.pick(&[0, 1, 0x7f, 0x80, 0xff, tape_byte(at)]),
            _ => message.extend(message.clone()),
        }
    }
}

fn tape_byte(at: usize) -> u8 {
    (at as u8).wrapping_mul(31)
}

/// Agreement on bytes that may be no message. The plan may say no where the oracle does not in two ways only: a value
/// has no place though another one takes it later, and groups are nested beyond its limit of depth.
fn check_damaged(case: &Case, plan: &Decoder, message: &[u8]) {
    match both(case, plan, &[message.to_vec()]) {
        (Ok(plan), Some(Some(oracle))) => assert_eq!(plan, oracle, "{}", show(case, &[message.to_vec()])),
        (Ok(plan), oracle) => panic!("plan {plan:?}\noracle {oracle:?}\n{}", show(case, &[message.to_vec()])),
        (Err(error), Some(_)) => {
            let is_explained = matches!(error.code(), Code::BadField | Code::BadShape | Code::DecodeLimit);
            assert!(is_explained, "{error:?}\n{}", show(case, &[message.to_vec()]));
        }
        (Err(_), None) => {}
    }
}

/// Small limits hold, whatever comes.
fn check_limits(case: &Case, messages: &[Vec<u8>]) {
    let limits = Limits { rows: 5, tensor_bytes: 200, decode_depth: 3, ..Limits::default() };
    let plan = Decoder::new(&case.root, &case.layout, &case.specs, &limits);
    let mut decoding = plan.start();
    let mut told = Ok(());
    for message in messages {
        told = told.and_then(|()| decoding.message(&Bytes::copy_from_slice(message)));
    }
    // Text is counted with its length: that of the message at most, and of the (at most six) names of enum values.
    let most = case.specs.len() * (200 + 6 * "ZERO".len()) + messages.concat().len();
    assert!(decoding.byte_len() <= most, "{} of {most} bytes\n{}", decoding.byte_len(), show(case, messages));
    assert!(decoding.rows() <= 5, "{}", show(case, messages));
    let _ = told.and_then(|()| decoding.finish());
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 3000, failure_persistence: None, ..cases(200) })]

    #[test]
    fn damaged_messages_are_refused_by_both(
        contract in tape(60), messages in vec((tape(150), vec(tape(12), 1..8)), 1..5), limits in any::<bool>(),
    ) {
        let case = draw_case(contract, Direction::Request, limits);
        let plan = tiny(&case);
        for (items, damages) in messages {
            let whole = writer(&mut Tape::new(items), &case).records(&case.root, 0).concat();
            for items in damages {
                let mut message = whole.clone();
                damage(&mut Tape::new(items), &mut message);
                match limits {
                    true => check_limits(&case, &[whole.clone(), message]),
                    false => check_damaged(&case, &plan, &message),
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(contract in tape(60), messages in vec(vec(any::<u8>(), 0..60), 1..20)) {
        let case = draw_case(contract, Direction::Request, false);
        let plan = tiny(&case);
        for message in &messages {
            check_damaged(&case, &plan, message);
        }
        check_limits(&case, &messages);
    }

    #[test]
    fn json_is_read_as_the_bytes_are(contract in tape(60), messages in vec(tape(150), 1..5)) {
        let case = draw_case(contract, Direction::Request, true);
        let plan = tiny(&case);
        for items in messages {
            let message = writer(&mut Tape::new(items), &case).records(&case.root, 0).concat();
            if let (Ok(mut direct), Some(_)) = both(&case, &plan, std::slice::from_ref(&message)) {
                let text = super::json::write(&case.root, message.clone().into()).expect("JSON");
                // The library writes a wrapper with an infinite number as null, see contracts.md.
                if text.windows(4).any(|word| word == b"null") && has_infinite(&case, &direct) {
                    continue;
                }
                let bytes = super::json::read(&case.root, &text, 10_000).expect("a message");
                let mut round = both(&case, &plan, &[bytes]).0.expect("what was read before");
                for tensors in [&mut direct, &mut round] {
                    settle_all_nans(&case, tensors);
                }
                prop_assert_eq!(direct, round, "{}", String::from_utf8_lossy(&text));
            }
        }
    }
}

fn has_infinite(case: &Case, tensors: &[Read]) -> bool {
    case.specs.iter().zip(tensors).any(|(spec, read)| {
        let is_infinite =
            |element: &Bytes| matches!(read_element(element, spec.dtype), Exact::Infinite { .. });
        is_float(spec.dtype) && read.elements.iter().any(is_infinite)
    })
}

/// JSON has one NaN, and the dynamic message that it goes through leaves out a zero that is negative.
fn settle_all_nans(case: &Case, tensors: &mut [Read]) {
    for (spec, read) in case.specs.iter().zip(tensors) {
        for element in read.elements.iter_mut().filter(|_| is_float(spec.dtype)) {
            match read_element(element, spec.dtype) {
                Exact::Nan => *element = missing(spec.dtype).expect("a float"),
                Exact::Finite { mantissa: 0, .. } => *element = vec![0; element.len()].into(),
                _ => {}
            }
        }
    }
}

/// So many cases, unless PROPTEST_CASES says otherwise.
fn cases(count: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() {
        default
    } else {
        ProptestConfig { cases: count, ..default }
    }
}
