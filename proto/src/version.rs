//! Versions as software writes them, in the order in which people read them: `6.1` before `6.12`, `24.0.7` before `24.0.7-1`.

use std::cmp::Ordering;

/// Compares two versions. Each is parted into numbers and what stands between them; numbers compare by their value, everything else letter
/// by letter, a number comes before what is none, and the shorter of two that are otherwise alike comes first.
pub fn compare(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        if one.is_empty() || other.is_empty() {
            return one.len().cmp(&other.len());
        }
        let (own, rest) = part(one);
        let (theirs, their_rest) = part(other);
        let order = match (is_number(own), is_number(theirs)) {
            (true, true) => numbers(own, theirs),
            (own_is, their_is) => their_is.cmp(&own_is).then_with(|| own.cmp(theirs)),
        };
        if order != Ordering::Equal {
            return order;
        }
        (one, other) = (rest, their_rest);
    }
}

/// The first number, or what stands before it.
fn part(text: &str) -> (&str, &str) {
    let starts_with_digit = is_number(text);
    let end = text.find(|letter: char| letter.is_ascii_digit() != starts_with_digit);
    text.split_at(end.unwrap_or(text.len()))
}

fn is_number(part: &str) -> bool {
    part.starts_with(|letter: char| letter.is_ascii_digit())
}

/// Of any length: the more digits, the larger.
fn numbers(one: &str, other: &str) -> Ordering {
    let (one, other) = (one.trim_start_matches('0'), other.trim_start_matches('0'));
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_come_in_the_order_in_which_they_were_released() {
        let order = [
            "5.10",
            "6.1",
            "6.1.0-9",
            "6.1.0-26-amd64",
            "6.12",
            "6.12.1",
            "20.10.24+dfsg1",
            "24.0.7",
            "24.0.7-1",
            "v2",
        ];
        for pair in order.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        assert_eq!(compare("6.01", "6.1"), Ordering::Equal);
        assert_eq!(compare("99999999999999999999999", "100000000000000000000000"), Ordering::Less);
    }

    proptest! {
        #[test]
        fn it_is_an_order(a in "[0-2a.-]{0,6}", b in "[0-2a.-]{0,6}", c in "[0-2a.-]{0,6}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}
