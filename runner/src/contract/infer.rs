//! A contract for a model that came without one: proto3 source made from its inputs and outputs, and from the header
//! of a sample file if there is one.
//!
//! Nothing is compiled or bound here. The source is text for people to copy and to change, so it is written as text,
//! with comments, rather than as descriptors; and names that do not agree with the model's by the rules of
//! `docs/contracts.md` are bound by options, so that what is inferred binds in one way only.

use std::collections::HashSet;

use prost_reflect::Kind;

use super::csv::CsvError;
use super::shape::{Batch, RowShape, RowSize};
use super::value::{Direction, fits};
use crate::engine::{Signature, TensorSpec};
use crate::tensor::{Dtype, format_dims};

/// Characters of a name that become an identifier, and of a text that stands in a comment.
const LONGEST_NAME: usize = 60;
const LONGEST_COMMENT: usize = 200;

/// What a sample file tells of its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub columns: Vec<SampleColumn>,
}

/// A column of a sample file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleColumn {
    pub name: String,
    pub kind: ColumnKind,
    /// Some cell is empty.
    pub nullable: bool,
}

/// What all cells of a column are that are not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// There is none.
    Empty,
    /// `true` or `false`, in any case. `1` and `0` are integers.
    Bool,
    /// Integers of 64 bits with a sign.
    Int64,
    /// Decimals, exponents, NaN, infinities, and integers beyond 64 bits.
    Double,
    String,
}

impl Sample {
    /// Looks at the first `max_rows` records of a CSV file with a header.
    ///
    /// # Errors
    /// If the file is no CSV, is not UTF-8, or has no header.
    pub fn read(csv: impl std::io::Read, max_rows: usize) -> Result<Self, CsvError> {
        let mut file = ::csv::Reader::from_reader(csv);
        let column = |name: &str| SampleColumn {
            name: name.trim_start_matches('\u{feff}').trim().to_owned(),
            kind: ColumnKind::Empty,
            nullable: false,
        };
        let mut columns: Vec<SampleColumn> = file.headers()?.iter().map(column).collect();
        if columns.is_empty() {
            return Err(CsvError { line: None, text: "the sample is empty; it needs a header".to_owned() });
        }
        for record in file.into_records().take(max_rows) {
            for (column, cell) in columns.iter_mut().zip(&record?) {
                column.nullable |= cell.trim().is_empty();
                column.kind = column.kind.and(ColumnKind::of(cell.trim()));
            }
        }
        Ok(Self { columns })
    }
}

impl ColumnKind {
    fn of(cell: &str) -> Self {
        match cell {
            "" => Self::Empty,
            _ if cell.eq_ignore_ascii_case("true") || cell.eq_ignore_ascii_case("false") => Self::Bool,
            _ if cell.parse::<i64>().is_ok() => Self::Int64,
            _ if cell.parse::<f64>().is_ok() => Self::Double,
            _ => Self::String,
        }
    }

    /// The kind that takes cells of both.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Empty, kind) | (kind, Self::Empty) => kind,
            (one, other) if one == other => one,
            (Self::Int64 | Self::Double, Self::Int64 | Self::Double) => Self::Double,
            _ => Self::String,
        }
    }

    /// The protobuf type of a column for an input of this datatype; `None` if the input cannot take it. Any cell is
    /// text for an input of text.
    fn proto_type(self, dtype: Dtype) -> Option<&'static str> {
        let (kind, name) = match self {
            Self::Empty => return Some(proto_type(dtype)),
            _ if dtype == Dtype::Bytes => return Some(proto_type(dtype)),
            Self::Bool => (Kind::Bool, "bool"),
            Self::Int64 => (Kind::Int64, "int64"),
            Self::Double => (Kind::Double, "double"),
            Self::String => (Kind::String, "string"),
        };
        fits(&kind, dtype, Direction::Request).then_some(name)
    }

    fn words(self) -> &'static str {
        match self {
            Self::Empty => "nothing",
            Self::Bool => "true and false",
            Self::Int64 => "integers",
            Self::Double => "decimals",
            Self::String => "text",
        }
    }
}

