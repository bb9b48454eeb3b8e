//! Amounts: integers in a named unit, with the text that people write. No floats.

use std::{
    fmt,
    ops::{Add, AddAssign},
    str::FromStr,
};

use crate::v1;

/// Processor time in thousandths of a core. Text: `2` (cores) or `250m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MilliCpu(pub u64);

/// A size in bytes. Text: `512MiB`, `20GiB`, `1500` (bytes), `1GB` (powers of ten).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

/// Network bandwidth in megabits a second. Text: `100Mbps`, `2.5Gbps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mbits(pub u64);

/// Text that is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found:?}")]
pub struct InvalidAmount {
    /// What such text looks like.
    pub expected: &'static str,
    /// The text.
    pub found: String,
}

/// Units of a size, largest first, those with powers of two before those of ten.
const UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

/// What the text of a processor amount looks like.
pub const CPU_EXPECTED: &str = "cores as \"2\", \"0.5\" or \"250m\"";
/// What the text of a size looks like.
pub const BYTES_EXPECTED: &str = "a size with a unit as \"512MiB\" or \"20GiB\"";

/// What the text of a bandwidth looks like.
pub const MBITS_EXPECTED: &str = "a bandwidth as \"100Mbps\" or \"2.5Gbps\"";

/// Parses `digits[.digits]` as thousandths, without floats.
fn parse_thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return None;
    }
    let scale = 10u64.pow(3 - fraction.len() as u32);
    let fraction = fraction.parse::<u64>().ok()?.checked_mul(scale)?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(fraction)
}

impl FromStr for MilliCpu {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let millis = match text.strip_suffix('m') {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
            Some(_) => None,
            None => parse_thousandths(text),
        };
        millis.map(Self).ok_or_else(|| InvalidAmount { expected: CPU_EXPECTED, found: text.to_owned() })
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            if self.0.is_multiple_of(1000) { (self.0 / 1000).to_string() } else { format!("{}m", self.0) };
        f.pad(&text)
    }
}

impl FromStr for Mbits {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let mbits = match text.strip_suffix("Gbps") {
            Some(number) => parse_thousandths(number),
            None => {
                let digits = text.strip_suffix("Mbps").filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
                digits.and_then(|digits| digits.parse().ok())
            }
        };
        mbits.map(Self).ok_or_else(|| InvalidAmount { expected: MBITS_EXPECTED, found: text.to_owned() })
    }
}

impl fmt::Display for Mbits {
    /// Exact: parsing gives the same amount back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_whole = self.0 > 0 && self.0.is_multiple_of(1000);
        let text = if is_whole { format!("{}Gbps", self.0 / 1000) } else { format!("{}Mbps", self.0) };
        f.pad(&text)
    }
}

impl FromStr for Bytes {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let trimmed =
            text.strip_suffix('B').filter(|t| t.bytes().all(|b| b.is_ascii_digit())).unwrap_or(text);
        let parse = || {
            let unit =
                UNITS.iter().find_map(|(unit, size)| Some((trimmed.strip_suffix(unit)?.trim_end(), *size)));
            let (number, size) = unit.unwrap_or((trimmed, 1));
            if size == 1 {
                return number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())?;
            }
            let exact = u128::from(parse_thousandths(number)?) * u128::from(size);
            (exact % 1000 == 0).then(|| u64::try_from(exact / 1000).ok())?
        };
        parse().map(Self).ok_or_else(|| InvalidAmount { expected: BYTES_EXPECTED, found: text.to_owned() })
    }
}

impl fmt::Display for Bytes {
    /// The largest unit of powers of two that gives a whole number, or else one with at most one decimal, rounded down.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = &UNITS[..4];
        let text = match binary.iter().find(|(_, size)| self.0 >= *size) {
            None => format!("{}B", self.0),
            Some((unit, size)) if self.0.is_multiple_of(*size) => format!("{}{unit}", self.0 / size),
            Some((unit, size)) => {
                let tenths = u128::from(self.0 % size) * 10 / u128::from(*size);
                format!("{}.{tenths}{unit}", self.0 / size)
            }
        };
        f.pad(&text)
    }
}

impl Bytes {
    /// The exact text: a whole number of the largest fitting unit, so that parsing gives the same amount back.
    pub fn exact(self) -> String {
        match UNITS[..4].iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size)) {
            Some((unit, size)) => format!("{}{unit}", self.0 / size),
            None => format!("{}B", self.0),
        }
    }
}

/// Amounts that a host has, or that something takes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Amounts {
    /// Processor time.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
    /// Disk space.
    pub disk: Bytes,
}

