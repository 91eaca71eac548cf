//! Does a new contract leave the clients of the old one working? The comparison of two compiled files, after the
//! rules of `buf breaking` and under buf's names: category `WIRE_JSON`, and of FILE what callers of a served API feel.
//! Source: <https://buf.build/docs/breaking/rules/>.
//!
//! What a field means to a model (tensors, columns, labels) is not compared here, and neither are imported files: of
//! those only the names of their types count. Contracts are proto3, so buf's rules on required fields, default values,
//! closed enums, JSON formats and extensions have nothing to say. What concerns generated code of one language alone
//! (`jstype`, `go_package`) is not looked at.
//!
//! The decision a reader would question: one change is one finding, where buf lets every rule speak for itself. A
//! renamed field is not reported for its JSON name too, nor a deleted message for what was nested in it, nor a deleted
//! oneof for each field it held. What refers to a deleted type is another element and is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::ops::RangeInclusive;

use prost_reflect::prost_types::{MethodOptions, method_options::IdempotencyLevel};
use prost_reflect::{
    EnumDescriptor, EnumValueDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, OneofDescriptor, ServiceDescriptor,
};

/// A change that breaks clients of the old contract.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Breaking {
    /// One of [`RULES`], e.g. `FIELD_SAME_NAME`.
    pub rule: &'static str,
    /// Full name in the old file, e.g. `iris.v1.Features.sepal_length`. A value of an enum stands below its enum; a
    /// file is called by its path.
    pub element: String,
    /// What the rule is about, in the old file: a name, a type, a declaration.
    pub before: String,
    /// The same in the new file, or what is missing there.
    pub after: String,
}

/// Every breaking change between two compiled files, sorted by element then rule; empty if compatible.
pub fn breaking(old: &FileDescriptor, new: &FileDescriptor) -> Vec<Breaking> {
    let mut found = Findings::default();
    // In another package every full name is another one; to list them all would say nothing more.
    if found.same(FILE_SAME_PACKAGE, old.name(), old.package_name(), new.package_name()) {
        let messages = (old.messages(), new.messages());
        found.pairs(MESSAGE_NO_DELETE, MessageDescriptor::full_name, messages, compare_message);
        found.pairs(ENUM_NO_DELETE, EnumDescriptor::full_name, (old.enums(), new.enums()), compare_enum);
        let services = (old.services(), new.services());
        found.pairs(SERVICE_NO_DELETE, ServiceDescriptor::full_name, services, compare_service);
    }
    found.sorted()
}

/// Declares each rule as a constant that is its own name, and [`RULES`]: a rule without a line on it does not compile.
macro_rules! rules {
    ($($rule:ident $forbids:literal;)*) => {
        $(const $rule: Rule = stringify!($rule);)*

        /// Every rule with one line on what it forbids.
        pub const RULES: &[(&str, &str)] = &[$(($rule, $forbids)),*];
    };
}

rules! {
    ENUM_NO_DELETE "an enum is deleted, renamed or moved";
    ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED "a value of an enum is deleted and its name is not reserved";
    ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED "a value of an enum is deleted and its number is not reserved";
    ENUM_VALUE_SAME_NAME "a number of an enum loses a name it had";
    FIELD_NO_DELETE_UNLESS_NAME_RESERVED "a field is deleted and its name is not reserved";
    FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED "a field is deleted and its number is not reserved";
    FIELD_SAME_CARDINALITY "a field becomes optional, or ceases to be";
    FIELD_SAME_JSON_NAME "a field changes its name in JSON";
    FIELD_SAME_NAME "a field changes its name";
    FIELD_SAME_ONEOF "a field moves into, out of or between oneofs";
    FIELD_SAME_TYPE "a field changes to another message or another enum";
    FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY "a field changes between singular, repeated and map";
    FIELD_WIRE_JSON_COMPATIBLE_TYPE "a field changes to a type that is encoded differently";
    FILE_SAME_PACKAGE "the package changes";
    MESSAGE_NO_DELETE "a message is deleted, renamed or moved";
    ONEOF_NO_DELETE "a oneof is deleted or renamed";
    RESERVED_ENUM_NO_DELETE "an enum no longer reserves a name or number";
    RESERVED_MESSAGE_NO_DELETE "a message no longer reserves a name or number";
    RPC_NO_DELETE "an rpc is deleted or renamed";
    RPC_SAME_CLIENT_STREAMING "the requests of an rpc change between one and a stream";
    RPC_SAME_IDEMPOTENCY_LEVEL "an rpc changes its idempotency level";
    RPC_SAME_REQUEST_TYPE "an rpc changes its request message";
    RPC_SAME_RESPONSE_TYPE "an rpc changes its response message";
    RPC_SAME_SERVER_STREAMING "the responses of an rpc change between one and a stream";
    SERVICE_NO_DELETE "a service is deleted or renamed";
}

/// What a rule is called by buf.
type Rule = &'static str;

#[derive(Default)]
struct Findings(Vec<Breaking>);

impl Findings {
    fn add(&mut self, rule: Rule, element: &str, before: impl Into<String>, after: impl Into<String>) {
        let (element, before, after) = (element.to_owned(), before.into(), after.into());
        self.0.push(Breaking { rule, element, before, after });
    }