/// The package of the contract that is inferred for a model.
pub(super) fn package_of(model: &str) -> String {
    let plain = |char: char| if char.is_ascii_alphanumeric() { char } else { '_' };
    let name: String = model.chars().map(plain).collect();
    let prefix = if name.starts_with(|first: char| first.is_ascii_digit()) { "m" } else { "" };
    format!("baton.models.{prefix}{name}")
}

/// proto3 source that binds to `signature`. The same arguments give the same bytes.
///
/// # Errors
/// Why there can be none, in words for people: an input whose shape is not known well enough, or a sample that does
/// not fit the inputs.
pub fn infer(model: &str, signature: &Signature, sample: Option<&Sample>) -> Result<String, String> {
    let request = match sample {
        None => Part::of_inputs(&signature.inputs)?,
        Some(sample) => Part::of_sample(&signature.inputs, sample)?,
    };
    let response = Part::of_outputs(&signature.outputs);
    if request.fields.is_empty() {
        return Err("the model has no inputs, so there is nothing to ask it".to_owned());
    }
    if response.fields.is_empty() {
        return Err(format!("no output of the model can be in a message: {}", response.notes.join("; ")));
    }
    Ok(Source { model, request, response }.text())
}

/// A field of the source.
struct Field {
    comment: String,
    /// With `optional` and the like.
    kind: String,
    name: String,
    options: Vec<String>,
}

/// One side of the method: the fields of a row, or of the whole message.
struct Part {
    fields: Vec<Field>,
    /// Comments on what was left out.
    notes: Vec<String>,
    /// Does each tensor have a dimension that counts rows?
    has_rows: bool,
}

impl Part {
    fn of_inputs(inputs: &[TensorSpec]) -> Result<Self, String> {
        if let Some(open) = inputs.iter().find(|input| RowShape::of(input).size == RowSize::Open) {
            return Err(format!(
                "input {:?} has the shape {}; a contract can be inferred if its rank is known and one dimension of a \
                 row varies at most",
                open.name,
                shape_text(open)
            ));
        }
        let mut names = Names::default();
        let field = |(index, input): (usize, &TensorSpec)| {
            tensor_field(input, names.identifier(&input.name, "input", index), inputs)
        };
        let fields = inputs.iter().enumerate().map(field).collect();
        Ok(Self { fields, notes: Vec::new(), has_rows: have_rows(inputs) })
    }

    fn of_outputs(outputs: &[TensorSpec]) -> Self {
        let is_open = |output: &&TensorSpec| RowShape::of(output).size == RowSize::Open;
        let (open, kept): (Vec<&TensorSpec>, Vec<&TensorSpec>) = outputs.iter().partition(is_open);
        let mut names = Names::default();
        let field = |(index, output): (usize, &&TensorSpec)| {
            tensor_field(output, names.identifier(&output.name, "output", index), outputs)
        };
        let fields = kept.iter().enumerate().map(field).collect();
        let note = |output: &TensorSpec| {
            format!(
                "The output {} of shape {} has no form in a message.",
                comment(&output.name),
                shape_text(output)
            )
        };
        Self { fields, notes: open.into_iter().map(note).collect(), has_rows: have_rows(kept) }
    }

    /// The fields are columns of the sample.
    fn of_sample(inputs: &[TensorSpec], sample: &Sample) -> Result<Self, String> {
        let matching = Matching::of(inputs, &sample.columns)?;
        let note =
            |column: &&SampleColumn| format!("The sample's column {} is no input.", comment(&column.name));
        Ok(Self {
            fields: matching.fields(inputs)?,
            notes: matching.left.iter().map(note).collect(),
            has_rows: have_rows(inputs),
        })
    }
}

/// Which column of a sample goes where.
struct Matching<'a> {
    by: By,
    pairs: Vec<(&'a TensorSpec, &'a SampleColumn)>,
    left: Vec<&'a SampleColumn>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Each column is the input of its name.
    Name,
    /// All columns together are the row of the one input.
    Position,
}

impl<'a> Matching<'a> {
    /// Names go first: a column that is called like the only input is that input, wherever it stands.
    fn of(inputs: &'a [TensorSpec], columns: &'a [SampleColumn]) -> Result<Self, String> {
        let by_name = Self::by_name(inputs, columns);
        match (by_name, inputs) {
            (Ok(matching), _) => Ok(matching),
            (Err(_), [input]) => Self::by_position(input, columns),
            (Err(why), _) => Err(why),
        }
    }

