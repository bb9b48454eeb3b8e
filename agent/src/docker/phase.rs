//! What a container does, read from Docker's words about it. Pure.

use bollard::models::{ContainerState, ContainerStateStatusEnum as Status};
use nix::sys::signal::Signal;
use supercloud_proto::id::UnixMillis;

use crate::driver::Phase;

/// A shell's and `docker-init`'s way to say "ended by signal n" is the exit code 128 + n; Docker's too.
const SIGNAL_BASE: i32 = 128;

/// The phase that a state tells.
pub(super) fn phase(state: &ContainerState) -> Phase {
    let running = || Phase::Running { since: state.started_at.as_deref().and_then(unix_millis) };
    match state.status {
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING) => running(),
        // A start that failed leaves the container "created", with the error beside it.
        Some(Status::CREATED) if start_error(state).is_none() => Phase::Created,
        None | Some(Status::EMPTY) if state.running == Some(true) => running(),
        _ => Phase::Ended {
            exit_code: exit_code(state),
            at: state.finished_at.as_deref().and_then(unix_millis),
            reason: reason(state),
        },
    }
}

/// What the runtime said when the last start failed.
pub(super) fn start_error(state: &ContainerState) -> Option<&str> {
    state.error.as_deref().filter(|error| !error.is_empty())
}

fn exit_code(state: &ContainerState) -> Option<i32> {
    state.exit_code.and_then(|code| i32::try_from(code).ok())
}

fn reason(state: &ContainerState) -> String {
    if let Some(error) = start_error(state) {
        return format!("could not be started: {error}");
    }
    if state.oom_killed == Some(true) {
        return "out of memory".to_owned();
    }
    match exit_code(state) {
        None => "ended, exit code unknown".to_owned(),
        Some(126) => "exit code 126 (the command may not be executed)".to_owned(),
        Some(127) => "exit code 127 (there is no such command)".to_owned(),
        Some(code) => match Signal::try_from(code - SIGNAL_BASE) {
            Ok(signal) => format!("killed by signal {} ({})", code - SIGNAL_BASE, signal.as_str()),
            Err(_) => format!("exit code {code}"),
        },
    }
}

/// A moment in Docker's text (`2026-11-23T11:53:18.826039801Z`, always UTC) as milliseconds since 1970; `None` for what is none,
/// among it Docker's "never", the year 1.
pub(super) fn unix_millis(text: &str) -> Option<UnixMillis> {
    Some(unix_nanos(text)? / 1_000_000)
}

/// The same in nanoseconds.
pub(super) fn unix_nanos(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || fraction.len() > 9 {
        return None;
    }
    let nanos = fraction.parse::<u64>().ok()? * 10u64.pow(9 - u32::try_from(fraction.len()).ok()?);
    let seconds = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

fn numbers(text: &str, separator: char) -> Option<[u64; 3]> {
    let mut parts = text.split(separator).map(|part| part.parse::<u16>().ok().map(u64::from));
    let all = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(all)
}

/// Days of the Gregorian calendar, counted in years that begin in March, so that the leap day is the last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    const UNTIL_1970: u64 = 719_468;
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - UNTIL_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit_code: i64) -> ContainerState {
        ContainerState {
            status: Some(Status::EXITED),
            exit_code: Some(exit_code),
            error: Some(String::new()),
            finished_at: Some("2026-11-23T11:53:18.826039801Z".to_owned()),
            ..ContainerState::default()
        }
    }

    #[test]
    fn moments() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:00.5Z", Some(500)),
            ("2000-02-29T12:00:00Z", Some(951_825_600_000)),
            ("2000-03-01T00:00:00Z", Some(951_868_800_000)),
            ("2026-11-23T11:53:18.826039801Z", Some(1_795_434_798_826)),
            ("0001-01-01T00:00:00Z", None),
            ("2026-11-23T11:53:18", None),
            ("2026-13-23T11:53:18Z", None),
            ("", None),
        ] {
            assert_eq!(unix_millis(text), millis, "{text}");
        }
    }

    #[test]
    fn reasons() {
        for (code, expected) in [
            (0, "exit code 0"),
            (1, "exit code 1"),
            (127, "exit code 127 (there is no such command)"),
            (128, "exit code 128"),
            (137, "killed by signal 9 (SIGKILL)"),
            (143, "killed by signal 15 (SIGTERM)"),
            (255, "exit code 255"),
        ] {
            assert_eq!(reason(&ended(code)), expected);
        }
        assert_eq!(reason(&ContainerState { oom_killed: Some(true), ..ended(137) }), "out of memory");
        assert_eq!(
            reason(&ContainerState { error: Some("port taken".into()), ..ended(128) }),
            "could not be started: port taken"
        );
    }

    #[test]
    fn phases() {
        assert_eq!(
            phase(&ended(1)),
            Phase::Ended {
                exit_code: Some(1),
                at: Some(1_795_434_798_826),
                reason: "exit code 1".to_owned()
            }
        );
        let state = |status| ContainerState {
            status: Some(status),
            started_at: Some("1970-01-01T00:00:01Z".to_owned()),
            ..ContainerState::default()
        };
        assert_eq!(phase(&state(Status::RUNNING)), Phase::Running { since: Some(1000) });
        assert_eq!(phase(&state(Status::PAUSED)), Phase::Running { since: Some(1000) });
        assert_eq!(phase(&state(Status::CREATED)), Phase::Created);
        let failed =
            ContainerState { error: Some("no".into()), exit_code: Some(128), ..state(Status::CREATED) };
        assert!(matches!(phase(&failed), Phase::Ended { exit_code: Some(128), .. }));
        assert!(matches!(phase(&state(Status::DEAD)), Phase::Ended { .. }));
    }
}
