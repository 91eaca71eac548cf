//! What a file is, by its content, against what its name says.
//!
//! Nothing is parsed here that could be hostile beyond counting and inflating within limits. The order of the tests is
//! that of danger: pickles and programs first, then formats with a signature, then text.

mod gzip;
mod pickle;
mod zip;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::finding::{Code, Finding, shown};
use crate::policy::Limits;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Csv,
    JsonLines,
}

/// What is known about a file that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub format: Format,
    /// Between cells; none for JSON lines.
    pub delimiter: Option<char>,
    pub gzip: bool,
    /// Did it begin with a UTF-8 byte order mark?
    pub byte_order_mark: bool,
    /// Bytes of text after unpacking, without the mark.
    pub text_bytes: u64,
}

/// A file that can be read as text.
#[derive(Debug)]
pub struct Sniffed<'a> {
    pub content: Content,
    /// Without a byte order mark; the file's own bytes unless it was packed.
    pub text: Cow<'a, str>,
    pub warnings: Vec<Finding>,
}

/// Looks at a file. `name` is what it is called: its ending says what the sender takes it for.
///
/// # Errors
/// Why it is not read, in a finding.
pub fn sniff<'a>(name: &str, bytes: &'a [u8], limits: &Limits) -> Result<Sniffed<'a>, Finding> {
    if bytes.len() as u64 > limits.max_bytes {
        return Err(Finding::new(
            Code::TooLarge,
            format!("the file has {} bytes, max_bytes is {}", bytes.len(), limits.max_bytes),
        ));
    }
    let lower = name.to_ascii_lowercase();
    let named_gzip = lower.ends_with(".gz") || lower.ends_with(".gzip");
    let is_gzip = bytes.starts_with(&[0x1f, 0x8b]);
    if bytes.is_empty() {
        return Err(Finding::new(Code::EmptyFile, "the file has no bytes"));
    }
    let content: Cow<'a, [u8]> = match is_gzip {
        true => gzip::unpack(bytes, limits)?.into(),
        false => bytes.into(),
    };
    if content.is_empty() {
        return Err(Finding::new(Code::EmptyFile, "there is nothing in the compressed file"));
    }
    if let Some(refusal) = refused_content(&content, is_gzip) {
        return Err(refusal);
    }
    if named_gzip != is_gzip {
        let (says, is) = if named_gzip { ("gzip", "not compressed") } else { ("not compressed", "gzip") };
        return Err(wrong(name, says, is));
    }
    let stem = lower.strip_suffix(".gz").or(lower.strip_suffix(".gzip")).unwrap_or(&lower);
    let (text, byte_order_mark) = match content {
        Cow::Borrowed(bytes) => {
            let (text, marked) = text(bytes)?;
            (Cow::Borrowed(text), marked)
        }
        Cow::Owned(bytes) => {
            let (text, marked) = text(&bytes)?;
            (Cow::Owned(text.to_owned()), marked)
        }
    };
    if text.trim().is_empty() {
        return Err(Finding::new(Code::EmptyFile, "there is nothing in the file but white space"));
    }
    let text_bytes = text.len() as u64;
    let (format, delimiter, warnings) = text_format(name, stem, &text)?;
    let content = Content { format, delimiter, gzip: is_gzip, byte_order_mark, text_bytes };
    Ok(Sniffed { content, text, warnings })
}

fn wrong(name: &str, says: &str, is: &str) -> Finding {
    Finding::new(
        Code::WrongFormat,
        format!("the name {:?} says {says}, the content is {is}; give the file its right name", shown(name)),
    )
}

/// Signatures of programs, and what they are.
const PROGRAMS: &[(&[u8], &str)] = &[
    (b"\x7fELF", "a Linux program or library (ELF)"),
    (b"\xfe\xed\xfa\xce", "a macOS program (Mach-O)"),
    (b"\xfe\xed\xfa\xcf", "a macOS program (Mach-O)"),
    (b"\xce\xfa\xed\xfe", "a macOS program (Mach-O)"),
    (b"\xcf\xfa\xed\xfe", "a macOS program (Mach-O)"),
    (b"\xca\xfe\xba\xbe", "a macOS program or a Java class"),
    (b"\0asm", "a WebAssembly module"),
    (b"dex\n03", "an Android program"),
    (b"!<arch>\n", "an archive of object files"),
];

