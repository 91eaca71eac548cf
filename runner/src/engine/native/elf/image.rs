//! The segments: what the loader maps where.

use std::ops::Range;

use object::elf::{self, ProgramFlags, ProgramHeader64, ProgramType};

use super::{LE, Le, damaged, part, refuse};
use crate::error::{Error, Result};

/// The smallest page of our machines; the loader maps whole pages.
const PAGE: u64 = 4096;
/// Address space that a library may take.
const MAX_SPAN: u64 = 4 << 30;
/// Largest alignment of a segment.
const MAX_ALIGN: u64 = 1 << 30;

/// A program header, read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) kind: ProgramType,
    flags: ProgramFlags,
    offset: u64,
    pub(super) address: u64,
    pub(super) file_size: u64,
    pub(super) memory_size: u64,
    pub(super) align: u64,
}

impl Segment {
    fn new(header: &ProgramHeader64<Le>) -> Self {
        Self {
            kind: header.p_type.get(LE),
            flags: header.p_flags.get(LE),
            offset: header.p_offset.get(LE),
            address: header.p_vaddr.get(LE),
            file_size: header.p_filesz.get(LE),
            memory_size: header.p_memsz.get(LE),
            align: header.p_align.get(LE),
        }
    }

    pub(super) fn has(&self, flag: ProgramFlags) -> bool {
        self.flags.0 & flag.0 != 0
    }

    /// Where an address range begins in the segment, if it lies in its first `size` bytes.
    fn position(&self, address: u64, length: u64, size: u64) -> Option<u64> {
        let start = address.checked_sub(self.address)?;
        (start.checked_add(length)? <= size).then_some(start)
    }

    /// Addresses of the pages that it takes.
    fn pages(&self) -> Option<Range<u64>> {
        let end = self.address.checked_add(self.memory_size)?;
        Some(self.address & !(PAGE - 1)..end.checked_next_multiple_of(PAGE)?)
    }
}

/// A library's segments, each inside the file, and those that are mapped apart from each other.
pub(super) struct Image<'a> {
    bytes: &'a [u8],
    segments: Vec<Segment>,
    /// Those that are mapped, by ascending address.
    loads: Vec<Segment>,
}

impl<'a> Image<'a> {
    pub(super) fn new(bytes: &'a [u8], headers: &[ProgramHeader64<Le>]) -> Result<Self> {
        let segments: Vec<_> = headers.iter().map(Segment::new).collect();
        let loads = segments.iter().filter(|segment| segment.kind == elf::PT_LOAD).copied().collect();
        let image = Self { bytes, segments, loads };
        image.segments.iter().try_for_each(|segment| check_size(segment, bytes))?;
        image.loads.iter().try_for_each(check_load)?;
        image.check_order()?;
        image.check_places()?;
        image.check_stack()?;
        Ok(image)
    }