impl Amounts {
    /// The sum; stops at the largest number, which no host has.
    pub fn saturating_add(self, other: Self) -> Self {
        Self {
            cpu: MilliCpu(self.cpu.0.saturating_add(other.cpu.0)),
            memory: Bytes(self.memory.0.saturating_add(other.memory.0)),
            disk: Bytes(self.disk.0.saturating_add(other.disk.0)),
        }
    }

    /// So many times each amount; stops at the largest number.
    pub fn times(self, count: u64) -> Self {
        Self {
            cpu: MilliCpu(self.cpu.0.saturating_mul(count)),
            memory: Bytes(self.memory.0.saturating_mul(count)),
            disk: Bytes(self.disk.0.saturating_mul(count)),
        }
    }

    /// The larger of each amount.
    pub fn most(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.max(other.cpu),
            memory: self.memory.max(other.memory),
            disk: self.disk.max(other.disk),
        }
    }

    /// The difference; stops at zero.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self {
            cpu: MilliCpu(self.cpu.0.saturating_sub(other.cpu.0)),
            memory: Bytes(self.memory.0.saturating_sub(other.memory.0)),
            disk: Bytes(self.disk.0.saturating_sub(other.disk.0)),
        }
    }

    /// Whether each amount is at most the other's.
    pub fn within(self, other: Self) -> bool {
        self.cpu <= other.cpu && self.memory <= other.memory && self.disk <= other.disk
    }
}

impl Mbits {
    /// The difference; stops at zero.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl AddAssign for Mbits {
    /// Stops at the largest number, which no host has.
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

impl Add for Amounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.saturating_add(other)
    }
}

impl AddAssign for Amounts {
    fn add_assign(&mut self, other: Self) {
        *self = self.saturating_add(other);
    }
}

impl From<Amounts> for v1::HostAmounts {
    fn from(amounts: Amounts) -> Self {
        Self {
            cpu_millis: amounts.cpu.0,
            memory_bytes: amounts.memory.0,
            disk_bytes: amounts.disk.0,
            network_mbits: 0,
        }
    }
}

/// The message of amounts with a network bandwidth beside them.
pub fn host_amounts(amounts: Amounts, network: Mbits) -> v1::HostAmounts {
    v1::HostAmounts { network_mbits: network.0, ..amounts.into() }
}

impl From<v1::HostAmounts> for Amounts {
    fn from(amounts: v1::HostAmounts) -> Self {
        Self {
            cpu: MilliCpu(amounts.cpu_millis),
            memory: Bytes(amounts.memory_bytes),
            disk: Bytes(amounts.disk_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_text() {
        for (text, millis) in [("2", 2000), ("250m", 250), ("0.5", 500), ("1.125", 1125), ("0", 0)] {
            assert_eq!(text.parse(), Ok(MilliCpu(millis)), "{text}");
        }
        for bad in ["", "m", "-1", "1.2345", "1.", ".5", "1e3", "2 m", "99999999999999999999"] {
            assert!(bad.parse::<MilliCpu>().is_err(), "{bad}");
        }
        assert_eq!(MilliCpu(2000).to_string(), "2");
        assert_eq!(MilliCpu(250).to_string(), "250m");
    }

    #[test]
    fn bandwidth_text() {
        for (text, mbits) in [("100Mbps", 100), ("2.5Gbps", 2_500), ("10Gbps", 10_000), ("0Mbps", 0)] {
            assert_eq!(text.parse(), Ok(Mbits(mbits)), "{text}");
        }
        for bad in ["", "Mbps", "100", "1.5Mbps", "100 Mbps", "100mbps", "100MBps", "1.2345Gbps", "-1Mbps"] {
            assert!(bad.parse::<Mbits>().is_err(), "{bad}");
        }
        assert_eq!(
            [Mbits(0), Mbits(2_500), Mbits(3_000)].map(|of| of.to_string()),
            ["0Mbps", "2500Mbps", "3Gbps"]
        );
    }

    #[test]
    fn byte_text() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("1GB", 1_000_000_000),
            ("7", 7),
            ("7B", 7),
            ("20 GiB", 20 << 30),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for bad in ["", "B", "MiB", "1Mi", "1.2", "-1MiB", "0.0001KiB", "99999999999TiB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        assert_eq!(Bytes(512 << 20).to_string(), "512MiB");
        assert_eq!(Bytes((512 << 20) + 1).exact(), "536870913B");
        assert_eq!(Bytes((3 << 30) / 2).to_string(), "1.5GiB");
    }
}