    fn by_name(inputs: &'a [TensorSpec], columns: &'a [SampleColumn]) -> Result<Self, String> {
        if let Some(wide) = inputs.iter().find(|input| !is_single(input)) {
            return Err(format!(
                "input {:?} has the shape {}; a sample needs inputs of one value a row, or one input",
                wide.name,
                shape_text(wide)
            ));
        }
        let pairs: Vec<(&TensorSpec, &SampleColumn)> = inputs
            .iter()
            .map(|input| Ok((input, column_of(input, columns)?)))
            .collect::<Result<_, String>>()?;
        let is_taken = |column: &SampleColumn| pairs.iter().any(|(_, taken)| std::ptr::eq(*taken, column));
        let left = columns.iter().filter(|column| !is_taken(column)).collect();
        Ok(Self { by: By::Name, pairs, left })
    }

    fn by_position(input: &'a TensorSpec, columns: &'a [SampleColumn]) -> Result<Self, String> {
        let (taken, left) = columns_in_order(input, columns)?;
        let pairs = taken.iter().map(|column| (input, column)).collect();
        Ok(Self { by: By::Position, pairs, left: left.iter().collect() })
    }

    fn fields(&self, inputs: &[TensorSpec]) -> Result<Vec<Field>, String> {
        let mut names = Names::default();
        let mut misfits = Vec::new();
        let mut fields = Vec::new();
        for (index, (input, column)) in self.pairs.iter().enumerate() {
            let name = names.identifier(&column.name, "column", index);
            let Some(kind) = column.kind.proto_type(input.dtype) else {
                let kind = column.kind.words();
                misfits.push(format!("{:?} ({kind}, the input takes {})", column.name, input.dtype));
                continue;
            };
            fields.push(Field {
                comment: if column.name == name { String::new() } else { comment(&column.name) },
                kind: if column.nullable { format!("optional {kind}") } else { kind.to_owned() },
                options: match self.by {
                    By::Name => needed_option(&name, input, inputs).into_iter().collect(),
                    By::Position => Vec::new(),
                },
                name,
            });
        }
        match misfits.as_slice() {
            [] => Ok(self.said_in_full(fields)),
            _ => Err(format!("columns of the sample do not fit the model: {}", misfits.join(", "))),
        }
    }

    /// The order of the fields says which column each is, unless one is called like the input: it could be taken for
    /// the whole row.
    fn said_in_full(&self, mut fields: Vec<Field>) -> Vec<Field> {
        let is_whole =
            |input: &TensorSpec| fields.iter().any(|field| plain(&field.name) == plain(&input.name));
        if let (By::Position, [(input, _), _, ..]) = (self.by, self.pairs.as_slice())
            && is_whole(input)
        {
            for (index, field) in fields.iter_mut().enumerate() {
                field.options = vec![tensor_option(&input.name), format!("(baton.column) = {index}")];
            }
        }
        fields
    }
}

/// The sample's column for an input that takes one: of its very name, or of the only name that agrees.
fn column_of<'a>(input: &TensorSpec, columns: &'a [SampleColumn]) -> Result<&'a SampleColumn, String> {
    let same: Vec<&SampleColumn> = columns.iter().filter(|column| column.name == input.name).collect();
    let alike: Vec<&SampleColumn> =
        columns.iter().filter(|column| plain(&column.name) == plain(&input.name)).collect();
    match (same.as_slice(), alike.as_slice()) {
        ([one], _) | ([], [one]) => Ok(one),
        ([], []) => Err(format!(
            "no column of the sample is called like the input {:?}; they are {}",
            input.name,
            all(columns)
        )),
        _ => Err(format!("several columns of the sample are called like the input {:?}", input.name)),
    }
}

