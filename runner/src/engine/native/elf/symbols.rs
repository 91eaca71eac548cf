//! The dynamic symbols, and what the loader finds them by: hashes and versions.

use std::mem::size_of;

use object::elf::{self, GnuHashHeader, HashHeader, Sym64, Verdaux, Verdef, Vernaux, Verneed};
use object::{U32, U64};

use super::dynamic::Dynamic;
use super::image::Image;
use super::{LE, Le, damaged, entries, entry, refuse};
use crate::error::Result;

pub(super) type Symbol = Sym64<Le>;
type Word = U32<Le>;

/// Records of versions; a large library has hundreds.
const MAX_VERSIONS: u32 = 1 << 15;

/// The table, each of whose symbols has a name and, where the loader cares, a sound address.
pub(super) struct Symbols<'a> {
    pub(super) all: &'a [Symbol],
}

impl<'a> Symbols<'a> {
    pub(super) fn new(image: &Image<'a>, dynamic: &Dynamic<'a>, needed: &[String]) -> Result<Self> {
        let all = table(image, dynamic)?;
        let has_tls = image.segments(elf::PT_TLS).next().is_some();
        for symbol in all {
            if !dynamic.has_string(symbol.st_name.get(LE)) {
                return Err(damaged("a symbol has no name"));
            }
            let is_defined = symbol.st_shndx.get(LE) != elf::SHN_UNDEF;
            let is_fine = match symbol.st_type() {
                // The loader calls these to learn the address.
                elf::STT_GNU_IFUNC => !is_defined || image.is_code(symbol.st_value.get(LE)),
                elf::STT_TLS => !is_defined || has_tls,
                _ => true,
            };
            if !is_fine {
                return Err(damaged("a symbol leads outside of it"));
            }
        }
        check_versions(image, dynamic, needed, all.len())?;
        Ok(Self { all })
    }
}

/// The table has no size of its own: the hash tables know how many there are.
fn table<'a>(image: &Image<'a>, dynamic: &Dynamic<'a>) -> Result<&'a [Symbol]> {
    let old = dynamic.value(elf::DT_HASH).map(|address| {
        hash_count(image, address).ok_or_else(|| damaged("its table of hashes leads outside of it"))
    });
    let new = dynamic.value(elf::DT_GNU_HASH).map(|address| {
        gnu_hash_count(image, address).ok_or_else(|| damaged("its table of GNU hashes leads outside of it"))
    });
    let count = match (old.transpose()?, new.transpose()?) {
        (Some(old), Some(new)) if new > old => {
            return Err(damaged("its tables of hashes contradict each other"));
        }
        (None, Some(0)) => count_to_names(dynamic).unwrap_or(0),
        (Some(count), _) | (None, Some(count)) => count,
        (None, None) => return refuse("the library has no table of hashes, so no symbol can be found"),
    };
    let size = u64::from(count).saturating_mul(size_of::<Symbol>() as u64);
    dynamic
        .value(elf::DT_SYMTAB)
        .and_then(|address| image.at(address, size))
        .and_then(entries)
        .ok_or_else(|| damaged("its symbols are not inside a segment"))
}

/// Symbols of a table of the old kind: what its header says, if each chain of it ends.
fn hash_count(image: &Image, address: u64) -> Option<u32> {
    let bytes = image.from(address)?;
    let header: &HashHeader<Le> = entry(bytes)?;
    let (bucket_count, count) = (header.bucket_count.get(LE), header.chain_count.get(LE));
    let words: &[Word] = words(bytes, 2, u64::from(bucket_count).checked_add(count.into())?)?;
    let (buckets, chains) = words.split_at_checked(usize::try_from(bucket_count).ok()?)?;
    // Each symbol is in one chain: more steps than symbols mean a circle.
    let mut steps = 0;
    for bucket in buckets {
        let mut symbol = bucket.get(LE);
        while symbol != 0 {
            symbol = chains.get(usize::try_from(symbol).ok()?)?.get(LE);
            steps += 1;
            if steps > chains.len() {
                return None;
            }
        }
    }
    (bucket_count != 0).then_some(count)
}

/// Symbols of a library that exports none and thus has no chain that ends: linkers put the names right behind.
fn count_to_names(dynamic: &Dynamic) -> Option<u32> {
    let bytes = dynamic.value(elf::DT_STRTAB)?.checked_sub(dynamic.value(elf::DT_SYMTAB)?)?;
    u32::try_from(bytes.checked_div(size_of::<Symbol>() as u64)?).ok()
}

