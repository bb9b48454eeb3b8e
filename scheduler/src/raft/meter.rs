//! What the log measures of itself, for whoever shows it (`crate::metrics`). Histograms that are shared: counting takes no lock that a reader could
//! hold for long, and a log that nobody looks at counts all the same.

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Shortest sync told apart, in seconds; each bucket is twice as long, up to three seconds.
const SHORTEST_SYNC: f64 = 0.000_1;
const SYNC_BUCKETS: u16 = 16;
/// Sizes from 1, each bucket twice as large, up to four thousand.
const SIZE_BUCKETS: u16 = 13;

/// See the head of the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Proposals that were taken together: they share one append, one sync and one message.
    pub batch_proposals: Histogram,
    /// Entries that one write made sure of.
    pub sync_entries: Histogram,
    /// Time that a write took with its sync, in seconds.
    pub sync_seconds: Histogram,
}

impl Default for Meter {
    fn default() -> Self {
        let sizes = || Histogram::new(exponential_buckets(1.0, 2.0, SIZE_BUCKETS));
        Self {
            batch_proposals: sizes(),
            sync_entries: sizes(),
            sync_seconds: Histogram::new(exponential_buckets(SHORTEST_SYNC, 2.0, SYNC_BUCKETS)),
        }
    }
}

/// What waits for a turn of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Proposals.
    pub proposals: usize,
    /// Messages of peers.
    pub messages: usize,
    /// Reads, changes of the membership, reports.
    pub control: usize,
}
