//! The dynamic section: where the tables of the loader are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use object::elf::{self, Dyn64, DynamicTag};
use object::pod::Pod;

use super::image::Image;
use super::{LE, Le, damaged, entries, refuse};
use crate::error::Result;

/// Entries of the section, and libraries among them.
const MAX_ENTRIES: usize = 4096;
const MAX_NEEDED: usize = 256;

/// The entries up to the end mark. Those that the loader reads are there once.
pub(super) struct Dynamic<'a> {
    values: HashMap<DynamicTag, u64>,
    /// Offsets of names.
    needed: Vec<u64>,
    strings: &'a [u8],
}

impl<'a> Dynamic<'a> {
    pub(super) fn new(image: &Image<'a>) -> Result<Self> {
        let (values, needed) = read(image)?;
        let mut dynamic = Self { values, needed, strings: &[] };
        dynamic.check_flags()?;
        dynamic.strings = dynamic.strings(image)?;
        dynamic.check_names()?;
        Ok(dynamic)
    }

    pub(super) fn value(&self, tag: DynamicTag) -> Option<u64> {
        self.values.get(&tag).copied()
    }

    /// A table with its size in bytes; no entries if it is not there, an error if it is not all there.
    pub(super) fn table<T: Pod>(
        &self,
        image: &Image<'a>,
        (start, size): (DynamicTag, DynamicTag),
        what: &str,
    ) -> Result<&'a [T]> {
        let Some(address) = self.value(start) else { return Ok(&[]) };
        self.value(size)
            .and_then(|size| image.at(address, size))
            .and_then(entries)
            .ok_or_else(|| damaged(format_args!("its {what} are not inside a segment")))
    }

    /// A string of the loader's table, without its end.
    pub(super) fn bytes_at(&self, offset: u64) -> Option<&'a [u8]> {
        let rest = self.strings.get(usize::try_from(offset).ok()?..)?;
        rest.split(|byte| *byte == 0).next().filter(|string| string.len() < rest.len())
    }

    /// Is there a string at this offset?
    pub(super) fn has_string(&self, offset: u32) -> bool {
        // The table ends with the end of a string.
        usize::try_from(offset).is_ok_and(|offset| offset < self.strings.len())
    }

    /// Names of the libraries that it needs.
    pub(super) fn needed(&self) -> Result<Vec<String>> {
        if self.needed.len() > MAX_NEEDED {
            return refuse(format!("the library needs more than {MAX_NEEDED} other libraries"));
        }
        self.needed.iter().map(|offset| self.name(*offset).map(str::to_owned)).collect()
    }

    fn name(&self, offset: u64) -> Result<&'a str> {
        let name = self.bytes_at(offset).and_then(|name| std::str::from_utf8(name).ok());
        match name {
            Some(name) if !name.is_empty() => Ok(name),
            _ => Err(damaged("the name of a library that it needs, or its own, is no text")),
        }
    }

    fn check_flags(&self) -> Result<()> {
        let flags = self.value(elf::DT_FLAGS).unwrap_or(0);
        if self.value(elf::DT_TEXTREL).is_some() || flags & elf::DF_TEXTREL.0 != 0 {
            return refuse(
                "the library wants its code to be changed while it is loaded; compile it with -fPIC",
            );
        }
        if self.value(elf::DT_FLAGS_1).unwrap_or(0) & elf::DF_1_PIE.0 != 0 {
            return refuse("the file is an executable, not a shared library");
        }
        // The loader stops the process if one of these is different.
        let fixed = [
            (elf::DT_SYMENT, 24),
            (elf::DT_RELAENT, 24),
            (elf::DT_RELRENT, 8),
            (elf::DT_PLTREL, elf::DT_RELA.0.unsigned_abs()),
        ];
        for (tag, wanted) in fixed {
            if self.value(tag).is_some_and(|value| value != wanted) {
                return Err(damaged("entries of its dynamic tables are of a wrong size or kind"));
            }
        }
        // What the loader reads without a look whether it is there.
        let companions = [
            (elf::DT_STRTAB, elf::DT_STRSZ),
            (elf::DT_RELA, elf::DT_RELASZ),
            (elf::DT_RELA, elf::DT_RELAENT),
            (elf::DT_RELR, elf::DT_RELRSZ),
            (elf::DT_RELR, elf::DT_RELRENT),
            (elf::DT_JMPREL, elf::DT_PLTRELSZ),
            (elf::DT_JMPREL, elf::DT_PLTREL),
            (elf::DT_PLTRELSZ, elf::DT_PLTREL),
            (elf::DT_INIT_ARRAY, elf::DT_INIT_ARRAYSZ),
            (elf::DT_FINI_ARRAY, elf::DT_FINI_ARRAYSZ),
            (elf::DT_VERNEED, elf::DT_VERSYM),
            (elf::DT_VERDEF, elf::DT_VERSYM),
        ];
        for (tag, companion) in companions {
            if self.value(tag).is_some() && self.value(companion).is_none() {
                return Err(damaged("its dynamic section lacks the size of a table"));
            }
        }
        let tables = [
            (elf::DT_RELASZ, elf::DT_RELA),
            (elf::DT_RELRSZ, elf::DT_RELR),
            (elf::DT_PLTRELSZ, elf::DT_JMPREL),
            (elf::DT_INIT_ARRAYSZ, elf::DT_INIT_ARRAY),
            (elf::DT_FINI_ARRAYSZ, elf::DT_FINI_ARRAY),
        ];
        for (size, table) in tables {
            if self.value(size).is_some_and(|size| size != 0) && self.value(table).is_none() {
                return Err(damaged("its dynamic section has the size of a table without the table"));
            }
        }
        match self.value(elf::DT_REL) {
            Some(_) => Err(damaged("its relocations are of a kind that this machine does not have")),
            None => Ok(()),
        }
    }

    fn strings(&self, image: &Image<'a>) -> Result<&'a [u8]> {
        let strings = self.table::<u8>(image, (elf::DT_STRTAB, elf::DT_STRSZ), "names")?;
        match strings.last() {
            Some(0) => Ok(strings),
            _ => Err(damaged("its names are not there, or have no end")),
        }
    }

    fn check_names(&self) -> Result<()> {
        let names = [elf::DT_SONAME, elf::DT_RPATH, elf::DT_RUNPATH, elf::DT_AUXILIARY, elf::DT_FILTER];
        for offset in names.into_iter().filter_map(|tag| self.value(tag)) {
            self.name(offset)?;
        }
        Ok(())
    }
}