/// What scripts begin with, after blanks and in any case. Only what says so itself: a language is not guessed.
const SCRIPTS: &[(&[u8], &str)] =
    &[(b"#!", "a script"), (b"@echo off", "a batch file"), (b"<?php", "a PHP script")];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const AS_TEXT: &str =
    "write the rows as CSV or JSON lines (in pandas: frame.to_csv(\"data.csv\", index=False))";
const UNPACK: &str = "unpack it, and send the one file with the rows (gzip is read: data.csv.gz)";

/// Signatures of formats that are not read: signature, name, what to do.
const UNSUPPORTED: &[(&[u8], &str, &str)] = &[
    (b"PAR1", "Parquet", AS_TEXT),
    (b"PARE", "encrypted Parquet", AS_TEXT),
    (b"ARROW1", "Arrow", AS_TEXT),
    (b"\xff\xff\xff\xff", "an Arrow stream", AS_TEXT),
    (b"FEA1", "Feather", AS_TEXT),
    (b"ORC", "ORC", AS_TEXT),
    (b"Obj\x01", "Avro", AS_TEXT),
    (b"\x89HDF\r\n\x1a\n", "HDF5", AS_TEXT),
    (b"SQLite format 3\0", "an SQLite database", AS_TEXT),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", AS_TEXT),
    (b"MATLAB 5.0", "MATLAB", AS_TEXT),
    (b"\x93NUMPY", "a NumPy array", AS_TEXT),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"\xfd7zXZ\0", "xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "Zstandard", UNPACK),
    (b"\x04\x22\x4d\x18", "LZ4", UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (b"MSCF\0\0\0\0", "a cabinet archive", UNPACK),
];

/// Signatures of what is no data at all.
const NO_DATA: &[(&[u8], &str)] = &[
    (b"%PDF-", "a PDF document"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"RIFF", "a RIFF file (WebP, WAV or AVI)"),
    (b"OggS", "an Ogg file"),
    (b"ID3", "an MP3 file"),
    (b"fLaC", "a FLAC file"),
    (b"{\\rtf", "an RTF document"),
    (b"-----BEGIN ", "a PEM file (a key or a certificate)"),
];

/// What the first bytes give away, if it is anything that is not read.
fn refused_content(bytes: &[u8], packed: bool) -> Option<Finding> {
    let inside = if packed { " inside of gzip" } else { "" };
    let pickle = |what: &str| {
        Finding::new(
            Code::Pickle,
            format!("{what}{inside}; loading it would run code that the sender chose; {AS_TEXT}"),
        )
    };
    if let Some(what) = pickle::found(bytes) {
        return Some(pickle(what));
    }
    let program = PROGRAMS.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, what)| *what);
    let program = program.or_else(|| is_windows_program(bytes).then_some("a Windows program (PE)"));
    if let Some(what) = program.or_else(|| script(bytes)) {
        return Some(Finding::new(Code::Executable, format!("the content is {what}{inside}, no data")));
    }
    if bytes.starts_with(b"PK\x03\x04")
        || bytes.starts_with(b"PK\x05\x06")
        || bytes.starts_with(b"PK\x07\x08")
    {
        return Some(match zip::look(bytes) {
            zip::Seen::Pickle(entry) => pickle(&format!("a ZIP archive with the pickle {:?}", shown(&entry))),
            zip::Seen::Bomb(text) => Finding::new(Code::ArchiveBomb, text),
            zip::Seen::Other(what) => {
                unsupported(what, inside, if what.contains("ZIP") { UNPACK } else { AS_TEXT })
            }
        });
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Some(unsupported("gzip", inside, UNPACK));
    }
    if bytes.starts_with(b"BZh") && bytes.get(4..10) == Some(&[0x31, 0x41, 0x59, 0x26, 0x53, 0x59]) {
        return Some(unsupported("bzip2", inside, UNPACK));
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Some(unsupported("a tar archive", inside, UNPACK));
    }
    if let Some((_, what, advice)) = UNSUPPORTED.iter().find(|(start, ..)| is_signature(bytes, start)) {
        return Some(unsupported(what, inside, advice));
    }
    if let Some((_, what)) = NO_DATA.iter().find(|(start, _)| is_signature(bytes, start)) {
        return Some(Finding::new(Code::WrongFormat, format!("the content is {what}{inside}, no table")));
    }
    None
}

