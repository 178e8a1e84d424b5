//! Volumes that say of themselves what they do: at most four series each.

use super::{Families, MAX_VOLUMES, float};
use crate::facts::Exceeded;
use crate::report::{Report, ReportedVolume};

/// Everything that a report has of volumes.
pub(super) fn add(families: &mut Families, report: &Report) {
    let shown = || report.volumes.iter().take(MAX_VOLUMES);
    let help = "Time of demand above a limit since the volume was attached, by the owner of the limit (volume or instance): the \
                longer one of IOPS and throughput.";
    let mut series = families.counter("barnacle_volume_throttled_seconds_total", help);
    for volume in shown() {
        for (limiter, above) in [("volume", volume.above_volume), ("instance", volume.above_instance)] {
            let Some(Exceeded { iops_us, throughput_us }) = above else { continue };
            let labels = [("device", &*volume.device), ("volume", id(volume)), ("limiter", limiter)];
            series.set(&labels, float(iops_us.max(throughput_us)) / 1e6);
        }
    }
    drop(series);
    let help = "Operations that wait at the volume, by its own count; absent where none does.";
    let mut series = families.gauge("barnacle_volume_queue_length", help);
    for volume in shown().filter(|volume| volume.queue > 0) {
        series.set(&[("device", &volume.device), ("volume", id(volume))], float(volume.queue));
    }
    drop(series);
    let help = "99 of 100 operations since the last reading took no longer, reads or writes, the slower of the two; absent where \
                there were none.";
    let mut series = families.gauge("barnacle_volume_latency_p99_seconds", help);
    for volume in shown() {
        let Some(slower) = volume.read_p99_us.max(volume.write_p99_us) else { continue };
        series.set(&[("device", &volume.device), ("volume", id(volume))], float(slower) / 1e6);
    }
}

fn id(volume: &ReportedVolume) -> &str {
    volume.volume.as_ref().map_or("", |volume| volume.as_str())
}
