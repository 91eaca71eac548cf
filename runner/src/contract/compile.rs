//! From a contract's source to descriptors, in memory: an upload can import Baton's own options and Google's well-known
//! types, and nothing else.
//!
//! The compiler's own sentences about the source are passed on with line and caret: they quote nothing but the upload.

use miette::Diagnostic;
use prost_reflect::{DescriptorPool, FileDescriptor, MessageDescriptor};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use serde_json::json;

use super::scan::scan;
use crate::config::Limits;
use crate::error::{Code, Error, Result};

/// The file that gives fields Baton's options.
const OPTIONS_NAME: &str = "baton/options.proto";
const OPTIONS: &str = include_str!("../../../proto/baton/options.proto");

/// Characters shown of a line of the source.
const SHOWN_LINE: usize = 120;

/// A compiled source.
#[derive(Debug, Clone)]
pub struct Schema {
    source: String,
    file: FileDescriptor,
}

impl Schema {
    /// Compiles proto3 source. `name` is what the file is called in messages and by reflection.
    ///
    /// # Errors
    /// `BAD_CONTRACT` for what is no text, `CONTRACT_TOO_LARGE`, `CONTRACT_TOO_DEEP`, `CONTRACT_UNSUPPORTED`,
    /// `CONTRACT_IMPORT`, `CONTRACT_SYNTAX` with line and column, `CONTRACT_INVALID`.
    pub fn compile(name: &str, source: &[u8], limits: &Limits) -> Result<Self> {
        let source = text(source, limits)?;
        refuse_early(source, limits)?;
        let mut resolver = ChainFileResolver::new();
        resolver.add(Upload { name: name.to_owned(), source: source.to_owned() });
        resolver.add(GoogleFileResolver::new());
        let mut compiler = protox::Compiler::with_file_resolver(resolver);
        compiler.include_source_info(true);
        compiler.open_file(name).map_err(|error| refusal(name, source, &error))?;
        let invalid = |text: &str| Error::new(Code::ContractInvalid, text.to_owned());
        let file = compiler
            .descriptor_pool()
            .get_file_by_name(name)
            .ok_or_else(|| invalid("the contract has no content"))?;
        if file.services().len() == 0 {
            return Err(invalid("the contract has no service; it needs one with at least one rpc"));
        }
        if let Some(service) = file.services().find(|service| service.methods().len() == 0) {
            return Err(invalid(&format!("service {} has no rpc", service.full_name())));
        }
        check_reserved(&file)?;
        let fields: usize = messages(&file).iter().map(|message| message.fields().len()).sum();
        if fields > limits.contract_fields {
            return Err(too_large(&format!("{fields} fields"), &limits.contract_fields.to_string()));
        }
        Ok(Self { source: source.to_owned(), file })
    }

    /// The source, without a byte order mark.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The contract's own file.
    pub fn file(&self) -> &FileDescriptor {
        &self.file
    }

    /// The file and all that it imports.
    pub fn pool(&self) -> &DescriptorPool {
        self.file.parent_pool()
    }
}

/// All messages of a file, nested ones too.
fn messages(file: &FileDescriptor) -> Vec<MessageDescriptor> {
    let mut found: Vec<MessageDescriptor> = file.messages().collect();
    let mut next = 0;
    while let Some(message) = found.get(next).cloned() {
        found.extend(message.child_messages());
        next += 1;
    }
    found
}

/// What protobuf forbids and the compiler lets pass.
fn check_reserved(file: &FileDescriptor) -> Result<()> {
    let invalid = |text: String| Err(Error::new(Code::ContractInvalid, text));
    let messages = messages(file);
    for message in &messages {
        if let Some(field) =
            message.fields().find(|field| message.reserved_names().any(|name| name == field.name()))
        {
            return invalid(format!("the name of the field {} is reserved", field.full_name()));
        }
        if message.extension_ranges().len() > 0 {
            return invalid(format!(
                "{} has an extension range, which proto3 does not have",
                message.full_name()
            ));
        }
    }
    let enums =
        file.enums().chain(messages.iter().flat_map(|message| message.child_enums().collect::<Vec<_>>()));
    for kind in enums {
        for value in kind.values() {
            if kind.reserved_names().any(|name| name == value.name()) {
                return invalid(format!("the name of the enum value {} is reserved", value.full_name()));
            }
            if kind.reserved_ranges().any(|range| range.contains(&value.number())) {
                return invalid(format!("the number of the enum value {} is reserved", value.full_name()));
            }
        }
    }
    Ok(())
}

