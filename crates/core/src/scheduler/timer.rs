//! Wakes the owner at a queue delay: to the microsecond, where tokio's own timer rounds up to the millisecond.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::instance::worker::watch;

/// From here on a millisecond more does not matter.
const ROUGH: Duration = Duration::from_millis(10);

/// A timer of one task.
#[derive(Debug, Default)]
pub struct Timer {
    alarm: Option<AsyncFd<OwnedFd>>,
}

impl Timer {
    /// Waits until `at`; for ever if there is none.
    pub async fn until(&mut self, at: Option<Instant>) {
        let Some(at) = at else { return std::future::pending().await };
        let left = at.saturating_duration_since(Instant::now());
        // Paused time moves tokio's timer only.
        if cfg!(test) || left >= ROUGH || self.precise(left).await.is_err() {
            sleep_until(at).await;
        }
    }

    async fn precise(&mut self, left: Duration) -> io::Result<()> {
        if left.is_zero() {
            return Ok(());
        }
        let alarm = match &mut self.alarm {
            Some(alarm) => alarm,
            none => {
                let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
                none.insert(watch(rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?)?)
            }
        };
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let setting = Itimerspec { it_interval: zero, it_value: once };
        rustix::time::timerfd_settime(alarm.get_ref(), TimerfdTimerFlags::empty(), &setting)?;
        loop {
            let mut ready = alarm.readable().await?;
            // A readiness left over from an earlier setting finds nothing to read.
            if let Ok(expired) = ready.try_io(|alarm| Ok(rustix::io::read(alarm, &mut [0; 8])?)) {
                return expired.map(|_| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_wakes_when_the_time_has_come_and_again() {
        let mut timer = Timer::default();
        for _ in 0..3 {
            let start = std::time::Instant::now();
            timer.precise(Duration::from_micros(300)).await.unwrap();
            assert!(start.elapsed() >= Duration::from_micros(300));
        }
    }

    #[tokio::test]
    async fn a_wait_given_up_leaves_nothing_behind() {
        let mut timer = Timer::default();
        tokio::select! {
            biased;
            _ = timer.precise(Duration::from_secs(3600)) => panic!("an hour is not over"),
            () = tokio::task::yield_now() => {}
        }
        let start = std::time::Instant::now();
        timer.precise(Duration::from_micros(200)).await.unwrap();
        assert!(start.elapsed() >= Duration::from_micros(200));
    }
}