/// Entries by tag, and the names of needed libraries.
fn read(image: &Image) -> Result<(HashMap<DynamicTag, u64>, Vec<u64>)> {
    let Some(segment) = image.segments(elf::PT_DYNAMIC).next() else {
        return refuse("the library has no dynamic section, so it is no shared library");
    };
    let load = image.load(segment.address, segment.memory_size);
    if segment.has(elf::PF_W) && !load.is_some_and(|load| load.has(elf::PF_W)) {
        return Err(damaged("the loader cannot write to its dynamic section"));
    }
    let size = segment.file_size & !15;
    let all: &[Dyn64<Le>] = image.at(segment.address, size).and_then(entries).unwrap_or_default();
    let (mut values, mut needed) = (HashMap::new(), Vec::new());
    for entry in all.iter().take(MAX_ENTRIES) {
        let (tag, value) = (entry.d_tag.get(LE), entry.d_val.get(LE));
        match tag {
            elf::DT_NULL => return Ok((values, needed)),
            elf::DT_NEEDED => needed.push(value),
            // The only others that may be repeated; the loader loads each.
            elf::DT_AUXILIARY | elf::DT_FILTER => {
                values.insert(tag, value);
            }
            _ => match values.entry(tag) {
                Entry::Vacant(free) => {
                    free.insert(value);
                }
                Entry::Occupied(_) => return Err(damaged("its dynamic section has an entry twice")),
            },
        }
    }
    Err(damaged("its dynamic section has no end"))
}
