//! Judges an uploaded shared library before anything of it is loaded: constructors run inside `dlopen`, and a damaged
//! file can kill the process there, because the dynamic loader trusts every offset it reads.
//!
//! `image` checks the segments and finds the bytes of an address, `dynamic` the dynamic section's tables, `symbols` the
//! symbol table with its hashes and versions, `relocations` what the loader writes and calls, `note` the Baton note.
//! Everything is read as the loader reads it, by address through the segments; section headers are only seen to be
//! there, since a library may do without.
//!
//! Not here: what a digest or a worker is for. Code and data that were changed in place look like any others.
//! `object` gives the structs of the format only; its readers are lazier than what is wanted here.

mod dynamic;
mod image;
mod note;
mod relocations;
mod symbols;
#[cfg(test)]
mod tests;

use std::fmt;
use std::mem::size_of;

use baton_model_abi::layout::{self, Api};
use object::elf::{self, FileHeader64, Machine, ProgramHeader64, SectionHeader64};
use object::{LittleEndian, pod};

use self::dynamic::Dynamic;
use self::image::Image;
use self::symbols::Symbols;
use crate::error::{Code, Error, Result};

type Le = LittleEndian;
const LE: Le = LittleEndian;

/// The machine that this server was built for, in the words of the file format.
const MACHINE: Machine = match cfg!(target_arch = "aarch64") {
    true => elf::EM_AARCH64,
    false => elf::EM_X86_64,
};
/// Program headers that a library may have; a common one has eleven.
const MAX_SEGMENTS: u16 = 128;

/// What is known of a library that was not loaded yet.
#[derive(Debug)]
pub(super) struct Library {
    /// Name and version that its author gave it; printable.
    pub(super) build: String,
    /// It has symbols that the C library keeps once in a process, whoever loads another library with them.
    pub(super) shares_symbols: bool,
}

/// Judges a shared library; nothing of it is loaded.
///
/// # Errors
/// `DYLIB_FORMAT` if the dynamic loader would refuse it or trip over it, `DYLIB_ABI` without the right Baton note,
/// `DYLIB_SYMBOL` without the table.
pub(super) fn inspect(bytes: &[u8]) -> Result<Library> {
    let header = file_header(bytes)?;
    let image = Image::new(bytes, program_headers(bytes, header)?)?;
    check_section_headers(bytes, header)?;
    let dynamic = Dynamic::new(&image)?;
    let needed = dynamic.needed()?;
    let symbols = Symbols::new(&image, &dynamic, &needed)?;
    relocations::check(&image, &dynamic, &symbols)?;
    let build = note::build(&image)?;
    check_export(&image, &dynamic, &symbols)?;
    let is_unique = |symbol: &symbols::Symbol| {
        symbol.st_bind() == elf::STB_GNU_UNIQUE && symbol.st_shndx.get(LE) != elf::SHN_UNDEF
    };
    Ok(Library { build, shares_symbols: symbols.all.iter().any(is_unique) })
}

/// A file that the loader cannot use.
fn refuse<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::new(Code::DylibFormat, text.into()))
}

/// A file that contradicts itself, or leads outside of itself.
fn damaged(what: impl fmt::Display) -> Error {
    Error::new(Code::DylibFormat, format!("the library is damaged: {what}"))
}

fn truncated(what: &str, end: Option<u64>, bytes: &[u8]) -> Error {
    let end = end.map_or("nowhere".to_owned(), |end| format!("at byte {end}"));
    let text = format!("the library is truncated: its {what} end {end}, the file at {}", bytes.len());
    Error::new(Code::DylibFormat, text)
}

/// A part of the file; `None` if it is not all there.
fn part(bytes: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(size).ok()?)?)
}

/// All entries of a table whose size is a multiple of theirs.
fn entries<T: pod::Pod>(bytes: &[u8]) -> Option<&[T]> {
    pod::slice_from_all_bytes(bytes).ok()
}

/// The entry that a slice begins with.
fn entry<T: pod::Pod>(bytes: &[u8]) -> Option<&T> {
    pod::from_bytes(bytes).ok().map(|(entry, _)| entry)
}

