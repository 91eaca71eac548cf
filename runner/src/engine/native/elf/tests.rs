//! Libraries that the machine's own compiler and linker make, whole, patched, cut and mutated.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

const MODEL: &str = r#"
#include "baton_model.h"
#include <stdio.h>
static __thread int calls;
static const char *const names[] = {"a", "b"};
static int32_t create(void **model, baton_text *error) { calls++; *model = 0; return puts(names[calls & 1]); }
static int32_t describe(void *model, baton_text *json) { return calls; }
static int32_t run(void *model, const baton_input *inputs, uint32_t input_count, baton_output *outputs,
                   uint32_t output_count, baton_text *error) { return 0; }
static void destroy(void *model) {}
static __attribute__((constructor)) void begin(void) { calls = 1; }
"#;
const EXPORT: &str = "BATON_MODEL(\"sample 1.0\", 0, create, describe, run, destroy);";

/// A linked file. `source` is C, or C++ for the compiler `c++`.
fn link(compiler: &str, source: &str, arguments: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("model.c"), folder.path().join("model.so"));
    fs::write(&input, source).unwrap();
    let made = Command::new(compiler)
        .args(["-x", if compiler == "c++" { "c++" } else { "c" }])
        .arg(&input)
        .args([
            "-w",
            "-O1",
            "-fPIC",
            "-I",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../model-abi/include"),
            "-o",
        ])
        .arg(&output)
        .args(arguments)
        .output()
        .expect("the compiler is there");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::read(output).unwrap()
}

fn library(source: &str, arguments: &[&str]) -> Vec<u8> {
    link("cc", source, &[&["-shared"], arguments].concat())
}

static GOOD: LazyLock<Vec<u8>> =
    LazyLock::new(|| library(&[MODEL, EXPORT].concat(), &["-Wl,--hash-style=gnu"]));

/// Like it, with the note and `text` for the rest.
fn with_note(text: &str) -> Vec<u8> {
    library(&[MODEL, "BATON_NOTE(\"sample 1.0\");", text].concat(), &[])
}

fn patched(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = GOOD.clone();
    for (offset, value) in changes {
        bytes[*offset] = *value;
    }
    bytes
}

/// Offset of the program header of a kind.
fn program_header(kind: elf::ProgramType) -> usize {
    let header = file_header(&GOOD).unwrap();
    let headers = program_headers(&GOOD, header).unwrap();
    let index = headers.iter().position(|header| header.p_type.get(LE) == kind).unwrap();
    64 + index * 56
}

/// Offset of the value of an entry of the dynamic section.
fn dynamic_value(tag: elf::DynamicTag) -> usize {
    let header = program_header(elf::PT_DYNAMIC);
    let offset = u64::from_le_bytes(GOOD[header + 8..header + 16].try_into().unwrap());
    let offset = usize::try_from(offset).unwrap();
    let tags = GOOD[offset..].chunks_exact(16);
    offset + 16 * tags.take_while(|entry| entry[..8] != tag.0.to_le_bytes()).count() + 8
}

fn check_good(bytes: &[u8]) {
    let library = inspect(bytes).unwrap();
    assert_eq!(library.build, "sample 1.0");
}

fn check_refused(bytes: &[u8], code: Code, words: &str) {
    let error = inspect(bytes).unwrap_err();
    assert_eq!(error.code(), code, "{}", error.text());
    assert!(error.text().contains(words), "{:?} is not in {:?}", words, error.text());
}

#[test]
fn libraries_of_all_kinds_are_accepted() {
    check_good(&GOOD);
    let kinds = [
        &["-s"][..],
        &["-g"],
        &["-Wl,-z,now"],
        &["-Wl,-z,lazy"],
        &["-Wl,--hash-style=gnu"],
        &["-Wl,--hash-style=sysv"],
        &["-Wl,--hash-style=both"],
        &["-Wl,-z,noseparate-code"],
        &["-Wl,-z,max-page-size=0x200000"],
        &["-Wl,-z,pack-relative-relocs"],
        &["-Wl,-soname,libmodel.so.1", "-Wl,-rpath,$ORIGIN"],
    ];
    for arguments in kinds {
        check_good(&library(&[MODEL, EXPORT].concat(), arguments));
    }
}