    /// Requires a property to stay as it was. Has it?
    fn same(&mut self, rule: Rule, element: &str, before: &str, after: &str) -> bool {
        if before != after {
            self.add(rule, element, before, after);
        }
        before == after
    }

    /// Compares what has the same full name; the rule is against deleting what has no partner any more.
    fn pairs<T>(
        &mut self,
        no_delete: Rule,
        full_name: fn(&T) -> &str,
        (old, new): (impl Iterator<Item = T>, impl Iterator<Item = T>),
        compare: fn(&T, &T, &mut Self),
    ) {
        let new: BTreeMap<String, T> = new.map(|element| (full_name(&element).to_owned(), element)).collect();
        for old in old {
            match new.get(full_name(&old)) {
                Some(new) => compare(&old, new, self),
                None => self.add(no_delete, full_name(&old), "present", "deleted"),
            }
        }
    }

    /// Allows a deletion if nothing else can take the name or the number.
    ///
    /// What got another number is deleted as well, and its name cannot be reserved because it is taken. That is
    /// reported even though JSON may still find it by its name: it may have another type there.
    fn deleted(&mut self, gone: &Deleted, reserved: &Reserved) {
        if !reserved.names.contains(gone.name) {
            let after = format!("{:?} is not reserved", gone.name);
            self.add(gone.unless_name, &gone.element, gone.declaration.as_str(), after);
        }
        if !reserved.covers(gone.number) {
            let after = format!("{} is not reserved", gone.number);
            self.add(gone.unless_number, &gone.element, gone.declaration.as_str(), after);
        }
    }

    /// Requires what was reserved to stay so: there may be clients older still that use it.
    fn reservations(&mut self, rule: Rule, element: &str, [old, new]: [Reserved; 2]) {
        for name in old.names.difference(&new.names) {
            self.add(rule, element, format!("reserved {name:?}"), "not reserved");
        }
        for gap in old.numbers.iter().flat_map(|range| new.gaps(range)) {
            let (first, last) = gap.into_inner();
            let numbers = if first == last { first.to_string() } else { format!("{first} to {last}") };
            self.add(rule, element, format!("reserved {numbers}"), "not reserved");
        }
    }

    fn sorted(mut self) -> Vec<Breaking> {
        fn key(found: &Breaking) -> (&str, Rule, &str) {
            (&found.element, found.rule, &found.before)
        }
        self.0.sort_by(|a, b| key(a).cmp(&key(b)));
        self.0
    }
}

fn compare_message(old: &MessageDescriptor, new: &MessageDescriptor, found: &mut Findings) {
    compare_fields(old, new, found);
    found.reservations(RESERVED_MESSAGE_NO_DELETE, old.full_name(), [old, new].map(Reserved::by_message));
    // Which fields a oneof has is compared with the fields.
    let no_more = |_: &_, _: &_, _: &mut _| {};
    found.pairs(ONEOF_NO_DELETE, OneofDescriptor::full_name, (oneofs(old), oneofs(new)), no_more);
    found.pairs(MESSAGE_NO_DELETE, MessageDescriptor::full_name, (nested(old), nested(new)), compare_message);
    let enums = (old.child_enums(), new.child_enums());
    found.pairs(ENUM_NO_DELETE, EnumDescriptor::full_name, enums, compare_enum);
}

fn compare_enum(old: &EnumDescriptor, new: &EnumDescriptor, found: &mut Findings) {
    compare_values(old, new, found);
    found.reservations(RESERVED_ENUM_NO_DELETE, old.full_name(), [old, new].map(Reserved::by_enum));
}

fn compare_service(old: &ServiceDescriptor, new: &ServiceDescriptor, found: &mut Findings) {
    found.pairs(RPC_NO_DELETE, MethodDescriptor::full_name, (old.methods(), new.methods()), compare_rpc);
}

fn compare_rpc(old: &MethodDescriptor, new: &MethodDescriptor, found: &mut Findings) {
    let mut same = |rule, before: &str, after: &str| found.same(rule, old.full_name(), before, after);
    same(RPC_SAME_REQUEST_TYPE, old.input().full_name(), new.input().full_name());
    same(RPC_SAME_RESPONSE_TYPE, old.output().full_name(), new.output().full_name());
    same(RPC_SAME_CLIENT_STREAMING, mode(old.is_client_streaming()), mode(new.is_client_streaming()));
    same(RPC_SAME_SERVER_STREAMING, mode(old.is_server_streaming()), mode(new.is_server_streaming()));
    same(RPC_SAME_IDEMPOTENCY_LEVEL, idempotency(old), idempotency(new));
}

fn mode(is_streaming: bool) -> &'static str {
    if is_streaming { "stream" } else { "unary" }
}

fn idempotency(rpc: &MethodDescriptor) -> &'static str {
    let options = rpc.method_descriptor_proto().options.as_ref();
    let level = options.map(MethodOptions::idempotency_level);
    level.unwrap_or(IdempotencyLevel::IdempotencyUnknown).as_str_name()
}

/// The oneofs that somebody wrote: proto3 keeps an `optional` field in one that nobody sees.
fn oneofs(message: &MessageDescriptor) -> impl Iterator<Item = OneofDescriptor> + '_ {
    message.oneofs().filter(|oneof| !oneof.is_synthetic())
}