fn text<'a>(source: &'a [u8], limits: &Limits) -> Result<&'a str> {
    if source.len() as u64 > limits.contract {
        return Err(too_large(&format!("{} bytes", source.len()), &limits.contract.to_string()));
    }
    match std::str::from_utf8(source) {
        Ok(text) if !text.contains('\0') => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        _ => Err(Error::new(Code::BadContract, "the contract is no UTF-8 text")),
    }
}

fn too_large(what: &str, limit: &str) -> Error {
    Error::new(Code::ContractTooLarge, format!("the contract has {what}, the limit is {limit}"))
}

/// What is refused before the compiler sees it; see [`scan`].
fn refuse_early(source: &str, limits: &Limits) -> Result<()> {
    let found = scan(source);
    // Brackets of other kinds (options, bodies of methods) stand inside the innermost message.
    for (what, depth, limit) in [
        ("messages", found.message_depth, limits.contract_depth),
        ("brackets", found.depth, 2 * limits.contract_depth),
    ] {
        if depth > limit {
            let text = format!("the contract's {what} are nested {depth} deep, the limit is {limit}");
            return Err(Error::new(Code::ContractTooDeep, text));
        }
    }
    if found.messages > limits.contract_messages {
        return Err(too_large(
            &format!("{} messages", found.messages),
            &limits.contract_messages.to_string(),
        ));
    }
    let own_syntax = found.syntax.as_deref();
    if found.edition || own_syntax == Some("proto2") {
        return Err(Error::new(
            Code::ContractUnsupported,
            "contracts are written in proto3; this one is proto2 or an edition",
        ));
    }
    // Text that is no proto file at all gets the compiler's message, which names the line.
    if own_syntax.is_none() && found.messages > 0 {
        return Err(Error::new(
            Code::ContractUnsupported,
            "the contract does not begin with syntax = \"proto3\"; without it a file is proto2",
        ));
    }
    for (name, line) in &found.imports {
        let known = name == OPTIONS_NAME || GoogleFileResolver::new().open_file(name).is_ok();
        if !known {
            return Err(Error::new(
                Code::ContractImport,
                format!(
                    "line {line}: {name:?} cannot be imported; a contract is one file, which may import \
                     \"baton/options.proto\" and google/protobuf/*.proto"
                ),
            )
            .with_details(json!({ "import": name, "line": line })));
        }
    }
    Ok(())
}

/// The two files of ours.
struct Upload {
    name: String,
    source: String,
}