#[test]
fn a_library_in_c_plus_plus_is_accepted() {
    if !Command::new("c++")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        return;
    }
    let throwing = "#include <iostream>\nstruct Speaks { Speaks() { std::cout << 1; } ~Speaks() {} } speaks;\n\
                    inline int counter() { static int count; if (count > 9) throw 1; return ++count; }\n\
                    int use() { return counter(); }\n";
    check_good(&link("c++", &[throwing, MODEL, EXPORT].concat(), &["-shared"]));
}

#[test]
fn the_machines_own_libraries_have_only_no_note() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let paths =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).filter(|path| path.contains(".so"));
    let paths: std::collections::BTreeSet<_> = paths.collect();
    for path in &paths {
        check_refused(&fs::read(path).unwrap(), Code::DylibAbi, "no Baton note");
    }
}

#[test]
fn every_cut_is_refused() {
    for bytes in [GOOD.clone(), library(&[MODEL, EXPORT].concat(), &["-s"])] {
        for percent in 0..100 {
            let cut = &bytes[..bytes.len() * percent / 100];
            check_refused(cut, Code::DylibFormat, if cut.is_empty() { "no ELF" } else { "truncated" });
        }
        check_refused(&bytes[..bytes.len() - 1], Code::DylibFormat, "truncated: its section headers");
    }
}

#[test]
fn other_files_are_refused() {
    for bytes in [&b""[..], b"\x7fEL", b"#!/bin/sh\nexit 0\n", b"\x08\x07\x12\x00"] {
        check_refused(bytes, Code::DylibFormat, "no ELF shared library");
    }
    let program = "int main(void) { return 0; }";
    check_refused(&link("cc", program, &["-pie"]), Code::DylibFormat, "executable");
    check_refused(&link("cc", program, &["-no-pie"]), Code::DylibFormat, "executable");
    check_refused(&link("cc", MODEL, &["-c"]), Code::DylibFormat, "not linked");
}

#[test]
fn libraries_for_other_machines_are_refused() {
    let [this, other] = match cfg!(target_arch = "aarch64") {
        true => ["aarch64", "x86_64"],
        false => ["x86_64", "aarch64"],
    };
    let machine = if cfg!(target_arch = "aarch64") { elf::EM_X86_64 } else { elf::EM_AARCH64 };
    let words = format!("made for {other}, this server runs on {this}");
    check_refused(&patched(&[(18, machine.0.to_le_bytes()[0])]), Code::DylibFormat, &words);
    check_refused(&patched(&[(4, 1)]), Code::DylibFormat, "64-bit");
    check_refused(&patched(&[(5, 2)]), Code::DylibFormat, "little-endian");
    check_refused(&patched(&[(7, 9)]), Code::DylibFormat, "another system than Linux");
    check_refused(&patched(&[(16, 2)]), Code::DylibFormat, "an executable");
    check_refused(&patched(&[(16, 4)]), Code::DylibFormat, "no shared library");
    check_refused(&patched(&[(6, 9)]), Code::DylibFormat, "version of the format");
    check_good(&patched(&[(7, 3)]));
}

