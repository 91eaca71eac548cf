//! What a piece of work on one thread has cost.

use std::time::Instant;

use serde::Serialize;

/// As events carry it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// Seconds of a processor.
    pub cpu_s: f64,
    pub wall_s: f64,
    /// Largest resident size of the process so far, in MB (10^6 bytes).
    pub max_rss_mb: f64,
}

/// Measures from its start on, on the thread that started it.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    nanoseconds: u64,
}

impl Meter {
    /// Begins.
    pub fn start() -> Self {
        Self { began: Instant::now(), nanoseconds: thread_time() }
    }

    /// What has been used since.
    pub fn cost(&self) -> Cost {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        Cost {
            cpu_s: round(thread_time().saturating_sub(self.nanoseconds) as f64 / 1e9),
            wall_s: round(self.began.elapsed().as_secs_f64()),
            max_rss_mb: round(peak_memory() as f64 / 1e6),
        }
    }
}

/// Nanoseconds of processor that this thread has used. The kernel's own count where it has one, else its ticks of 10 ms.
fn thread_time() -> u64 {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/thread-self/{file}")).ok();
    let exact = || read("schedstat")?.split_whitespace().next()?.parse::<u64>().ok().filter(|time| *time > 0);
    let ticks = || {
        let stat = read("stat")?;
        // The name is in brackets and may hold anything; user and system time are the 14th and 15th field.
        let after = stat.rsplit_once(')')?.1;
        let mut times = after.split_whitespace().skip(11).map(|time| time.parse::<u64>().ok());
        Some((times.next()?? + times.next()??) * 10_000_000)
    };
    exact().or_else(ticks).unwrap_or(0)
}

/// Bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_on_its_own_thread() {
        let meter = Meter::start();
        let mut sum = 0_u64;
        while meter.began.elapsed().as_millis() < 60 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        let cost = meter.cost();
        assert!(cost.cpu_s > 0.0 && cost.cpu_s <= cost.wall_s + 0.02, "{cost:?}");
        assert!(cost.max_rss_mb > 1.0, "{cost:?}");
    }
}