/// What kind of script the text says that it is.
fn script(bytes: &[u8]) -> Option<&'static str> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let is_blank = |byte: &u8| matches!(byte, b'\t'..=b'\r' | b' ');
    let start = bytes.iter().position(|byte| !is_blank(byte)).and_then(|at| bytes.get(at..))?;
    let begins = |with: &[u8]| start.get(..with.len()).is_some_and(|there| there.eq_ignore_ascii_case(with));
    SCRIPTS.iter().find(|(with, _)| begins(with)).map(|(_, what)| *what)
}

fn unsupported(what: &str, inside: &str, advice: &str) -> Finding {
    Finding::new(Code::FormatUnsupported, format!("{what}{inside} is not read; {advice}"))
}

/// Signatures of a few letters may begin a header too; then what follows is text, and a delimiter or the line's end is
/// near.
fn is_signature(bytes: &[u8], start: &[u8]) -> bool {
    let is_text = start.iter().all(u8::is_ascii_alphanumeric);
    bytes.starts_with(start) && !(is_text && bytes.iter().take(512).all(|byte| *byte >= 9 && *byte != 0x7f))
}

fn is_windows_program(bytes: &[u8]) -> bool {
    let at = bytes.get(0x3c..0x40).and_then(|at| <[u8; 4]>::try_from(at).ok()).map(u32::from_le_bytes);
    bytes.starts_with(b"MZ")
        && (bytes.iter().take(64).any(|byte| *byte == 0)
            || at.is_some_and(|at| bytes.get(at as usize..).is_some_and(|rest| rest.starts_with(b"PE\0\0"))))
}

/// The text, without a byte order mark, and whether it had one.
fn text(bytes: &[u8]) -> Result<(&str, bool), Finding> {
    let other = |encoding: &str, from: &str| {
        Err(Finding::new(
            Code::NotUtf8,
            format!("the text is {encoding}; convert it: iconv -f {from} -t UTF-8 data.csv"),
        ))
    };
    if bytes.starts_with(&[0xff, 0xfe, 0, 0]) || bytes.starts_with(&[0, 0, 0xfe, 0xff]) {
        return other("UTF-32", "UTF-32");
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return other("UTF-16", "UTF-16");
    }
    let (bytes, marked) = match bytes.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => (rest, true),
        None => (bytes, false),
    };
    if bytes.starts_with(BYTE_ORDER_MARK) {
        let text = "two byte order marks: the file was converted twice, and the second would be part of the first name; \
                    take it away";
        return Err(Finding::new(Code::NotUtf8, text));
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        let head = bytes.get(..bytes.len().min(4096)).unwrap_or(bytes);
        let zeros = |offset: usize| head.iter().skip(offset).step_by(2).filter(|byte| **byte == 0).count();
        let pairs = head.len() / 2;
        if pairs >= 2 && zeros(1) * 10 > pairs * 7 && zeros(0) * 10 < pairs {
            return other("UTF-16 (little-endian) without a byte order mark", "UTF-16LE");
        }
        if pairs >= 2 && zeros(0) * 10 > pairs * 7 && zeros(1) * 10 < pairs {
            return other("UTF-16 (big-endian) without a byte order mark", "UTF-16BE");
        }
        let line = line_of(bytes, at);
        return Err(Finding::new(
            Code::NulBytes,
            format!("line {line}, byte {at}: a zero byte; the file is binary, or damaged"),
        ));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok((text, marked)),
        Err(error) => {
            let at = error.valid_up_to();
            let byte = bytes.get(at).copied().unwrap_or_default();
            let high = bytes.iter().filter(|byte| **byte >= 0x80).count();
            let control = bytes.iter().filter(|byte| **byte < 9).count();
            let guess = if control > 0 || high * 3 > bytes.len() {
                "the file is binary, or encrypted"
            } else {
                "it looks like Latin-1 or Windows-1252; convert it: iconv -f WINDOWS-1252 -t UTF-8 data.csv"
            };
            Err(Finding::new(
                Code::NotUtf8,
                format!("line {}, byte {at}: 0x{byte:02x} is no UTF-8; {guess}", line_of(bytes, at)),
            ))
        }
    }
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    bytes.iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

