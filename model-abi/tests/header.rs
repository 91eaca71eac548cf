//! The C header is the Rust module: compiled by the machine's own compilers and compared, number for number.

#![allow(clippy::expect_used, clippy::panic, reason = "a test says what is wrong by failing where it is")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::mem::{align_of, offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use baton_model_abi::layout::*;
use baton_model_abi::{Datatype, note};
use object::{Object, ObjectSection, ObjectSymbol};

/// What C calls it, as an expression, and what Rust has for it.
fn expected() -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    let mut add = |expression: &str, value: u64| {
        all.insert(expression.to_owned(), value);
    };
    macro_rules! layout {
        ($c:ident $rust:ident: $($field:ident)*) => {
            add(concat!("sizeof(", stringify!($c), ")"), size_of::<$rust>() as u64);
            add(concat!("offsetof(struct { char c; ", stringify!($c), " x; }, x)"), align_of::<$rust>() as u64);
            $(add(
                concat!("offsetof(", stringify!($c), ", ", stringify!($field), ")"),
                offset_of!($rust, $field) as u64,
            );)*
        };
    }
    layout!(baton_api Api: abi_version size features create describe run destroy);
    layout!(baton_text Text: data capacity size);
    layout!(baton_input Input: datatype rank shape data size);
    layout!(baton_output Output: datatype rank shape data capacity size);
    add("BATON_ABI_VERSION", u64::from(ABI_VERSION));
    add("BATON_MAX_RANK", MAX_RANK as u64);
    add("BATON_CONCURRENT", CONCURRENT);
    for (name, status) in [
        ("OK", STATUS_OK),
        ("MORE", STATUS_MORE),
        ("INVALID_INPUT", STATUS_INVALID_INPUT),
        ("FAILED", STATUS_FAILED),
        ("PANIC", STATUS_PANIC),
    ] {
        add(&format!("BATON_{name}"), u64::try_from(status).expect("not negative"));
    }
    for datatype in Datatype::ALL {
        add(&format!("BATON_{datatype}"), u64::from(datatype.number()));
    }
    all
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Compiles with all warnings as errors.
fn compile(compiler: &str, source: &Path, to: &Path, options: &[&str]) {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let output = Command::new(compiler)
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"])
        .args(options)
        .arg("-I")
        .args([&include, Path::new("-o"), to, source])
        .output()
        .unwrap_or_else(|error| panic!("{compiler}: {error}"));
    assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
}

fn has(compiler: &str) -> bool {
    Command::new(compiler).arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn the_header_has_the_numbers_of_the_rust_module() {
    let expected = expected();
    let mut program = String::from("#include \"baton_model.h\"\n#include <stddef.h>\n#include <stdio.h>\n");
    program.push_str("int main(void) {\n");
    for (index, expression) in expected.keys().enumerate() {
        // C++ defines no type inside offsetof, so the alignments' structs stand before.
        let inline = expression.strip_prefix("offsetof(struct ").and_then(|rest| rest.strip_suffix(", x)"));
        let value = match inline {
            Some(body) => {
                writeln!(program, "    struct s{index} {body};").expect("memory");
                format!("offsetof(struct s{index}, x)")
            }
            None => expression.clone(),
        };
        writeln!(program, "    printf(\"{expression}=%llu\\n\", (unsigned long long)({value}));")
            .expect("memory");
    }
    program.push_str("    return 0;\n}\n");

    let folder = folder("numbers");
    let mut compilers = vec![("cc", "c", "-std=c99")];
    compilers
        .extend(["c++", "g++"].into_iter().find(|name| has(name)).map(|name| (name, "cpp", "-std=c++11")));
    for (compiler, extension, standard) in compilers {
        let source = folder.join("numbers").with_extension(extension);
        let binary = folder.join(format!("numbers-{extension}"));
        std::fs::write(&source, &program).expect("written");
        compile(compiler, &source, &binary, &[standard]);
        let output = Command::new(&binary).output().expect("it runs");
        let got: BTreeMap<String, u64> = String::from_utf8(output.stdout)
            .expect("UTF-8")
            .lines()
            .map(|line| line.rsplit_once('=').expect("a pair"))
            .map(|(expression, value)| (expression.to_owned(), value.parse().expect("a number")))
            .collect();
        assert_eq!(got, expected, "{compiler}");
    }
}

/// Every name that the header gives to a number is compared above.
#[test]
fn no_number_of_the_header_is_forgotten() {
    let header = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("include/baton_model.h"))
        .expect("the header");
    let compared = expected();
    let names: Vec<&str> = header
        .split(|char: char| !char.is_ascii_alphanumeric() && char != '_')
        .filter(|word| {
            word.starts_with("BATON_") && !["BATON_MODEL_H", "BATON_MODEL", "BATON_NOTE"].contains(word)
        })
        .collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(compared.contains_key(name), "{name}");
    }
}

