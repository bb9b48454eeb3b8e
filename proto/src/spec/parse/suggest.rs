//! Which known word may have been meant by an unknown one.

/// The nearest of some words, when it is near enough to be worth saying; of equally near ones the first.
pub(super) fn nearest<'w>(text: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    // Comparing long texts costs their product, and no field's name is long.
    if text.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let text = plain(text);
    let allowed = (text.chars().count() / 3).clamp(1, 3);
    let scored = words.into_iter().map(|word| (distance(&text, &plain(word)), word));
    let (distance, word) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= allowed).then_some(word)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one text into the other (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let words = ["memory", "cpu", "disk", "max_delay", "kind"];
        for (text, meant) in [
            ("memmory", "memory"),
            ("mem0ry", "memory"),
            ("dsik", "disk"),
            ("Cpu", "cpu"),
            ("max-delay", "max_delay"),
        ] {
            assert_eq!(nearest(text, words), Some(meant), "{text}");
        }
        for far in ["gpu_count", "", "x", "replicas", &"memory".repeat(20)] {
            assert_eq!(nearest(far, words), None, "{far}");
        }
    }
}