#[test]
fn damaged_tables_are_refused() {
    let load = program_header(elf::PT_LOAD);
    let note = program_header(elf::PT_NOTE);
    let stack = program_header(elf::PT_GNU_STACK);
    let dynamic = program_header(elf::PT_DYNAMIC);
    let cases: &[(&str, usize, u8, &str)] = &[
        ("no program headers", 56, 0, "program headers"),
        ("size of program headers", 54, 55, "wrong size"),
        ("program headers far away", 38, 1, "truncated: its program headers"),
        ("section headers far away", 46, 1, "truncated: its section headers"),
        ("a segment beyond the file", load + 8 + 4, 1, "truncated: its segments"),
        ("a segment with much memory", load + 40 + 5, 1, "4 GiB"),
        ("a segment over the next", load + 40 + 2, 1, "overlap"),
        ("alignment no power of two", load + 48, 1, "aligned"),
        ("a segment off its alignment", load + 16, 8, "aligned"),
        ("a segment that cannot be read", load + 4, 0, "cannot be read"),
        ("writable code", load + 4, 7, "writable and executable"),
        ("executable stack", stack + 4, 7, "executable stack"),
        ("no dynamic section", dynamic, 0, "no dynamic section"),
        ("a note elsewhere in memory", note + 16, 1, "not where it is mapped"),
        ("names elsewhere", dynamic_value(elf::DT_STRTAB) + 4, 1, "names are not inside"),
        ("size of a symbol", dynamic_value(elf::DT_SYMENT), 16, "wrong size or kind"),
        ("symbols elsewhere", dynamic_value(elf::DT_SYMTAB) + 4, 1, "symbols are not inside"),
        ("hashes elsewhere", dynamic_value(elf::DT_GNU_HASH) + 4, 1, "hashes leads outside"),
        ("versions elsewhere", dynamic_value(elf::DT_VERSYM) + 4, 1, "versions of symbols are not"),
        ("needed versions elsewhere", dynamic_value(elf::DT_VERNEED) + 4, 1, "versions of symbols lead"),
        ("relocations elsewhere", dynamic_value(elf::DT_RELA) + 4, 1, "relocations are not inside"),
        ("relative relocations", dynamic_value(elf::DT_RELACOUNT) + 1, 1, "fewer relative relocations"),
        ("constructors elsewhere", dynamic_value(elf::DT_INIT_ARRAY) + 4, 1, "functions to call are not"),
        ("constructors that are none", dynamic_value(elf::DT_INIT_ARRAY) - 8, 0x19 + 1, "twice"),
        ("a needed name elsewhere", dynamic_value(elf::DT_NEEDED) + 4, 1, "is no text"),
    ];
    for (name, offset, value, words) in cases {
        let error = inspect(&patched(&[(*offset, *value)])).expect_err(name);
        assert_eq!(error.code(), Code::DylibFormat, "{name}");
        assert!(error.text().contains(words), "{name}: {}", error.text());
    }
}

#[test]
fn tables_and_their_sizes_come_together() {
    for tag in
        [elf::DT_JMPREL, elf::DT_PLTREL, elf::DT_RELA, elf::DT_RELASZ, elf::DT_INIT_ARRAY, elf::DT_STRSZ]
    {
        // The tag becomes one that nobody knows.
        let bytes = patched(&[(dynamic_value(tag) - 3, 0x5a)]);
        assert_eq!(inspect(&bytes).unwrap_err().code(), Code::DylibFormat, "{tag:?}");
    }
}

#[test]
fn code_that_has_to_be_changed_is_refused() {
    let tag = dynamic_value(elf::DT_RELACOUNT) - 8;
    let bytes = patched(&[(tag, elf::DT_TEXTREL.0 as u8), (tag + 1, 0), (tag + 2, 0), (tag + 3, 0)]);
    check_refused(&bytes, Code::DylibFormat, "compile it with -fPIC");
}

#[test]
fn relocations_stay_inside() {
    let table =
        |tag| usize::from(u16::from_le_bytes([GOOD[dynamic_value(tag)], GOOD[dynamic_value(tag) + 1]]));
    // The first segment of a library begins both the file and its memory, so that an address is an offset here.
    let last = table(elf::DT_RELA) + table(elf::DT_RELASZ) - 24;
    let symbol = patched(&[(last + 14, 1)]);
    check_refused(&symbol, Code::DylibFormat, "which does not exist");
    let place = patched(&[(last + 4, 1)]);
    check_refused(&place, Code::DylibFormat, "writes to where it must not");
    let read_only = patched(&[(last, 0), (last + 1, 0), (last + 2, 0)]);
    check_refused(&read_only, Code::DylibFormat, "writes to where it must not");
    let kind = patched(&[(last + 8, 99)]);
    check_refused(&kind, Code::DylibFormat, "of kind 99");
    let first = table(elf::DT_RELA);
    let constructor = patched(&[(first + 16 + 4, 1)]);
    check_refused(&constructor, Code::DylibFormat, "not in its code");
    let negative = patched(&[(first + 16 + 7, 0x80)]);
    check_refused(&negative, Code::DylibFormat, "not in its code");
}

