//! The syntax of image references, as registries and Docker agree on it: `[host[:port]/]name[:tag][@algorithm:hex]`.

/// Longest reference.
const MAX_REFERENCE: usize = 512;

/// Whether the text is an image reference.
pub(super) fn is_image_reference(text: &str) -> bool {
    let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
    // A colon before the last slash belongs to the port of the registry.
    let after_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[after_slash..].rfind(':') {
        Some(colon) => (&rest[..after_slash + colon], Some(&rest[after_slash + colon + 1..])),
        None => (rest, None),
    };
    text.len() <= MAX_REFERENCE && is_name(name) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest)
}

/// A first part with a dot or a colon, or `localhost`, is a registry; all others are parts of the repository.
fn is_name(name: &str) -> bool {
    let repository = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            if !is_registry(first) {
                return false;
            }
            rest
        }
        _ => name,
    };
    repository.split('/').all(is_component)
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Lower-case letters and digits, parted by one dot, one or two underscores, or dashes.
fn is_component(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let parts = text.split(|c: char| c.is_ascii() && letter(c as u8));
    let separator = |part: &str| matches!(part, "" | "." | "_" | "__") || part.bytes().all(|b| b == b'-');
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(letter)
        && bytes.last().copied().is_some_and(letter)
        && parts.into_iter().all(separator)
}

fn is_tag(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| letter(b) || b == b'.' || b == b'-')
        && text.bytes().next().is_some_and(letter)
}

fn is_digest(text: &str) -> bool {
    let lengths = [("sha256:", 64), ("sha512:", 128)];
    lengths.iter().any(|(algorithm, length)| {
        text.strip_prefix(algorithm).is_some_and(|hex| hex.len() == *length && is_hex(hex))
    })
}

/// Whether the text is lower-case hex digits.
pub(super) fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_other_text() {
        let digest = format!("a@sha256:{}", "0f".repeat(32));
        for good in [
            "busybox",
            "supercloud/hello:1",
            "registry.example/planning:4.2",
            "localhost:5000/a/b__c:v1",
            "localhost/a",
            "a-b--c/d.e_f",
            "Registry.Example:5000/x",
            "host.example/a:1@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            &digest,
        ] {
            assert!(is_image_reference(good), "{good}");
        }
        for bad in [
            "",
            ":",
            "a:",
            "a:b:c",
            "A",
            "a b",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a:-x",
            "a@sha256:0",
            "a@md5:0",
            "a@",
            "http://a",
            "host.example:0/a",
            "host.example:99999/a",
            "ä",
            "a:ä",
            "a\n",
            "x@y@z",
            &"a".repeat(600),
        ] {
            assert!(!is_image_reference(bad), "{bad}");
        }
    }
}
