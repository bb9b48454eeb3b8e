//! What requests have in common: request ids, pages, and lists cut to a size. Knows problems and messages, no state.

use prost::Message;
use supercloud_proto::problem::{Faults, Problem, Problems, quoted};
use tonic::Status;

use super::refusals;

/// Longest request id: a UUID or a name with a number fits, and 65,536 of them are remembered.
const MAX_REQUEST_ID: usize = 64;
/// Items of a page where nothing is asked for.
const DEFAULT_PAGE: usize = 1_000;
/// Most items of a page.
const MAX_PAGE: u32 = 10_000;
/// Most encoded bytes of a page: gRPC clients take 4 MiB unless told otherwise.
pub(super) const MAX_PAGE_BYTES: usize = 3 << 20;

/// Checks a request id; empty means that the call is not retried.
pub(super) fn request_id(faults: &mut Faults, text: String) -> String {
    let printable = text.chars().all(|c| c.is_ascii_graphic());
    if text.len() > MAX_REQUEST_ID || !printable {
        let expected = format!("1 to {MAX_REQUEST_ID} printable ASCII characters, or nothing");
        faults.push(Problem::new("request_id", expected, quoted(&text)));
    }
    text
}

/// Checks a page size.
pub(super) fn page_size(faults: &mut Faults, path: &str, size: u32) -> usize {
    if size > MAX_PAGE {
        faults.push(Problem::new(
            path,
            format!("1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}"),
            size.to_string(),
        ));
    }
    if size == 0 { DEFAULT_PAGE } else { size as usize }
}

/// A name or token that may be left out: `None` when it is empty or wrong.
pub(super) fn optional<T>(faults: &mut Faults, path: &str, text: &str) -> Option<T>
where
    T: std::str::FromStr,
    T::Err: Into<Problems>,
{
    if text.is_empty() { None } else { faults.take(path, text.parse()) }
}

/// The value, when there are no faults.
///
/// # Errors
/// `INVALID_ARGUMENT` with all problems.
pub(super) fn finish<T>(faults: Faults, whole: Option<T>) -> Result<T, Status> {
    faults.finish(whole).map_err(refusals::invalid)
}

/// A page of messages, and the key of its last item where more follow.
#[derive(Debug)]
pub(super) struct Page<M> {
    /// The messages.
    pub(super) items: Vec<M>,
    /// Key to go on after; empty: this was the last.
    pub(super) next: String,
}

/// Takes items until the page is full by number or by bytes. At least one is taken.
pub(super) fn page<T, M: Message>(
    items: impl Iterator<Item = T>,
    size: usize,
    key: impl Fn(&T) -> String,
    mut show: impl FnMut(&T) -> M,
) -> Page<M> {
    let mut page = Page { items: Vec::new(), next: String::new() };
    let (mut bytes, mut last) = (0, None);
    for item in items {
        let shown = show(&item);
        bytes += shown.encoded_len();
        if page.items.len() >= size || (bytes > MAX_PAGE_BYTES && last.is_some()) {
            page.next = last.map(|last| key(&last)).unwrap_or_default();
            return page;
        }
        page.items.push(shown);
        last = Some(item);
    }
    page
}

#[cfg(test)]
mod tests {
    use supercloud_proto::v1;

    use super::*;

    fn sites(count: u32, name: &str, size: usize) -> Page<v1::Site> {
        let show = |number: &u32| v1::Site { name: name.to_owned(), hosts: *number, ..Default::default() };
        page(1..=count, size, ToString::to_string, show)
    }

    #[test]
    fn a_page_ends_by_number_or_by_bytes_and_says_where_to_go_on() {
        let whole = sites(3, "a", 3);
        assert_eq!((whole.items.len(), whole.next.as_str()), (3, ""));
        let cut = sites(3, "a", 2);
        assert_eq!((cut.items.len(), cut.next.as_str()), (2, "2"));
        let heavy = sites(9, &"x".repeat(MAX_PAGE_BYTES / 2), 9);
        assert_eq!((heavy.items.len(), heavy.next.as_str()), (1, "1"));
    }

    #[test]
    fn request_ids_are_short_and_printable() {
        for (text, good) in [
            ("", true),
            ("a-1", true),
            ("a b", false),
            ("ä", false),
            (&*"x".repeat(64), true),
            (&*"x".repeat(65), false),
        ] {
            let mut faults = Faults::default();
            request_id(&mut faults, text.to_owned());
            assert_eq!(faults.finish(Some(())).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn page_sizes_have_a_default_and_a_limit() {
        let mut faults = Faults::default();
        assert_eq!(page_size(&mut faults, "page_size", 0), DEFAULT_PAGE);
        assert_eq!(page_size(&mut faults, "page_size", 10_000), 10_000);
        page_size(&mut faults, "page_size", 10_001);
        assert!(faults.finish(Some(())).is_err());
    }
}