/// The nested messages that somebody wrote: the entries of a map are part of its field.
fn nested(message: &MessageDescriptor) -> impl Iterator<Item = MessageDescriptor> + '_ {
    message.child_messages().filter(|child| !child.is_map_entry())
}

/// Fields are known by their numbers.
fn compare_fields(old: &MessageDescriptor, new: &MessageDescriptor, found: &mut Findings) {
    let reserved = Reserved::by_message(new);
    for field in old.fields() {
        match new.get_field(field.number()) {
            Some(kept) => compare_field(&field, &kept, found),
            None => found.deleted(&Deleted::field(&field), &reserved),
        }
    }
}

fn compare_field(old: &FieldDescriptor, new: &FieldDescriptor, found: &mut Findings) {
    let element = old.full_name();
    if found.same(FIELD_SAME_NAME, element, old.name(), new.name()) {
        found.same(FIELD_SAME_JSON_NAME, element, old.json_name(), new.json_name());
    }
    let same_shape = found.same(FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY, element, shape(old), shape(new));
    // Between a map and what is none the types cannot be compared.
    if !same_shape && (old.is_map() || new.is_map()) {
        return;
    }
    let same_type = same_type(old, new, found);
    // Where a field stands and what it is decide whether it can be missing; only what remains is a change of its own.
    if same_shape && same_oneof(old, new, found) && same_type {
        found.same(FIELD_SAME_CARDINALITY, element, presence(old), presence(new));
    }
}

fn shape(field: &FieldDescriptor) -> &'static str {
    match field {
        map if map.is_map() => "map",
        list if list.is_list() => "repeated",
        _ => "singular",
    }
}

/// Can it be missing, rather than zero?
///
/// Both directions break, as in buf. Without `optional` a client leaves out a zero: read as optional it is missing,
/// which is NaN or an error. The other way round what was missing becomes a zero.
fn presence(field: &FieldDescriptor) -> &'static str {
    if field.supports_presence() { "optional" } else { "not optional" }
}

fn same_oneof(old: &FieldDescriptor, new: &FieldDescriptor, found: &mut Findings) -> bool {
    let [before, after] = [old, new].map(oneof_name);
    let is_kept = |name: &String| new.parent_message().oneofs().any(|oneof| oneof.name() == name);
    // One that is gone is reported itself, which stands for its fields.
    if before.as_ref().is_some_and(|name| !is_kept(name)) {
        return false;
    }
    let text = |name: Option<String>| name.unwrap_or_else(|| "no oneof".to_owned());
    found.same(FIELD_SAME_ONEOF, old.full_name(), &text(before), &text(after))
}

fn oneof_name(field: &FieldDescriptor) -> Option<String> {
    let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic())?;
    Some(oneof.name().to_owned())
}

/// Reports the first reason, of a map's key before its value's.
fn same_type(old: &FieldDescriptor, new: &FieldDescriptor, found: &mut Findings) -> bool {
    let rule = types(old).iter().zip(&types(new)).find_map(|(old, new)| broken_type(old, new));
    if let Some(rule) = rule {
        found.add(rule, old.full_name(), type_text(old), type_text(new));
    }
    rule.is_none()
}

/// The types of a field: that of its value, or those of a map's key and value.
fn types(field: &FieldDescriptor) -> Vec<Kind> {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            vec![entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind()]
        }
        kind => vec![kind],
    }
}

/// As in the source, but with full names.
fn type_text(field: &FieldDescriptor) -> String {
    // The debug form of a kind is its name in the language.
    let types: Vec<String> = types(field).iter().map(|kind| format!("{kind:?}")).collect();
    if field.is_map() { format!("map<{}>", types.join(", ")) } else { types.concat() }
}

/// The rule that a change of type breaks.
///
/// An enum counts by its full name alone, as in buf's category FILE. `WIRE_JSON` would let another enum pass that has
/// the same short name and all the old values; code generated from the old contract has a type that no longer fits.
fn broken_type(old: &Kind, new: &Kind) -> Option<Rule> {
    if discriminant(&encoding(old)) != discriminant(&encoding(new)) {
        return Some(FIELD_WIRE_JSON_COMPATIBLE_TYPE);
    }
    (type_name(old) != type_name(new)).then_some(FIELD_SAME_TYPE)
}

/// One type for all that buf takes to be the same both on the wire and in JSON. Numbers too large for the other type
/// are taken to be the author's business, as buf does; strings and bytes differ in JSON.
fn encoding(kind: &Kind) -> Kind {
    match kind {
        Kind::Uint32 => Kind::Int32,
        Kind::Uint64 => Kind::Int64,
        Kind::Sfixed32 => Kind::Fixed32,
        Kind::Sfixed64 => Kind::Fixed64,
        other => other.clone(),
    }
}

fn type_name(kind: &Kind) -> Option<&str> {
    match kind {
        Kind::Message(message) => Some(message.full_name()),
        Kind::Enum(kind) => Some(kind.full_name()),
        _ => None,
    }
}

/// Names shown of a number that has several: an upload may give thousands to one, and a finding for each of them.
const SHOWN_NAMES: usize = 3;

