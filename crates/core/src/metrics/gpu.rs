//! What the machine's GPUs use, as NVIDIA's management library tells it; without that library there is nothing to tell.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::text::{Kind, Labels, Text};
use crate::log::{Level, Log, Record};

/// Where drivers install the library; the name without the number comes with development packages only.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// One GPU; what it does not tell is none.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reading {
    uuid: String,
    /// Between 0 and 1.
    utilization: Option<f64>,
    memory: Option<(u64, u64)>,
    /// In watts.
    power: Option<f64>,
    power_limit: Option<f64>,
    /// In joules, since this process began to look.
    energy: Option<f64>,
}

/// Writes the value of one GPU for a family.
type Value = fn(&Reading) -> Option<f64>;

/// Triton's families.
const FAMILIES: [(&str, Kind, &str, Value); 6] = [
    ("nv_gpu_utilization", Kind::Gauge, "Share of the time in which the GPU was busy, 0 to 1", |gpu| gpu.utilization),
    ("nv_gpu_memory_total_bytes", Kind::Gauge, "Memory of the GPU", |gpu| gpu.memory.map(|memory| memory.0 as f64)),
    ("nv_gpu_memory_used_bytes", Kind::Gauge, "Memory in use on the GPU", |gpu| {
        gpu.memory.map(|memory| memory.1 as f64)
    }),
    ("nv_gpu_power_usage", Kind::Gauge, "Power that the GPU draws, in watts", |gpu| gpu.power),
    ("nv_gpu_power_limit", Kind::Gauge, "Power that the GPU may draw, in watts", |gpu| gpu.power_limit),
    ("nv_energy_consumption", Kind::Counter, "Energy that the GPU took since the server started, in joules", |gpu| {
        gpu.energy
    }),
];

/// The latest readings. A thread of its own takes them, for a driver in trouble lets its callers wait.
#[derive(Debug, Default)]
pub struct Gpus {
    latest: Arc<Mutex<Vec<Reading>>>,
    /// Its drop ends the thread.
    _running: Option<SyncSender<()>>,
}

impl Gpus {
    /// Looks for GPUs and begins to read them so often.
    pub fn start(interval: Duration, log: Log) -> io::Result<Self> {
        let latest = Arc::<Mutex<Vec<Reading>>>::default();
        let (running, ended) = sync_channel(0);
        let readings = Arc::clone(&latest);
        let watch = move || {
            // A machine without the library has no GPUs of this kind.
            let Ok(nvml) = Nvml::builder().lib_path(LIBRARY.as_ref()).init() else { return };
            if let Err(fault) = read_on(&nvml, &readings, interval, &ended) {
                let record = Record::new(Level::Warning, "the GPUs cannot be read for the metrics any more");
                log.write(record.with("fault", fault.to_string()));
                readings.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
        };
        thread::Builder::new().name("naiad-gpu".to_owned()).spawn(watch)?;
        Ok(Self { latest, _running: Some(running) })
    }

    /// The GPU families (`--allow-gpu-metrics`); none without a GPU.
    pub fn write(&self, text: &mut Text) {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (name, kind, help, value) in FAMILIES {
            let mut values = latest.iter().filter_map(|gpu| Some((gpu, value(gpu)?))).peekable();
            if values.peek().is_some() {
                text.family(name, kind, help);
            }
            for (gpu, value) in values {
                text.sample(name, Labels::default().with("gpu_uuid", &gpu.uuid).text(), value);
            }
        }
    }
}

fn read_on(
    nvml: &Nvml,
    latest: &Mutex<Vec<Reading>>,
    interval: Duration,
    ended: &Receiver<()>,
) -> Result<(), NvmlError> {
    let devices = (0..nvml.device_count()?).map(|index| nvml.device_by_index(index)).collect::<Result<Vec<_>, _>>()?;
    let begun: Vec<_> = devices.iter().map(|device| device.total_energy_consumption().ok()).collect();
    loop {
        let readings = devices.iter().zip(&begun).map(|(device, begun)| read(device, *begun));
        let readings = readings.collect::<Result<Vec<_>, _>>()?;
        *latest.lock().unwrap_or_else(PoisonError::into_inner) = readings;
        if ended.recv_timeout(interval) == Err(RecvTimeoutError::Disconnected) {
            return Ok(());
        }
    }
}

/// Reads anew; `begun` is the energy in millijoules at the start. Only a GPU that is gone is a fault.
fn read(device: &Device<'_>, begun: Option<u64>) -> Result<Reading, NvmlError> {
    let watts = |milliwatts: u32| f64::from(milliwatts) / 1000.0;
    let energy = device.total_energy_consumption().ok().zip(begun);
    Ok(Reading {
        uuid: device.uuid()?,
        utilization: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0),
        memory: device.memory_info().ok().map(|memory| (memory.total, memory.used)),
        power: device.power_usage().ok().map(watts),
        power_limit: device.enforced_power_limit().ok().map(watts),
        energy: energy.map(|(now, begun)| now.saturating_sub(begun) as f64 / 1000.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gpu_does_not_tell_is_left_out() {
        let full =
            Reading { uuid: "GPU-1".to_owned(), utilization: Some(0.5), memory: Some((8, 3)), ..Reading::default() };
        let bare = Reading { uuid: "GPU-2".to_owned(), memory: Some((4, 0)), ..Reading::default() };
        let gpus = Gpus { latest: Arc::new(Mutex::new(vec![full, bare])), _running: None };
        let mut text = Text::default();
        gpus.write(&mut text);
        let text = text.finish();
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "nv_gpu_utilization{gpu_uuid=\"GPU-1\"} 0.5",
            "nv_gpu_memory_total_bytes{gpu_uuid=\"GPU-1\"} 8",
            "nv_gpu_memory_total_bytes{gpu_uuid=\"GPU-2\"} 4",
            "nv_gpu_memory_used_bytes{gpu_uuid=\"GPU-1\"} 3",
            "nv_gpu_memory_used_bytes{gpu_uuid=\"GPU-2\"} 0",
        ];
        assert_eq!(samples, expected);
        assert!(!text.contains("power"), "{text}");
    }
}
