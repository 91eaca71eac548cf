//! OpenAPI 3.1 of the typed services: what messages are in JSON, and the operations that take them.
//!
//! The schemas say how answers are written (64-bit integers as strings, enums as names, names in lowerCamel). Requests
//! may also say it otherwise, as the JSON mapping allows; a schema that listed every way would help nobody to write one.

use std::collections::{BTreeMap, HashMap};

use prost_reflect::{EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::Method;

/// Adds the methods of a model's contract, and its types, to an OpenAPI document. A type that has the name of another
/// one in the document is given its model's name before its own.
pub fn add_to(document: &mut Value, model: &str, methods: &[Method]) {
    let mut comments = Comments::default();
    let messages = methods.iter().flat_map(|method| [method.descriptor.input(), method.descriptor.output()]);
    let mut types = Value::Object(schemas(messages));
    let mut paths = Map::new();
    for method in methods {
        let descriptor = &method.descriptor;
        let comment = comments.of(&descriptor.parent_file(), descriptor.path()).join("\n");
        let streams = descriptor.is_client_streaming() || descriptor.is_server_streaming();
        let note = if streams { "\n\nHas a stream: call it over gRPC, or with text/csv." } else { "" };
        let comment = format!("{comment}{note}");
        let operation =
            operation(&method.path, &descriptor.input(), &descriptor.output(), Some(comment.trim()));
        paths.insert(method.path.clone(), json!({ "post": operation }));
    }
    let mut paths = Value::Object(paths);
    let taken: Vec<String> = types
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, schema)| {
            let known = &document["components"]["schemas"][name.as_str()];
            !known.is_null() && known != *schema
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in &taken {
        let (old, new) =
            (format!("#/components/schemas/{name}"), format!("#/components/schemas/{model}.{name}"));
        redirect(&mut types, &old, &new);
        redirect(&mut paths, &old, &new);
    }
    let own = types.as_object_mut().map(std::mem::take).unwrap_or_default();
    for (name, schema) in own {
        let name = if taken.contains(&name) { format!("{model}.{name}") } else { name };
        document["components"]["schemas"][name] = schema;
    }
    for (path, item) in paths.as_object_mut().map(std::mem::take).unwrap_or_default() {
        document["paths"][path] = item;
    }
}

fn redirect(value: &mut Value, old: &str, new: &str) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if name == "$ref" && member == old {
                    *member = new.into();
                } else {
                    redirect(member, old, new);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redirect(item, old, new)),
        _ => {}
    }
}

/// The component schemas, by full name, of messages and of all messages and enums in them.
fn schemas(messages: impl Iterator<Item = MessageDescriptor>) -> Map<String, Value> {
    let mut found = Map::new();
    let mut comments = Comments::default();
    let mut open: Vec<MessageDescriptor> = messages.collect();
    while let Some(message) = open.pop() {
        if well_known(&message).is_some() || found.contains_key(message.full_name()) {
            continue;
        }
        let schema = message_schema(&message, &mut comments);
        found.insert(message.full_name().to_owned(), schema);
        for field in message.fields() {
            match value_kind(&field) {
                Kind::Message(inner) => open.push(inner),
                Kind::Enum(inner) if !is_null(&inner) && !found.contains_key(inner.full_name()) => {
                    found.insert(inner.full_name().to_owned(), enum_schema(&inner, &mut comments));
                }
                _ => {}
            }
        }
    }
    found
}

/// The `post` operation of a method at `path`, which is `/package.Service/Method`. Its messages are in [`schemas`].
fn operation(
    path: &str,
    request: &MessageDescriptor,
    response: &MessageDescriptor,
    comment: Option<&str>,
) -> Value {
    let (service, method) = path.trim_start_matches('/').rsplit_once('/').unwrap_or(("", path));
    let content = |message| json!({ "application/json": { "schema": reference(message) } });
    let mut operation = json!({
        "tags": [service],
        "operationId": format!("{service}.{method}"),
        "requestBody": { "required": true, "content": content(request) },
        "responses": { "200": { "description": "The answer", "content": content(response) } },
    });
    describe(&mut operation, comment.map(plain).unwrap_or_default());
    operation
}

fn message_schema(message: &MessageDescriptor, comments: &mut Comments) -> Value {
    let mut properties = Map::new();
    for field in message.fields() {
        let mut schema = field_schema(&field);
        let mut text = comments.of(&field.parent_file(), field.path());
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        if let Some(oneof) = oneof {
            let names: Vec<String> =
                oneof.fields().map(|member| format!("`{}`", member.json_name())).collect();
            text.push(format!("At most one of {} is set.", names.join(", ")));
        }
        describe(&mut schema, text.join("\n"));
        properties.insert(field.json_name().to_owned(), schema);
    }
    let mut schema = json!({ "type": "object", "properties": properties });
    describe(&mut schema, comments.of(&message.parent_file(), message.path()).join("\n"));
    schema
}