/// Values are known by their numbers. A number may have several names; it keeps those it had and may get more.
fn compare_values(old: &EnumDescriptor, new: &EnumDescriptor, found: &mut Findings) {
    let reserved = Reserved::by_enum(new);
    let mut names = BTreeMap::<i32, BTreeSet<String>>::new();
    for value in new.values() {
        names.entry(value.number()).or_default().insert(value.name().to_owned());
    }
    for value in old.values() {
        // Not the value's own full name, which leaves the enum out.
        let element = format!("{}.{}", old.full_name(), value.name());
        match names.get(&value.number()) {
            Some(kept) if kept.contains(value.name()) => {}
            Some(kept) => {
                let after = kept.iter().take(SHOWN_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
                found.add(ENUM_VALUE_SAME_NAME, &element, value.name(), after);
            }
            None => found.deleted(&Deleted::value(element, &value), &reserved),
        }
    }
}

/// A field or a value of an enum that is gone.
struct Deleted<'a> {
    /// The rule that allows it if the name is reserved.
    unless_name: Rule,
    /// The rule that allows it if the number is reserved.
    unless_number: Rule,
    element: String,
    name: &'a str,
    number: i64,
    declaration: String,
}

impl<'a> Deleted<'a> {
    fn field(field: &'a FieldDescriptor) -> Self {
        let label = match field.containing_oneof() {
            Some(oneof) if oneof.is_synthetic() => "optional ",
            _ if field.is_list() => "repeated ",
            _ => "",
        };
        Self {
            unless_name: FIELD_NO_DELETE_UNLESS_NAME_RESERVED,
            unless_number: FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED,
            element: field.full_name().to_owned(),
            name: field.name(),
            number: field.number().into(),
            declaration: format!("{label}{} {} = {}", type_text(field), field.name(), field.number()),
        }
    }

    fn value(element: String, value: &'a EnumValueDescriptor) -> Self {
        Self {
            unless_name: ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED,
            unless_number: ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED,
            element,
            name: value.name(),
            number: value.number().into(),
            declaration: format!("{} = {}", value.name(), value.number()),
        }
    }
}

/// What a message or an enum reserves.
struct Reserved {
    names: BTreeSet<String>,
    /// In order, and with a gap between each and the next.
    numbers: Vec<RangeInclusive<i64>>,
}

impl Reserved {
    fn by_message(message: &MessageDescriptor) -> Self {
        let ranges = message.reserved_ranges().map(|range| range.start.into()..=i64::from(range.end) - 1);
        Self::new(message.reserved_names(), ranges.collect())
    }

    fn by_enum(of: &EnumDescriptor) -> Self {
        let ranges = of.reserved_ranges().map(|range| (*range.start()).into()..=(*range.end()).into());
        Self::new(of.reserved_names(), ranges.collect())
    }

