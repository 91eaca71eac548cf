//! The request log as it is read: files, lines, and the cells that a line's inputs make in a dataset.
//!
//! Files that are being written (`.part`) are read too, as far as their last whole line.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::FeedbackError;

/// Bytes of a line; the runner writes none that is longer.
const MAX_LINE: usize = 4 << 20;
const PART: &str = ".part";

/// A logged row. Members that are not needed here are not read.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    #[serde(deserialize_with = "timestamp")]
    pub(super) time: jiff::Timestamp,
    #[serde(borrow)]
    pub(super) version: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) digest: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    pub(super) row: u64,
    /// `null` for a file that was answered in pieces.
    pub(super) rows: Option<u64>,
    #[serde(borrow)]
    pub(super) inputs: &'a RawValue,
    #[serde(default)]
    pub(super) masked: BTreeMap<String, String>,
}

fn timestamp<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<jiff::Timestamp, D::Error> {
    let text = <&str>::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// A column's name and its cell.
pub(super) type Cell<'a> = (String, Cow<'a, str>);

impl<'a> Line<'a> {
    /// `None` for bytes that are no line of a request log.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The inputs as cells, under the names that the runner's CSV has: `age`, `pixels[0]`. Masked ones are left out.
    /// `None` if a value cannot stand in a cell.
    pub(super) fn cells(&self) -> Option<Vec<Cell<'a>>> {
        let Members(inputs) = serde_json::from_str(self.inputs.get()).ok()?;
        let mut cells = Vec::with_capacity(inputs.len());
        for (name, value) in inputs {
            if self.masked.contains_key(&name) {
                continue;
            }
            if value.get().starts_with('[') {
                let elements: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
                for (index, element) in elements.into_iter().enumerate() {
                    cells.push((format!("{name}[{index}]"), cell(element)?));
                }
            } else {
                cells.push((name, cell(value)?));
            }
        }
        Some(cells)
    }
}

/// Numbers stay as they are written: a float that is read and written again might not be the same text.
fn cell(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get().as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(value.get()).ok().map(Cow::Owned),
        b'{' | b'[' => None,
        b'n' => Some(Cow::Borrowed("")),
        _ => Some(Cow::Borrowed(value.get())),
    }
}

/// An object's members in their order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Where a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Position among the files.
    pub(super) file: u32,
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// The files of one model's log, in the order of their names.
#[derive(Debug)]
pub(super) struct Log {
    files: Vec<PathBuf>,
}

impl Log {
    /// Finds the files.
    ///
    /// # Errors
    /// [`FeedbackError::NoLog`], [`FeedbackError::File`].
    pub(super) fn open(folder: &Path) -> Result<Self, FeedbackError> {
        let failed = |error| FeedbackError::file("read", folder, error);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.strip_suffix(PART).unwrap_or(name).ends_with(".jsonl") && path.is_file() {
                files.push(path);
            }
        }
        if files.is_empty() {
            return Err(FeedbackError::NoLog(folder.to_owned()));
        }
        files.sort();
        Ok(Self { files })
    }

    /// Calls `take` with each whole line and where it stands, or with `None` for one that is too long to be one.
    ///
    /// # Errors
    /// [`FeedbackError::File`], or what `take` says.
    pub(super) fn each_line(
        &self,
        mut take: impl FnMut(Place, Option<&[u8]>) -> Result<(), FeedbackError>,
    ) -> Result<(), FeedbackError> {
        let mut line = Vec::new();
        for (index, path) in self.files.iter().enumerate() {
            let Some(file) = opened(path).map_err(|error| FeedbackError::file("open", path, error))? else {
                // Removed since, to make room.
                continue;
            };
            let failed = |error| FeedbackError::file("read", path, error);
            let mut reader = BufReader::with_capacity(256 << 10, file);
            let mut offset = 0;
            loop {
                line.clear();
                let mut length =
                    reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line).map_err(failed)?;
                if length == 0 {
                    break;
                }
                let mut whole = line.ends_with(b"\n");
                let is_long = !whole && length == MAX_LINE;
                while !whole {
                    // The rest of a line that is no line of ours, or of one that is being written.
                    line.clear();
                    let more = reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line);
                    let more = more.map_err(failed)?;
                    if more == 0 {
                        break;
                    }
                    length += more;
                    whole = line.ends_with(b"\n");
                }
                let place = Place {
                    file: u32::try_from(index).unwrap_or(u32::MAX),
                    offset,
                    length: u32::try_from(length).unwrap_or(u32::MAX),
                };
                offset += length as u64;
                if is_long {
                    take(place, None)?;
                } else if whole {
                    take(place, Some(&line))?;
                }
            }
        }
        Ok(())
    }
}

/// The file; without `.part` if it was closed in the meantime, `None` if it is gone.
fn opened(path: &Path) -> std::io::Result<Option<File>> {
    let missing = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
    match File::open(path) {
        Err(error) if missing(&error) && path.extension().is_some_and(|ending| ending == "part") => {
            match File::open(path.with_extension("")) {
                Err(error) if missing(&error) => Ok(None),
                result => result.map(Some),
            }
        }
        Err(error) if missing(&error) => Ok(None),
        result => result.map(Some),
    }
}

/// Reads single lines again. Rows in the order of their time are mostly in one file after the other.
#[derive(Debug)]
pub(super) struct Again<'a> {
    log: &'a Log,
    open: Option<(u32, File)>,
    line: Vec<u8>,
}

impl<'a> Again<'a> {
    pub(super) fn new(log: &'a Log) -> Self {
        Self { log, open: None, line: Vec::new() }
    }

    /// The bytes at a place.
    ///
    /// # Errors
    /// [`FeedbackError::Moved`] if the file is gone or shorter.
    pub(super) fn read(&mut self, place: Place) -> Result<&[u8], FeedbackError> {
        if self.open.as_ref().is_none_or(|(file, _)| *file != place.file) {
            let path = self.log.files.get(place.file as usize).ok_or(FeedbackError::Moved)?;
            let file = opened(path).map_err(|error| FeedbackError::file("open", path, error))?;
            self.open = Some((place.file, file.ok_or(FeedbackError::Moved)?));
        }
        let Some((_, file)) = &self.open else { return Err(FeedbackError::Moved) };
        self.line.resize(place.length as usize, 0);
        file.read_exact_at(&mut self.line, place.offset).map_err(|_| FeedbackError::Moved)?;
        Ok(&self.line)
    }
}