#[test]
fn the_note_is_there_once_and_of_this_version() {
    let table = "const baton_api baton_model = {1, sizeof(baton_api), 0, create, describe, run, destroy};";
    check_good(&with_note(table));
    check_refused(&library(&[MODEL, table].concat(), &[]), Code::DylibAbi, "no Baton note");
    let twice = with_note(&["BATON_NOTE(\"other\");", table].concat());
    check_refused(&twice, Code::DylibAbi, "2 Baton notes, one is wanted; see docs/native-models.md");
    let name = GOOD.windows(12).position(|bytes| bytes == b"Baton\0\0\0\x01\0\0\0").unwrap();
    let version = patched(&[(name + 8, 2)]);
    check_refused(
        &version,
        Code::DylibAbi,
        "built for version 2 of the interface, this server has 1; see docs",
    );
    let short = "__asm__(\".pushsection .note.baton,\\\"a\\\",@note\\n.balign 4\\n.long 6\\n.long 4\\n.long 1\\n\
                 .asciz \\\"Baton\\\"\\n.balign 4\\n.long 1\\n.popsection\");";
    let short = library(&[MODEL, short, table].concat(), &[]);
    check_refused(&short, Code::DylibAbi, "has 4 bytes, 64 are wanted");
    let owner = patched(&[(name, b'b')]);
    check_refused(&owner, Code::DylibAbi, "no Baton note");
    let build = patched(&[(name + 12, b'\n'), (name + 13, 0xff)]);
    assert_eq!(inspect(&build).unwrap().build, "\u{fffd}\u{fffd}mple 1.0");
}

#[test]
fn the_table_is_exported_data() {
    let no_symbol = "the library does not export baton_model";
    let cases = [
        ("", no_symbol),
        ("int other = 1;", no_symbol),
        ("extern const baton_api baton_model; const void *used = &baton_model;", "from elsewhere"),
        ("int call(void) __asm__(\"baton_model\"); int call(void) { return 0; }", "as data"),
        (
            "__asm__(\".data\\n.globl baton_model\\n.type baton_model, @object\\n.size baton_model, 8\\n\
          baton_model: .quad 1\");",
            "has 8 bytes, not 48",
        ),
    ];
    for (text, words) in cases {
        check_refused(&with_note(text), Code::DylibSymbol, words);
    }
    // In the symbol: 4 has its kind and binding, 5 its visibility, 6 and 7 its section, 8 to 15 its address.
    let symbol = exported();
    check_refused(&patched(&[(symbol + 6, 0xf1), (symbol + 7, 0xff)]), Code::DylibSymbol, "a number");
    check_refused(&patched(&[(symbol + 5, 2)]), Code::DylibSymbol, "hidden");
    check_refused(&patched(&[(symbol + 4, 1)]), Code::DylibSymbol, "hidden");
    check_refused(&patched(&[(symbol + 12, 1)]), Code::DylibSymbol, "outside of the library");
    check_good(&patched(&[(symbol + 4, 0x21)]));
}

/// Offset of the table's symbol.
fn exported() -> usize {
    let header = file_header(&GOOD).unwrap();
    let image = Image::new(&GOOD, program_headers(&GOOD, header).unwrap()).unwrap();
    let dynamic = Dynamic::new(&image).unwrap();
    let symbols = Symbols::new(&image, &dynamic, &dynamic.needed().unwrap()).unwrap();
    let is_table = |symbol: &&symbols::Symbol| {
        dynamic.bytes_at(symbol.st_name.get(LE).into()) == Some(layout::SYMBOL.as_bytes())
    };
    let symbol: *const _ = symbols.all.iter().find(is_table).unwrap();
    symbol as usize - GOOD.as_ptr() as usize
}

fn mutations(range: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((range, any::<u8>()), 1..33)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn mutants_never_panic(changes in mutations(0..GOOD.len())) {
        let _ = inspect(&patched(&changes));
    }

    #[test]
    fn mutants_of_the_beginning_never_panic(changes in mutations(0..GOOD.len().min(8 << 10))) {
        let _ = inspect(&patched(&changes));
    }

    #[test]
    fn mutants_of_headers_never_panic(changes in mutations(4..64 + 56 * 10)) {
        let _ = inspect(&patched(&changes));
    }

    #[test]
    fn mutants_of_the_dynamic_section_never_panic(changes in mutations(0..29 * 16)) {
        let start = dynamic_value(elf::DT_NEEDED) - 8;
        let changes: Vec<_> = changes.into_iter().map(|(offset, value)| (start + offset, value)).collect();
        let _ = inspect(&patched(&changes));
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = inspect(&[&GOOD[..16], &bytes].concat());
        let _ = inspect(&bytes);
    }
}
