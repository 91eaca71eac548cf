//! What a piece of work has cost.

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// As events carry it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Cost {
    /// Seconds of a processor.
    pub cpu_s: f64,
    pub wall_s: f64,
    /// Largest resident size of the whole process meanwhile, in MB (10^6 bytes).
    pub max_rss_mb: f64,
}

/// Measures from its start on.
#[derive(Debug)]
pub(super) struct Meter {
    began: Instant,
    clock: ClockId,
    cpu: f64,
}

impl Meter {
    /// For work on this one thread.
    pub(super) fn of_thread() -> Self {
        Self::start(ClockId::ThreadCPUTime)
    }

    /// For work that changes threads: everything that this process does meanwhile counts, calls that run beside it too.
    pub(super) fn of_process() -> Self {
        Self::start(ClockId::ProcessCPUTime)
    }

    fn start(clock: ClockId) -> Self {
        // 5 sets the largest resident size back to the present one, or an instance would charge each call with the largest before.
        // Where there is no such file (gVisor), it does.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { began: Instant::now(), clock, cpu: seconds(clock) }
    }

    /// What has been used since.
    pub(super) fn cost(&self) -> Cost {
        let round = |value: f64| (value * 1e4).round() / 1e4;
        Cost {
            cpu_s: round(seconds(self.clock) - self.cpu),
            wall_s: round(self.began.elapsed().as_secs_f64()),
            max_rss_mb: round(peak_memory() / 1e6),
        }
    }
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Bytes: `VmHWM` of /proc/self/status.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) * 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_on_its_own_thread() {
        let (meter, whole) = (Meter::of_thread(), Meter::of_process());
        let mut sum = 0_u64;
        while meter.began.elapsed().as_millis() < 60 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        let cost = meter.cost();
        assert!(cost.cpu_s > 0.0 && cost.cpu_s <= cost.wall_s + 0.02, "{cost:?}");
        assert!(cost.max_rss_mb > 1.0, "{cost:?}");
        assert!(whole.cost().cpu_s >= cost.cpu_s);
    }

    #[test]
    fn memory_of_earlier_work_is_not_charged() {
        let work = |bytes: usize| {
            let meter = Meter::of_thread();
            std::hint::black_box(vec![1_u8; bytes]);
            meter.cost().max_rss_mb
        };
        let (large, small) = (work(300 << 20), work(1 << 20));
        assert!(large > 300.0 && small < large - 200.0, "{large} {small}");
    }
}
