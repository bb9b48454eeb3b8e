//! libvirt's state and reason as a [`Phase`], in words. Pure.
//!
//! A paused guest counts as running: its QEMU holds the memory, and whoever paused it may go on with it. Only a pause by an I/O
//! error is told, by [`trouble`]: the guest stands still until its disk has room again.
//!
//! libvirt forgets why a domain is off when its daemon restarts, and says nothing of who destroyed it; [`History`] fills that in.

use virt::sys;

use crate::driver::{Phase, SHUT_DOWN};

/// A state and its reason, as libvirt numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawState {
    pub(super) state: u32,
    pub(super) reason: u32,
}

/// What the instance's folder tells of its past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct History {
    /// It has booted before.
    pub(super) started: bool,
    /// Its last run was ended by this driver, past its grace.
    pub(super) killed: bool,
}

/// What a domain does.
pub(super) fn phase(raw: RawState, history: History) -> Phase {
    let ended = |reason: &str| Phase::Ended { exit_code: None, at: None, reason: reason.to_owned() };
    match raw.state {
        sys::VIR_DOMAIN_CRASHED => ended("crashed"),
        sys::VIR_DOMAIN_SHUTOFF => match raw.reason {
            sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN => ended(SHUT_DOWN),
            sys::VIR_DOMAIN_SHUTOFF_DESTROYED if history.killed => ended("killed after its grace period"),
            sys::VIR_DOMAIN_SHUTOFF_DESTROYED => ended("destroyed from outside"),
            sys::VIR_DOMAIN_SHUTOFF_CRASHED => ended("crashed"),
            sys::VIR_DOMAIN_SHUTOFF_MIGRATED => ended("migrated away"),
            sys::VIR_DOMAIN_SHUTOFF_SAVED => ended("saved to disk from outside"),
            sys::VIR_DOMAIN_SHUTOFF_FAILED => ended("failed to start"),
            sys::VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT => ended("reverted to a snapshot from outside"),
            sys::VIR_DOMAIN_SHUTOFF_DAEMON => ended("ended by libvirt's daemon"),
            _ if history.killed => ended("killed after its grace period"),
            _ if history.started => ended("shut off, and libvirt no longer knows why"),
            _ => Phase::Created,
        },
        _ => Phase::Running { since: None },
    }
}

/// What an operator should know of a domain that counts as running.
pub(super) fn trouble(raw: RawState) -> Option<&'static str> {
    match (raw.state, raw.reason) {
        (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_IOERROR) => {
            Some("paused by an I/O error (is the host's disk full?)")
        }
        (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_CRASHED) => Some("paused: the guest crashed"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(state: u32, reason: u32, history: History) -> String {
        match phase(RawState { state, reason }, history) {
            Phase::Created => "created".to_owned(),
            Phase::Running { .. } => "running".to_owned(),
            Phase::Ended { reason, .. } => reason,
        }
    }

    #[test]
    fn reasons_are_told_as_they_are() {
        let fresh = History::default();
        let started = History { started: true, killed: false };
        let killed = History { started: true, killed: true };
        for (state, why, history, expected) in [
            (sys::VIR_DOMAIN_RUNNING, 1, started, "running"),
            (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_USER, started, "running"),
            (sys::VIR_DOMAIN_SHUTDOWN, 0, started, "running"),
            (sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_SHUTOFF_UNKNOWN, fresh, "created"),
            (
                sys::VIR_DOMAIN_SHUTOFF,
                sys::VIR_DOMAIN_SHUTOFF_UNKNOWN,
                started,
                "shut off, and libvirt no longer knows why",
            ),
            (sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN, started, SHUT_DOWN),
            (sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_SHUTOFF_DESTROYED, started, "destroyed from outside"),
            (
                sys::VIR_DOMAIN_SHUTOFF,
                sys::VIR_DOMAIN_SHUTOFF_DESTROYED,
                killed,
                "killed after its grace period",
            ),
            (sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_SHUTOFF_CRASHED, killed, "crashed"),
            (sys::VIR_DOMAIN_CRASHED, 1, started, "crashed"),
        ] {
            assert_eq!(self::reason(state, why, history), expected, "{state} {why}");
        }
    }

    #[test]
    fn an_io_error_is_told() {
        let paused = |reason| RawState { state: sys::VIR_DOMAIN_PAUSED, reason };
        assert!(trouble(paused(sys::VIR_DOMAIN_PAUSED_IOERROR)).is_some());
        assert_eq!(trouble(paused(sys::VIR_DOMAIN_PAUSED_USER)), None);
    }
}
