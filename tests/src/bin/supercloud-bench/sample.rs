//! Times that were measured, and what is said of them. Knows no bench.

use std::time::Duration;

/// Times of one kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(Vec<Duration>);

impl Sample {
    /// Adds one.
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Adds all of another sample.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest time that so many parts of a hundred do not exceed; zero of none.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        self.permille(percent * 10)
    }

    /// The same of a thousand parts.
    pub(crate) fn permille(&self, parts: usize) -> Duration {
        let mut sorted = self.0.clone();
        let rank = (sorted.len() * parts).div_ceil(1000).clamp(1, sorted.len().max(1));
        if sorted.is_empty() {
            return Duration::ZERO;
        }
        let (_, at, _) = sorted.select_nth_unstable(rank - 1);
        *at
    }
}

/// The middle one; zero of none.
pub(crate) fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// In microseconds.
pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// In milliseconds.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let of =
            |times: &[u64]| median(&times.iter().copied().map(Duration::from_millis).collect::<Vec<_>>());
        assert_eq!(
            (of(&[]), of(&[3]), of(&[9, 1, 5])),
            (Duration::ZERO, Duration::from_millis(3), Duration::from_millis(5))
        );
    }

    #[test]
    fn a_percentile_is_a_time_that_was_measured() {
        let of = |times: &[u64], percent: usize| {
            let mut sample = Sample::default();
            times.iter().for_each(|time| sample.add(Duration::from_millis(*time)));
            sample.percentile(percent).as_millis()
        };
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(
            (of(&hundred, 50), of(&hundred, 99), of(&hundred, 100), of(&hundred, 0)),
            (50, 99, 100, 1)
        );
        let mut thousand = Sample::default();
        (1..=1000).for_each(|time| thousand.add(Duration::from_millis(time)));
        assert_eq!(thousand.permille(999).as_millis(), 999);
        assert_eq!((of(&[], 99), of(&[7], 99), of(&[1, 2, 3], 99)), (0, 7, 3));
    }
}
