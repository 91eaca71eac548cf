//! Watches a file while it is read, for what the CSV reader lets pass.

use std::io::{Error, Read, Result};

/// Bytes of one line.
const MAX_LINE: usize = 16 << 20;

/// Ends a file whose lines do not end, or which ends within a quoted cell: a file that was cut off must not pass for a
/// whole one.
#[derive(Debug)]
pub struct Guard<R> {
    inner: R,
    line: usize,
    in_quotes: bool,
}

impl<R> Guard<R> {
    /// Watches this file.
    pub fn new(inner: R) -> Self {
        Self { inner, line: 0, in_quotes: false }
    }
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let count = self.inner.read(into)?;
        let read = into.get(..count).unwrap_or_default();
        if count == 0 && self.in_quotes && !into.is_empty() {
            return Err(Error::other("it ends within a quoted cell"));
        }
        // A quote inside of a quoted cell is written twice, so an odd number means an open cell.
        self.in_quotes ^= read.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
        self.line = match read.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => count - at,
            None => self.line + count,
        };
        if self.line > MAX_LINE {
            return Err(Error::other(format!("a line is longer than {MAX_LINE} bytes")));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_off_file_is_an_error() {
        for (text, whole) in
            [("a,b\n1,\"2\"\n", true), ("a\n\"x \"\" y\"", true), ("a\n\"x", false), ("", true)]
        {
            let read = Guard::new(text.as_bytes()).read_to_end(&mut Vec::new());
            assert_eq!(read.is_ok(), whole, "{text:?}");
        }
        assert!(Guard::new(std::io::repeat(b'x')).read_to_end(&mut Vec::new()).is_err());
    }
}