    /// All segments of a kind.
    pub(super) fn segments(&self, kind: ProgramType) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(move |segment| segment.kind == kind)
    }

    /// The mapped segment that has all of an address range.
    pub(super) fn load(&self, address: u64, size: u64) -> Option<&Segment> {
        let after = self.loads.partition_point(|load| load.address <= address);
        let load = self.loads.get(after.checked_sub(1)?)?;
        load.position(address, size, load.memory_size).map(|_| load)
    }

    /// The file's bytes of an address range; `None` if some are not in the file.
    pub(super) fn at(&self, address: u64, size: u64) -> Option<&'a [u8]> {
        let load = self.load(address, size)?;
        part(self.bytes, load.offset.checked_add(load.position(address, size, load.file_size)?)?, size)
    }

    /// The file's bytes from an address to the end of what is there.
    pub(super) fn from(&self, address: u64) -> Option<&'a [u8]> {
        let load = self.load(address, 0)?;
        self.at(address, load.file_size.checked_sub(load.position(address, 0, load.file_size)?)?)
    }

    /// May the loader call this address?
    pub(super) fn is_code(&self, address: u64) -> bool {
        self.load(address, 1).is_some_and(|load| load.has(elf::PF_X))
    }

    fn check_order(&self) -> Result<()> {
        for pair in self.loads.windows(2) {
            let [before, after] = pair else { continue };
            let ends = (before.pages(), before.offset.checked_add(before.file_size));
            let (Some(pages), Some(file_end)) = ends else {
                return Err(damaged("a segment ends beyond all memory"));
            };
            if after.address & !(PAGE - 1) < pages.end || (after.file_size != 0 && after.offset < file_end) {
                return Err(damaged("its segments overlap, or are not in order"));
            }
        }
        let (Some(first), Some(last)) = (self.loads.first(), self.loads.last()) else {
            return refuse("the library has no segment to load");
        };
        let end = last.pages().map(|pages| pages.end);
        match end.and_then(|end| end.checked_sub(first.address)) {
            Some(span) if span <= MAX_SPAN => Ok(()),
            _ => refuse("the library asks for more than 4 GiB of memory"),
        }
    }

    /// What describes a part of the mapped memory has to describe what is mapped there.
    fn check_places(&self) -> Result<()> {
        for segment in &self.segments {
            let is_single =
                [elf::PT_DYNAMIC, elf::PT_TLS, elf::PT_GNU_RELRO, elf::PT_GNU_STACK, elf::PT_PHDR];
            if is_single.contains(&segment.kind) && self.segments(segment.kind).count() > 1 {
                return Err(damaged("it has two segments of a kind that can be there once"));
            }
            let is_fine = match segment.kind {
                elf::PT_DYNAMIC
                | elf::PT_NOTE
                | elf::PT_GNU_PROPERTY
                | elf::PT_GNU_EH_FRAME
                | elf::PT_TLS
                | elf::PT_PHDR => self.is_mapped(segment),
                elf::PT_GNU_RELRO => self.can_be_protected(segment),
                _ => true,
            };
            if !is_fine {
                let kind = segment.kind.0;
                return Err(damaged(format_args!("a segment of kind {kind:#x} is not where it is mapped")));
            }
        }
        Ok(())
    }

    /// Is a segment's part of the file the one that is mapped at its address?
    fn is_mapped(&self, segment: &Segment) -> bool {
        let Some(load) = self.load(segment.address, segment.file_size) else {
            return segment.file_size == 0;
        };
        segment.file_size == 0
            || load
                .position(segment.address, segment.file_size, load.file_size)
                .and_then(|position| position.checked_add(load.offset))
                == Some(segment.offset)
    }

    /// Is it in writable memory? The loader takes away the right to write when it has relocated. Linkers round up the
    /// size to that of a page.
    fn can_be_protected(&self, segment: &Segment) -> bool {
        let Some(load) = self.load(segment.address, 0).filter(|load| load.has(elf::PF_W)) else {
            return false;
        };
        let end = segment.address.checked_add(segment.memory_size);
        let rounded = load
            .address
            .checked_add(load.memory_size)
            .and_then(|end| end.checked_next_multiple_of(load.align.max(PAGE)));
        matches!((end, rounded), (Some(end), Some(rounded)) if end <= rounded)
    }

    fn check_stack(&self) -> Result<()> {
        let executable = match self.segments(elf::PT_GNU_STACK).next() {
            Some(stack) => stack.has(elf::PF_X),
            // The old default of this machine, which the loader still keeps to.
            None => cfg!(target_arch = "x86_64"),
        };
        match executable {
            true => refuse("the library asks for an executable stack; link it with -z noexecstack"),
            false => Ok(()),
        }
    }
}

fn check_size(segment: &Segment, bytes: &[u8]) -> Result<()> {
    let is_used = [
        elf::PT_LOAD,
        elf::PT_DYNAMIC,
        elf::PT_NOTE,
        elf::PT_TLS,
        elf::PT_PHDR,
        elf::PT_GNU_PROPERTY,
        elf::PT_GNU_EH_FRAME,
        elf::PT_GNU_RELRO,
    ];
    if !is_used.contains(&segment.kind) {
        return Ok(());
    }
    if part(bytes, segment.offset, segment.file_size).is_none() {
        return Err(super::truncated("segments", segment.offset.checked_add(segment.file_size), bytes));
    }
    if segment.file_size > segment.memory_size {
        return Err(damaged("a segment has more bytes in the file than in memory"));
    }
    if segment.memory_size > MAX_SPAN {
        return refuse("the library asks for more than 4 GiB of memory");
    }
    let is_aligned = segment.align == 0 || (segment.align.is_power_of_two() && segment.align <= MAX_ALIGN);
    match is_aligned {
        true => Ok(()),
        false => Err(misaligned(segment)),
    }
}

fn misaligned(segment: &Segment) -> Error {
    damaged(format_args!("a segment cannot be aligned to {} bytes", segment.align))
}

fn check_load(segment: &Segment) -> Result<()> {
    if segment.align < PAGE || segment.address.wrapping_sub(segment.offset) & (segment.align - 1) != 0 {
        return Err(misaligned(segment));
    }
    if segment.has(elf::PF_W) && segment.has(elf::PF_X) {
        return refuse("the library has a segment that is writable and executable");
    }
    if !segment.has(elf::PF_R) && !segment.has(elf::PF_X) {
        return Err(damaged("it has a segment that cannot be read"));
    }
    Ok(())
}
