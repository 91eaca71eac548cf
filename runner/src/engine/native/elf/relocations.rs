//! What the loader writes and calls: relocations have to stay inside the library's writable memory, and each function
//! that runs when a library comes or goes has to be in its code.

use std::collections::BTreeSet;
use std::ops::Range;

use object::U64;
use object::elf::{self, Rela64, RelocationType};

use super::dynamic::Dynamic;
use super::image::Image;
use super::symbols::Symbols;
use super::{LE, Le, damaged};
use crate::error::Result;

/// Relocations; the largest libraries there are have a few millions.
const MAX_RELOCATIONS: usize = 16 << 20;
/// Functions that run when a library comes or goes.
const MAX_CALLS: usize = 1 << 16;

/// What a relocation puts in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nothing,
    /// An address in the library.
    Relative,
    /// What a function of the library returns.
    Resolved,
    /// A symbol's address.
    Symbol,
    /// Something of thread-local data.
    ThreadLocal,
    /// As before, of double size.
    ThreadLocalPair,
}

impl Kind {
    #[cfg(not(target_arch = "aarch64"))]
    fn new(kind: RelocationType) -> Option<Self> {
        use object::elf::*;
        Some(match kind {
            R_X86_64_NONE => Self::Nothing,
            R_X86_64_RELATIVE => Self::Relative,
            R_X86_64_IRELATIVE => Self::Resolved,
            R_X86_64_64 | R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT | R_X86_64_SIZE64 => Self::Symbol,
            R_X86_64_DTPMOD64 | R_X86_64_DTPOFF64 | R_X86_64_TPOFF64 => Self::ThreadLocal,
            R_X86_64_TLSDESC => Self::ThreadLocalPair,
            _ => return None,
        })
    }

    #[cfg(target_arch = "aarch64")]
    fn new(kind: RelocationType) -> Option<Self> {
        use object::elf::*;
        Some(match kind {
            R_AARCH64_NONE => Self::Nothing,
            R_AARCH64_RELATIVE => Self::Relative,
            R_AARCH64_IRELATIVE => Self::Resolved,
            R_AARCH64_ABS64 | R_AARCH64_GLOB_DAT | R_AARCH64_JUMP_SLOT => Self::Symbol,
            R_AARCH64_TLS_DTPMOD | R_AARCH64_TLS_DTPREL | R_AARCH64_TLS_TPREL => Self::ThreadLocal,
            R_AARCH64_TLSDESC => Self::ThreadLocalPair,
            _ => return None,
        })
    }

    fn size(self) -> u64 {
        match self {
            Self::ThreadLocalPair => 16,
            _ => 8,
        }
    }
}

/// Checks all relocations and all functions that the loader calls.
pub(super) fn check(image: &Image, dynamic: &Dynamic, symbols: &Symbols) -> Result<()> {
    let mut check = Check { image, dynamic, symbols, calls: Calls::new(image, dynamic)?, count: 0 };
    check.explicit((elf::DT_RELA, elf::DT_RELASZ))?;
    check.explicit((elf::DT_JMPREL, elf::DT_PLTRELSZ))?;
    check.packed()?;
    check.relative_count()?;
    check.calls.finish()
}

struct Check<'a, 'b> {
    image: &'b Image<'a>,
    dynamic: &'b Dynamic<'a>,
    symbols: &'b Symbols<'a>,
    calls: Calls,
    count: usize,
}

