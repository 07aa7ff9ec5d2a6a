//! Figures for people.

use serde::Serialize;
use std::time::Duration;

/// `1 order`, `2 orders`.
pub(crate) fn counted(n: impl Into<i128>, what: &str) -> String {
    match n.into() {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// How long things took, in milliseconds.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// `None` when there are no times.
    pub(crate) fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let max = times.last().copied().map(ms)?;
        let at = |percent: usize| ms(times[(times.len() * percent).div_ceil(100).max(1) - 1]);
        Some(Self { p50: at(50), p99: at(99), max })
    }
}

/// Milliseconds, to a hundredth.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

/// How many per second; `None` when there is nothing to divide.
pub(crate) fn rate(n: usize, time: Duration) -> Option<f64> {
    (n > 0 && !time.is_zero()).then(|| (n as f64 / time.as_secs_f64() * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times = |n: u64| (1..=n).rev().map(Duration::from_millis).collect();
        assert_eq!(Latency::of(times(0)), None);
        assert_eq!(Latency::of(times(1)), Some(Latency { p50: 1.0, p99: 1.0, max: 1.0 }));
        assert_eq!(Latency::of(times(1000)), Some(Latency { p50: 500.0, p99: 990.0, max: 1000.0 }));
    }

    #[test]
    fn one_is_one_and_nothing_has_no_rate() {
        assert_eq!([0, 1, 2].map(|n| counted(n, "order")), ["0 orders", "1 order", "2 orders"]);
        assert_eq!(rate(0, Duration::from_secs(1)), None);
        assert_eq!(rate(5, Duration::ZERO), None);
        assert_eq!(rate(5, Duration::from_secs(2)), Some(2.5));
    }
}