#[test]
fn a_model_in_c_has_the_note_and_the_table() {
    // The longest text that fits, and the shortest.
    for build in ["minimal 1.0", "", "0123456789 0123456789 0123456789 0123456789 0123456789 0123"] {
        let model = format!(
            r#"#include "baton_model.h"
            static int32_t create(void **model, baton_text *error) {{ (void)error; *model = 0; return BATON_OK; }}
            static int32_t describe(void *model, baton_text *json) {{ (void)model; json->size = 0; return BATON_OK; }}
            static int32_t run(void *model, const baton_input *inputs, uint32_t input_count, baton_output *outputs,
                               uint32_t output_count, baton_text *error) {{
                (void)model; (void)inputs; (void)input_count; (void)outputs; (void)output_count; (void)error;
                return BATON_OK;
            }}
            static void destroy(void *model) {{ (void)model; }}
            BATON_MODEL("{build}", BATON_CONCURRENT, create, describe, run, destroy);
            "#
        );
        let folder = folder(&format!("model-{}", build.len()));
        let mut compilers = vec![("cc", "c", "-std=c99")];
        compilers.extend(
            ["c++", "g++"].into_iter().find(|name| has(name)).map(|name| (name, "cpp", "-std=c++11")),
        );
        for (compiler, extension, standard) in compilers {
            let source = folder.join("model").with_extension(extension);
            let library = folder.join(format!("model-{extension}.so"));
            std::fs::write(&source, &model).expect("written");
            compile(
                compiler,
                &source,
                &library,
                &[standard, "-O2", "-shared", "-fPIC", "-fvisibility=hidden"],
            );
            check_library(&std::fs::read(&library).expect("built"), build, compiler);
        }
    }
}

#[test]
fn a_text_that_is_too_long_for_the_note_is_no_library() {
    let folder = folder("long");
    let source = folder.join("long.c");
    std::fs::write(&source, format!("#include \"baton_model.h\"\nBATON_NOTE(\"{}\");\n", "a".repeat(60)))
        .expect("written");
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-I"]).args([
        &include,
        Path::new("-o"),
        &folder.join("long.so"),
        &source,
    ]);
    let output = command.output().expect("a compiler");
    assert!(!output.status.success());
}

fn check_library(library: &[u8], build: &str, compiler: &str) {
    let file = object::File::parse(library).expect("an object");
    let section = file.section_by_name(NOTE_SECTION).expect("a note");
    assert_eq!(section.kind(), object::SectionKind::Note, "{compiler}");
    assert_eq!(section.data().expect("its bytes"), bytes(&note::note(build)), "{compiler}: {build:?}");
    let table = file.dynamic_symbols().find(|symbol| symbol.name() == Ok(SYMBOL)).expect("the table");
    assert!(table.is_definition() && table.kind() == object::SymbolKind::Data, "{compiler}");
    assert_eq!(table.size(), size_of::<Api>() as u64, "{compiler}");
}

fn bytes(note: &Note) -> Vec<u8> {
    let numbers =
        |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
    let mut bytes = numbers(&[note.owner_size, note.description_size, note.kind]);
    bytes.extend(note.owner);
    bytes.extend(numbers(&[note.abi_version]));
    bytes.extend(note.build);
    bytes
}
