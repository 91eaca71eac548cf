//! What is told apart: signatures, encodings, names.

use std::io::Write as _;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A ZIP archive with stored entries: local header, content, directory.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let at = file.len() as u32;
        let size = (content.len() as u32).to_le_bytes();
        let length = (name.len() as u16).to_le_bytes();
        file.extend(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        file.extend(size);
        file.extend(size);
        file.extend(length);
        file.extend([0, 0]);
        file.extend(name.bytes());
        file.extend(*content);
        directory.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        directory.extend(size);
        directory.extend(size);
        directory.extend(length);
        directory.extend([0; 12]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.bytes());
    }
    file.extend(directory);
    file.extend(b"PK\x05\x06");
    file
}

fn check_refused(name: &str, bytes: &[u8], code: Code) {
    match sniff(name, bytes, &Limits::default()) {
        Ok(sniffed) => panic!("{name} {:?} passed as {:?}", String::from_utf8_lossy(bytes), sniffed.content),
        Err(finding) => {
            assert_eq!(finding.code, code, "{name} {:?}: {}", String::from_utf8_lossy(bytes), finding.text);
        }
    }
}

#[test]
fn danger_is_refused_whatever_the_name() {
    // pickle.dumps({"a": [1, 2]}, protocol=N), and one that calls os.system.
    let pickles: &[&[u8]] = &[
        b"(dp0\nVa\np1\n(lp2\nI1\naI2\nas.",
        b"}q\x00X\x01\x00\x00\x00aq\x01]q\x02(K\x01K\x02es.",
        b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01]q\x02(K\x01K\x02es.",
        b"\x80\x04\x95\x11\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94]\x94(K\x01K\x02es.",
        b"\x80\x05K\x01.",
        b"cos\nsystem\n(S'echo hi'\ntR.",
        b"cos\nsystem\n(S'echo hi'\ntR.\na,b\n1,2\n",
        b"c__builtin__\neval\n(Vprint(1)\ntR.",
        // Numbers as Python's readers take them, and a call that has run before the file stops to be a pickle.
        b"I 5\n0cos\nsystem\n(S'echo hi'\ntR.\nrow0\nrow1\n",
        b"I0x10\n0cos\nsystem\n(S'echo hi'\ntR.\nrow0\n",
        b"L 5L\n0cos\nsystem\n(S'echo hi'\ntR.\nrow0\n",
        b"F1_0.0\n0cos\nsystem\n(S'echo hi'\ntR.\nrow0\n",
        b"NI01\n00cos\nsystem\n(Vecho hi\np 7\ntR.\nrow0\n",
        b"cos\nsystem\n(S'echo hi'\ntR\nrow0\n",
        b"(cos\nsystem\nS'echo hi'\no.\nrow0\n",
        b"(S'echo hi'\nios\nsystem\n.\nrow0\n",
        b"cos\nsystem\np0\n0g0\n(S'echo hi'\ntR\n",
        b"U\x01\xc2\x8c\x02osU\x06system\x93(S'echo hi'\ntR.",
    ];
    for name in ["data.csv", "data", "data.pkl", "a.jsonl"] {
        for bytes in pickles {
            check_refused(name, bytes, Code::Pickle);
            check_refused(&format!("{name}.gz"), &gzip(bytes), Code::Pickle);
        }
        check_refused(name, &zip(&[("archive/data.pkl", b"x")]), Code::Pickle);
        check_refused(name, &zip(&[("a.txt", b"hello"), ("weights", b"\x80\x02}q\x00.")]), Code::Pickle);
        check_refused(name, b"\x93NUMPY\x01\0v\0{'descr': '|O', 'shape': (3,)}\n", Code::Pickle);
        for program in [
            &b"\x7fELF\x02\x01"[..],
            b"#!/bin/sh\necho a,b\n",
            b"\xef\xbb\xbf#!/bin/sh\n",
            b"\n \r\n\x0b#!/usr/bin/env python3\nimport os\n",
            b"@echo off\r\ndel C:\\\r\n",
            b"\xef\xbb\xbf\r\n  @ECHO OFF\r\n",
            b" <?PHP system('x');\n",
            b"\0asm\x01",
            b"\xcf\xfa\xed\xfe",
            b"MZ\x90\0\x03",
        ] {
            check_refused(name, program, Code::Executable);
        }
    }
}

#[test]
fn tables_that_look_like_something_else_pass() {
    for (name, text) in [
        ("a.csv", "MZ,ORC\n1,2\n"),
        ("a.csv", "PAR1,x\n1,2\n"),
        ("a.csv", "ORCHARD,x\n1,2\n"),
        ("a.csv", "ID3,x\n1,2\n"),
        ("a.csv", "class,x\n1,2\n.5,3\n"),
        ("a.csv", "cost\n1\n.5\n"),
        ("a.csv", "city\nBonn\n2Rooms\n"),
        ("a.csv", "city\nBonn\nNantes\n"),
        ("a.csv", "Value,x\n1,2\n"),
        ("a.csv", "c\na\n.5\n"),
        ("a.csv", "BMW,x\n1,2\n"),
        ("a.csv", "echo off,#!\n1,2\n"),
        ("a.csv", "I1,x\n1,2\n"),
        ("a.tsv", "a\tb\n1\t2\n"),
        ("a.csv", "a;b\n1;2\n"),
        ("a", "\u{feff}a,b\n1,2\n"),
        ("a.jsonl", "{\"a\": 1}\n{\"a\": 2}\n"),
        ("a.json", "{\"a\": 1}\n{\"a\": 2}\n"),
        ("a.csv", "{a},b\n1,2\n"),
        ("upload", "x\n1\n"),
    ] {
        let sniffed = sniff(name, text.as_bytes(), &Limits::default());
        assert!(sniffed.is_ok(), "{name} {text:?}: {:?}", sniffed.map_err(|finding| finding.text).err());
    }
    // As R's make.names writes them.
    for name in [
        "total.price",
        "blood.pressure",
        "beta.1",
        "lab.result",
        "table.no",
        "dob.year",
        "obs.id",
        "best.score",
        "b.mean",
        "R.squared",
        "load.kg",
        "dose.mg",
        "bust.size",
    ] {
        let text = format!("{name},qty\n1,2\n");
        assert!(sniff("a.csv", text.as_bytes(), &Limits::default()).is_ok(), "{name}");
    }
}