impl FileResolver for Upload {
    fn open_file(&self, name: &str) -> std::result::Result<File, protox::Error> {
        match name {
            OPTIONS_NAME => File::from_source(name, OPTIONS),
            _ if name == self.name => File::from_source(name, &self.source),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// The compiler's refusal as ours, with the place in the source.
fn refusal(name: &str, source: &str, error: &protox::Error) -> Error {
    let code = match () {
        () if error.is_file_not_found() => Code::ContractImport,
        () if error.is_parse() => Code::ContractSyntax,
        () => Code::ContractInvalid,
    };
    let offset = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
    // What is never closed is missed at the end.
    let offset = offset.or(error.is_parse().then_some(source.len()));
    let what = error.to_string();
    let Some(place) = offset.map(|offset| Place::of(source, offset)) else {
        return Error::new(code, format!("{name}: {what}"));
    };
    let Place { line, column, text, caret } = &place;
    let help = error.help().map_or_else(String::new, |help| format!(" ({help})"));
    Error::new(code, format!("{name}, line {line}, column {column}: {what}{help}\n{text}\n{caret}"))
        .with_details(json!({ "line": line, "column": column, "text": what }))
}

/// A place in a text, for people.
struct Place {
    line: usize,
    column: usize,
    text: String,
    caret: String,
}

impl Place {
    fn of(source: &str, offset: usize) -> Self {
        let before = source.get(..offset).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(start..).unwrap_or_default().chars().count() + 1;
        let text = source.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
        // Around the caret: a line may be a megabyte long.
        let skipped = column.saturating_sub(SHOWN_LINE / 2);
        let shown = |char: char| if char.is_control() { ' ' } else { char };
        Self {
            line,
            column,
            text: text.chars().skip(skipped).take(SHOWN_LINE).map(shown).collect(),
            caret: format!("{}^", " ".repeat(column - 1 - skipped.min(column - 1))),
        }
    }
}

/// Is this a message of ours to bind, rather than one whose JSON form is its own?
pub(super) fn is_well_known(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(source: &str) -> Result<Schema> {
        Schema::compile("iris.proto", source.as_bytes(), &Limits::default())
    }

    fn check_refused(source: &str, code: Code, parts: &[&str]) {
        let error = compile(source).expect_err(source);
        assert_eq!(error.code(), code, "{error}");
        for part in parts {
            assert!(error.text().contains(part), "{error} lacks {part:?}");
        }
    }

    const SERVICE: &str = "service S { rpc F (A) returns (A); }";

    #[test]
    fn compiles_what_people_write() {
        let source = format!(
            "\u{feff}// comment with message inside\r\nsyntax = \"proto3\";\r\npackage a.b;\r\n\
             import \"google/protobuf/timestamp.proto\";import \"baton/options.proto\";\r\n\
             message A{{ double x = 1 [(baton.column) = 2]; google.protobuf.Timestamp t = 2; reserved 5; A next = 3; }}\
             {SERVICE}"
        );
        let schema = compile(&source).expect("compiles");
        assert_eq!(schema.file().services().len(), 1);
        assert!(schema.pool().get_extension_by_name("baton.column").is_some());
    }

    #[test]
    fn refuses_with_the_place() {
        let proto3 = "syntax = \"proto3\";\n";
        let with = |body: &str| format!("{proto3}{body}\n{SERVICE}");
        check_refused(&with("message A { double x = 1 }"), Code::ContractSyntax, &["line 2, column 26", "^"]);
        check_refused("nonsense", Code::ContractSyntax, &["line 1"]);
        check_refused("", Code::ContractInvalid, &["no service"]);
        check_refused(&format!("{proto3}message A {{}}"), Code::ContractInvalid, &["no service"]);
        check_refused(&with("message A { B b = 1; }"), Code::ContractInvalid, &["line 2", "B"]);
        check_refused(&with("message A { int32 a = 1; int32 b = 1; }"), Code::ContractInvalid, &["line 2"]);
        check_refused(&with("message A { int32 a = 19000; }"), Code::ContractInvalid, &[]);
        check_refused(&with("message A { reserved 4; int32 a = 4; }"), Code::ContractInvalid, &["4"]);
        check_refused(&with("message A { int32 a_b = 1; int32 aB = 2; }"), Code::ContractInvalid, &["aB"]);
        for import in ["x.proto", "../x.proto", "/etc/passwd", "http://h/x.proto", "iris.proto", "a//b"] {
            check_refused(
                &with(&format!("import \"{import}\";\nmessage A {{}}")),
                Code::ContractImport,
                &["line 2", import],
            );
        }
        check_refused("syntax = \"proto2\"; message A {}", Code::ContractUnsupported, &["proto3"]);
        check_refused("message A {}", Code::ContractUnsupported, &["proto3"]);
        check_refused("edition = \"2023\"; message A {}", Code::ContractUnsupported, &["proto3"]);
        check_refused(&with("message A { optional group G = 1 {} }"), Code::ContractSyntax, &["line 2"]);
    }

    #[test]
    fn refuses_what_is_too_much() {
        let proto3 = "syntax = \"proto3\";\n";
        let nested = |depth: usize| {
            let open: String = (0..depth).map(|index| format!("message M{index} {{")).collect();
            format!("{proto3}{open}{}message A {{}} {SERVICE}", "}".repeat(depth))
        };
        compile(&nested(16)).expect("16 is allowed");
        for depth in [17, 31, 32, 10_000] {
            check_refused(&nested(depth), Code::ContractTooDeep, &[]);
        }
        let values = format!("{proto3}message A {{ int32 a = 1 [(x) = {}]; }}", "{a:".repeat(50_000));
        check_refused(&values, Code::ContractTooDeep, &[]);
        let many: String = (0..501).map(|index| format!("message M{index} {{}}")).collect();
        check_refused(&format!("{proto3}{many}{SERVICE}"), Code::ContractTooLarge, &["501"]);
        let fields: String = (1..=5_001).map(|index| format!("int32 f{index} = {index};")).collect();
        check_refused(
            &format!("{proto3}message A {{ {fields} }}{SERVICE}"),
            Code::ContractTooLarge,
            &["5001"],
        );
        let huge = format!("{proto3}//{}\n", "x".repeat(257 << 10));
        check_refused(&huge, Code::ContractTooLarge, &["bytes"]);
        let long = format!("{proto3}/*{}*/ message A {{ int32 a }} {SERVICE}", "x".repeat(100_000));
        assert!(compile(&long).expect_err("a fault").text().len() < 500);
        assert!(Schema::compile("a.proto", b"\xff\xfe", &Limits::default()).is_err());
    }
}