fn file_header(bytes: &[u8]) -> Result<&FileHeader64<Le>> {
    if !bytes.starts_with(&elf::ELFMAG) {
        return refuse("the file is no ELF shared library");
    }
    let Some(header) = entry::<FileHeader64<Le>>(bytes) else {
        return Err(truncated("file header", Some(size_of::<FileHeader64<Le>>() as u64), bytes));
    };
    let ident = &header.e_ident;
    if ident.class != elf::ELFCLASS64 || ident.data != elf::ELFDATA2LSB {
        return refuse("the library is not made for a 64-bit little-endian machine");
    }
    let machine = header.e_machine.get(LE);
    if machine != MACHINE {
        let (theirs, ours) = (machine_name(machine), machine_name(MACHINE));
        return refuse(format!("the library is made for {theirs}, this server runs on {ours}"));
    }
    if ![elf::ELFOSABI_SYSV, elf::ELFOSABI_GNU].contains(&ident.os_abi) {
        return refuse(format!(
            "the library is made for another system than Linux (OS ABI {})",
            ident.os_abi.0
        ));
    }
    if ident.version.0 != 1 || header.e_version.get(LE) != 1 {
        return Err(damaged("its header names a version of the format that does not exist"));
    }
    match header.e_type.get(LE) {
        elf::ET_DYN => Ok(header),
        elf::ET_EXEC => refuse("the file is an executable, not a shared library"),
        elf::ET_REL => refuse("the file is an object file that was not linked, not a shared library"),
        _ => refuse("the file is no shared library"),
    }
}

fn machine_name(machine: Machine) -> String {
    match machine {
        elf::EM_X86_64 => "x86_64".to_owned(),
        elf::EM_AARCH64 => "aarch64".to_owned(),
        elf::EM_386 => "x86".to_owned(),
        elf::EM_ARM => "arm".to_owned(),
        elf::EM_RISCV => "riscv".to_owned(),
        elf::EM_PPC64 => "powerpc64".to_owned(),
        other => format!("machine {}", other.0),
    }
}

fn program_headers<'a>(bytes: &'a [u8], header: &FileHeader64<Le>) -> Result<&'a [ProgramHeader64<Le>]> {
    let (offset, count) = (header.e_phoff.get(LE), header.e_phnum.get(LE));
    if usize::from(header.e_phentsize.get(LE)) != size_of::<ProgramHeader64<Le>>() {
        return Err(damaged("its program headers are of a wrong size"));
    }
    if count == 0 || count > MAX_SEGMENTS {
        return Err(damaged(format_args!(
            "it has {count} program headers, 1 to {MAX_SEGMENTS} are possible"
        )));
    }
    let size = u64::from(count).saturating_mul(size_of::<ProgramHeader64<Le>>() as u64);
    part(bytes, offset, size)
        .and_then(entries)
        .ok_or_else(|| truncated("program headers", offset.checked_add(size), bytes))
}

/// They come last in a file, so that a file that breaks off is told by them.
fn check_section_headers(bytes: &[u8], header: &FileHeader64<Le>) -> Result<()> {
    let offset = header.e_shoff.get(LE);
    if offset == 0 {
        return Ok(());
    }
    if usize::from(header.e_shentsize.get(LE)) != size_of::<SectionHeader64<Le>>() {
        return Err(damaged("its section headers are of a wrong size"));
    }
    // Of very many sections the first header tells the number; the others are of no use to the loader.
    let count = u64::from(header.e_shnum.get(LE).max(1));
    let size = count.saturating_mul(size_of::<SectionHeader64<Le>>() as u64);
    match part(bytes, offset, size) {
        Some(_) => Ok(()),
        None => Err(truncated("section headers", offset.checked_add(size), bytes)),
    }
}

/// The model's table is a data symbol that can be found from outside and lies inside the library.
fn check_export(image: &Image, dynamic: &Dynamic, symbols: &Symbols) -> Result<()> {
    let wrong = |why: &str| {
        let text = format!("the library does not export {}{why}", layout::SYMBOL);
        Err(Error::new(Code::DylibSymbol, text))
    };
    let is_ours = |symbol: &&symbols::Symbol| {
        dynamic.bytes_at(symbol.st_name.get(LE).into()) == Some(layout::SYMBOL.as_bytes())
    };
    let Some(symbol) = symbols.all.iter().find(is_ours) else { return wrong("") };
    if symbol.st_shndx.get(LE) == elf::SHN_UNDEF {
        return wrong(": it uses one from elsewhere");
    }
    if symbol.st_type() != elf::STT_OBJECT {
        return wrong(" as data, but as something else");
    }
    let is_found = [elf::STB_GLOBAL, elf::STB_WEAK, elf::STB_GNU_UNIQUE].contains(&symbol.st_bind());
    let is_hidden = [elf::STV_HIDDEN, elf::STV_INTERNAL].contains(&symbol.st_visibility());
    if !is_found || is_hidden {
        return wrong(": the symbol is hidden");
    }
    // Of such a symbol the loader does not move the value to where the library is.
    if symbol.st_shndx.get(LE) == elf::SHN_ABS {
        return wrong(": the symbol is a number, not an address");
    }
    let wanted = size_of::<Api>() as u64;
    let size = symbol.st_size.get(LE);
    if size != 0 && size < wanted {
        return wrong(&format!(" in full: it has {size} bytes, not {wanted}"));
    }
    match image.load(symbol.st_value.get(LE), size.max(wanted)) {
        Some(_) => Ok(()),
        None => wrong(": the symbol's address is outside of the library"),
    }
}
