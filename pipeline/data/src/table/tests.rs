//! What is read, and what is said of files that are not.

use proptest::prelude::*;

use super::*;
use crate::sniff::sniff;

fn table(name: &str, text: &str, policy: &Policy) -> Result<(Table, Vec<Finding>), Vec<Finding>> {
    let sniffed = sniff(name, text.as_bytes(), &policy.limits).map_err(|finding| vec![finding])?;
    read(&sniffed, policy)
}

fn rows(name: &str, text: &str) -> Vec<Vec<String>> {
    let (table, _) = table(name, text, &Policy::default()).expect(text);
    let row = |row| table.columns.iter().map(|column| column.cell(row).to_owned()).collect();
    (0..table.rows()).map(row).collect()
}

fn check_refused(name: &str, text: &str, policy: &str, code: Code, part: &str) {
    let policy = Policy::parse(policy).expect("a policy");
    let findings = table(name, text, &policy).expect_err(text);
    let found = findings.iter().find(|finding| finding.code == code);
    assert!(found.is_some_and(|finding| finding.text.contains(part)), "{text:?}: {findings:?}");
}

#[test]
fn csv_is_read_as_rfc_4180_says() {
    assert_eq!(rows("a.csv", "a,b\n1,2\n3,4"), [["1", "2"], ["3", "4"]]);
    assert_eq!(rows("a.csv", "a,b\r\n1,2\r\n"), [["1", "2"]]);
    assert_eq!(rows("a.csv", "a,b\r1,2\r\r3,4"), [["1", "2"], ["3", "4"]]);
    assert_eq!(rows("a.csv", "\n\na,b\n\n1,\"x, \"\"y\"\"\n z\"\n"), [["1", "x, \"y\"\n z"]]);
    assert_eq!(rows("a.csv", "a,b\n\"\",5\" pipe\n"), [["", "5\" pipe"]]);
    assert_eq!(rows("a.tsv", "a\tb\nx,y\t2\n"), [["x,y", "2"]]);
    assert_eq!(
        rows("a.jsonl", "{\"a\":1.0,\"b\":\"x\"}\n\n{\"b\":null,\"c\":true}\n"),
        [["1.0", "x", ""], ["", "", "true"]]
    );
}

#[test]
fn lines_are_those_of_the_file() {
    let (table, _) = table("a.csv", "a,b\n\n1,\"x\ny\"\n3,4\n", &Policy::default()).expect("a table");
    assert_eq!((table.line(0), table.line(1)), (3, 5));
}

#[test]
fn malformed_files_are_refused_with_the_place() {
    let cases = [
        ("a,b\n1,2\n3\n4,5,6\n", "", Code::RaggedRows, "row 2 (line 3) has 1 cells, the header has 2"),
        ("a,b\n1,\"2\n3,4\n", "", Code::BadQuotes, "line 2: a quoted cell"),
        ("a,b\n1,\"2\"x\n", "", Code::BadQuotes, "line 2: text after"),
        ("a,a\n1,2\n", "", Code::HeaderDuplicate, "columns 1 and 2"),
        (",a\n0,2\n", "", Code::HeaderEmpty, "column 1"),
        ("5.1,3.5\n4.9,3.0\n", "", Code::HeaderMissing, "nothing but numbers"),
        ("a,b\n", "", Code::NoRows, "no row"),
        ("a,b\n1,2\n", "limits = { min_rows = 2 }", Code::TooFewRows, "1 rows"),
        ("a,b\n1,2\n3,4\n", "limits = { max_rows = 1 }", Code::TooManyRows, "1 rows"),
        ("a,b\n1,2\n3,4\n", "limits = { max_cells = 3 }", Code::TooManyCells, "3 cells"),
        ("a,b,c\n1,2,3\n", "limits = { max_columns = 2 }", Code::TooManyColumns, "3 columns"),
        ("a,b\n1,2345\n", "limits = { max_cell_bytes = 3 }", Code::CellTooLarge, "line 2, column b"),
    ];
    for (text, policy, code, part) in cases {
        check_refused("a.csv", text, policy, code, part);
    }
    for (text, code, part) in [
        ("{\"a\":1}\n{\"a\":\n", Code::BadJson, "line 2"),
        ("{\"a\":1}\n[1]\n", Code::BadJson, "line 2"),
        ("{\"a\":1,\"a\":2}\n", Code::BadJson, "member 2 is there twice"),
        ("{\"a\":{\"b\":1}}\n", Code::Nested, "line 1"),
        ("{\"a\":1}\n{\"a\":\"x\\u0000\"}\n", Code::NulBytes, "line 2: member 1"),
        ("{\"b\":1,\"a\\u0000\":1}\n", Code::NulBytes, "line 1: member 2"),
        ("{\"a\":\"\\ud800\"}\n", Code::BadJson, "half of a surrogate pair"),
        ("{\"\\ud800\":1}\n", Code::BadJson, "line 1"),
        ("{}\n", Code::HeaderEmpty, "no members"),
        ("{\"a\":NaN}\n{\"a\":1}\n", Code::BadJson, "line 1"),
    ] {
        check_refused("a.jsonl", text, "", code, part);
    }
    let wide: Vec<String> = (0..100_001).map(|at| format!("\"{at}\":1")).collect();
    check_refused("a.jsonl", &format!("{{{}}}\n", wide.join(",")), "", Code::BadJson, "100000 members");
    check_refused(
        "a.jsonl",
        &format!("{{{}}}\n", wide[..2000].join(",")),
        "",
        Code::TooManyColumns,
        "2000 columns",
    );
    // The header that pandas writes for columns without names is none of data.
    assert_eq!(rows("a.csv", "0,1,2\n5.1,3.5,1.4\n").len(), 1);
}

