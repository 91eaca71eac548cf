//! What a dying worker still says: the signal, and whether it was at its memory limit or behind an output buffer.
//!
//! The handler runs in a broken process: it calls nothing but what is safe there, writes eight bytes to the shared
//! memory and lets the signal end the process as it would have.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::engine::native::{Guard, guard_of};

/// A death this far below the memory limit, or half the limit if that is less, is taken for one of want of memory: the
/// allocation that failed does not show.
const MARGIN: u64 = 96 << 20;

/// Why a worker died, as far as it could say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastWords {
    Nothing,
    Memory,
    Overrun,
}

const NOTHING: u64 = 0;
const MEMORY: u64 = 1;
const OVERRUN: u64 = 2;

static PLACE: AtomicPtr<u64> = AtomicPtr::new(std::ptr::null_mut());
static MEMORY_ALARM: AtomicU64 = AtomicU64::new(u64::MAX);

/// Reads and clears the last words of a worker that is dead.
pub(super) fn take_last_words(place: NonNull<u64>) -> LastWords {
    // SAFETY: a valid, aligned address in shared memory; its other user is dead, and any value is fine.
    let words = unsafe { std::ptr::replace(place.as_ptr(), NOTHING) };
    match words {
        MEMORY => LastWords::Memory,
        OVERRUN => LastWords::Overrun,
        _ => LastWords::Nothing,
    }
}

/// Installs the handlers in the worker. `place` must stay mapped for the life of the process.
pub(super) fn install(place: NonNull<u64>) {
    PLACE.store(place.as_ptr(), Ordering::Relaxed);
    let stack_size = 64 << 10;
    // A stack that has overflowed cannot hold the handler's frame, so it gets one of its own, for good.
    let stack = Box::leak(vec![0_u8; stack_size].into_boxed_slice());
    let alternative = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack_size };
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT] {
        // SAFETY: the structs are valid for the calls; the handler does only what a signal handler may.
        unsafe {
            libc::sigaltstack(&alternative, std::ptr::null_mut());
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Tells the handlers that the process may allocate so much more than it has now.
pub(super) fn set_memory(now: u64, more: u64) {
    MEMORY_ALARM.store(now.saturating_add(more) - MARGIN.min(more / 2), Ordering::Relaxed);
}

/// Restored to the default by SA_RESETHAND, so returning repeats the fault, and that ends the process.
extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid info; the address is meaningful for faults only.
    let address = unsafe { (*info).si_addr() } as usize;
    let words = if signal != libc::SIGABRT && guard_of(address) == Guard::Hit {
        OVERRUN
    } else if data_bytes() >= MEMORY_ALARM.load(Ordering::Relaxed) {
        MEMORY
    } else {
        NOTHING
    };
    let place = PLACE.load(Ordering::Relaxed);
    if !place.is_null() {
        // SAFETY: `install` was promised that it stays mapped.
        unsafe { place.write(words) };
    }
}

/// Bytes of this process that count against its limit on data: the sixth number of `statm`, in pages. Allocates nothing.
pub(super) fn data_bytes() -> u64 {
    let mut buffer = [0_u8; 128];
    // SAFETY: open, read and close may be called in a signal handler; the buffer is valid for its length.
    let read = unsafe {
        let file = libc::open(c"/proc/self/statm".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let read = libc::read(file, buffer.as_mut_ptr().cast(), buffer.len());
        libc::close(file);
        read
    };
    let text = buffer.get(..usize::try_from(read).unwrap_or(0)).unwrap_or_default();
    let field = text.split(|byte| *byte == b' ').nth(5).unwrap_or_default();
    let digits = field.iter().take_while(|byte| byte.is_ascii_digit());
    let pages =
        digits.fold(0_u64, |pages, digit| pages.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    pages.saturating_mul(rustix::param::page_size() as u64)
}
