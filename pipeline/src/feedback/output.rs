//! Where the dataset goes. It is whole before anything of it is there.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{Error, ErrorKind, Result, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file that is being written, and what becomes of it.
#[derive(Debug)]
pub(super) struct Output {
    written: NamedTempFile,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// It becomes this file, with the permissions of the one that it replaces.
    File(PathBuf, Option<Permissions>),
    /// It is copied there: a device or a pipe keeps being one.
    Stream(PathBuf),
    Stdout,
}

impl Output {
    /// Nothing at `path` is touched yet.
    pub(super) fn of(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { written: NamedTempFile::new()?, place: Place::Stdout });
        }
        let known = match std::fs::metadata(path) {
            Ok(there) if there.is_dir() => return Err(Error::from(ErrorKind::IsADirectory)),
            Ok(there) if !there.is_file() => {
                return Ok(Self { written: NamedTempFile::new()?, place: Place::Stream(path.to_owned()) });
            }
            Ok(there) => Some(there),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let path = behind_links(path)?;
        let known = known.as_ref().map(Metadata::permissions);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Of a new file less the umask.
        let mode = known.as_ref().map_or(0o666, |known| known.mode() & 0o777);
        let written =
            tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(folder)?;
        Ok(Self { written, place: Place::File(path, known) })
    }

    pub(super) fn file(&mut self) -> &mut File {
        self.written.as_file_mut()
    }

    /// Puts it there.
    pub(super) fn commit(mut self) -> Result<()> {
        match self.place {
            Place::File(path, known) => {
                if let Some(known) = known {
                    self.written.as_file().set_permissions(known)?;
                }
                self.written.as_file().sync_all()?;
                self.written.persist(path).map(drop).map_err(|error| error.error)
            }
            Place::Stream(path) => {
                copy(self.written.as_file_mut(), OpenOptions::new().write(true).open(path)?)
            }
            Place::Stdout => copy(self.written.as_file_mut(), std::io::stdout().lock()),
        }
    }
}

fn copy(from: &mut File, mut to: impl Write) -> Result<()> {
    from.rewind()?;
    std::io::copy(from, &mut to)?;
    to.flush()
}

/// The path that links lead to, though nothing may be there yet.
fn behind_links(path: &Path) -> Result<PathBuf> {
    match (std::fs::canonicalize(path), std::fs::read_link(path)) {
        (Ok(path), _) => Ok(path),
        (Err(error), Ok(target)) if error.kind() == ErrorKind::NotFound => {
            behind_links(&path.parent().unwrap_or(Path::new("")).join(target))
        }
        (Err(error), _) if error.kind() == ErrorKind::NotFound => Ok(path.to_owned()),
        (Err(error), _) => Err(error),
    }
}