/// The columns that are those of the input's row, and what is left: the last one, if it is one too many.
fn columns_in_order<'a>(
    input: &TensorSpec,
    columns: &'a [SampleColumn],
) -> Result<(&'a [SampleColumn], &'a [SampleColumn]), String> {
    let is_flat = input.shape.as_ref().is_some_and(|shape| shape.len() <= 2);
    let RowSize::Fixed(wanted) = RowShape::of(input).size else {
        return Err(format!(
            "a sample needs an input with a fixed number of columns; the shape is {}",
            shape_text(input)
        ));
    };
    match columns.len().checked_sub(wanted) {
        Some(0 | 1) if is_flat => columns.split_at_checked(wanted).ok_or_else(String::new),
        _ => Err(format!(
            "the sample has {} columns, {}; the input {:?} has the shape {}",
            columns.len(),
            all(columns),
            input.name,
            shape_text(input)
        )),
    }
}

fn all(columns: &[SampleColumn]) -> String {
    let names: Vec<String> = columns.iter().take(20).map(|column| format!("{:?}", column.name)).collect();
    let more = if columns.len() > names.len() { ", ..." } else { "" };
    format!("{}{more}", names.join(", "))
}

/// The field that is the whole row of a tensor.
fn tensor_field(spec: &TensorSpec, name: String, side: &[TensorSpec]) -> Field {
    let element = proto_type(spec.dtype);
    let size = RowShape::of(spec).size;
    let kind = match &spec.labels {
        Some(labels)
            if size == RowSize::Fixed(labels.len()) && are_distinct(labels) && is_float(spec.dtype) =>
        {
            format!("map<string, {element}>")
        }
        _ if is_single(spec) => element.to_owned(),
        _ => format!("repeated {element}"),
    };
    let original = if spec.name == name { String::new() } else { format!("{}: ", comment(&spec.name)) };
    Field {
        comment: format!("{original}{} {}", spec.dtype, shape_text(spec)),
        kind,
        options: needed_option(&name, spec, side).into_iter().collect(),
        name,
    }
}

/// Does a tensor's name have to be said, or does the field's lead to it and to no other?
fn needed_option(field: &str, spec: &TensorSpec, side: &[TensorSpec]) -> Option<String> {
    let agreeing = side.iter().filter(|other| plain(&other.name) == plain(field)).count();
    let is_clear = agreeing == 1 && plain(&spec.name) == plain(field);
    (!is_clear).then(|| tensor_option(&spec.name))
}

fn tensor_option(name: &str) -> String {
    format!("(baton.tensor) = {}", literal(name))
}

fn proto_type(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bool => "bool",
        Dtype::Uint8 | Dtype::Uint16 | Dtype::Uint32 => "uint32",
        Dtype::Uint64 => "uint64",
        Dtype::Int8 | Dtype::Int16 | Dtype::Int32 => "int32",
        Dtype::Int64 => "int64",
        Dtype::Fp16 | Dtype::Bf16 | Dtype::Fp32 => "float",
        Dtype::Fp64 => "double",
        Dtype::Bytes => "string",
    }
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Fp16 | Dtype::Bf16 | Dtype::Fp32 | Dtype::Fp64)
}

fn is_single(spec: &TensorSpec) -> bool {
    RowShape::of(spec).size == RowSize::Fixed(1)
}

fn have_rows<'a>(specs: impl IntoIterator<Item = &'a TensorSpec>) -> bool {
    specs.into_iter().all(|spec| RowShape::of(spec).batch != Batch::None)
}

fn are_distinct(labels: &[String]) -> bool {
    labels.iter().collect::<HashSet<_>>().len() == labels.len()
}

fn shape_text(spec: &TensorSpec) -> String {
    spec.shape.as_ref().map_or_else(|| "of no declared rank".to_owned(), |dims| one_line(&format_dims(dims)))
}

/// Identifiers for one message. Two are taken to clash if they agree as names do: that covers those that are equal in
/// lowerCamel, which protobuf refuses, and those that could be bound to the same tensor.
#[derive(Default)]
struct Names {
    taken: HashSet<String>,
}

impl Names {
    fn identifier(&mut self, original: &str, fallback: &str, index: usize) -> String {
        let base = match snake_case(original) {
            name if name.is_empty() => format!("{fallback}_{}", index + 1),
            name if name.starts_with(|first: char| first.is_ascii_digit()) => format!("{fallback}_{name}"),
            name => name,
        };
        let mut name = base.clone();
        let mut next = 2;
        while !self.taken.insert(plain(&name)) {
            name = format!("{base}_{next}");
            next += 1;
        }
        name
    }
}

