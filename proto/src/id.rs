//! Ids that the system gives. They grow with the log, so that maps ordered by them grow at the end.

use std::{fmt, str::FromStr};

/// Position in the replicated log, from 1.
pub type LogIndex = u64;

/// A moment of the world's clock: milliseconds since 1970 UTC.
pub type UnixMillis = u64;

/// A length of time in milliseconds.
pub type Millis = u64;

/// Number of a scheduler node, never used again.
pub type NodeId = u64;

/// Number of a workload's revision, from 1.
pub type Revision = u64;

/// Number of a host, given at its first registration, from 1, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Id of an instance: the log index that created it, and its place among those created there.
///
/// Its text is `i-<index>-<ordinal>`, both in hex without leading zeros.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// Log index of its creation.
    pub index: LogIndex,
    /// Place among the instances created at that index.
    pub ordinal: u32,
}

impl InstanceId {
    /// The one created before it at the same index.
    pub fn before(self) -> Option<Self> {
        Some(Self { ordinal: self.ordinal.checked_sub(1)?, ..self })
    }

    /// The one created after it at the same index, if there was one.
    pub fn after(self) -> Option<Self> {
        Some(Self { ordinal: self.ordinal.checked_add(1)?, ..self })
    }
}

/// Text that is no instance id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an instance id such as \"i-2f-0\", found {found:?}")]
pub struct InvalidInstanceId {
    /// The text.
    pub found: String,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.width().is_some() {
            return f.pad(&format!("i-{:x}-{:x}", self.index, self.ordinal));
        }
        // The usual case, without memory of its own: there are a million of them.
        write!(f, "i-{:x}-{:x}", self.index, self.ordinal)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InstanceId {
    type Err = InvalidInstanceId;

    fn from_str(text: &str) -> Result<Self, InvalidInstanceId> {
        let parse = || {
            let (index, ordinal) = text.strip_prefix("i-")?.split_once('-')?;
            // Only the one canonical text is an id; "i-0A-+1" is not.
            if !is_canonical(index) || !is_canonical(ordinal) {
                return None;
            }
            Some(Self {
                index: u64::from_str_radix(index, 16).ok()?,
                ordinal: u32::from_str_radix(ordinal, 16).ok()?,
            })
        };
        parse().ok_or_else(|| InvalidInstanceId { found: text.to_owned() })
    }
}

/// Whether a hex number is written in the one way that we write it: small letters, no leading zero, no sign.
fn is_canonical(digits: &str) -> bool {
    let small = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    digits.bytes().all(small) && (digits == "0" || !digits.starts_with('0')) && !digits.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_ids_round_trip_and_have_one_text() {
        let id = InstanceId { index: 0x2f, ordinal: 10 };
        assert_eq!(id.to_string(), "i-2f-a");
        assert_eq!("i-2f-a".parse(), Ok(id));
        assert_eq!(format!("{id:>8}"), "  i-2f-a");
        assert_eq!("i-0-0".parse(), Ok(InstanceId { index: 0, ordinal: 0 }));
        for bad in
            ["", "i-", "i--", "i-00-1", "i-1-", "i-2f", "i-2F-a", "i-02f-a", "i-2f-+a", "2f-a", "i-2f-a-"]
        {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }
}