#[test]
fn cells_that_harm_others_are_told() {
    let text = "a,b,c\n =cmd|' /C calc'!A0,-5,x\n@sum,-1e3,\u{1b}[2J\n-,+7,y\n";
    let (_, findings) = table("a.csv", text, &Policy::default()).expect("a table");
    let codes: Vec<(Code, u64)> = findings.iter().map(|finding| (finding.code, finding.count)).collect();
    assert_eq!(codes, [(Code::Formula, 2), (Code::ControlCharacters, 1)]);
    let text = format!("=A1,b\n{}1,=cmd()\n", "1,2\n".repeat(20));
    let (_, findings) = table("a.csv", &text, &Policy::default()).expect("a table");
    let found: Vec<(Code, u64)> = findings.iter().map(|finding| (finding.code, finding.count)).collect();
    assert_eq!(found, [(Code::Formula, 0), (Code::Formula, 1)], "a name, and a cell among numbers");
}

#[test]
fn a_header_that_may_be_data_is_told() {
    for (text, warned) in [
        ("5.1,3.5,Iris-setosa\n4.9,3.0,Iris-setosa\n", true),
        ("1\n2\n3\n", true),
        ("2026-01-01,true\n2026-01-02,false\n", true),
        ("0,1\n2,3\n", false),
        ("a,b\n2,3\n", false),
        ("2019,b\nx,3\n", false),
    ] {
        let (_, findings) = table("a.csv", text, &Policy::default()).expect(text);
        assert_eq!(findings.iter().any(|finding| finding.code == Code::HeaderLikeData), warned, "{text}");
    }
}

#[test]
fn rows_have_one_hash_whatever_the_columns_order() {
    let hashes = |text: &str| {
        let (table, _) = table("a", text, &Policy::default()).expect("a table");
        table.row_hashes(&table.names())
    };
    assert_eq!(hashes("a,b\n1,2\n3,4\n"), hashes("b,a\n2,1\n4, 3\n"));
    assert_eq!(hashes("a,b\n1,2\n"), hashes("{\"a\":1,\"b\":2}\n"));
    assert_ne!(hashes("a,b\n12,3\n"), hashes("a,b\n1,23\n"));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), named in 0..5_usize) {
        let name = ["a", "a.csv", "a.tsv", "a.jsonl", "a.csv.gz"][named];
        if let Ok(sniffed) = sniff(name, &bytes, &Limits::default()) {
            let _ = read(&sniffed, &Policy::default());
        }
    }

    #[test]
    fn no_text_panics(text in "[a-c0-3,;\"\n\r\t{}:\\[\\]=.é-]{0,120}") {
        let _ = table("a", &text, &Policy::default());
    }

    /// What the csv crate writes is read as it was.
    #[test]
    fn what_is_written_is_read(cells in proptest::collection::vec(("[ -~\n\r\"é,]{1,8}", "[ -~\n\r\"é,]{1,8}"), 1..20)) {
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        writer.write_record(["one", "two"]).expect("memory");
        for (one, two) in &cells {
            writer.write_record([one, two]).expect("memory");
        }
        let text = String::from_utf8(writer.into_inner().expect("memory")).expect("UTF-8");
        let read: Vec<(String, String)> =
            rows("a.csv", &text).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
        prop_assert_eq!(read, cells);
    }
}