/// `Sepal Length (cm)`, `sepalLengthCm` and `sepal.length.cm` as `sepal_length_cm`. Empty if nothing of it is ASCII.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    let mut before = ' ';
    for char in name.chars() {
        let begins_word =
            !before.is_ascii_alphanumeric() || (before.is_ascii_lowercase() && char.is_ascii_uppercase());
        if char.is_ascii_alphanumeric() && snake.len() < LONGEST_NAME {
            if begins_word && !snake.is_empty() {
                snake.push('_');
            }
            snake.push(char.to_ascii_lowercase());
        }
        before = char;
    }
    snake
}

/// What names are compared by: letters and digits, without case.
fn plain(name: &str) -> String {
    name.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// A text of the model's or the sample's as it may stand in a comment.
fn comment(text: &str) -> String {
    format!("\"{}\"", one_line(text))
}

fn one_line(text: &str) -> String {
    let shown = |char: char| if char.is_control() || is_line_end(char) { ' ' } else { char };
    text.chars().take(LONGEST_COMMENT).map(shown).collect()
}

fn is_line_end(char: char) -> bool {
    matches!(char, '\u{2028}' | '\u{2029}')
}

/// A string literal of proto3.
fn literal(text: &str) -> String {
    let mut literal = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => literal.extend(['\\', char]),
            _ if char.is_control() => {
                let mut bytes = [0; 4];
                char.encode_utf8(&mut bytes)
                    .bytes()
                    .for_each(|byte| literal.push_str(&format!("\\{byte:03o}")));
            }
            _ => literal.push(char),
        }
    }
    literal + "\""
}

/// The file.
struct Source<'a> {
    model: &'a str,
    request: Part,
    response: Part,
}

impl Source<'_> {
    fn text(&self) -> String {
        let mut text = format!(
            "// Made by Baton from the inputs and outputs of the model {}.\n\
             // Copy it, rename what you like, and push it as your own.\n\
             syntax = \"proto3\";\n\npackage {};\n\n",
            comment(self.model),
            package_of(self.model)
        );
        let mut fields = self.request.fields.iter().chain(&self.response.fields);
        if fields.any(|field| !field.options.is_empty()) {
            text.push_str("import \"baton/options.proto\";\n\n");
        }
        text.push_str("service Model {\n  rpc Predict(PredictRequest) returns (PredictResponse);\n}\n");
        if self.request.has_rows && self.response.has_rows {
            text.push_str("\nmessage PredictRequest {\n  repeated Row rows = 1;\n}\n");
            message("Row", &self.request, &mut text);
            text.push_str("\n// One prediction a row, in the order of the rows.\n");
            text.push_str("message PredictResponse {\n  repeated Prediction rows = 1;\n}\n");
            message("Prediction", &self.response, &mut text);
        } else {
            message("PredictRequest", &self.request, &mut text);
            message("PredictResponse", &self.response, &mut text);
        }
        text
    }
}

fn message(name: &str, part: &Part, text: &mut String) {
    text.push('\n');
    part.notes.iter().for_each(|note| text.push_str(&format!("// {note}\n")));
    text.push_str(&format!("message {name} {{\n"));
    for (index, field) in part.fields.iter().enumerate() {
        if !field.comment.is_empty() {
            text.push_str(&format!("  // {}\n", field.comment));
        }
        let Field { kind, name, options, .. } = field;
        let options = if options.is_empty() { String::new() } else { format!(" [{}]", options.join(", ")) };
        text.push_str(&format!("  {kind} {name} = {}{options};\n", index + 1));
    }
    text.push_str("}\n");
}

#[cfg(test)]
mod tests {
    use super::super::compile::Schema;
    use super::*;
    use crate::config::Limits;
    use crate::tensor::Dim;

    fn spec(name: &str, dtype: Dtype, shape: &[i64]) -> TensorSpec {
        let dim = |size: &i64| if *size < 0 { Dim::Any(None) } else { Dim::Fixed(*size) };
        TensorSpec {
            name: name.to_owned(),
            dtype,
            shape: Some(shape.iter().map(dim).collect()),
            labels: None,
        }
    }

