//! Buffers that a native model writes to: each with a canary behind it, and a page behind the last one that nobody may
//! touch. Small overruns change a canary, long ones hit the page; neither reaches memory of ours unseen.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use crate::error::{Code, Error, Result};

/// Alignment of buffers, and the least room between two.
const ALIGN: usize = 64;
const PAGE: usize = 4096;
const CANARY: u8 = 0xc5;

/// The page behind the buffers of the run under way, for whoever handles the fault. Zero if there is none.
static GUARD: AtomicUsize = AtomicUsize::new(0);

/// Does an address lie in a guard page?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Guard {
    Hit,
    Missed,
}

/// Asks whether a faulting address is behind an output buffer. Safe to call in a signal handler.
pub(in crate::engine) fn guard_of(address: usize) -> Guard {
    let guard = GUARD.load(Ordering::Relaxed);
    match guard != 0 && (guard..guard + PAGE).contains(&address) {
        true => Guard::Hit,
        false => Guard::Missed,
    }
}

/// Mapped memory for the outputs of one run.
pub(super) struct Arena {
    base: NonNull<u8>,
    /// Without the guard page.
    size: usize,
    buffers: Vec<Range<usize>>,
}

// SAFETY: the mapping belongs to this value alone.
unsafe impl Send for Arena {}

impl Arena {
    /// Room for buffers of at least these sizes.
    ///
    /// # Errors
    /// `OUTPUT_TOO_LARGE` if the memory cannot be had.
    pub(super) fn new(capacities: &[usize]) -> Result<Self> {
        let mut end = 0;
        let mut buffers = Vec::with_capacity(capacities.len());
        for capacity in capacities {
            let rounded = capacity.next_multiple_of(ALIGN);
            buffers.push(end..end + rounded);
            end += rounded + ALIGN;
        }
        let size = end.next_multiple_of(PAGE);
        // The last canary ends at the guard page: what follows is touched by nobody.
        let shift = size - end;
        for buffer in &mut buffers {
            *buffer = buffer.start + shift..buffer.end + shift;
        }
        let too_large = |error: rustix::io::Errno| {
            Error::new(Code::OutputTooLarge, format!("there is no memory for {size} bytes of outputs"))
                .caused_by(error)
        };
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                size + PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .map_err(too_large)?;
        let arena = Self { base: NonNull::new(base.cast()).unwrap_or(NonNull::dangling()), size, buffers };
        // SAFETY: the last page of the mapping that was just made.
        unsafe { rustix::mm::mprotect(base.byte_add(size), PAGE, MprotectFlags::empty()) }
            .map_err(too_large)?;
        Ok(arena)
    }

    /// Fills the canaries and announces the guard page, before a run.
    pub(super) fn arm(&mut self) {
        for index in 0..self.buffers.len() {
            self.canary_mut(index).fill(CANARY);
        }
        GUARD.store(self.base.as_ptr() as usize + self.size, Ordering::Relaxed);
    }

    /// Start and capacity of a buffer.
    pub(super) fn buffer(&mut self, index: usize) -> (*mut u8, usize) {
        let range = self.buffers.get(index).cloned().unwrap_or(0..0);
        // SAFETY: the range lies inside the mapping.
        (unsafe { self.base.as_ptr().add(range.start) }, range.len())
    }

    /// Bytes that a buffer has.
    pub(super) fn capacity(&self, index: usize) -> usize {
        self.buffers.get(index).map_or(0, ExactSizeIterator::len)
    }

    /// The first bytes of a buffer, as many as it has at most.
    pub(super) fn bytes(&self, index: usize, count: usize) -> &[u8] {
        let range = self.buffers.get(index).cloned().unwrap_or(0..0);
        // SAFETY: inside the mapping, which is readable memory as long as `self`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(range.start), count.min(range.len())) }
    }

    /// The first buffer that was written beyond, after a run.
    pub(super) fn overrun(&mut self) -> Option<usize> {
        (0..self.buffers.len()).find(|index| self.canary_mut(*index).iter().any(|byte| *byte != CANARY))
    }

    fn canary_mut(&mut self, index: usize) -> &mut [u8] {
        let end = self.buffers.get(index).map_or(0, |range| range.end);
        // SAFETY: each buffer is followed by `ALIGN` bytes of the mapping that belong to no other.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(end), ALIGN) }
    }

    /// Bytes that it maps.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Does it have room for these?
    pub(super) fn fits(&self, capacities: &[usize]) -> bool {
        self.buffers.len() == capacities.len()
            && self.buffers.iter().zip(capacities).all(|(buffer, capacity)| buffer.len() >= *capacity)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nothing borrows it any more.
        if let Err(error) = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.size + PAGE) } {
            tracing::warn!("cannot unmap output buffers: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_apart_and_overruns_are_seen() {
        let mut arena = Arena::new(&[1, 100, 0, 4096]).expect("memory");
        assert!(arena.fits(&[64, 128, 0, 4096]) && !arena.fits(&[65, 1, 0, 1]) && !arena.fits(&[1]));
        arena.arm();
        let mut last_end = 0;
        for index in 0..4 {
            let (start, capacity) = arena.buffer(index);
            assert_eq!(start as usize % ALIGN, 0);
            assert!(start as usize >= last_end);
            last_end = start as usize + capacity + ALIGN;
            // SAFETY: the whole buffer.
            unsafe { std::ptr::write_bytes(start, 7, capacity) };
            assert_eq!(arena.bytes(index, capacity), vec![7; capacity]);
        }
        assert_eq!(arena.overrun(), None);
        assert_eq!(guard_of(last_end), Guard::Hit);
        assert_eq!(guard_of(last_end - 1), Guard::Missed);
        let (start, capacity) = arena.buffer(1);
        // SAFETY: one byte beyond, which the arena still owns.
        unsafe { start.add(capacity).write(1) };
        assert_eq!(arena.overrun(), Some(1));
    }
}
