//! What a call costs.

use std::time::Instant;

use serde_json::{Value, json};

/// Measures from its start; CPU time and memory are the whole process's, which answers a few calls at a time.
#[derive(Debug)]
pub(super) struct Meter {
    wall: Instant,
    cpu: f64,
}

impl Meter {
    pub(super) fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu_seconds() }
    }

    /// `{"cpu_s", "wall_s", "max_rss_mb"}`
    pub(super) fn cost(&self) -> Value {
        json!({
            "cpu_s": rounded(cpu_seconds() - self.cpu),
            "wall_s": rounded(self.wall.elapsed().as_secs_f64()),
            "max_rss_mb": rounded(peak_megabytes().unwrap_or(0.0)),
        })
    }
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// `VmHWM` of /proc/self/status.
fn peak_megabytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes / 1024.0)
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