    fn labelled(name: &str, shape: &[i64], labels: &[&str]) -> TensorSpec {
        let labels = Some(labels.iter().map(|label| (*label).to_owned()).collect());
        TensorSpec { labels, ..spec(name, Dtype::Fp32, shape) }
    }

    fn sample(file: &str) -> Sample {
        Sample::read(file.as_bytes(), 1000).expect(file)
    }

    /// Infers, and sees to it that the source compiles and comes out the same again.
    fn source(inputs: &[TensorSpec], outputs: &[TensorSpec], file: Option<&str>) -> Result<String, String> {
        let signature = Signature { inputs: inputs.to_vec(), outputs: outputs.to_vec() };
        let sample = file.map(sample);
        let source = infer("iris-2", &signature, sample.as_ref())?;
        assert_eq!(infer("iris-2", &signature, sample.as_ref()), Ok(source.clone()));
        Schema::compile("iris-2.proto", source.as_bytes(), &Limits::default())
            .unwrap_or_else(|error| panic!("{error}\n{source}"));
        Ok(source)
    }

    fn check_lines(inputs: &[TensorSpec], outputs: &[TensorSpec], file: Option<&str>, lines: &[&str]) {
        let source = source(inputs, outputs, file).expect("inferred");
        for line in lines {
            assert!(source.lines().any(|found| found.trim() == *line), "no line {line:?} in\n{source}");
        }
    }

    fn check_refused(inputs: &[TensorSpec], file: Option<&str>, parts: &[&str]) {
        let why = source(inputs, &[spec("y", Dtype::Int64, &[-1])], file).expect_err("cannot be inferred");
        for part in parts {
            assert!(why.contains(part), "{why} lacks {part:?}");
        }
    }

    #[test]
    fn a_classifier_gets_rows_and_a_map() {
        let inputs = [spec("float_input", Dtype::Fp32, &[-1, 4])];
        let outputs =
            [spec("label", Dtype::Int64, &[-1]), labelled("probabilities", &[-1, 3], &["setosa", "b", "c"])];
        let expected = "\
// Made by Baton from the inputs and outputs of the model \"iris-2\".
// Copy it, rename what you like, and push it as your own.
syntax = \"proto3\";

package baton.models.iris_2;

service Model {
  rpc Predict(PredictRequest) returns (PredictResponse);
}

message PredictRequest {
  repeated Row rows = 1;
}

message Row {
  // FP32 [-1,4]
  repeated float float_input = 1;
}

// One prediction a row, in the order of the rows.
message PredictResponse {
  repeated Prediction rows = 1;
}

message Prediction {
  // INT64 [-1]
  int64 label = 1;
  // FP32 [-1,3]
  map<string, float> probabilities = 2;
}
";
        assert_eq!(source(&inputs, &outputs, None).as_deref(), Ok(expected));
    }

    #[test]
    fn a_sample_names_the_columns() {
        let inputs = [spec("X", Dtype::Fp32, &[-1, 4])];
        let outputs = [spec("variable", Dtype::Fp32, &[-1, 1])];
        let file = "Sepal Length (cm),1st,,Old?,target\n5.1,-7,,true,setosa\n3,9,1,FALSE,b\n";
        let expected = "\
// The sample's column \"target\" is no input.
message Row {
  // \"Sepal Length (cm)\"
  double sepal_length_cm = 1;
  // \"1st\"
  int64 column_1st = 2;
  // \"\"
  optional int64 column_3 = 3;
  // \"Old?\"
  bool old = 4;
}
";
        let source = source(&inputs, &outputs, Some(file)).expect("inferred");
        assert!(source.contains(expected), "{source}");
        assert!(!source.contains("options.proto"), "{source}");
    }

