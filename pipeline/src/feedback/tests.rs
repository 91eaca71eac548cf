//! The join, on files as the runner writes them.

use std::path::Path;

use super::*;

/// A logged row of `iris`, as the runner writes it.
fn line(second: u32, id: &str, row: u64, rows: &str, inputs: &str) -> String {
    versioned(second, id, row, rows, inputs, "1", "")
}

fn versioned(
    second: u32,
    id: &str,
    row: u64,
    rows: &str,
    inputs: &str,
    version: &str,
    masked: &str,
) -> String {
    let id = serde_json::Value::from(id);
    format!(
        r#"{{"time":"2026-11-21T10:00:{second:02}.000Z","model":"iris","version":"{version}","digest":"sha256:{version}","id":{id},"row":{row},"rows":{rows},"inputs":{{{inputs}}},"outputs":{{"label":2}}{masked}}}"#
    )
}

fn one(second: u32, id: &str, a: &str) -> String {
    line(second, id, 0, "1", &format!(r#""a":{a},"b":[1.5,2.0]"#))
}

/// A folder with a log of these files, and these labels.
struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new(files: &[(&str, &[String])], labels: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("iris")).expect("a folder");
        for (name, lines) in files {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(folder.path().join("iris").join(name), text).expect("written");
        }
        std::fs::write(folder.path().join("labels.csv"), labels).expect("written");
        Self { folder }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn join(&self) -> Join {
        Join {
            log: self.path("iris"),
            labels: self.path("labels.csv"),
            on: "id".to_owned(),
            label: None,
            window: Window::default(),
            conflicts: Conflicts::Refuse,
            prefer: Prefer::Refuse,
            append: None,
            out: self.path("next.csv"),
        }
    }

    fn run(&self, change: impl FnOnce(&mut Join)) -> Result<(Report, String), FeedbackError> {
        let mut wanted = self.join();
        change(&mut wanted);
        let report = join(&wanted)?;
        Ok((report, std::fs::read_to_string(self.path("next.csv")).expect("written")))
    }

    fn refusal(&self, change: impl FnOnce(&mut Join)) -> String {
        let error = self.run(change).expect_err("refused").to_string();
        assert!(!self.path("next.csv").exists(), "nothing is written: {error}");
        let left: Vec<_> = std::fs::read_dir(self.folder.path()).expect("a folder").flatten().collect();
        assert!(
            !left.iter().any(|entry| entry.file_name().to_string_lossy().starts_with(".tmp")),
            "{left:?}"
        );
        error
    }
}

const FILE: &str = "2026-11-21T10-1-0.jsonl";

#[test]
fn labelled_rows_become_records_in_the_order_of_time() {
    let case = Case::new(
        &[
            ("2026-11-21T10-1-1.jsonl.part", &[one(1, "x", "1.0"), one(3, "z", "\"q,\\\"r\"")]),
            (FILE, &[one(2, "y", "true"), one(4, "none", "4")]),
        ],
        "id,species\nz,setosa\nx,virginica\ny,\"a, b\"\nlater,setosa\n",
    );
    let (report, text) = case.run(|_| {}).expect("joined");
    assert_eq!(
        text,
        "a,b[0],b[1],species\n1.0,1.5,2.0,virginica\ntrue,1.5,2.0,\"a, b\"\n\"q,\"\"r\",1.5,2.0,setosa\n"
    );
    assert_eq!((report.rows, report.matched, report.unlabeled, report.unmatched_labels), (3, 3, 1, 1));
    assert_eq!(report.to_string(), "3 matched, 1 unlabeled, 1 unmatched labels");
}

#[test]
fn requests_of_one_millisecond_stay_in_their_order() {
    let at = |micros: &str, id: &str, a: &str| one(1, id, a).replace(".000Z", &format!(".000{micros}Z"));
    let case =
        Case::new(&[(FILE, &[at("020", "a", "2"), at("010", "b", "1")])], "id,species\na,two\nb,one\n");
    let (_, text) = case.run(|_| {}).expect("joined");
    assert_eq!(text, "a,b[0],b[1],species\n1,1.5,2.0,one\n2,1.5,2.0,two\n");
}

#[test]
fn the_result_is_the_same_however_the_log_is_cut_and_ordered() {
    let lines: Vec<String> =
        (0..40).map(|number| one(number / 10, &format!("r{number}"), &number.to_string())).collect();
    let labels: String = std::iter::once("id,y\n".to_owned())
        .chain((0..40).rev().map(|number| format!("r{number},{number}\n")))
        .collect();
    let whole = Case::new(&[(FILE, &lines)], &labels).run(|_| {}).expect("joined").1;
    let mut other: Vec<String> = lines.clone();
    other.reverse();
    let (one, two) = other.split_at(13);
    let cut =
        Case::new(&[("2026-11-21T10-9-0.jsonl", one), (FILE, two)], &labels).run(|_| {}).expect("joined").1;
    assert_eq!(whole, cut);
    assert_eq!(whole.lines().count(), 41);
}

#[test]
fn rows_of_a_batch_are_told_by_their_number() {
    let lines: Vec<String> = (0..3).map(|row| line(1, "batch", row, "3", &format!(r#""a":{row}"#))).collect();
    let case = Case::new(&[(FILE, &lines)], "id,row,y\nbatch,2,two\nbatch,0,zero\n");
    let (report, text) = case.run(|_| {}).expect("joined");
    assert_eq!(text, "a,y\n0,zero\n2,two\n");
    assert_eq!(report.unlabeled, 1);

    let case = Case::new(&[(FILE, &lines)], "id,y\nbatch,zero\n");
    let error = case.refusal(|_| {});
    assert!(error.contains("line 2") && error.contains("column \"row\""), "{error}");
    // A file that was answered in pieces may have had more rows than this one.
    let piece = Case::new(&[(FILE, &[line(1, "file", 0, "null", r#""a":1"#)])], "id,y\nfile,zero\n");
    assert!(piece.refusal(|_| {}).contains("column \"row\""));
    let mixed = Case::new(&[(FILE, &lines)], "id,row,y\nbatch,0,zero\nbatch,,one\n");
    assert!(mixed.refusal(|_| {}).contains("line 3"));
}

#[test]
fn contradicting_labels_are_refused_or_the_last_one_counts() {
    let case = Case::new(&[(FILE, &[one(1, "x", "1")])], "id,y\nx,a\nx,a\nx,b\n");
    let error = case.refusal(|_| {});
    assert!(error.contains("line 4") && error.contains("--conflicts last"), "{error}");
    let (report, text) = case.run(|join| join.conflicts = Conflicts::Last).expect("joined");
    assert!(text.ends_with(",b\n"));
    assert_eq!((report.repeated_labels, report.conflicting_labels, report.unmatched_labels), (1, 1, 0));
    // Nobody logged the other one, so nobody is in doubt.
    let case = Case::new(&[(FILE, &[one(1, "x", "1")])], "id,y\nx,a\nz,a\nz,b\n");
    assert_eq!(case.run(|_| {}).expect("joined").0.conflicting_labels, 1);
}

#[test]
fn rows_of_changing_length_are_named() {
    let lines = [line(1, "x", 0, "1", r#""a":[1,2]"#), line(2, "y", 0, "1", r#""a":[1,2,3]"#)];
    let error = Case::new(&[(FILE, &lines)], "id,y\nx,a\ny,b\n").refusal(|_| {});
    assert!(error.contains("row 0 of request \"x\" and row 0 of request \"y\""), "{error}");
    assert!(error.contains("a[2]") && !error.contains("--digest"), "{error}");
}

#[test]
fn rows_without_any_input_are_refused() {
    let row = versioned(1, "x", 0, "1", r#""a":"0123""#, "1", r#","masked":{"a":"hash"}"#);
    let error = Case::new(&[(FILE, &[row])], "id,y\nx,a\n").refusal(|_| {});
    assert!(error.contains("every input is masked"), "{error}");
}

#[test]
fn what_is_no_file_is_written_and_not_replaced() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let case = Case::new(&[(FILE, &[one(1, "x", "1")])], "id,y\nx,a\n");
    let expected = "a,b[0],b[1],y\n1,1.5,2.0,a\n";
    let join_to = |name: &str| {
        let mut wanted = case.join();
        wanted.out = case.path(name);
        join(&wanted)
    };
    let made = std::process::Command::new("mkfifo").arg(case.path("pipe")).status().expect("mkfifo");
    assert!(made.success());
    let pipe = case.path("pipe");
    let reader = std::thread::spawn(move || std::fs::read_to_string(pipe));
    join_to("pipe").expect("joined");
    assert_eq!(reader.join().expect("ended").expect("read"), expected);

    std::fs::write(case.path("old.csv"), "old").expect("written");
    std::fs::set_permissions(case.path("old.csv"), PermissionsExt::from_mode(0o640)).expect("set");
    symlink("old.csv", case.path("link")).expect("a link");
    symlink("new.csv", case.path("dangling")).expect("a link");
    for (name, file) in [("link", "old.csv"), ("dangling", "new.csv")] {
        join_to(name).expect("joined");
        assert!(case.path(name).is_symlink(), "{name}");
        assert_eq!(std::fs::read_to_string(case.path(file)).expect("read"), expected, "{name}");
    }
    let mode = |name: &str| std::fs::metadata(case.path(name)).expect("there").permissions().mode() & 0o777;
    std::fs::write(case.path("plain"), "").expect("written");
    assert_eq!((mode("old.csv"), mode("new.csv")), (0o640, mode("plain")));
    assert!(join_to("iris").is_err(), "a folder");
}

#[test]
fn a_request_that_was_sent_again_is_one_row() {
    let case = Case::new(&[(FILE, &[one(2, "x", "1"), one(1, "x", "1")])], "id,y\nx,a\n");
    let (report, text) = case.run(|_| {}).expect("joined");
    assert_eq!((text.lines().count(), report.repeated_rows, report.differing_rows), (2, 1, 0));
}

#[test]
fn one_id_for_different_inputs_is_refused_unless_it_is_said_which() {
    let lines = [one(2, "x", "2"), one(1, "x", "1"), one(3, "x", "3")];
    let case = Case::new(&[(FILE, &lines)], "id,y\nx,a\n");
    let error = case.refusal(|_| {});
    assert!(error.contains("line 2") && error.contains("--prefer"), "{error}");
    for (prefer, expected) in [(Prefer::First, "1,1.5,2.0,a\n"), (Prefer::Last, "3,1.5,2.0,a\n")] {
        let (report, text) = case.run(|join| join.prefer = prefer).expect("joined");
        assert!(text.ends_with(expected), "{prefer:?}: {text}");
        assert_eq!(report.differing_rows, 2);
    }
    // Nobody labelled it, so nobody is in doubt.
    Case::new(&[(FILE, &[lines.to_vec(), vec![one(1, "y", "1")]].concat())], "id,y\ny,a\n")
        .run(|_| {})
        .expect("joined");
}

#[test]
fn masked_columns_are_left_out_and_told() {
    let masked = r#","masked":{"c":"hash","d":"remove"}"#;
    let row = versioned(1, "x", 0, "1", r#""a":1,"c":"0123""#, "1", masked);
    let (report, text) = Case::new(&[(FILE, &[row])], "id,y\nx,a\n").run(|_| {}).expect("joined");
    assert_eq!(text, "a,y\n1,a\n");
    assert_eq!(report.to_string(), "1 matched, 0 unlabeled; masked and left out: c, d");
}

#[test]
fn other_columns_in_another_version_are_refused_and_one_version_can_be_taken() {
    let lines = [
        versioned(1, "x", 0, "1", r#""a":1,"b":2"#, "1", ""),
        versioned(2, "y", 0, "1", r#""b":2,"a":1"#, "2", ""),
        versioned(3, "z", 0, "1", r#""a":1,"extra":2"#, "3", ""),
    ];
    let case = Case::new(&[(FILE, &lines)], "id,y\nx,one\ny,two\nz,three\n");
    let error = case.refusal(|_| {});
    assert!(error.contains("--digest sha256:1 or --digest sha256:3") && error.contains("extra"), "{error}");
    let until = |join: &mut Join| join.window.until = Some("2026-11-21T10:00:03Z".parse().expect("a time"));
    let (report, text) = case.run(until).expect("joined");
    assert_eq!(text, "a,b,y\n1,2,one\n1,2,two\n", "the order of the columns does not matter");
    assert_eq!(report.outside, 1);
    let (_, text) = case.run(|join| join.window.digest = Some("sha256:3".to_owned())).expect("joined");
    assert_eq!(text, "a,extra,y\n1,2,three\n");
    let since = |join: &mut Join| join.window.since = Some("2026-11-21T10:00:03Z".parse().expect("a time"));
    assert_eq!(case.run(since).expect("joined").0.matched, 1);
}

#[test]
fn new_rows_follow_those_of_an_earlier_dataset_in_its_own_order() {
    let case = Case::new(&[(FILE, &[one(1, "x", "1")])], "id,y\nx,a\n");
    let earlier = case.path("earlier.csv");
    std::fs::write(&earlier, "y,b[1],a,b[0]\nold,2,1,\"0\n\"\n").expect("written");
    let append = |join: &mut Join| join.append = Some(earlier.clone());
    let (report, text) = case.run(append).expect("joined");
    assert_eq!(text, "y,b[1],a,b[0]\nold,2,1,\"0\n\"\na,2.0,1,1.5\n");
    assert_eq!((report.rows, report.appended_to), (2, 1));

    std::fs::remove_file(case.path("next.csv")).expect("removed");
    for (header, expected) in [
        ("y,b[1],a", "it lacks [b[0]]"),
        ("y,b[1],a,b[0],more", "[more] are only there"),
        ("y,b[1],a,b[0],a", "other columns"),
        ("y,b[1],a,b[0]\n1,2", "CSV error: record 1"),
    ] {
        std::fs::write(&earlier, format!("{header}\n")).expect("written");
        let error = case.refusal(append);
        assert!(error.contains(expected), "{header}: {error}");
    }
}

#[test]
fn what_is_no_log_is_counted_and_what_is_cut_is_left() {
    let long = "x".repeat(5 << 20);
    let lines = [
        one(1, "x", "1"),
        "{}".to_owned(),
        "\u{0}".to_owned(),
        long,
        one(2, "y", "{\"base64\":\"/w==\"}"),
        one(3, "z", "null"),
    ];
    let case = Case::new(&[(FILE, &lines)], "id,y\nx,a\ny,b\nz,c\n");
    let torn = case.path("iris/2026-11-21T10-1-1.jsonl.part");
    std::fs::write(torn, one(4, "w", "1")).expect("written");
    let (report, text) = case.run(|_| {}).expect("joined");
    assert_eq!(text, "a,b[0],b[1],y\n1,1.5,2.0,a\n,1.5,2.0,c\n");
    assert_eq!((report.unreadable_lines, report.unusable_rows), (3, 1));
}

#[test]
fn files_that_make_no_sense_are_refused_with_the_place() {
    for (labels, change, expected) in [
        ("who,y\nx,a\n", None, "there is no column \"id\"; there are who, y"),
        ("id,y,z\nx,a,b\n", None, "--label"),
        ("id,y\nx\n", None, "record 1 (line: 2"),
        ("id,y\n,a\n", None, "line 2: the column \"id\" is empty"),
        ("id,row,y\nx,first,a\n", None, "line 2: \"first\" is no row's number"),
        ("id,row,y\nx,-1,a\n", None, "is no row's number"),
        ("id,y,y\nx,a,b\n", Some("y"), "given twice"),
        ("id,y\nx,a\n", Some("id"), "cannot be the label too"),
        ("id,a\nx,1\n", None, "has the name of an input"),
        ("id,y\nx,\nunknown,b\n", None, "no logged row has a label"),
        ("", None, "there is no column \"id\""),
    ] {
        let case = Case::new(&[(FILE, &[one(1, "x", "1")])], labels);
        let error = case.refusal(|join| join.label = change.map(str::to_owned));
        assert!(error.contains(expected), "{labels:?}: {error}");
    }
    let case = Case::new(&[], "id,y\nx,a\n");
    assert!(case.refusal(|_| {}).contains("holds no request log"));
    assert!(
        case.refusal(|join| join.log = Path::new("/nowhere").to_owned()).contains("cannot read /nowhere")
    );
    std::fs::write(case.path("labels.csv"), b"id,y\nx,\xff\n").expect("written");
    assert!(case.refusal(|_| {}).contains("UTF-8"));
}

#[test]
fn a_file_with_a_byte_order_mark_and_spaces_in_its_header_is_read() {
    let case = Case::new(&[(FILE, &[one(1, "x", "1")])], "\u{feff}id, y\nx,a\n");
    assert_eq!(case.run(|_| {}).expect("joined").1.lines().next(), Some("a,b[0],b[1],y"));
}