#[test]
fn formats_are_told_with_what_to_do() {
    for (name, bytes, code) in [
        ("a.parquet", &b"PAR1\x15\x04\x15\x10"[..], Code::FormatUnsupported),
        ("a.csv", b"PAR1\x15\x04\x15\x10", Code::FormatUnsupported),
        ("a.csv", b"ARROW1\0\0", Code::FormatUnsupported),
        ("a.csv", b"ORC\x08\x03", Code::FormatUnsupported),
        ("a.h5", b"\x89HDF\r\n\x1a\n", Code::FormatUnsupported),
        ("a.npy", b"\x93NUMPY\x01\0v\0{'descr': '<f8'}", Code::FormatUnsupported),
        ("a.csv", b"\x28\xb5\x2f\xfd\x04", Code::FormatUnsupported),
        ("a.csv", b"BZh91AY&SY", Code::FormatUnsupported),
        ("a.json", b"[{\"a\": 1}]", Code::FormatUnsupported),
        ("a.json", b"{\n  \"a\": 1\n}", Code::FormatUnsupported),
        ("a.csv", b"%PDF-1.7", Code::WrongFormat),
        ("a.csv", b"\x89PNG\r\n\x1a\n", Code::WrongFormat),
        ("a.csv", b"<!DOCTYPE html><html></html>", Code::WrongFormat),
        ("a.csv", b"{\"a\": 1}\n", Code::WrongFormat),
        ("a.parquet", b"a,b\n1,2\n", Code::WrongFormat),
        ("a.pkl", b"a,b\n1,2\n", Code::WrongFormat),
        ("a.tsv", b"a,b\n1,2\n", Code::WrongFormat),
        ("a.csv.gz", b"a,b\n1,2\n", Code::WrongFormat),
        ("a.csv", b"\xff\xfea\0,\0b\0\n\0", Code::NotUtf8),
        ("a.csv", b"a\0,\0b\0\n\x001\0,\x002\0", Code::NotUtf8),
        ("a.csv", b"name\nRen\xe9\n", Code::NotUtf8),
        ("a.csv", b"a,b\n1,\0\n", Code::NulBytes),
        ("a.csv", b"", Code::EmptyFile),
        ("a.csv", b" \n\n", Code::EmptyFile),
    ] {
        check_refused(name, bytes, code);
    }
    check_refused("a.csv", &gzip(b"a,b\n"), Code::WrongFormat);
    check_refused("a.csv.gz", &gzip(b""), Code::EmptyFile);
    check_refused("a.csv.gz", &gzip(&gzip(b"a,b\n1,2\n")), Code::FormatUnsupported);
    check_refused("a.xlsx", &zip(&[("[Content_Types].xml", b"<x/>")]), Code::FormatUnsupported);
    check_refused("a.zip", &zip(&[("a.csv", b"a,b\n")]), Code::FormatUnsupported);
}

#[test]
fn packed_files_are_unpacked_within_limits() {
    let table = gzip(b"a,b\n1,2\n");
    let sniffed = sniff("a.csv.gz", &table, &Limits::default()).expect("a table");
    assert!(sniffed.content.gzip && sniffed.text == "a,b\n1,2\n");
    let two = [table.clone(), gzip(b"3,4\n")].concat();
    assert_eq!(sniff("a.csv.gz", &two, &Limits::default()).expect("members").text, "a,b\n1,2\n3,4\n");
    check_refused("a.csv.gz", &table[..table.len() - 6], Code::Damaged);
    let mut wrong_sum = table.clone();
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    check_refused("a.csv.gz", &wrong_sum, Code::Damaged);
    // What fits is no bomb, however well it packs.
    let zeros = format!("a,b\n{}", "0,0\n".repeat(10_000_000));
    assert!(sniff("a.csv.gz", &gzip(zeros.as_bytes()), &Limits::default()).is_ok());
    let small = Limits { max_bytes: 16 << 20, ..Limits::default() };
    let refused = sniff("a.csv.gz", &gzip(&vec![b'a'; (16 << 20) + 1]), &small).expect_err("too large");
    assert_eq!(refused.code, Code::ArchiveBomb);
    let limits = Limits { max_bytes: 1000, ..Limits::default() };
    let noise: String = (0..1000).map(|row: u64| format!("{},", row.wrapping_mul(2_654_435_761))).collect();
    let code = |bytes: &[u8], name: &str| sniff(name, bytes, &limits).expect_err("too large").code;
    assert_eq!(code(noise.as_bytes(), "a.csv"), Code::TooLarge);
}