    #[test]
    fn every_datatype_has_a_field() {
        for (dtype, kind) in [
            (Dtype::Bool, "bool"),
            (Dtype::Uint8, "uint32"),
            (Dtype::Uint16, "uint32"),
            (Dtype::Uint32, "uint32"),
            (Dtype::Uint64, "uint64"),
            (Dtype::Int8, "int32"),
            (Dtype::Int16, "int32"),
            (Dtype::Int32, "int32"),
            (Dtype::Int64, "int64"),
            (Dtype::Fp16, "float"),
            (Dtype::Bf16, "float"),
            (Dtype::Fp32, "float"),
            (Dtype::Fp64, "double"),
            (Dtype::Bytes, "string"),
        ] {
            for (shape, prefix) in
                [(&[-1][..], ""), (&[1, 1], ""), (&[], ""), (&[-1, 3, -1], "repeated "), (&[5], "repeated ")]
            {
                let side = [spec("x", dtype, shape)];
                check_lines(&side, &side, None, &[&format!("{prefix}{kind} x = 1;")]);
            }
        }
    }

    #[test]
    fn rows_need_a_batch_on_both_sides() {
        let batched = [spec("x", Dtype::Fp32, &[-1, 4])];
        for (inputs, outputs, has_rows) in [
            (&batched, &[spec("y", Dtype::Fp32, &[1, 4])], true),
            (&batched, &[spec("y", Dtype::Fp32, &[])], false),
            (&batched, &[spec("y", Dtype::Fp32, &[3, 4])], false),
            (&[spec("x", Dtype::Fp32, &[2, 4])], &batched, false),
        ] {
            let source = source(inputs, outputs, None).expect("inferred");
            assert_eq!(source.contains("rows"), has_rows, "{source}");
        }
    }

    #[test]
    fn names_become_identifiers_and_options_say_the_rest() {
        let side = [
            spec("Sepal.Length", Dtype::Fp32, &[-1]),
            spec("sepal_length", Dtype::Fp32, &[-1]),
            spec("特徴", Dtype::Fp32, &[-1]),
            spec("1st", Dtype::Fp32, &[-1]),
            spec("", Dtype::Fp32, &[-1]),
            spec("\"\\\n}", Dtype::Fp32, &[-1]),
            spec("serving_default_inputTensor:0", Dtype::Fp32, &[-1]),
            spec("message", Dtype::Fp32, &[-1]),
        ];
        check_lines(
            &side,
            &side,
            None,
            &[
                "import \"baton/options.proto\";",
                "float sepal_length = 1 [(baton.tensor) = \"Sepal.Length\"];",
                "float sepal_length_2 = 2 [(baton.tensor) = \"sepal_length\"];",
                "// \"特徴\": FP32 [-1]",
                "float input_3 = 3 [(baton.tensor) = \"特徴\"];",
                "float input_1st = 4 [(baton.tensor) = \"1st\"];",
                "float input_5 = 5 [(baton.tensor) = \"\"];",
                "// \"\"\\ }\": FP32 [-1]",
                "float input_6 = 6 [(baton.tensor) = \"\\\"\\\\\\012}\"];",
                "// \"serving_default_inputTensor:0\": FP32 [-1]",
                "float serving_default_input_tensor_0 = 7;",
                "float message = 8;",
                "float output_3 = 3 [(baton.tensor) = \"特徴\"];",
            ],
        );
        let long = [spec(&"ab ".repeat(1000), Dtype::Fp32, &[-1])];
        assert!(source(&long, &long, None).expect("inferred").len() < 20_000);
        for (model, package) in [("a-b.c", "a_b_c"), ("3d", "m3d"), ("ü", "_")] {
            assert_eq!(package_of(model), format!("baton.models.{package}"));
        }
    }

    #[test]
    fn a_shape_that_is_not_known_is_refused_in_and_left_out() {
        let undeclared = TensorSpec { shape: None, ..spec("x", Dtype::Fp32, &[]) };
        check_refused(std::slice::from_ref(&undeclared), None, &["\"x\"", "no declared rank"]);
        check_refused(&[spec("x", Dtype::Fp32, &[-1, -1, -1])], None, &["[-1,-1,-1]"]);
        check_refused(&[], None, &["no inputs"]);
        let inputs = [spec("x", Dtype::Fp32, &[-1])];
        let outputs = [undeclared.clone(), spec("y", Dtype::Fp32, &[-1])];
        let note = "// The output \"x\" of shape of no declared rank has no form in a message.";
        check_lines(&inputs, &outputs, None, &[note, "repeated Row rows = 1;", "float y = 1;"]);
        assert!(source(&inputs, &[undeclared], None).is_err());
    }

