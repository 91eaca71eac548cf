//! Files as people write them, against messages of every sort; and whatever is written is read back.

use std::collections::HashMap;

use ::csv::{ReaderBuilder, StringRecord};
use proptest::collection::{hash_map, vec};
use proptest::option;
use proptest::prelude::*;
use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::json;

use super::super::compile::Schema;
use super::*;
use crate::config::Limits;

const SCALARS: &str = "double d = 1; float f = 2; int32 i32 = 3; int64 i64 = 4; uint32 u32 = 5; uint64 u64 = 6; \
    sint32 s32 = 7; sint64 s64 = 8; fixed32 x32 = 9; fixed64 x64 = 10; sfixed32 sx32 = 11; sfixed64 sx64 = 12; \
    bool b = 13; string s = 14; bytes raw = 15; Color color = 16;";

/// Message `M` with these fields, beside some others.
fn message(fields: &str) -> MessageDescriptor {
    let source = format!(
        "syntax = \"proto3\"; package t; import \"google/protobuf/wrappers.proto\"; \
         import \"google/protobuf/timestamp.proto\"; import \"google/protobuf/struct.proto\"; \
         enum Color {{ NONE = 0; RED = 1; BLUE = -2; }} \
         message Person {{ int32 age = 1; optional string nick_name = 2; }} \
         message Node {{ int32 value = 1; Node next = 2; }} \
         message M {{ {fields} }} \
         service S {{ rpc F(M) returns (M); }}"
    );
    let schema = Schema::compile("t.proto", source.as_bytes(), &Limits::default()).expect(fields);
    schema.pool().get_message_by_name("t.M").expect("M")
}

/// Reads a file as messages.
fn read(message: &MessageDescriptor, file: &str) -> Result<Vec<DynamicMessage>, CsvError> {
    let mut file = ReaderBuilder::new().from_reader(file.as_bytes());
    let reader = RecordReader::new(message, file.headers()?, &|field| field.name() == "ignored")?;
    let mut messages = Vec::new();
    for record in file.into_records() {
        let mut bytes = b"before".to_vec();
        reader.read(&record?, &mut bytes).inspect_err(|_| assert_eq!(bytes, b"before"))?;
        let bytes = bytes.strip_prefix(b"before").expect("appended");
        messages.push(DynamicMessage::decode(message.clone(), bytes).expect("protobuf"));
    }
    Ok(messages)
}

