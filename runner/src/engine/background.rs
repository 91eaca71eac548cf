//! What the threads beside the request path do for it: give freed memory back, and step back from the processor.
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

/// Lowers the calling thread's priority (`nice` 1 to 19), so that requests come first on a busy machine.
pub fn step_back(nice: i32) {
    // On Linux this is the calling thread's own priority, not the process's.
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!("a thread keeps its priority: {error}");
    }
}
