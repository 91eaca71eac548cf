//! Gives freed memory back to the operating system.
//!
//! glibc keeps what a large model freed: 40 to 160 MB above the base for a 47 MB model, a different amount each time.
//! Trimming returns it. It takes up to 100 ms and locks each arena in turn, so only the loader and the reaper call it.

/// Returns free heap pages to the operating system.
pub fn trim_heap() {
    // SAFETY: malloc_trim has no preconditions and is thread-safe.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
