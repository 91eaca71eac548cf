//! The file operations that durability rests on, each in the order that makes it hold: write, fsync the file, make it
//! visible under its name, fsync the folder. After a failed fsync the file is given up, never synced again: the kernel
//! may have dropped the dirty pages.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::failpoint;

/// A new file that only this process has, readable by its user alone.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .read(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
}

/// Opens for reading, refusing a symbolic link in the last place.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32).open(path)
}

/// Makes the entries of a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a folder and its entry in the parent durable.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        Err(error) => return Err(error),
    }
    path.parent().map_or(Ok(()), sync_folder)
}

/// Failpoints of one durable write.
pub(super) struct Points {
    pub(super) write: &'static str,
    pub(super) link: &'static str,
    pub(super) dirsync: &'static str,
}

/// Creates `path` with `bytes`, durably and all at once. False if the name exists already: a hard link, unlike a
/// rename, refuses to replace.
pub(super) fn create_if_absent(
    scratch: &Path,
    path: &Path,
    bytes: &[u8],
    points: &Points,
) -> io::Result<bool> {
    let result = write_scratch(scratch, bytes, points).and_then(|()| {
        failpoint::hit(points.link)?;
        match fs::hard_link(scratch, path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    });
    let _ = fs::remove_file(scratch);
    if result? {
        failpoint::hit(points.dirsync)?;
        path.parent().map_or(Ok(()), sync_folder)?;
        return Ok(true);
    }
    Ok(false)
}

/// Replaces `path` by `bytes`, durably and all at once.
pub(super) fn replace(scratch: &Path, path: &Path, bytes: &[u8], points: &Points) -> io::Result<()> {
    let result = write_scratch(scratch, bytes, points).and_then(|()| {
        failpoint::hit(points.link)?;
        fs::rename(scratch, path)
    });
    if result.is_err() {
        let _ = fs::remove_file(scratch);
    }
    result?;
    failpoint::hit(points.dirsync)?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn write_scratch(scratch: &Path, bytes: &[u8], points: &Points) -> io::Result<()> {
    failpoint::hit(points.write)?;
    let mut file = create_new(scratch)?;
    file.write_all(bytes)?;
    file.sync_all()
}
