//! The Baton note: for which version of the interface a library was built, and what its author calls it.

use std::mem::size_of;

use baton_model_abi::layout::{self, Note};
use object::elf::{self, FileHeader64};
use object::read::elf::NoteIterator;

use super::image::{Image, Segment};
use super::{LE, Le, damaged};
use crate::error::{Code, Error, Result};

/// The build that the one note of the right version names.
pub(super) fn build(image: &Image) -> Result<String> {
    let mut notes = Vec::new();
    for segment in image.segments(elf::PT_NOTE) {
        collect(image, segment, &mut notes)?;
    }
    let wrong = |text: String| Err(Error::new(Code::DylibAbi, format!("{text}; see docs/native-models.md")));
    let [note] = notes.as_slice() else {
        return wrong(match notes.len() {
            0 => "the library has no Baton note, so it is no native model".to_owned(),
            count => format!("the library has {count} Baton notes, one is wanted"),
        });
    };
    let header = std::mem::offset_of!(Note, abi_version);
    let wanted = size_of::<Note>().saturating_sub(header);
    let Some((version, build)) = note.split_first_chunk::<4>().filter(|_| note.len() == wanted) else {
        return wrong(format!("the library's Baton note has {} bytes, {wanted} are wanted", note.len()));
    };
    let version = u32::from_le_bytes(*version);
    if version != layout::ABI_VERSION {
        let wanted = layout::ABI_VERSION;
        return wrong(format!(
            "the library is built for version {version} of the interface, this server has {wanted}"
        ));
    }
    Ok(printable(build))
}

/// The contents of a segment's Baton notes. The others have to be in order as well: the loader walks them.
fn collect<'a>(image: &Image<'a>, segment: &Segment, found: &mut Vec<&'a [u8]>) -> Result<()> {
    let no_note = |_| damaged("its notes cannot be read");
    let bytes = image.at(segment.address, segment.file_size).unwrap_or_default();
    let notes = NoteIterator::<FileHeader64<Le>>::new(LE, segment.align, bytes).map_err(no_note)?;
    let owner = layout::NOTE_OWNER;
    let owner = owner.split(|byte| *byte == 0).next().unwrap_or_default();
    for note in notes {
        let note = note.map_err(no_note)?;
        if note.name() == owner && note.n_type(LE).0 == layout::NOTE_TYPE {
            found.push(note.desc());
        }
    }
    Ok(())
}

/// What a person may be shown of a text that somebody else filled in.
fn printable(text: &[u8]) -> String {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let shown = |symbol: char| if symbol.is_control() { char::REPLACEMENT_CHARACTER } else { symbol };
    String::from_utf8_lossy(text).chars().map(shown).collect::<String>().trim().to_owned()
}