impl<'a> Check<'a, '_> {
    fn explicit(&mut self, tags: (elf::DynamicTag, elf::DynamicTag)) -> Result<()> {
        let all: &[Rela64<Le>] = self.dynamic.table(self.image, tags, "relocations")?;
        all.iter().try_for_each(|relocation| self.one(relocation))
    }

    fn one(&mut self, relocation: &Rela64<Le>) -> Result<()> {
        let Some(kind) = Kind::new(relocation.r_type(LE, false)) else {
            let kind = relocation.r_type(LE, false).0;
            return Err(damaged(format_args!(
                "it has a relocation of kind {kind}, which a library cannot have"
            )));
        };
        if kind == Kind::Nothing {
            return Ok(());
        }
        let place = relocation.r_offset.get(LE);
        self.place(place, kind.size())?;
        let addend = relocation.r_addend.get(LE);
        let target = match kind {
            Kind::Relative => Some(addend.cast_unsigned()),
            Kind::Resolved if self.image.is_code(addend.cast_unsigned()) => None,
            Kind::Resolved => return Err(damaged("a relocation calls something that is no code")),
            _ => self.symbol(kind, relocation.r_sym(LE, false), addend)?,
        };
        self.calls.set(self.image, place, target)
    }

    /// The address of a symbol of the library with the addend; `None` if it may be one of another library.
    fn symbol(&self, kind: Kind, index: u32, addend: i64) -> Result<Option<u64>> {
        let symbol = usize::try_from(index).ok().and_then(|index| self.symbols.all.get(index));
        let Some(symbol) = symbol else {
            return Err(damaged(format_args!("a relocation names symbol {index}, which does not exist")));
        };
        let is_thread_local = matches!(kind, Kind::ThreadLocal | Kind::ThreadLocalPair);
        let is_own = index == 0 || symbol.st_shndx.get(LE) != elf::SHN_UNDEF;
        if is_thread_local && is_own && self.image.segments(elf::PT_TLS).next().is_none() {
            return Err(damaged("a relocation is for thread-local data, of which it has none"));
        }
        Ok(match is_own && index != 0 {
            true => symbol.st_value.get(LE).checked_add_signed(addend),
            false => None,
        })
    }

    /// The table in which one word stands for up to 63 places.
    fn packed(&mut self) -> Result<()> {
        let words: &[U64<Le>] =
            self.dynamic.table(self.image, (elf::DT_RELR, elf::DT_RELRSZ), "packed relocations")?;
        let mut next = 0_u64;
        for word in words.iter().map(|word| word.get(LE)) {
            if word & 1 == 0 {
                self.in_place(word)?;
                next = word.wrapping_add(8);
                continue;
            }
            for bit in (1..64).filter(|bit| word >> bit & 1 == 1) {
                self.in_place(next.wrapping_add(8 * (bit - 1)))?;
            }
            next = next.wrapping_add(8 * 63);
        }
        Ok(())
    }

    /// A relative relocation whose address is what was in its place.
    fn in_place(&mut self, place: u64) -> Result<()> {
        self.place(place, Kind::Relative.size())?;
        let target =
            self.image.at(place, 8).and_then(super::entry::<U64<Le>>).map_or(0, |value| value.get(LE));
        self.calls.set(self.image, place, Some(target))
    }

    fn place(&mut self, place: u64, size: u64) -> Result<()> {
        self.count = self.count.saturating_add(1);
        if self.count > MAX_RELOCATIONS {
            return super::refuse(format!("the library has more than {MAX_RELOCATIONS} relocations"));
        }
        let is_writable = self.image.load(place, size).is_some_and(|load| load.has(elf::PF_W));
        let mut dynamic = self.image.segments(elf::PT_DYNAMIC);
        let end = place.saturating_add(size);
        let is_dynamic = dynamic.any(|segment| {
            place < segment.address.saturating_add(segment.memory_size) && end > segment.address
        });
        match is_writable && !is_dynamic {
            true => Ok(()),
            false => Err(damaged("a relocation writes to where it must not")),
        }
    }

    /// The loader takes as many as relative ones, and stops the process if they are not.
    fn relative_count(&self) -> Result<()> {
        let Some(count) = self.dynamic.value(elf::DT_RELACOUNT) else { return Ok(()) };
        let all: &[Rela64<Le>] =
            self.dynamic.table(self.image, (elf::DT_RELA, elf::DT_RELASZ), "relocations")?;
        let first = usize::try_from(count).ok().and_then(|count| all.get(..count));
        let is_relative =
            |relocation: &Rela64<Le>| Kind::new(relocation.r_type(LE, false)) == Some(Kind::Relative);
        match first.is_some_and(|first| first.iter().all(is_relative)) {
            true => Ok(()),
            false => Err(damaged("it has fewer relative relocations than it says")),
        }
    }
}

/// Functions that the loader calls. It calls whatever stands in the lists, so that each place must be relocated to code.
struct Calls {
    lists: Vec<Range<u64>>,
    /// Places that no relocation was seen for.
    unset: BTreeSet<u64>,
}

impl Calls {
    fn new(image: &Image, dynamic: &Dynamic) -> Result<Self> {
        for tag in [elf::DT_INIT, elf::DT_FINI] {
            if dynamic.value(tag).is_some_and(|address| !image.is_code(address)) {
                return Err(no_code());
            }
        }
        let mut calls = Self { lists: Vec::new(), unset: BTreeSet::new() };
        let tags = [(elf::DT_INIT_ARRAY, elf::DT_INIT_ARRAYSZ), (elf::DT_FINI_ARRAY, elf::DT_FINI_ARRAYSZ)];
        for tags in tags {
            let Some(start) = dynamic.value(tags.0) else { continue };
            let list: &[U64<Le>] = dynamic.table(image, tags, "functions to call")?;
            if list.len() > MAX_CALLS {
                return super::refuse(format!("the library has more than {MAX_CALLS} constructors"));
            }
            let end = start.saturating_add(size_of_val(list) as u64);
            calls.unset.extend((start..end).step_by(8));
            calls.lists.push(start..end);
        }
        Ok(calls)
    }

    /// A place gets an address; `None` if it is not known here.
    fn set(&mut self, image: &Image, place: u64, target: Option<u64>) -> Result<()> {
        if !self.lists.iter().any(|list| list.contains(&place)) {
            return Ok(());
        }
        let is_known = self.unset.remove(&place);
        match is_known && target.is_none_or(|target| image.is_code(target)) {
            true => Ok(()),
            false => Err(no_code()),
        }
    }

    fn finish(&self) -> Result<()> {
        match self.unset.is_empty() {
            true => Ok(()),
            false => Err(no_code()),
        }
    }
}

fn no_code() -> crate::error::Error {
    damaged("a function that the loader calls is not in its code")
}
