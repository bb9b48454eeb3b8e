//! Names of things that people name: DNS labels, checked once and cheap to copy.

use std::{borrow::Borrow, fmt, sync::Arc};

/// Longest name: what a DNS label may have, since names become parts of host names.
pub const MAX_NAME_LEN: usize = 63;

/// What a name looks like.
pub const NAME_EXPECTED: &str = "1 to 63 characters of a-z, 0-9 and \"-\", not first or last \"-\"";

/// Text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {NAME_EXPECTED}; found {found:?}")]
pub struct InvalidName {
    /// The text.
    pub found: String,
}

/// Whether `text` is a DNS label in lower case.
pub fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_NAME_LEN).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidName> {
                let text = text.as_ref();
                if is_label(text) { Ok(Self(text.into())) } else { Err(InvalidName { found: text.to_owned() }) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl From<&$name> for String {
            fn from(name: &$name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    )*};
}

names! {
    /// Name of a borough.
    BoroughName;
    /// Name of a workload, unique within its borough.
    WorkloadName;
    /// Name of a host, unique in the estate.
    HostName;
    /// Name of a site.
    SiteName;
    /// Name of a rack, unique within its site.
    RackName;
    /// Name of a task, unique within its workload.
    TaskName;
    /// Name of a cluster, chosen when it is made; it stands in every certificate.
    ClusterName;
    /// Name of a person, or of a program that acts like one: an operator, or somebody of a borough.
    PersonName;
    /// Name of a published port, unique within its workload.
    PortName;
    /// Name of a volume or disk, unique within its workload.
    VolumeName;
    /// Name of a device, unique on its host.
    DeviceName;
    /// What a device is one of, as `gpu`.
    DeviceKind;
}

/// A workload's full name: the borough and, within it, the workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadKey {
    /// Owner.
    pub borough: BoroughName,
    /// Name within the borough.
    pub workload: WorkloadName,
}

impl WorkloadKey {
    /// Another workload of the same borough.
    #[must_use]
    pub fn beside(&self, workload: &WorkloadName) -> Self {
        Self { borough: self.borough.clone(), workload: workload.clone() }
    }
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.borough, self.workload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_told_from_other_text() {
        for good in ["a", "camden", "a-1", "0", &"x".repeat(63)] {
            assert!(HostName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &"x".repeat(64)] {
            assert!(HostName::new(bad).is_err(), "{bad}");
        }
    }
}
