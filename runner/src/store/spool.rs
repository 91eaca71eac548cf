//! Answers that are kept until they can be sent: in memory while small, then in a file without a name, which the system
//! removes with its last user.

use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::path::Path;

use tempfile::SpooledTempFile;

/// Bytes kept in memory.
const IN_MEMORY: usize = 1 << 20;

/// Bytes being written, later read.
#[derive(Debug)]
pub struct Spool {
    file: SpooledTempFile,
    length: u64,
}

impl Spool {
    pub(super) fn new(folder: &Path) -> Self {
        Self { file: tempfile::spooled_tempfile_in(IN_MEMORY, folder), length: 0 }
    }

    /// Bytes written.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Was nothing written?
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Back to the start, to be read.
    ///
    /// # Errors
    /// The disk's.
    pub fn rewind(&mut self) -> Result<()> {
        self.file.seek(SeekFrom::Start(0)).map(drop)
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let count = self.file.write(bytes)?;
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }
}

impl Read for Spool {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        self.file.read(into)
    }
}
