//! What the machine and this process use, read from `/proc` and kept for an interval.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::text::{Kind, Text};
use crate::options::MachineOptions;

const KIB: u64 = 1024;

/// Ticks of `/proc/stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    ticks: Ticks,
    /// Between 0 and 1, since the reading before.
    utilization: f64,
    memory_total: u64,
    memory_used: u64,
}

/// The latest readings.
#[derive(Debug)]
pub struct Machine {
    latest: Mutex<(Instant, Reading)>,
}

impl Default for Machine {
    fn default() -> Self {
        Self { latest: Mutex::new((Instant::now(), read(Ticks::default()))) }
    }
}

impl Machine {
    /// The CPU families (`--allow-cpu-metrics`); a reading is taken again after `--metrics-interval-ms`.
    pub fn write(&self, text: &mut Text, options: &MachineOptions) {
        if !options.cpu {
            return;
        }
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.0.elapsed() >= Duration::from_millis(options.interval_ms) {
            *latest = (Instant::now(), read(latest.1.ticks));
        }
        let reading = latest.1;
        let mut gauge = |name, help, value: f64| {
            text.family(name, Kind::Gauge, help);
            text.sample(name, "", value);
        };
        gauge("nv_cpu_utilization", "Share of all processors that is busy, 0 to 1", reading.utilization);
        gauge("nv_cpu_memory_total_bytes", "Memory of the machine", reading.memory_total as f64);
        gauge("nv_cpu_memory_used_bytes", "Memory in use on the machine", reading.memory_used as f64);
    }
}

/// Reads anew; what cannot be read is 0.
fn read(before: Ticks) -> Reading {
    let ticks = fs::read_to_string("/proc/stat").ok().and_then(|text| ticks(&text)).unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let all = ticks.all.saturating_sub(before.all);
    let busy = ticks.busy.saturating_sub(before.busy);
    let kib = |name| meminfo(&memory, name).unwrap_or(0) * KIB;
    let total = kib("MemTotal:");
    Reading {
        ticks,
        utilization: if all == 0 { 0.0 } else { (busy as f64 / all as f64).min(1.0) },
        memory_total: total,
        memory_used: total.saturating_sub(kib("MemAvailable:")),
    }
}

/// Busy and all ticks of the line of all processors: everything but idle and waiting for disks is busy.
fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // Guest time is in user time already.
    let fields: Vec<u64> = line.split_whitespace().take(8).filter_map(|field| field.parse().ok()).collect();
    let all = fields.iter().sum();
    let idle = fields.get(3)? + fields.get(4)?;
    Some(Ticks { busy: all - idle, all })
}

fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_are_not_busy() {
        let stat = "cpu  100 10 40 800 50 0 0 0 30 0\ncpu0 1 1 1 1\n";
        assert_eq!(ticks(stat), Some(Ticks { busy: 150, all: 1000 }));
        assert_eq!(meminfo("MemTotal:   2048 kB\nMemFree: 1 kB\n", "MemTotal:"), Some(2048));
    }

    #[test]
    fn this_machine_can_be_read() {
        let reading = read(Ticks::default());
        assert!(reading.memory_total > reading.memory_used && reading.memory_used > 0, "{reading:?}");
        assert!((0.0..=1.0).contains(&reading.utilization), "{reading:?}");
    }
}
