//! Expected words with placeholders, and the reverse: making placeholders of what differs from run to run. Pure.

/// Whether a line is as expected, word by word.
pub(crate) fn fits(expected: &str, found: &str) -> bool {
    let (expected, found) = (expected.split_whitespace(), found.split_whitespace());
    let (expected, found): (Vec<&str>, Vec<&str>) = (expected.collect(), found.collect());
    expected.len() == found.len()
        && expected.iter().zip(&found).all(|(expected, found)| word_fits(expected, found))
}

/// Whether a word is as expected, where `<name>` stands for one character or more.
fn word_fits(expected: &str, found: &str) -> bool {
    let Some((before, rest)) = expected.split_once('<') else { return expected == found };
    let Some((_, after)) = rest.split_once('>') else { return expected == found };
    let Some(found) = found.strip_prefix(before) else { return false };
    let ends = found.char_indices().map(|(at, one)| at + one.len_utf8());
    ends.into_iter().any(|end| word_fits(after, &found[end..]))
}

/// Whether lines are as expected; a line `...` stands for any lines.
pub(crate) fn lines_fit(expected: &[&str], found: &[&str]) -> bool {
    match (expected, found) {
        ([], []) => true,
        (["...", rest @ ..], _) => (0..=found.len()).any(|skipped| lines_fit(rest, &found[skipped..])),
        ([first, expected @ ..], [line, found @ ..]) => fits(first, line) && lines_fit(expected, found),
        _ => false,
    }
}

/// The line with placeholders for ids, times and ports.
pub(crate) fn generalised(line: &str) -> String {
    let mut text = String::new();
    let mut word = String::new();
    for one in line.chars() {
        if one.is_ascii_alphanumeric() || "-:.".contains(one) {
            word.push(one);
        } else {
            text.push_str(&placeholder(&word));
            word.clear();
            text.push(one);
        }
    }
    text + &placeholder(&word)
}

/// A word is looked at without the full stop or the colon that ends it.
fn placeholder(word: &str) -> String {
    let bare = word.trim_end_matches([':', '.']);
    placeholder_of(bare) + &word[bare.len()..]
}

fn placeholder_of(word: &str) -> String {
    let parts: Vec<&str> = word.split('-').collect();
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match parts.as_slice() {
        ["i", index, ordinal] if is_hex(index) && is_hex(ordinal) => "<instance>".to_owned(),
        [year, _, rest] if year.len() == 4 && is_number(year) && rest.contains(':') => "<time>".to_owned(),
        [all] if matches!(all.len(), 32 | 64) && is_hex(all) => "<id>".to_owned(),
        [all] if all.strip_suffix('s').is_some_and(is_number) => "<age>".to_owned(),
        [all] if all.starts_with("127.0.0.1:") => "127.0.0.1:<port>".to_owned(),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_stand_for_something_within_a_word() {
        assert!(fits("i <instance>:  x", "i i-2f-0: x"));
        assert!(fits("<a>/<b>", "1/2"));
        for (expected, found) in [("<a>:", "x"), ("<a>", ""), ("a<b>c", "ac"), ("a", "a b"), ("<a>", "b c")] {
            assert!(!fits(expected, found), "{expected} {found}");
        }
    }

    #[test]
    fn dots_stand_for_any_lines() {
        assert!(lines_fit(&["a", "...", "d"], &["a", "b", "c", "d"]));
        assert!(lines_fit(&["..."], &[]));
        assert!(!lines_fit(&["a", "..."], &["b"]));
        assert!(!lines_fit(&["a"], &["a", "b"]));
    }

    #[test]
    fn what_differs_from_run_to_run_is_replaced() {
        let line = "i-2f-0: on h1 since 2026-11-23T12:00:00Z (3s) at 127.0.0.1:12345, 250m of 2";
        assert_eq!(
            generalised(line),
            "<instance>: on h1 since <time> (<age>) at 127.0.0.1:<port>, 250m of 2"
        );
        assert!(fits(&generalised(line), line));
    }
}