fn enum_schema(descriptor: &EnumDescriptor, comments: &mut Comments) -> Value {
    let names: Vec<String> = descriptor.values().map(|value| value.name().to_owned()).collect();
    let mut schema = json!({ "type": "string", "enum": names });
    describe(&mut schema, comments.of(&descriptor.parent_file(), descriptor.path()).join("\n"));
    schema
}

fn field_schema(field: &FieldDescriptor) -> Value {
    let value = value_schema(&value_kind(field));
    match () {
        () if field.is_map() => json!({ "type": "object", "additionalProperties": value }),
        () if field.is_list() => json!({ "type": "array", "items": value }),
        () => value,
    }
}

/// The kind of a field, or of a map's values.
fn value_kind(field: &FieldDescriptor) -> Kind {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    }
}

fn value_schema(kind: &Kind) -> Value {
    match kind {
        Kind::Double => json!({ "type": "number", "format": "double" }),
        Kind::Float => json!({ "type": "number", "format": "float" }),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({ "type": "integer", "format": "int32" }),
        Kind::Uint32 | Kind::Fixed32 => json!({ "type": "integer", "format": "uint32", "minimum": 0 }),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({ "type": "string", "format": "int64" }),
        Kind::Uint64 | Kind::Fixed64 => json!({ "type": "string", "format": "uint64" }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::String => json!({ "type": "string" }),
        Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        Kind::Enum(descriptor) if is_null(descriptor) => json!({ "type": "null" }),
        Kind::Enum(descriptor) => component(descriptor.full_name()),
        Kind::Message(message) => reference(message),
    }
}

fn component(full_name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{full_name}") })
}

fn reference(message: &MessageDescriptor) -> Value {
    well_known(message).unwrap_or_else(|| component(message.full_name()))
}

fn is_null(descriptor: &EnumDescriptor) -> bool {
    descriptor.full_name() == "google.protobuf.NullValue"
}

/// The types whose JSON is not that of their fields.
fn well_known(message: &MessageDescriptor) -> Option<Value> {
    Some(match message.full_name().strip_prefix("google.protobuf.")? {
        "Timestamp" => json!({ "type": "string", "format": "date-time" }),
        "Duration" => json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$" }),
        "FieldMask" => json!({ "type": "string" }),
        "Struct" | "Empty" => json!({ "type": "object" }),
        "Value" => json!({}),
        "ListValue" => json!({ "type": "array" }),
        "Any" => {
            json!({ "type": "object", "properties": { "@type": { "type": "string" } }, "required": ["@type"] })
        }
        "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
        | "BoolValue" | "StringValue" | "BytesValue" => {
            or_null(value_schema(&message.get_field_by_name("value")?.kind()))
        }
        _ => return None,
    })
}

fn or_null(mut schema: Value) -> Value {
    if let Some(kind) = schema.get_mut("type") {
        *kind = json!([kind.clone(), "null"]);
    }
    schema
}

fn describe(schema: &mut Value, text: String) {
    if let Some(schema) = schema.as_object_mut().filter(|_| !text.is_empty()) {
        schema.insert("description".to_owned(), Value::String(text));
    }
}

/// The comments of files that were compiled with their source's places. Read once a file: it lists every token.
#[derive(Default)]
struct Comments {
    files: BTreeMap<String, HashMap<Vec<i32>, String>>,
}

impl Comments {
    /// The comment before the element, or else behind it; none or one.
    fn of(&mut self, file: &FileDescriptor, path: &[i32]) -> Vec<String> {
        let known = self.files.entry(file.name().to_owned()).or_insert_with(|| comments(file));
        known.get(path).cloned().into_iter().collect()
    }
}

fn comments(file: &FileDescriptor) -> HashMap<Vec<i32>, String> {
    let locations = file.file_descriptor_proto().source_code_info.iter().flat_map(|info| &info.location);
    locations
        .filter_map(|place| {
            let text = place.leading_comments.as_ref().or(place.trailing_comments.as_ref())?;
            Some((place.path.clone(), plain(text)))
        })
        .collect()
}

/// A comment without the space that stands before each of its lines.
fn plain(comment: &str) -> String {
    let lines: Vec<&str> = comment.lines().map(str::trim).collect();
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::compile::Schema;
    use super::*;
    use crate::config::Limits;

    /// The schemas of `M` with these fields.
    fn schemas_of(fields: &str) -> Map<String, Value> {
        let imports: String = ["any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers"]
            .iter()
            .map(|name| format!("import \"google/protobuf/{name}.proto\"; "))
            .collect();
        let source = format!(
            "syntax = \"proto3\"; package t; {imports}\n\
             enum Color {{ NONE = 0; RED = 1; }}\n\
             message Node {{ Node next = 1; Color color = 2; }}\n\
             // What is asked.\n//  In two lines.\nmessage M {{\n{fields}\n}}\n\
             service S {{ rpc F(M) returns (M); }}"
        );
        let schema = Schema::compile("t.proto", source.as_bytes(), &Limits::default()).expect(fields);
        schemas(schema.pool().get_message_by_name("t.M").into_iter())
    }

    fn check_field(kind: &str, expected: &Value) {
        let found = schemas_of(&format!("{kind} my_field = 1;"));
        assert_eq!(
            found.get("t.M").and_then(|schema| schema.pointer("/properties/myField")),
            Some(expected),
            "{kind}"
        );
    }

    #[test]
    fn fields_are_what_their_json_is() {
        let integer = json!({ "type": "integer", "format": "int32" });
        for (kind, expected) in [
            ("double", json!({ "type": "number", "format": "double" })),
            ("optional float", json!({ "type": "number", "format": "float" })),
            ("sint32", integer.clone()),
            ("fixed32", json!({ "type": "integer", "format": "uint32", "minimum": 0 })),
            ("int64", json!({ "type": "string", "format": "int64" })),
            ("uint64", json!({ "type": "string", "format": "uint64" })),
            ("bool", json!({ "type": "boolean" })),
            ("string", json!({ "type": "string" })),
            ("bytes", json!({ "type": "string", "contentEncoding": "base64" })),
            ("Color", json!({ "$ref": "#/components/schemas/t.Color" })),
            ("Node", json!({ "$ref": "#/components/schemas/t.Node" })),
            ("repeated int32", json!({ "type": "array", "items": integer })),
            ("map<int64, int32>", json!({ "type": "object", "additionalProperties": integer })),
            (
                "map<string, Node>",
                json!({ "type": "object", "additionalProperties": { "$ref": "#/components/schemas/t.Node" } }),
            ),
            ("google.protobuf.Timestamp", json!({ "type": "string", "format": "date-time" })),
            ("google.protobuf.Int64Value", json!({ "type": ["string", "null"], "format": "int64" })),
            ("google.protobuf.Value", json!({})),
            ("google.protobuf.NullValue", json!({ "type": "null" })),
            ("repeated google.protobuf.Struct", json!({ "type": "array", "items": { "type": "object" } })),
        ] {
            check_field(kind, &expected);
        }
    }

    #[test]
    fn all_that_is_reached_has_a_schema() {
        let found = schemas_of("map<string, Node> nodes = 1; google.protobuf.Any any = 2;");
        assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), ["t.Color", "t.M", "t.Node"]);
        assert_eq!(found.get("t.Color"), Some(&json!({ "type": "string", "enum": ["NONE", "RED"] })));
    }

    #[test]
    fn comments_and_oneofs_are_told() {
        let found =
            schemas_of("// The first.\nint32 a = 1;\noneof o { int32 my_b = 2; // Behind.\n int32 c = 3; }");
        let described = |pointer: &str| found.get("t.M").and_then(|schema| schema.pointer(pointer)?.as_str());
        assert_eq!(described("/description"), Some("What is asked.\nIn two lines."));
        assert_eq!(described("/properties/a/description"), Some("The first."));
        assert_eq!(
            described("/properties/myB/description"),
            Some("Behind.\nAt most one of `myB`, `c` is set.")
        );
        assert_eq!(described("/properties/c/description"), Some("At most one of `myB`, `c` is set."));
    }

    #[test]
    fn a_method_is_an_operation() {
        let source = "syntax = \"proto3\"; package t.v1; import \"google/protobuf/empty.proto\"; message M {} \
             service S { rpc F(M) returns (google.protobuf.Empty); }";
        let schema = Schema::compile("t.proto", source.as_bytes(), &Limits::default()).expect("compiles");
        let method = schema.file().services().next().and_then(|service| service.methods().next()).expect("F");
        let expected = json!({
            "tags": ["t.v1.S"],
            "operationId": "t.v1.S.F",
            "description": "Asks.",
            "requestBody": { "required": true, "content":
                { "application/json": { "schema": { "$ref": "#/components/schemas/t.v1.M" } } } },
            "responses": { "200": { "description": "The answer", "content":
                { "application/json": { "schema": { "type": "object" } } } } },
        });
        assert_eq!(operation("/t.v1.S/F", &method.input(), &method.output(), Some(" Asks.\n")), expected);
    }
}