/// Endings of names and what they promise. `None`: nothing that is read.
fn promised(stem: &str) -> Option<&'static str> {
    let file = stem.rsplit('/').next().unwrap_or(stem);
    let (_, ending) = file.rsplit_once('.')?;
    Some(match ending {
        "csv" => "CSV",
        "tsv" | "tab" => "TSV",
        "jsonl" | "ndjson" | "jsonlines" => "JSON lines",
        "json" => "JSON",
        "parquet" | "pq" => "Parquet",
        "arrow" | "feather" | "ipc" => "Arrow",
        "orc" => "ORC",
        "avro" => "Avro",
        "h5" | "hdf5" | "hdf" => "HDF5",
        "npy" | "npz" => "a NumPy array",
        "pkl" | "pickle" | "pt" | "pth" | "joblib" => "a pickle",
        "zip" => "a ZIP archive",
        "tar" | "tgz" => "a tar archive",
        "7z" => "a 7z archive",
        "xz" => "xz",
        "zst" => "Zstandard",
        "bz2" => "bzip2",
        "xls" | "xlsx" | "ods" => "a spreadsheet",
        "pdf" => "a PDF document",
        "png" | "jpg" | "jpeg" | "gif" | "bmp" | "tif" | "tiff" | "webp" => "an image",
        "exe" | "dll" | "so" | "dylib" | "bin" | "wasm" => "a program",
        "py" | "sh" | "js" | "bat" | "ps1" | "php" | "pl" | "rb" => "a script",
        "html" | "htm" => "an HTML page",
        "xml" => "XML",
        _ => return None,
    })
}

type TextFormat = (Format, Option<char>, Vec<Finding>);

fn text_format(name: &str, stem: &str, text: &str) -> Result<TextFormat, Finding> {
    let promised = promised(stem);
    let mut warnings = Vec::new();
    let start: String = text.trim_start().chars().take(64).collect::<String>().to_ascii_lowercase();
    for (sign, what) in [
        ("<!doctype html", "an HTML page"),
        ("<html", "an HTML page"),
        ("<script", "an HTML page"),
        ("<?xml", "XML"),
        ("<svg", "an SVG image"),
    ] {
        if start.starts_with(sign) {
            return Err(Finding::new(
                Code::WrongFormat,
                format!("the content is {what}, no table (a download that answered with a page?)"),
            ));
        }
    }
    let first_line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let is_object =
        |line: &str| line.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok();
    let begins_json = start.starts_with('{') || start.starts_with('[');
    let names_json = matches!(promised, Some("JSON" | "JSON lines"));
    if is_object(first_line) || (names_json && start.starts_with('{') && promised == Some("JSON lines")) {
        if promised.is_some() && !names_json {
            return Err(wrong(name, promised.unwrap_or_default(), "JSON lines"));
        }
        return Ok((Format::JsonLines, None, warnings));
    }
    if begins_json && (names_json || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()) {
        return Err(Finding::new(
            Code::FormatUnsupported,
            "one JSON document is not read; write an object a line (in pandas: \
             frame.to_json(\"data.jsonl\", orient=\"records\", lines=True))",
        ));
    }
    let (delimiter, count) = delimiter(first_line);
    let looks = match delimiter {
        '\t' => "TSV",
        _ => "CSV",
    };
    match promised {
        None => {}
        Some("CSV") if delimiter == ',' => {}
        Some("CSV") => warnings.push(Finding::new(
            Code::WrongFormat,
            format!("cells are separated by {delimiter:?}, not by commas; it is read so"),
        )),
        // A single column has no separator.
        Some("TSV") if count == 0 || delimiter == '\t' => return Ok((Format::Csv, Some('\t'), warnings)),
        Some(says) => return Err(wrong(name, says, looks)),
    }
    Ok((Format::Csv, Some(delimiter), warnings))
}

/// What separates the cells of the header: of `,` tab `;` `|` the one that occurs most often outside of quotes, the first
/// of them if two occur as often; a comma if there is none. And how often.
fn delimiter(line: &str) -> (char, usize) {
    let mut counts = [0_usize; 4];
    const DELIMITERS: [char; 4] = [',', '\t', ';', '|'];
    let mut quoted = false;
    for char in line.chars() {
        if char == '"' {
            quoted = !quoted;
        } else if !quoted && let Some(at) = DELIMITERS.iter().position(|delimiter| *delimiter == char) {
            counts[at] += 1;
        }
    }
    let mut best = 0;
    for at in 1..counts.len() {
        if counts[at] > counts[best] {
            best = at;
        }
    }
    (DELIMITERS[best], counts[best])
}

#[cfg(test)]
mod tests;
