//! Lengths of time as people write them: `250ms`, `10s`, `10m`, `1h`. Whole numbers and one unit, so that each has an exact text.

use crate::{amount::InvalidAmount, id::Millis};

/// What the text of a length of time looks like.
pub(super) const DURATION_EXPECTED: &str = "a length of time as \"250ms\", \"10s\", \"5m\" or \"1h\"";

/// Units, largest first; `ms` stands before what its text ends with.
const UNITS: [(&str, Millis); 4] = [("h", 3_600_000), ("ms", 1), ("m", 60_000), ("s", 1_000)];

/// The length of time that a text means.
pub fn parse_duration(text: &str) -> Result<Millis, InvalidAmount> {
    let parse = || {
        let (number, unit) = UNITS.iter().find_map(|(unit, ms)| Some((text.strip_suffix(unit)?, ms)))?;
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| number.parse::<Millis>().ok()?.checked_mul(*unit))?
    };
    parse().ok_or_else(|| InvalidAmount { expected: DURATION_EXPECTED, found: text.to_owned() })
}

/// The text of a length of time, exact: parsing it gives the same length back.
pub fn duration_text(length: Millis) -> String {
    let (unit, ms) = match length {
        0 => ("s", 1),
        n if n.is_multiple_of(3_600_000) => ("h", 3_600_000),
        n if n.is_multiple_of(60_000) => ("m", 60_000),
        n if n.is_multiple_of(1_000) => ("s", 1_000),
        _ => ("ms", 1),
    };
    format!("{}{unit}", length / ms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_is_exact(length: Millis) {
            prop_assert_eq!(parse_duration(&duration_text(length)), Ok(length));
        }
    }

    #[test]
    fn text_has_one_number_and_one_unit() {
        for (text, ms) in [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
        }
        for bad in ["", "s", "10", "1.5s", "-1s", "1 s", "1h30m", "1d", "+1s", "99999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
