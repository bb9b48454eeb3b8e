//! Clients in a closed loop: each makes the next write when the last one was acknowledged. The same code drives both sides of a comparison.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tonic::Status;

use crate::sample::Sample;

/// Clients that share one connection, on both sides alike: the ratio at which etcd's authors measure it with a thousand clients.
const CLIENTS_A_CONNECTION: usize = 10;

/// A client of something that stores. Clones share the connection.
pub(crate) trait Writer: Clone + Send + 'static {
    /// Makes the write of this number, and returns once it is acknowledged.
    fn write(&mut self, number: u64) -> impl Future<Output = Result<(), Status>> + Send;
}

/// What a load came to.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// From a call to its acknowledgement.
    pub(crate) latencies: Sample,
    /// Writes that were answered otherwise.
    pub(crate) failed: usize,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Load {
    /// Acknowledged writes a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Takes in another load of the same kind.
    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.failed += other.failed;
        self.took += other.took;
    }
}

/// How many connections so many clients have.
pub(crate) fn connections(clients: usize) -> usize {
    clients.div_ceil(CLIENTS_A_CONNECTION).max(1)
}

/// Numbers of writes: none is given twice, so that every write of a run changes something.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// The next number.
pub(crate) fn number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Lets so many clients write for a time. `open` holds at least [`connections`] of open connections.
pub(crate) async fn closed_loop<W: Writer>(open: &[W], clients: usize, time: Duration) -> Load {
    let connections = connections(clients).min(open.len());
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let mut writer = open[client % connections].clone();
        tasks.spawn(async move {
            let mut own = Load::default();
            while begun.elapsed() < time {
                let asked = Instant::now();
                match writer.write(number()).await {
                    Ok(()) => own.latencies.add(asked.elapsed()),
                    Err(status) => {
                        own.failed += 1;
                        eprintln!("  a write failed: {status}");
                    }
                }
            }
            own
        });
    }
    let mut load = Load::default();
    for own in tasks.join_all().await {
        load.add(own);
    }
    Load { took: begun.elapsed(), ..load }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Every(Duration);

    impl Writer for Every {
        async fn write(&mut self, number: u64) -> Result<(), Status> {
            tokio::time::sleep(self.0).await;
            if number == 0 { Err(Status::internal("never given")) } else { Ok(()) }
        }
    }

    #[test]
    fn connections_are_shared_by_ten() {
        assert_eq!([0, 1, 10, 11, 1_000].map(connections), [1, 1, 1, 2, 100]);
    }

    #[tokio::test]
    async fn each_client_waits_for_its_answer() {
        let (every, time) = (Duration::from_millis(20), Duration::from_millis(100));
        let load = closed_loop(&[Every(every)], 3, time).await;
        assert!(load.took >= time && load.failed == 0);
        let writes = load.latencies.len();
        assert!((3..=15).contains(&writes), "{writes}");
        assert!(load.latencies.percentile(50) >= every);
        assert!((load.rate() - writes as f64 / load.took.as_secs_f64()).abs() < 1e-6);
    }
}
