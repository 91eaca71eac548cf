//! What people and machines are shown on standard output.
#![allow(clippy::print_stdout, reason = "this is the command line's output")]

use serde::Serialize;

use super::client::Failure;

/// Standard output cannot be written (`EX_IOERR`).
const EXIT_OUTPUT: i32 = 74;

/// One JSON document.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Usage(error.to_string()))?;
    line(&text);
    Ok(())
}

/// One line. A closed pipe (`baton list | head -1`) is no error; what cannot be written otherwise (a full disk) ends the process
/// with 74: half an answer must not look like one.
#[expect(clippy::disallowed_methods, reason = "only printing is left to do, and nothing to undo")]
#[allow(clippy::print_stderr, reason = "this is the command line's error output")]
pub fn line(text: &str) {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("baton: the output cannot be written: {error}");
            std::process::exit(EXIT_OUTPUT);
        }
        _ => {}
    }
}

/// A table with its columns aligned.
pub fn table(header: &[&str], rows: &[Vec<String>]) {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let print = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        line(padded.join("  ").trim_end());
    };
    print(header.to_vec());
    for row in rows {
        print(row.iter().map(String::as_str).collect());
    }
}

/// `sha256:0123456789ab`: enough to tell bundles apart by eye.
pub fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

/// `1.5 MB`
pub(super) fn size(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}