/// Symbols of a table of the GNU kind: up to the end of the last chain; 0 if there is no chain.
fn gnu_hash_count(image: &Image, address: u64) -> Option<u32> {
    let bytes = image.from(address)?;
    let header: &GnuHashHeader<Le> = entry(bytes)?;
    let (bucket_count, base) = (header.bucket_count.get(LE), header.symbol_base.get(LE));
    let bloom_count = header.bloom_count.get(LE);
    if bucket_count == 0 || !bloom_count.is_power_of_two() || header.bloom_shift.get(LE) > 63 {
        return None;
    }
    let bloom_words =
        u64::from(bloom_count).checked_mul((size_of::<U64<Le>>() / size_of::<Word>()) as u64)?;
    let all = words(bytes, 4, bloom_words.checked_add(bucket_count.into())?)?;
    let buckets = all.get(usize::try_from(bloom_words).ok()?..)?;
    let chains_at = size_of::<GnuHashHeader<Le>>().checked_add(size_of_val(all))?;
    let chains = bytes.get(chains_at..)?;
    let chains: &[Word] = entries(chains.get(..chains.len() & !3)?)?;
    let mut last = None;
    for bucket in buckets.iter().map(|bucket| bucket.get(LE)).filter(|bucket| *bucket != 0) {
        // A chain that begins before the first would be read from outside the table.
        let first = bucket.checked_sub(base)?;
        last = last.max(Some(first));
    }
    let Some(last) = last else { return Some(0) };
    let last = usize::try_from(last).ok()?;
    let length = chains.get(last..)?.iter().position(|hash| hash.get(LE) & 1 == 1)?;
    let count = last.checked_add(length)?.checked_add(1)?;
    base.checked_add(u32::try_from(count).ok()?)
}

/// `count` words behind the first `skipped` ones.
fn words(bytes: &[u8], skipped: usize, count: u64) -> Option<&[Word]> {
    let start = skipped.checked_mul(size_of::<Word>())?;
    let size = usize::try_from(count).ok()?.checked_mul(size_of::<Word>())?;
    entries(bytes.get(start..start.checked_add(size)?)?)
}

/// Each symbol's version has to be one of those that are listed: the loader looks it up without a check.
fn check_versions(image: &Image, dynamic: &Dynamic, needed: &[String], count: usize) -> Result<()> {
    let Some(address) = dynamic.value(elf::DT_VERSYM) else { return Ok(()) };
    let lists = Lists { image, dynamic, needed };
    let highest = lists.highest().ok_or_else(|| damaged("its versions of symbols lead outside of it"))?;
    let size = (count as u64).saturating_mul(2);
    let versions: &[object::U16<Le>] = image
        .at(address, size)
        .and_then(entries)
        .ok_or_else(|| damaged("its versions of symbols are not inside a segment"))?;
    match versions.iter().all(|version| version.get(LE) & elf::VERSYM_VERSION <= highest) {
        true => Ok(()),
        false => Err(damaged("a symbol's version does not exist")),
    }
}

/// The lists of versions that a library defines and needs.
struct Lists<'a, 'b> {
    image: &'b Image<'a>,
    dynamic: &'b Dynamic<'a>,
    needed: &'b [String],
}

impl Lists<'_, '_> {
    /// The highest number of a version; `None` if a list leads astray, or there is none.
    fn highest(&self) -> Option<u16> {
        let defined = match self.dynamic.value(elf::DT_VERDEF) {
            Some(address) => Some(self.highest_defined(address)?),
            None => None,
        };
        let needed = match self.dynamic.value(elf::DT_VERNEED) {
            Some(address) => Some(self.highest_needed(address)?),
            None => None,
        };
        defined.max(needed)
    }

    fn highest_defined(&self, mut address: u64) -> Option<u16> {
        let mut highest = 1;
        for _ in 0..MAX_VERSIONS {
            let record: &Verdef<Le> = entry(self.image.from(address)?)?;
            let name: &Verdaux<Le> =
                entry(self.image.from(address.checked_add(record.vd_aux.get(LE).into())?)?)?;
            if record.vd_version.get(LE) != 1 || !self.dynamic.has_string(name.vda_name.get(LE)) {
                return None;
            }
            highest = highest.max(record.vd_ndx.get(LE).0 & elf::VERSYM_VERSION);
            match record.vd_next.get(LE) {
                0 => return Some(highest),
                next => address = address.checked_add(next.into())?,
            }
        }
        None
    }

    fn highest_needed(&self, mut address: u64) -> Option<u16> {
        let mut highest = 1;
        for _ in 0..MAX_VERSIONS {
            let record: &Verneed<Le> = entry(self.image.from(address)?)?;
            let file = self.dynamic.bytes_at(record.vn_file.get(LE).into())?;
            // The loader stops the process if it did not load the library of the name.
            if record.vn_version.get(LE) != 1 || !self.needed.iter().any(|name| name.as_bytes() == file) {
                return None;
            }
            let first = address.checked_add(record.vn_aux.get(LE).into())?;
            highest = highest.max(self.highest_of_file(first)?);
            match record.vn_next.get(LE) {
                0 => return Some(highest),
                next => address = address.checked_add(next.into())?,
            }
        }
        None
    }

    fn highest_of_file(&self, mut address: u64) -> Option<u16> {
        let mut highest = 1;
        for _ in 0..MAX_VERSIONS {
            let record: &Vernaux<Le> = entry(self.image.from(address)?)?;
            if !self.dynamic.has_string(record.vna_name.get(LE)) {
                return None;
            }
            highest = highest.max(record.vna_other.get(LE).0 & elf::VERSYM_VERSION);
            match record.vna_next.get(LE) {
                0 => return Some(highest),
                next => address = address.checked_add(next.into())?,
            }
        }
        None
    }
}