    #[test]
    fn labels_make_a_map_only_if_they_are_the_columns() {
        let inputs = [spec("x", Dtype::Fp32, &[-1])];
        for (labels, kind) in [
            (["a", "b"].as_slice(), "map<string, float>"),
            (&["a"], "repeated float"),
            (&["a", "a"], "repeated float"),
        ] {
            check_lines(&inputs, &[labelled("y", &[-1, 2], labels)], None, &[&format!("{kind} y = 1;")]);
        }
    }

    #[test]
    fn inputs_that_are_called_like_columns_are_those_columns() {
        let inputs = [
            spec("Age", Dtype::Int64, &[-1, 1]),
            spec("job title", Dtype::Bytes, &[-1, 1]),
            spec("größe", Dtype::Fp32, &[-1, 1]),
        ];
        let file = "id,größe,Job_Title,age\n1,1.5,3,40\n2,2,,41\n";
        check_lines(
            &inputs,
            &[spec("y", Dtype::Int64, &[-1])],
            Some(file),
            &[
                "// The sample's column \"id\" is no input.",
                "int64 age = 1;",
                "optional string job_title = 2;",
                "double gr_e = 3 [(baton.tensor) = \"größe\"];",
            ],
        );
        check_refused(&inputs, Some("age,größe\n1,2\n"), &["\"job title\"", "\"größe\""]);
        check_refused(&inputs, Some("AGE,a_ge,größe,job title\n1,2,3,4\n"), &["several", "\"Age\""]);
        check_refused(
            &inputs,
            Some("Age,größe,job title\n1.5,x,4\n"),
            &["\"Age\" (decimals", "\"größe\" (text"],
        );
    }

    #[test]
    fn a_sample_has_the_columns_of_the_input() {
        let inputs = [spec("x", Dtype::Fp32, &[-1, 2])];
        check_refused(&inputs, Some("a\n1\n"), &["1 columns", "\"a\"", "[-1,2]"]);
        check_refused(&inputs, Some("a,b,c,d\n1,2,3,4\n"), &["4 columns"]);
        check_refused(&inputs, Some("a,b\n1,z\n"), &["\"b\" (text, the input takes FP32)"]);
        check_refused(&[spec("x", Dtype::Fp32, &[-1, -1])], Some("a\n1\n"), &["fixed number of columns"]);
        check_refused(&[spec("x", Dtype::Fp32, &[-1, 2, 1])], Some("a,b\n1,2\n"), &["[-1,2,1]"]);
        let outputs = [spec("y", Dtype::Fp32, &[-1])];
        let explicit = ["double x = 1 [(baton.tensor) = \"x\", (baton.column) = 0];"];
        check_lines(&inputs, &outputs, Some("x,b\n1.5,2\n"), &explicit);
        check_lines(&inputs, &outputs, Some("a,a\n,9\n,2\n"), &["optional float a = 1;", "int64 a_2 = 2;"]);
    }

    #[test]
    fn columns_have_the_kind_of_their_cells() {
        for (cells, kind, nullable) in [
            ("1|-9223372036854775808", ColumnKind::Int64, false),
            ("1|2.0", ColumnKind::Double, false),
            ("1e3", ColumnKind::Double, false),
            ("9223372036854775808", ColumnKind::Double, false),
            ("NaN|1", ColumnKind::Double, false),
            ("true|False", ColumnKind::Bool, false),
            ("true|1", ColumnKind::String, false),
            (" 1 | ", ColumnKind::Int64, true),
            ("0x1", ColumnKind::String, false),
            ("", ColumnKind::Empty, true),
        ] {
            let rows: String = cells.split('|').map(|cell| format!("{cell},e\n")).collect();
            let found = sample(&format!("\u{feff}c,d\n{rows}"));
            let expected = SampleColumn { name: "c".to_owned(), kind, nullable };
            assert_eq!(found.columns.first(), Some(&expected), "{cells}");
        }
        assert_eq!(Sample::read(b"a\n1\nx\n".as_slice(), 1).expect("CSV").columns[0].kind, ColumnKind::Int64);
        assert!(Sample::read(b"".as_slice(), 1).is_err());
        assert_eq!(Sample::read(b"a,b\n1\n".as_slice(), 9).expect_err("short").line, Some(2));
    }
}
