//! What a plugin's crashes lead to: a pause before the next start, then quarantine.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{FailureCause, WorkerFailure};

/// Crashes within [`WINDOW`] that put a plugin into quarantine.
pub(super) const CRASHES_MAX: usize = 3;
/// How long a crash counts.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Pause before a start after the second crash; the first is forgiven at once, so that streams go on at once.
const PAUSE: Duration = Duration::from_millis(250);

/// The recent crashes of one plugin.
#[derive(Debug, Default)]
pub(super) struct Crashes {
    recent: VecDeque<Instant>,
    /// Why the plugin is in quarantine.
    quarantine: Option<String>,
}

impl Crashes {
    /// Notes the end of a worker; one that was killed from outside or by the host is no crash. Returns whether the plugin
    /// is in quarantine from now on.
    pub(super) fn note(&mut self, failure: &Arc<WorkerFailure>, now: Instant) -> bool {
        if failure.cause != FailureCause::Plugin || self.quarantine.is_some() {
            return false;
        }
        self.forget_old(now);
        self.recent.push_back(now);
        if self.recent.len() < CRASHES_MAX {
            return false;
        }
        let window_s = WINDOW.as_secs();
        self.quarantine = Some(format!(
            "because it crashed {CRASHES_MAX} times in {window_s} s; the last time, it {}",
            failure.what
        ));
        true
    }

    /// Why the plugin may not be started.
    pub(super) fn quarantine(&self) -> Option<&str> {
        self.quarantine.as_deref()
    }

    /// How long to wait before the next start.
    pub(super) fn pause(&mut self, now: Instant) -> Duration {
        self.forget_old(now);
        match (self.recent.len(), self.recent.back()) {
            (0 | 1, _) | (_, None) => Duration::ZERO,
            (_, Some(last)) => (*last + PAUSE).saturating_duration_since(now),
        }
    }

    /// Forgets everything. Returns whether the plugin was in quarantine.
    pub(super) fn reset(&mut self) -> bool {
        std::mem::take(self).quarantine.is_some()
    }

    fn forget_old(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|crash| now.duration_since(*crash) >= WINDOW) {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(cause: FailureCause) -> Arc<WorkerFailure> {
        Arc::new(WorkerFailure { plugin: "p".into(), what: "died".into(), last_lines: vec![], cause })
    }

    #[test]
    fn three_crashes_within_a_minute_are_too_many() {
        let start = Instant::now();
        // Seconds of each crash, and whether the last one leads to quarantine.
        for (crashes, expected) in [
            (&[0][..], false),
            (&[0, 1], false),
            (&[0, 1, 2], true),
            (&[0, 30, 61], false),
            (&[0, 30, 61, 62], true),
        ] {
            let mut plugin = Crashes::default();
            for second in crashes {
                plugin.note(&failure(FailureCause::Plugin), start + Duration::from_secs(*second));
            }
            assert_eq!(plugin.quarantine().is_some(), expected, "{crashes:?}");
            assert_eq!(plugin.reset(), expected, "{crashes:?}");
            assert_eq!(plugin.quarantine(), None, "{crashes:?}");
        }
    }

    #[test]
    fn being_killed_is_no_crash() {
        let mut plugin = Crashes::default();
        for cause in [FailureCause::Outside, FailureCause::Host] {
            for _ in 0..5 {
                assert!(!plugin.note(&failure(cause), Instant::now()));
            }
        }
        assert_eq!(plugin.pause(Instant::now()), Duration::ZERO);
    }

    #[test]
    fn the_second_crash_costs_a_pause() {
        let (mut plugin, now) = (Crashes::default(), Instant::now());
        plugin.note(&failure(FailureCause::Plugin), now);
        assert_eq!(plugin.pause(now), Duration::ZERO);
        plugin.note(&failure(FailureCause::Plugin), now);
        assert_eq!(plugin.pause(now), PAUSE);
        assert_eq!(plugin.pause(now + PAUSE), Duration::ZERO);
    }
}