    fn new<'a>(names: impl Iterator<Item = &'a str>, mut ranges: Vec<RangeInclusive<i64>>) -> Self {
        // The compiler lets ranges overlap and run backwards.
        ranges.retain(|range| !range.is_empty());
        ranges.sort_by_key(|range| *range.start());
        let mut numbers: Vec<RangeInclusive<i64>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match numbers.last_mut() {
                Some(last) if *range.start() <= last.end() + 1 => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => numbers.push(range),
            }
        }
        Self { names: names.map(str::to_owned).collect(), numbers }
    }

    fn covers(&self, number: i64) -> bool {
        self.gaps(&(number..=number)).is_empty()
    }

    /// The parts of a range that are not reserved. They are searched, not tried one by one: an upload may reserve
    /// tens of thousands of ranges.
    fn gaps(&self, range: &RangeInclusive<i64>) -> Vec<RangeInclusive<i64>> {
        let first = self.numbers.partition_point(|reserved| reserved.end() < range.start());
        let (mut from, to) = range.clone().into_inner();
        let mut gaps = Vec::new();
        for reserved in self.numbers.iter().skip(first).take_while(|reserved| *reserved.start() <= to) {
            gaps.push(from..=reserved.start() - 1);
            from = reserved.end() + 1;
        }
        gaps.push(from..=to);
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;
    use protox::Compiler;
    use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

    use super::*;

    const NAME: &str = "iris.proto";

    /// Old file, new file, and what is to be found: rule and element, without `iris.v1.` before it.
    type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

    const FIELDS: &[Case] = &[
        (
            "message A { double x = 1; double y = 2; }",
            "message A { double x = 1; }",
            &[(FIELD_NO_DELETE_UNLESS_NAME_RESERVED, "A.y"), (FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED, "A.y")],
        ),
        (
            "message A { double x = 1; }",
            "message A { reserved 1; }",
            &[(FIELD_NO_DELETE_UNLESS_NAME_RESERVED, "A.x")],
        ),
        (
            "message A { double x = 5; }",
            "message A { reserved \"x\"; reserved 1 to 4, 6 to max; }",
            &[(FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED, "A.x")],
        ),
        (
            "message A { double x = 1; }",
            "message A { double x = 2; }",
            &[(FIELD_NO_DELETE_UNLESS_NAME_RESERVED, "A.x"), (FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED, "A.x")],
        ),
        (
            "message A { double x = 1; }",
            "message A { string x = 2; reserved 1; }",
            &[(FIELD_NO_DELETE_UNLESS_NAME_RESERVED, "A.x")],
        ),
        ("message A { double x = 1; }", "message A { double z = 1; }", &[(FIELD_SAME_NAME, "A.x")]),
        (
            "message A { double x = 1; double y = 2; }",
            "message A { double y = 1; double x = 2; }",
            &[(FIELD_SAME_NAME, "A.x"), (FIELD_SAME_NAME, "A.y")],
        ),
        (
            "message A { double x_y = 1; }",
            "message A { double x_y = 1 [json_name = \"x_y\"]; }",
            &[(FIELD_SAME_JSON_NAME, "A.x_y")],
        ),
        (
            "message A { double x = 1; } message B { A a = 1; A b = 2; }",
            "message A { double x = 1; } message B { repeated A a = 1; map<string, A> b = 2; }",
            &[
                (FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY, "B.a"),
                (FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY, "B.b"),
            ],
        ),
        (
            "message A { optional double x = 1; oneof o { double y = 2; } map<string, double> z = 3; }",
            "message A { repeated double x = 1; oneof o { double w = 4; } repeated double y = 2; \
             repeated A z = 3; }",
            &[
                (FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY, "A.x"),
                (FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY, "A.y"),
                (FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY, "A.z"),
            ],
        ),
        (
            "message A { double x = 1; }",
            "message A { repeated string x = 1; }",
            &[(FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY, "A.x"), (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "A.x")],
        ),
        (
            "message A { optional double x = 1; double y = 2; }",
            "message A { double x = 1; optional double y = 2; }",
            &[(FIELD_SAME_CARDINALITY, "A.x"), (FIELD_SAME_CARDINALITY, "A.y")],
        ),
        (
            "message A { optional int32 x = 1; optional int32 y = 2; }",
            "message A { uint32 x = 1; string y = 2; }",
            &[(FIELD_SAME_CARDINALITY, "A.x"), (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "A.y")],
        ),
    ];

    const TYPES: &[Case] = &[
        (
            "message A { int32 a = 1; int64 b = 2; float c = 3; bool d = 4; string e = 5; bytes f = 6; \
             int32 g = 7; }",
            "message A { int64 a = 1; sint64 b = 2; double c = 3; int32 d = 4; bytes e = 5; string f = \
             6; fixed32 g = 7; }",
            &[
                (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "A.a"),
                (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "A.b"),
                (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "A.c"),
                (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "A.d"),
                (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "A.e"),
                (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "A.f"),
                (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "A.g"),
            ],
        ),
        (
            "enum E { Z = 0; } message A { int32 x = 1; E y = 2; A z = 3; }",
            "enum E { Z = 0; } message A { E x = 1; int32 y = 2; bytes z = 3; }",
            &[
                (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "A.x"),
                (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "A.y"),
                (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "A.z"),
            ],
        ),
        (
            "message A {} message B {} message M { A x = 1; repeated A y = 2; }",
            "message A {} message B {} message M { B x = 1; repeated B y = 2; }",
            &[(FIELD_SAME_TYPE, "M.x"), (FIELD_SAME_TYPE, "M.y")],
        ),
        // Buf's category WIRE_JSON lets this one pass.
        (
            "message A { enum E { Z = 0; } E x = 1; } message B { enum E { Z = 0; } }",
            "message A { enum E { Z = 0; } B.E x = 1; } message B { enum E { Z = 0; } }",
            &[(FIELD_SAME_TYPE, "A.x")],
        ),
        (
            "import \"google/protobuf/timestamp.proto\"; message A { google.protobuf.Timestamp x = 1; }",
            "import \"google/protobuf/duration.proto\"; message A { google.protobuf.Duration x = 1; }",
            &[(FIELD_SAME_TYPE, "A.x")],
        ),
        (
            "message A {} message M { map<string, float> x = 1; map<int32, float> y = 2; map<string, A> \
             z = 3; }",
            "message A {} message M { map<string, double> x = 1; map<int64, float> y = 2; map<string, \
             M> z = 3; }",
            &[
                (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "M.x"),
                (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "M.y"),
                (FIELD_SAME_TYPE, "M.z"),
            ],
        ),
        (
            "message A { map<string, float> x = 1; }",
            "message A { map<string, float> y = 1; }",
            &[(FIELD_SAME_NAME, "A.x")],
        ),
    ];

    const ONEOFS: &[Case] = &[
        (
            "message A { oneof o { double x = 1; double y = 2; } oneof p { double z = 3; } }",
            "message A { oneof o { double x = 1; } oneof p { double y = 2; double z = 3; } }",
            &[(FIELD_SAME_ONEOF, "A.y")],
        ),
        (
            "message A { oneof o { double w = 1; double x = 2; } double y = 3; optional double z = 4; }",
            "message A { oneof o { double w = 1; double y = 3; double z = 4; } optional double x = 2; }",
            &[(FIELD_SAME_ONEOF, "A.x"), (FIELD_SAME_ONEOF, "A.y"), (FIELD_SAME_ONEOF, "A.z")],
        ),
        (
            "message A { oneof o { double x = 1; double y = 2; } }",
            "message A { oneof p { double x = 1; double y = 2; } }",
            &[(ONEOF_NO_DELETE, "A.o")],
        ),
        (
            "message A { oneof o { double x = 1; double y = 2; } }",
            "message A { double x = 1; reserved 2; reserved \"y\"; }",
            &[(ONEOF_NO_DELETE, "A.o")],
        ),
    ];

    const MESSAGES: &[Case] = &[
        (
            "message A { B.C x = 1; } message B { message C {} enum E { Z = 0; } }",
            "message A { C x = 1; } message C {}",
            &[(FIELD_SAME_TYPE, "A.x"), (MESSAGE_NO_DELETE, "B")],
        ),
        (
            "message A { message B { double x = 1; } }",
            "message A { message B { message C {} double z = 1; } }",
            &[(FIELD_SAME_NAME, "A.B.x")],
        ),
        ("message A { message B {} }", "message A {} message B {}", &[(MESSAGE_NO_DELETE, "A.B")]),
        ("message A {}", "enum A { Z = 0; }", &[(MESSAGE_NO_DELETE, "A")]),
        (
            "message A { reserved 1, 2, 5 to 8; reserved \"x\", \"y\"; }",
            "message A { reserved 2, 6 to 7; reserved \"y\"; double z = 1; }",
            &[
                (RESERVED_MESSAGE_NO_DELETE, "A"),
                (RESERVED_MESSAGE_NO_DELETE, "A"),
                (RESERVED_MESSAGE_NO_DELETE, "A"),
                (RESERVED_MESSAGE_NO_DELETE, "A"),
            ],
        ),
    ];

    const ENUMS: &[Case] = &[
        ("enum E { Z = 0; }", "", &[(ENUM_NO_DELETE, "E")]),
        ("message A { enum E { Z = 0; } }", "message A {} enum E { Z = 0; }", &[(ENUM_NO_DELETE, "A.E")]),
        (
            "enum E { Z = 0; V = 1; }",
            "enum E { Z = 0; }",
            &[
                (ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED, "E.V"),
                (ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED, "E.V"),
            ],
        ),
        (
            "message A { enum E { Z = 0; V = -1; W = 1; } }",
            "message A { enum E { Z = 0; reserved -1; reserved \"W\"; } }",
            &[
                (ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED, "A.E.V"),
                (ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED, "A.E.W"),
            ],
        ),
        ("enum E { Z = 0; V = 1; }", "enum E { Z = 0; W = 1; }", &[(ENUM_VALUE_SAME_NAME, "E.V")]),
        (
            "enum E { option allow_alias = true; Z = 0; V = 1; W = 1; }",
            "enum E { option allow_alias = true; Z = 0; N = 0; W = 1; }",
            &[(ENUM_VALUE_SAME_NAME, "E.V")],
        ),
        (
            "enum E { Z = 0; reserved -5 to -1, 3 to max; reserved \"V\"; }",
            "enum E { Z = 0; reserved -4 to -1, 3 to 4; V = -5; }",
            &[(RESERVED_ENUM_NO_DELETE, "E"), (RESERVED_ENUM_NO_DELETE, "E"), (RESERVED_ENUM_NO_DELETE, "E")],
        ),
    ];

    const SERVICES: &[Case] = &[
        (
            "message A {} service S { rpc F (A) returns (A); }",
            "message A {} service T { rpc F (A) returns (A); }",
            &[(SERVICE_NO_DELETE, "S")],
        ),
        (
            "message A {} service S { rpc F (A) returns (A); }",
            "message A {} service S { rpc G (A) returns (A); }",
            &[(RPC_NO_DELETE, "S.F")],
        ),
        (
            "message A {} message B {} service S { rpc F (A) returns (A); }",
            "message A {} message B {} service S { rpc F (B) returns (B); }",
            &[(RPC_SAME_REQUEST_TYPE, "S.F"), (RPC_SAME_RESPONSE_TYPE, "S.F")],
        ),
        (
            "message A {} service S { rpc F (A) returns (stream A); rpc G (stream A) returns (A); }",
            "message A {} service S { rpc F (A) returns (A); rpc G (A) returns (stream A); }",
            &[
                (RPC_SAME_SERVER_STREAMING, "S.F"),
                (RPC_SAME_CLIENT_STREAMING, "S.G"),
                (RPC_SAME_SERVER_STREAMING, "S.G"),
            ],
        ),
        (
            "message A {} service S { rpc F (A) returns (A); rpc G (A) returns (A) { option deprecated \
             = true; } }",
            "message A {} service S { rpc F (A) returns (A) { option idempotency_level = NO_SIDE_EFFECTS; } \
             rpc G (A) returns (A) { option idempotency_level = IDEMPOTENCY_UNKNOWN; } }",
            &[(RPC_SAME_IDEMPOTENCY_LEVEL, "S.F")],
        ),
    ];

    /// Nothing but the package is reported, whatever else changed.
    const PACKAGES: &[Case] = &[
        ("message A { double x = 1; }", "package iris.v2; message B {}", &[(FILE_SAME_PACKAGE, NAME)]),
        ("message A {}", "package; message A {}", &[(FILE_SAME_PACKAGE, NAME)]),
    ];

    const BREAKING: &[&[Case]] = &[FIELDS, TYPES, ONEOFS, MESSAGES, ENUMS, SERVICES, PACKAGES];

    /// Old and new.
    const COMPATIBLE: &[(&str, &str)] = &[
        // Additions.
        ("message A { double x = 1; }", "message A { double x = 1; double y = 2; repeated A z = 3; }"),
        (
            "message A { double x = 1; }",
            "message A { double x = 1; optional double y = 2; map<string, A> z = 3; }",
        ),
        ("message A { double x = 1; }", "message A { double x = 1; oneof o { double y = 2; } message B {} }"),
        ("message A {}", "message A { enum E { Z = 0; } } message B {} enum E { N = 0; }"),
        ("enum E { Z = 0; }", "enum E { Z = 0; V = 1; W = -1; }"),
        ("enum E { Z = 0; V = 1; }", "enum E { option allow_alias = true; Z = 0; V = 1; W = 1; }"),
        (
            "message A {} service S { rpc F (A) returns (A); }",
            "message A {} service S { rpc F (A) returns (A); rpc G (A) returns (stream A); } \
             service T { rpc F (A) returns (A); }",
        ),
        ("", "import \"google/protobuf/timestamp.proto\"; message A { google.protobuf.Timestamp x = 1; }"),
        // Deletions that reserve what they leave.
        (
            "message A { double x = 1; double y = 2; }",
            "message A { double y = 2; reserved 1; reserved \"x\"; }",
        ),
        ("message A { map<string, A> x = 7; }", "message A { reserved 1 to max; reserved \"x\"; }"),
        (
            "enum E { option allow_alias = true; Z = 0; V = 2; W = 2; }",
            "enum E { Z = 0; reserved 1 to 3; reserved \"V\", \"W\"; }",
        ),
        // Reservations that are written otherwise, or grow.
        ("message A { reserved 1, 2, 3; }", "message A { reserved 1 to 2, 3 to 9; reserved \"x\"; }"),
        ("enum E { Z = 0; reserved -3 to -1; }", "enum E { Z = 0; reserved -2, -3, -1, 1 to max; }"),
        ("message A { reserved 5, 8; }", "message A { reserved 1 to 9, 3 to 4; }"),
        ("enum E { Z = 0; reserved 5, 9 to 2; }", "enum E { Z = 0; reserved 1 to 6, 9 to 2; }"),
        // Types with the same encoding.
        (
            "message A { int32 a = 1; uint64 b = 2; fixed32 c = 3; sfixed64 d = 4; repeated int32 e = 5; }",
            "message A { uint32 a = 1; int64 b = 2; sfixed32 c = 3; fixed64 d = 4; repeated uint32 e = 5; }",
        ),
        ("message A { map<int32, int64> x = 1; }", "message A { map<uint32, uint64> x = 1; }"),
        // What is written otherwise and means the same.
        (
            "message A { double x = 1; double y = 2; }",
            "// new\nmessage A {\n double y = 2; /* x */ double x = 1; }",
        ),
        (
            "message A {} message B {} enum E { Z = 0; V = 1; }",
            "enum E { Z = 0; V = 1; } message B {} message A {}",
        ),
        (
            "message A { double x_y = 1; }",
            "message A { double x_y = 1 [json_name = \"xY\", deprecated = true]; }",
        ),
        ("message A { repeated double x = 1; }", "message A { repeated double x = 1 [packed = false]; }"),
        ("message A { A x = 1; }", "message A { optional A x = 1; }"),
        ("message A { B x = 1; } message B {}", "message A { .iris.v1.B x = 1; } message B {}"),
        (
            "message A { oneof o { double x = 1; double y = 2; } }",
            "message A { oneof o { double y = 2; double x = 1; double z = 3; } }",
        ),
    ];

    struct Memory(String);

    impl FileResolver for Memory {
        fn open_file(&self, name: &str) -> Result<File, protox::Error> {
            match name {
                NAME => File::from_source(name, &self.0),
                _ => Err(protox::Error::file_not_found(name)),
            }
        }
    }

    /// Compiles a file of which only the body is given, in the package `iris.v1` if it does not begin with another one
    /// or with `package;`, which is none.
    fn compile(body: &str) -> FileDescriptor {
        let body = match body.strip_prefix("package;") {
            Some(body) => body.to_owned(),
            None if body.starts_with("package ") => body.to_owned(),
            None => format!("package iris.v1; {body}"),
        };
        let mut resolver = ChainFileResolver::new();
        resolver.add(Memory(format!("syntax = \"proto3\"; {body}")));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        compiler.open_file(NAME).unwrap_or_else(|error| panic!("{body}: {error}"));
        compiler.descriptor_pool().get_file_by_name(NAME).unwrap()
    }

    fn check(old: &str, new: &str, expected: &[(&str, &str)]) {
        let found = breaking(&compile(old), &compile(new));
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|found| (found.rule, found.element.strip_prefix("iris.v1.").unwrap_or(&found.element)))
            .collect();
        assert_eq!(found, expected, "\nold: {old}\nnew: {new}");
    }

    fn check_all(cases: &[Case]) {
        for (old, new, expected) in cases {
            check(old, new, expected);
        }
    }

    /// What the findings say, a line each.
    fn check_text(old: &str, new: &str, expected: &[&str]) {
        let found = breaking(&compile(old), &compile(new));
        let found: Vec<String> =
            found.iter().map(|found| format!("{} -> {}", found.before, found.after)).collect();
        assert_eq!(found, expected, "\nold: {old}\nnew: {new}");
    }

    /// Every file of every case.
    fn bodies() -> impl Iterator<Item = &'static str> {
        let breaking = BREAKING.iter().copied().flatten().flat_map(|(old, new, _)| [*old, *new]);
        breaking.chain(COMPATIBLE.iter().flat_map(|(old, new)| [*old, *new]))
    }

    #[test]
    fn fields_keep_name_number_and_place() {
        check_all(FIELDS);
    }

    #[test]
    fn types_keep_their_encoding() {
        check_all(TYPES);
    }

    #[test]
    fn oneofs_keep_their_fields() {
        check_all(ONEOFS);
    }

    #[test]
    fn messages_stay() {
        check_all(MESSAGES);
    }

    #[test]
    fn enums_keep_their_values() {
        check_all(ENUMS);
    }

    #[test]
    fn services_keep_their_rpcs() {
        check_all(SERVICES);
    }

    #[test]
    fn another_package_is_one_finding() {
        check_all(PACKAGES);
    }

    #[test]
    fn compatible_changes_pass() {
        for (old, new) in COMPATIBLE {
            check(old, new, &[]);
        }
    }

    #[test]
    fn a_file_is_compatible_with_itself() {
        for body in bodies() {
            let file = compile(body);
            let pool = DescriptorPool::decode(file.parent_pool().encode_to_vec().as_slice()).unwrap();
            let copy = pool.get_file_by_name(NAME).unwrap();
            for (old, new) in [(&file, &file), (&file, &copy), (&copy, &file)] {
                assert_eq!(breaking(old, new), [], "{body}");
            }
        }
    }

    #[test]
    fn every_rule_has_a_case() {
        let cases = BREAKING.iter().copied().flatten();
        let seen: BTreeSet<&str> =
            cases.flat_map(|(_, _, found)| found.iter().map(|(rule, _)| *rule)).collect();
        let rules: Vec<&str> = RULES.iter().map(|(rule, _)| *rule).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), rules, "each once, in alphabetical order");
    }

    #[test]
    fn findings_are_sorted() {
        check(
            "enum E { Z = 0; } message B { double y = 1; double x = 2; } message A { double x = 1; }",
            "message B { string y = 1; optional float x = 2; } message A { double z = 1 [json_name = \
             \"x\"]; }",
            &[
                (FIELD_SAME_NAME, "A.x"),
                (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "B.x"),
                (FIELD_WIRE_JSON_COMPATIBLE_TYPE, "B.y"),
                (ENUM_NO_DELETE, "E"),
            ],
        );
    }

    #[test]
    fn findings_tell_before_and_after() {
        check_text(
            "message A { repeated A x = 1; optional int32 y = 2; }",
            "message A {}",
            &[
                "repeated iris.v1.A x = 1 -> \"x\" is not reserved",
                "repeated iris.v1.A x = 1 -> 1 is not reserved",
                "optional int32 y = 2 -> \"y\" is not reserved",
                "optional int32 y = 2 -> 2 is not reserved",
            ],
        );
        check_text(
            "message A { map<string, float> a = 1; double b = 2; oneof o { double c = 3; double d = 4; } }",
            "message A { map<string, A> a = 1; optional double b = 2; oneof o { double d = 4; } double \
             c = 3; }",
            &["map<string, float> -> map<string, iris.v1.A>", "not optional -> optional", "o -> no oneof"],
        );
        check_text(
            "message A { reserved 8, 7, 4 to 6, 10 to max; reserved \"x\"; } enum E { Z = 0; V = 1; }",
            "message A { reserved 6, 12 to max; } enum E { option allow_alias = true; Z = 0; X = 1; W = \
             1; U = 1; Y = 1; }",
            &[
                "reserved \"x\" -> not reserved",
                "reserved 10 to 11 -> not reserved",
                "reserved 4 to 5 -> not reserved",
                "reserved 7 to 8 -> not reserved",
                "V -> U, W, X",
            ],
        );
        check_text(
            "message A {} service S { rpc F (stream A) returns (A); }",
            "service S { rpc F (B) returns (A) { option idempotency_level = IDEMPOTENT; } } message A \
             {} message B {}",
            &["stream -> unary", "IDEMPOTENCY_UNKNOWN -> IDEMPOTENT", "iris.v1.A -> iris.v1.B"],
        );
        check_text("message A {}", "package iris.v2; message A {}", &["iris.v1 -> iris.v2"]);
        check_text("message A {}", "", &["present -> deleted"]);
    }

    /// Every set of six numbers against every other one, compared with sets.
    #[test]
    fn gaps_are_the_difference_of_sets() {
        let members = |set: u32| (0..6_i64).filter(move |number| set >> number & 1 == 1);
        let reserved = |set: u32| {
            Reserved::new(std::iter::empty(), members(set).map(|number| number..=number).collect())
        };
        for (old, new) in (0..64).flat_map(|old| (0..64).map(move |new| (old, new))) {
            let after = reserved(new);
            let gaps = reserved(old).numbers.iter().flat_map(|range| after.gaps(range)).collect::<Vec<_>>();
            let numbers: Vec<i64> = gaps.into_iter().flatten().collect();
            assert_eq!(numbers, members(old & !new).collect::<Vec<_>>(), "{old:06b} without {new:06b}");
        }
    }
}
