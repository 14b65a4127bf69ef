//! Whether a download is fast enough.

use std::time::Duration;

/// Measures a download in windows of time. A sender that keeps a connection alive with a byte now and then is found out at
/// the end of a window, and a length that is known together with a least rate bounds the time of the whole.
#[derive(Debug)]
pub(crate) struct Pace {
    rate_min_bytes_per_s: u64,
    window: Duration,
    start: Duration,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(rate_min_bytes_per_s: u64, window: Duration) -> Self {
        Self { rate_min_bytes_per_s, window, start: Duration::ZERO, bytes: 0 }
    }

    /// Counts `bytes` that arrived at `now`, which is the time since the download began.
    ///
    /// # Errors
    /// The window that ends was too slow; the rate in bytes a second.
    pub(crate) fn count(&mut self, now: Duration, bytes: u64) -> Result<(), u64> {
        self.bytes = self.bytes.saturating_add(bytes);
        let passed = now.saturating_sub(self.start);
        if passed < self.window || passed.is_zero() {
            return Ok(());
        }
        let rate = u128::from(self.bytes) * 1000 / passed.as_millis().max(1);
        (self.start, self.bytes) = (now, 0);
        if rate < u128::from(self.rate_min_bytes_per_s) {
            return Err(u64::try_from(rate).unwrap_or(u64::MAX));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_counts_for_itself() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(1000, 10 * second);
        // A start at full speed does not pay for what comes later.
        assert_eq!(pace.count(second, 1_000_000), Ok(()));
        assert_eq!(pace.count(10 * second, 1), Ok(()));
        assert_eq!(pace.count(15 * second, 100), Ok(()));
        assert_eq!(pace.count(20 * second, 100), Err(20));
        assert_eq!(pace.count(30 * second, 10_000), Ok(()));
        assert_eq!(Pace::new(1, Duration::ZERO).count(Duration::ZERO, 0), Ok(()));
    }
}
