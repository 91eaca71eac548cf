//! Stops runs that pass their deadline or whose caller has left.
//!
//! Each thread that runs models owns one `OrtRunOptions` with a slot in the list of this watchdog; ONNX Runtime looks
//! at its terminate flag between kernels. The slot's lock is taken by its own thread at the start and end of a run and
//! by the watchdog every few milliseconds: it is uncontended, and an upload or a load never takes it. The lock (and
//! not an atomic deadline) is what keeps a late watchdog from terminating the *next* run of the same thread.

use std::cell::OnceCell;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

use ort::sys::OrtRunOptions;

use crate::engine::{Cancellation, RunControl};

/// How late a run may be stopped, kernels aside.
const TICK: Duration = Duration::from_millis(10);

/// Why a run was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    Deadline,
    Cancelled,
}

struct Slot {
    options: NonNull<OrtRunOptions>,
    run: Mutex<Run>,
}

#[derive(Default)]
struct Run {
    deadline: Option<Instant>,
    cancelled: Option<Cancellation>,
    stopped: Option<Stopped>,
}

// SAFETY: `options` is created once and released when the last owner drops; the C API's terminate flag may be set from
// any thread while a run reads it (that is its purpose), and every other use happens on the thread that owns the slot.
unsafe impl Send for Slot {}
// SAFETY: as for `Send`: shared access is limited to the terminate flag, under `run`'s lock.
unsafe impl Sync for Slot {}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the pointer came from CreateRunOptions and this is its last use.
        unsafe { (ort::api().ReleaseRunOptions)(self.options.as_ptr()) };
    }
}

static SLOTS: Mutex<Vec<Weak<Slot>>> = Mutex::new(Vec::new());
static STARTED: Once = Once::new();

thread_local! {
    static OWN: OnceCell<Arc<Slot>> = const { OnceCell::new() };
}

/// Runs `body` with this thread's run options under watch. The second value tells whether the watchdog stopped it.
pub(super) fn watched<T>(
    control: &RunControl,
    body: impl FnOnce(*const OrtRunOptions) -> T,
) -> (T, Option<Stopped>) {
    OWN.with(|own| {
        let slot = own.get_or_init(register);
        {
            let mut run = slot.run.lock().unwrap_or_else(PoisonError::into_inner);
            *run =
                Run { deadline: Some(control.deadline), cancelled: control.cancelled.clone(), stopped: None };
        }
        let value = body(slot.options.as_ptr());
        let run = std::mem::take(&mut *slot.run.lock().unwrap_or_else(PoisonError::into_inner));
        if run.stopped.is_some() {
            // SAFETY: the pointer lives as long as the slot; no run uses it now, and the watchdog leaves a slot
            // without a deadline alone.
            let status = unsafe { (ort::api().RunOptionsUnsetTerminate)(slot.options.as_ptr()) };
            super::run::discard(status);
        }
        (value, run.stopped)
    })
}

fn register() -> Arc<Slot> {
    STARTED.call_once(|| {
        let watchdog = std::thread::Builder::new().name("baton-watchdog".to_owned());
        // Without the watchdog deadlines are not kept; runs still are. It can only fail when threads are exhausted.
        if let Err(error) = watchdog.spawn(watch) {
            tracing::error!("cannot start the watchdog thread: {error}");
        }
    });
    let slot = Arc::new(Slot { options: super::run::create_run_options(), run: Mutex::default() });
    let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
    slots.retain(|slot| slot.strong_count() > 0);
    slots.push(Arc::downgrade(&slot));
    slot
}

fn watch() {
    loop {
        std::thread::sleep(TICK);
        let slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        for slot in slots.iter().filter_map(Weak::upgrade) {
            let mut run = slot.run.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(deadline) = run.deadline else { continue };
            let reason = if now >= deadline {
                Stopped::Deadline
            } else if run.cancelled.as_ref().is_some_and(Cancellation::is_cancelled) {
                Stopped::Cancelled
            } else {
                continue;
            };
            run.stopped = Some(reason);
            // SAFETY: the slot, and with it the pointer, is kept alive by `slot`; the flag may be set during a run.
            let status = unsafe { (ort::api().RunOptionsSetTerminate)(slot.options.as_ptr()) };
            super::run::discard(status);
        }
    }
}
