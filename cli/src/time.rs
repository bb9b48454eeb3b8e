//! Moments and lengths of time as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in milliseconds since 1970 UTC.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A moment in RFC 3339, UTC; empty for 0.
pub fn moment(millis: u64) -> String {
    if millis == 0 {
        return String::new();
    }
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
}

/// How long ago a moment was, in its largest unit: "12s", "5m", "3h", "9d". A moment to come, by clocks that differ, is "0s".
pub fn age(millis: u64, now: u64) -> String {
    if millis == 0 {
        return "-".to_owned();
    }
    length(now.saturating_sub(millis))
}

/// A length of time in its largest unit.
pub fn length(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_keep_two_digits_of_meaning() {
        let cases = [(119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")];
        for (seconds, text) in cases {
            assert_eq!(age(1, 1 + seconds * 1000), text);
        }
        assert_eq!(age(0, 5), "-");
        assert_eq!(age(10_000, 5), "0s");
    }

    #[test]
    fn moments_are_utc() {
        assert_eq!(moment(1_795_431_600_123), "2026-11-23T11:00:00.123Z");
        assert_eq!(moment(0), "");
    }
}