/// The file's messages in protobuf's text form, joined by `|`.
fn check_read(fields: &str, file: &str, expected: &str) {
    let messages = read(&message(fields), file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    let texts: Vec<String> = messages.iter().map(ToString::to_string).collect();
    assert_eq!(texts.join("|"), expected, "{file:?}");
}

fn check_refused(fields: &str, file: &str, line: u64, parts: &[&str]) {
    let error = read(&message(fields), file).expect_err(file);
    assert_eq!(error.line, Some(line), "{error}");
    for part in parts {
        assert!(error.text.contains(part), "{file:?}: {error} lacks {part:?}");
    }
}

#[test]
fn cells_are_read_by_their_types() {
    for (kind, cell, expected) in [
        ("double", "-1.5e10", "-15000000000.0"),
        ("double", " 3 ", "3.0"),
        ("double", "0.1", "0.1"),
        ("double", "NaN", "NaN"),
        ("double", "-INF", "-inf"),
        ("double", "infinity", "inf"),
        ("float", "3.4028235e38", "340282346638528859811704183484516925440.0"),
        ("float", "1e-60", ""),
        ("int32", "-2147483648", "-2147483648"),
        ("int32", "+7", "7"),
        ("int64", "-9223372036854775808", "-9223372036854775808"),
        ("int64", "9007199254740993", "9007199254740993"),
        ("uint32", "4294967295", "4294967295"),
        ("uint64", "18446744073709551615", "18446744073709551615"),
        ("sint32", "-2147483648", "-2147483648"),
        ("sint32", "2147483647", "2147483647"),
        ("sint64", "-9223372036854775808", "-9223372036854775808"),
        ("sint64", "-1", "-1"),
        ("fixed32", "4294967295", "4294967295"),
        ("fixed64", "18446744073709551615", "18446744073709551615"),
        ("sfixed32", "-2147483648", "-2147483648"),
        ("sfixed64", "-9223372036854775808", "-9223372036854775808"),
        ("bool", "TRUE", "true"),
        ("bool", "1", "true"),
        ("bool", "False", ""),
        ("bool", " 0", ""),
        ("string", " a ", "\" a \""),
        ("string", "", ""),
        ("string", "\"a,\"\"b\"\"\nc\"", "\"a,\\\"b\\\"\\nc\""),
        ("string", "Zürich", "\"Z\\303\\274rich\""),
        ("bytes", "aGk=", "\"hi\""),
        ("bytes", "aGk", "\"hi\""),
        ("bytes", "_-8=", "\"\\377\\357\""),
        ("bytes", "", ""),
        ("Color", "RED", "RED"),
        ("Color", "-2", "BLUE"),
        ("Color", "7", "7"),
    ] {
        let expected = if expected.is_empty() { String::new() } else { format!("x:{expected}") };
        check_read(&format!("{kind} x = 1; string end = 2;"), &format!("x,end\n{cell},\n"), &expected);
    }
}

#[test]
fn cells_that_are_no_values_are_named() {
    for (kind, cell, part) in [
        ("double", "", "line 2, column x: an empty cell; the field is not optional"),
        ("double", " ", "an empty cell"),
        ("double", "1,5", "3 cells, the header has 2"),
        ("double", "0x10", "line 2, column x: \"0x10\" is not a number (double)"),
        ("double", "1e400", "\"1e400\" does not fit double"),
        ("float", "3.5e38", "does not fit float"),
        ("float", "-1e39", "does not fit float"),
        ("int32", "2147483648", "line 2, column x: \"2147483648\" does not fit int32"),
        ("int32", "1.0", "\"1.0\" is not a number (int32)"),
        ("int32", "-", "is not a number"),
        ("int64", "9223372036854775808", "does not fit int64"),
        ("int64", "0x1", "is not a number (int64)"),
        ("uint32", "-1", "\"-1\" does not fit uint32"),
        ("uint64", "18446744073709551616", "does not fit uint64"),
        ("sint32", "-2147483649", "does not fit sint32"),
        ("fixed64", "-1", "does not fit fixed64"),
        ("sfixed32", "4294967295", "does not fit sfixed32"),
        ("bool", "yes", "\"yes\" is not true, false, 1 or 0"),
        ("bool", "", "an empty cell"),
        ("bytes", "a", "\"a\" is not base64"),
        ("Color", "red", "\"red\" is not a value of Color (BLUE, NONE, RED) or its number"),
        ("Color", "", "an empty cell"),
        ("Color", "3000000000", "does not fit Color"),
    ] {
        let fields = format!("{kind} x = 1; string end = 2;");
        check_refused(&fields, &format!("x,end\n{cell},\n"), 2, &[part]);
    }
    check_refused("int32 x = 1;", &format!("x\n1\n{}\n", "z".repeat(1000)), 3, &["zzz\"... is not"]);
}

#[test]
fn columns_are_matched_by_name() {
    check_read("int32 my_age = 1; int32 b = 2;", "b,my_age\n2,1\n", "my_age:1,b:2");
    check_read("int32 my_age = 1;", "\u{feff} myAge \r\n1\r\n2\r\n", "my_age:1|my_age:2");
    check_read("int32 x = 1 [json_name = \"Age (years)\"];", "Age (years)\n1\n", "x:1");
    check_read(
        "Person person = 1;",
        "person.age,person.nickName\n1,\n2,x\n",
        "person{age:1}|person{age:2,nick_name:\"x\"}",
    );
    check_read("repeated float p = 1;", "p[1],p[0]\n1.5,2\n", "p:[2.0,1.5]");
    check_read("repeated string p = 1;", "p[0],p[1]\n,a\n", "p:[\"\",\"a\"]");
    check_read(
        "map<string, double> m = 1; int32 x = 2;",
        "x,m[a.b]]\n1,2\n",
        "m:[{key:\"a.b]\",value:2.0}],x:1",
    );
    check_read("map<int64, Color> m = 1;", "m[-1]\nRED\n", "m:[{key:-1,value:RED}]");
    check_read("map<bool, string> m = 1;", "m[true]\n \n", "m:[{key:true,value:\" \"}]");
    check_read("repeated int64 p = 1; map<string, int32> m = 2; int32 x = 3;", "x\n1\n", "x:1");
    check_read(
        "google.protobuf.Timestamp t = 1; Node n = 2; repeated Person q = 3; int32 x = 4;",
        "x\n1\n",
        "x:1",
    );
    check_read("int32 ignored = 1; int32 x = 2;", "x\n1\n", "x:1");
    check_read("google.protobuf.Timestamp ignored = 1; int32 x = 2;", "ignored,ignored.a,x\nzzz,,1\n", "x:1");
}

#[test]
fn long_lists_and_messages_have_long_lengths() {
    let cells = |of: &dyn Fn(usize) -> String| (0..784).map(of).collect::<Vec<String>>().join(",");
    let file = format!("{}\n{}\n", cells(&|index| format!("p[{index}]")), cells(&|index| index.to_string()));
    let expected = format!("p:[{}]", cells(&|index| index.to_string()));
    check_read("repeated int32 p = 1;", &file, &expected);
    let text = "x".repeat(100_000);
    let file = format!("person.age,person.nick_name\n1,{text}\n");
    check_read("Person person = 1;", &file, &format!("person{{age:1,nick_name:\"{text}\"}}"));
}

#[test]
fn an_empty_cell_is_an_absent_field() {
    check_read("optional int32 x = 1; string e = 2;", "x,e\n,\n0,\n", "|x:0");
    check_read("optional string x = 1; string e = 2;", "x,e\n,a\nb,\n", "e:\"a\"|x:\"b\"");
    check_read("google.protobuf.DoubleValue x = 1; string e = 2;", "x,e\n,\n0,\n2.5,\n", "|x{}|x{value:2.5}");
    check_read("google.protobuf.StringValue x = 1; int32 e = 2;", "e,x\n1,\n1,a\n", "e:1|x{value:\"a\"},e:1");
    check_read("optional int32 x = 1; google.protobuf.BoolValue y = 2; int32 e = 3;", "e\n1\n", "e:1");
    check_read("optional Person p = 1; int32 e = 2;", "e,p.age\n1,\n1,2\n", "e:1|p{age:2},e:1");
    check_read(
        "oneof o { int32 a = 1; string b = 2; } int32 e = 3;",
        "e,a,b\n1,,\n1,0,\n1,,x\n",
        "e:1|a:0,e:1|b:\"x\",e:1",
    );
    check_read(
        "oneof o { int32 a = 1; Person p = 2; } int32 e = 3;",
        "e,p.nick_name,p.age\n1,,5\n",
        "p{age:5},e:1",
    );
    check_read(
        "oneof o { int32 a = 1; google.protobuf.Int64Value w = 2; } int32 e = 3;",
        "w,e\n9,1\n,1\n",
        "w{value:9},e:1|e:1",
    );
    let oneof = "oneof o { int32 a = 1; Person p = 2; }";
    check_refused(oneof, "a,p.age\n,1\n1,\n1,2\n", 4, &["columns a and p.age", "one of them at most"]);
    check_refused(oneof, "a,p.age,p.nickName\n,,x\n", 2, &["column p.age: an empty cell"]);
    check_refused("Person p = 1; string e = 2;", "p.age,e\n,\n", 2, &["column p.age: an empty cell"]);
    check_refused("repeated int32 p = 1;", "p[0],p[1]\n1,\n", 2, &["column p[1]: an empty cell"]);
}

#[test]
fn a_data_frame_has_an_element_a_record() {
    let frame = message("repeated int64 age = 1; repeated string name = 2;");
    let reader =
        RecordReader::new(&frame, &StringRecord::from(vec!["name", "age"]), &|_| false).expect("fits");
    let mut bytes = Vec::new();
    for record in [["a", "1"], ["", "-2"]] {
        reader.read(&StringRecord::from(record.to_vec()), &mut bytes).expect("reads");
    }
    let message = DynamicMessage::decode(frame.clone(), bytes.as_slice()).expect("protobuf");
    assert_eq!(message.to_string(), "age:[1,-2],name:[\"a\",\"\"]");

    let writer = ColumnWriter::new(&frame).expect("small").expect("a frame");
    assert_eq!(writer.header(), vec!["age", "name"]);
    assert_eq!(writer.rows(&message), Ok(2));
    let mut record = StringRecord::new();
    writer.write(&message, 1, &mut record);
    assert_eq!(record, vec!["-2", ""]);
    assert!(
        ColumnWriter::new(&self::message("repeated int32 a = 1; int32 b = 2;")).expect("small").is_none()
    );

    let uneven = DynamicMessage::decode(frame.clone(), [8, 1, 8, 1, 18, 0].as_slice()).expect("protobuf");
    assert!(writer.rows(&uneven).expect_err("uneven").text.contains("column name: 1 elements"));
    let half = DynamicMessage::decode(frame, [8, 1, 8, 1].as_slice()).expect("protobuf");
    assert_eq!(writer.rows(&half), Ok(2));
    writer.write(&half, 1, &mut record);
    assert_eq!(record, vec!["1", ""]);

    let two = "repeated int64 a = 1; repeated int64 b = 2;";
    check_refused(two, "a\n1\n", 1, &["column \"b\" is missing"]);
    check_refused(two, "a,a,b\n1,1,1\n", 1, &["column \"a\" is given twice"]);
    check_refused(two, "a,a[0],b\n1,1,1\n", 1, &["unknown column \"a[0]\""]);
    check_read("repeated int64 a = 1; int32 ignored = 2;", "a\n1\n", "a:[1]");
    check_read("repeated int64 a = 1; repeated int32 ignored = 2;", "a[0],ignored\n1,2\n", "a:[1]");
}

#[test]
fn headers_that_do_not_fit_are_told_in_full() {
    check_refused(
        "int32 a = 1; int32 b = 2; optional int32 c = 3; Person p = 4; repeated int32 q = 5; map<string, int32> m = 6;",
        "b,x,b\n1,2,3\n",
        1,
        &[
            "line 1, the header: unknown column \"x\"",
            "column \"b\" is given twice",
            "column \"a\" is missing",
            "column \"p.age\" is missing",
            "the columns of t.M are a, b, c, p.age, p.nick_name, q[0]..., m[...]",
        ],
    );
    for (fields, header, part) in [
        ("int32 a_b = 1;", "a_b,aB", "\"aB\" is given twice"),
        ("int32 a = 1;", "", "column \"a\" is missing"),
        ("int32 a = 1;", "a,", "unknown column \"\""),
        ("int32 a = 1;", "A", "unknown column \"A\""),
        ("int32 a = 1;", "a[0]", "unknown column \"a[0]\""),
        ("int32 a = 1;", "a.b", "unknown column \"a.b\""),
        ("Person p = 1;", "p", "unknown column \"p\""),
        ("Person p = 1;", "p.age,p.x", "unknown column \"p.x\""),
        ("repeated int32 a = 1;", "a[0],a[2]", "column \"a[1]\" is missing"),
        ("repeated int32 a = 1;", "a[1]", "column \"a[0]\" is missing"),
        ("repeated int32 a = 1;", "a[0],a[00]", "\"a[00]\" is given twice"),
        ("repeated int32 a = 1;", "a[+0]", "unknown column \"a[+0]\""),
        ("repeated int32 a = 1;", "a[]", "unknown column \"a[]\""),
        ("repeated int32 a = 1;", "a[99999999999999999999999]", "unknown column"),
        ("repeated int32 a = 1; int32 b = 2;", "a,b", "unknown column \"a\""),
        ("map<int32, int32> a = 1;", "a[1],a[01]", "\"a[01]\" is given twice"),
        ("map<int32, int32> a = 1;", "a[x]", "unknown column \"a[x]\""),
        ("map<string, Person> a = 1;", "a[x]", "unknown column \"a[x]\""),
        ("Node n = 1;", "n.value", "unknown column \"n.value\""),
        ("google.protobuf.Timestamp n = 1;", "n", "unknown column \"n\"; t.M has no columns"),
        ("google.protobuf.Value n = 1;", "n", "unknown column \"n\""),
        ("repeated Person n = 1;", "n[0].age", "unknown column \"n[0].age\""),
    ] {
        check_refused(fields, &format!("{header}\n"), 1, &[part]);
    }
    let columns: String = (0..1000).map(|index| format!("x{index},")).collect();
    let error = read(&message("int32 a = 1;"), &columns).expect_err("unknown columns");
    assert!(error.text.len() < 2000, "{error}");
}

#[test]
fn faults_of_the_file_are_told_with_the_line() {
    check_refused(
        "int32 a = 1; int32 b = 2;",
        "a,b\n1,2\n1\n",
        3,
        &["line 3, the record has 1 cells, the header has 2"],
    );
    check_refused("string a = 1; int32 b = 2;", "a,b\n\"x\ny\",2\nz,q\n", 4, &["line 4, column b"]);
    let mut file = ReaderBuilder::new().from_reader(b"a\nx\n\xff\n".as_slice());
    let error: CsvError = file.records().nth(1).expect("a record").expect_err("no UTF-8").into();
    assert_eq!((error.line, error.text.as_str()), (Some(3), "line 3, the text is not UTF-8"));
}

#[test]
fn contracts_of_a_few_lines_do_not_make_millions_of_columns() {
    let chain: String =
        (0..40).map(|index| format!("message L{index} {{ L{0} a = 1; L{0} b = 2; }} ", index + 1)).collect();
    let message = message(&format!("{chain} message L40 {{}} L0 top = 1;"));
    let header = StringRecord::from(vec!["x"]);
    for error in [
        RecordReader::new(&message, &header, &|_| false).expect_err("too many"),
        RecordWriter::new(&message, None).expect_err("too many"),
    ] {
        assert!(error.text.contains("too many fields"), "{error}");
    }
}

#[test]
fn messages_are_written_as_records() {
    let fields = format!(
        "{SCALARS} optional int32 o = 17; google.protobuf.FloatValue w = 18; Person p = 19; \
        repeated int32 q = 20; map<int32, double> m = 21; google.protobuf.Timestamp t = 22; Node n = 23;"
    );
    let message = message(&fields);
    let parse = |json: serde_json::Value| DynamicMessage::deserialize(message.clone(), json).expect("JSON");
    let first = parse(json!({
        "d": 1e300, "f": 0.1, "i64": "9007199254740993", "b": true, "s": "a,b", "raw": "aGk=", "color": "BLUE", "w": 2,
        "p": { "age": 3 }, "q": [1, 2], "m": { "10": 0.5, "-9": "Infinity" }, "t": "1970-01-01T00:00:01Z",
        "n": { "value": 1 },
    }));
    let writer = RecordWriter::new(&message, Some(&first)).expect("small");
    let header: Vec<String> = writer.header().iter().map(str::to_owned).collect();
    assert_eq!(
        header.join(" "),
        "d f i32 i64 u32 u64 s32 s64 x32 x64 sx32 sx64 b s raw color o w p.age p.nick_name q[0] q[1] m[-9] m[10]"
    );
    let check_written = |message: &DynamicMessage, expected: &str| {
        let mut record = StringRecord::from(vec!["stale"]);
        writer.write(message, &mut record).expect("writes");
        assert_eq!(record.iter().collect::<Vec<&str>>().join("|"), expected);
    };
    check_written(
        &first,
        "1e300|0.1|0|9007199254740993|0|0|0|0|0|0|0|0|true|a,b|aGk=|BLUE||2.0|3||1|2|inf|0.5",
    );
    check_written(
        &parse(json!({ "f": "NaN", "color": 77, "o": 0, "q": [3, 4], "m": { "10": "-Infinity", "-9": 1 } })),
        "0.0|NaN|0|0|0|0|0|0|0|0|0|0|false|||77|0||||3|4|1.0|-inf",
    );
    for (json, part) in [
        (json!({ "q": [1] }), "column q: 1 elements, the first row has 2"),
        (json!({ "q": [1, 2] }), "column m: 0 entries, the first row has 2"),
        (json!({ "q": [1, 2], "m": { "10": 1, "11": 1 } }), "column m[-9]: not in this row"),
    ] {
        let error = writer.write(&parse(json), &mut StringRecord::new()).expect_err(part);
        assert!(error.text.contains(part), "{error}");
    }
    assert_eq!(RecordWriter::new(&message, None).expect("small").header().len(), 20);
}

/// A record's message, written again, is the same record under the same header; and read again, the same bytes.
fn check_round_trip(message: &MessageDescriptor, header: &StringRecord, record: &StringRecord) {
    let reader = RecordReader::new(message, header, &|_| false).expect("the header fits");
    let mut bytes = Vec::new();
    reader.read(record, &mut bytes).expect("reads");
    let decoded = DynamicMessage::decode(message.clone(), bytes.as_slice()).expect("protobuf");
    let writer = RecordWriter::new(message, Some(&decoded)).expect("small");
    let mut written = StringRecord::new();
    writer.write(&decoded, &mut written).expect("writes");
    let cells = |header: &StringRecord, record: &StringRecord| -> HashMap<String, String> {
        header.iter().map(str::to_owned).zip(record.iter().map(str::to_owned)).collect()
    };
    assert_eq!(cells(&writer.header(), &written), cells(header, record));
    let again = RecordReader::new(message, &writer.header(), &|_| false).expect("the written header fits");
    let mut bytes_again = Vec::new();
    again.read(&written, &mut bytes_again).expect("reads what was written");
    assert_eq!(
        decoded.encode_to_vec(),
        DynamicMessage::decode(message.clone(), bytes_again.as_slice()).expect("protobuf").encode_to_vec()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_can_be_written(
        floats in (any::<f64>(), any::<f32>()),
        signed in (any::<i32>(), any::<i64>(), any::<i32>(), any::<i64>(), any::<i32>(), any::<i64>()),
        unsigned in (any::<u32>(), any::<u64>(), any::<u32>(), any::<u64>()),
        texts in (any::<String>(), option::of("[a-z]{1,5}"), any::<bool>()),
        optional in (option::of(any::<i64>()), option::of(any::<f64>())),
        list in vec(any::<f32>(), 0..40),
        map in hash_map("[^ ]{0,9}", any::<i64>(), 0..2),
    ) {
        let fields = format!("{SCALARS} optional int64 o = 17; google.protobuf.DoubleValue w = 18; Person p = 19; \
            repeated float q = 20; map<string, int64> m = 21;");
        let message = message(&fields);
        let text = |value: Option<String>| value.unwrap_or_default();
        let float = |value: f64| ryu::Buffer::new().format(value).to_owned();
        let single = |value: f32| ryu::Buffer::new().format(value).to_owned();
        let mut cells: Vec<(String, String)> = [
            ("d", float(floats.0)), ("f", single(floats.1)),
            ("i32", signed.0.to_string()), ("i64", signed.1.to_string()),
            ("u32", unsigned.0.to_string()), ("u64", unsigned.1.to_string()),
            ("s32", signed.2.to_string()), ("s64", signed.3.to_string()),
            ("x32", unsigned.2.to_string()), ("x64", unsigned.3.to_string()),
            ("sx32", signed.4.to_string()), ("sx64", signed.5.to_string()),
            ("b", texts.2.to_string()), ("s", texts.0), ("raw", "AAEC/w==".to_owned()), ("color", "RED".to_owned()),
            ("o", text(optional.0.map(|value| value.to_string()))), ("w", text(optional.1.map(float))),
            ("p.age", signed.0.to_string()), ("p.nick_name", text(texts.1)),
        ].map(|(name, cell)| (name.to_owned(), cell)).to_vec();
        cells.extend(list.iter().enumerate().map(|(index, value)| (format!("q[{index}]"), single(*value))));
        cells.extend(map.iter().map(|(key, value)| (format!("m[{key}]"), value.to_string())));
        cells.reverse();
        let header: StringRecord = cells.iter().map(|(name, _)| name.as_str()).collect();
        let record: StringRecord = cells.iter().map(|(_, cell)| cell.as_str()).collect();
        check_round_trip(&message, &header, &record);
    }

    #[test]
    fn no_header_and_no_record_panics(header in vec(any::<String>(), 0..4), cells in vec(any::<String>(), 0..4)) {
        let message = message("optional int32 a = 1; repeated bytes b = 2; map<string, bool> c = 3;");
        let header: StringRecord = header.into_iter().chain(["b[0]".to_owned()]).collect();
        let read = RecordReader::new(&message, &header, &|_| true)
            .and_then(|reader| reader.read(&cells.into_iter().collect(), &mut Vec::new()));
        prop_assert!(read.is_ok() || read.is_err_and(|error| !error.text.is_empty()));
    }
}
