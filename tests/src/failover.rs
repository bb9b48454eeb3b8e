//! Failover, measured: a leader is killed, and the time until the next write is acknowledged.
//!
//! The clock starts just before the kill. The writes begin once the process is gone, one on each node that is left, over connections that
//! were open before, each with a request id of its own; the first acknowledgement stops the clock. Whether anything else is going on is the caller's
//! choice.

use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{
    Outcome, Wrong,
    history::{Answer, Ask},
    registers::{Attempt, BOROUGH, Registers},
    scheduler::Cluster,
    wait,
    ways::Ways,
    wrong,
};

/// Longest failover that is measured; a longer one is a failure.
const LONGEST: Duration = Duration::from_secs(30);
/// Longest time until a killed node that was started again has caught up.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
/// Entries by which a node that has caught up may be behind another one when they are asked one after the other.
const LAG: u64 = 64;
/// Digits that the histogram keeps.
const DIGITS: u8 = 3;
/// The percentiles that are printed.
const PERCENTILES: [f64; 6] = [0.0, 50.0, 90.0, 95.0, 99.0, 100.0];
/// Width of the longest bar of the printed histogram.
const BAR: u64 = 50;
/// Columns of it begin at multiples of this.
const COLUMN: Duration = Duration::from_millis(100);

/// Kills leaders of one cluster.
#[derive(Debug)]
pub struct Failover {
    runtime: Runtime,
    ways: Ways,
    registers: Registers,
    /// The first value that is written: no other run on the same cluster has written it, or used it in a request id.
    first: u64,
    times: Histogram<u64>,
}

impl Failover {
    /// For a cluster whose nodes all run.
    pub fn of(cluster: &Cluster) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let ways = runtime.block_on(Ways::open(&cluster.servers(), &cluster.credentials))?;
        let times = Histogram::new_with_max(u64::try_from(LONGEST.as_micros())?, DIGITS)?;
        // It may be there already, by whoever else has registers.
        cluster.cli.run(&["borough", "create", BOROUGH])?;
        let first = u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros())?;
        Ok(Self { runtime, ways, registers: Registers::new("failover")?, first, times })
    }

    /// Takes in the times of another cluster's.
    ///
    /// # Errors
    /// None that can be met: both keep times of the same range.
    pub fn absorb(&mut self, other: &Self) -> Outcome {
        Ok(self.times.add(&other.times)?)
    }

    /// Kills the leader, waits for a write, starts the killed one again, and waits until all is as before.
    pub fn once(&mut self, cluster: &mut Cluster) -> Outcome<Duration> {
        let leader = self.leader(cluster)?;
        let begun = Instant::now();
        cluster.nodes[leader].kill()?;
        let value = self.first + self.times.len();
        let left: Vec<usize> = (0..self.ways.count()).filter(|place| *place != leader).collect();
        self.runtime.block_on(self.first_written(&left, value))?;
        let took = begun.elapsed();
        self.times.saturating_record(u64::try_from(took.as_micros())?);
        cluster.nodes[leader].start()?;
        self.await_whole(cluster)?;
        Ok(took)
    }

    /// All that were measured, in microseconds.
    pub fn times(&self) -> &Histogram<u64> {
        &self.times
    }

    /// A percentile in milliseconds.
    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        self.times.value_at_percentile(percentile) as f64 / 1000.0
    }

    /// The place of the leader, once all nodes agree on it.
    fn leader(&self, cluster: &Cluster) -> Outcome<usize> {
        let all: Vec<usize> = (0..cluster.nodes.len()).collect();
        wait::until("the nodes agree on a leader", wait::SOON, || {
            self.runtime.block_on(self.ways.leader(&all))
        })
    }

    /// Waits until every node follows one leader and has applied what that one has.
    fn await_whole(&self, cluster: &mut Cluster) -> Outcome {
        let all: Vec<usize> = (0..cluster.nodes.len()).collect();
        wait::until("all nodes have caught up", WHOLE_WITHIN, || {
            for node in &mut cluster.nodes {
                node.process()?.must_run()?;
            }
            self.runtime.block_on(async {
                self.ways.leader(&all).await?;
                let seen = self.ways.seen_by_all(&all).await?;
                let applied: Vec<u64> = seen.iter().map(|seen| seen.applied_index).collect();
                let (least, most) = (applied.iter().min(), applied.iter().max());
                match (least, most) {
                    (Some(least), Some(most)) if least + LAG >= *most => Ok(()),
                    _ => wrong(format!("applied: {applied:?}")),
                }
            })
        })
    }

    async fn first_written(&self, places: &[usize], value: u64) -> Outcome {
        let mut writes = JoinSet::new();
        for place in places.iter().copied() {
            let (registers, node) = (self.registers.clone(), self.ways.to(place));
            writes.spawn(async move {
                let id = format!("failover-{place}-{value}");
                loop {
                    // A repetition under the same id is answered, not done again.
                    if let Attempt::Answered(Answer::Written(_)) =
                        registers.attempt(node.clone(), place, Ask::Write(value), &id).await
                    {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        }
        match tokio::time::timeout(LONGEST, writes.join_next()).await {
            Ok(Some(done)) => Ok(done?),
            _ => Err(Wrong(format!("no write within {} s of the leader's death", LONGEST.as_secs())).into()),
        }
    }
}

/// Percentiles, and a bar for each tenth of a second.
impl std::fmt::Display for Failover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} leaders killed; until the next acknowledged write:", self.times.len())?;
        for percentile in PERCENTILES {
            writeln!(f, "  p{percentile:<4} {:>8.0} ms", self.percentile_ms(percentile))?;
        }
        let step = u64::try_from(COLUMN.as_micros()).unwrap_or(u64::MAX);
        let columns: Vec<_> = self.times.iter_linear(step).collect();
        let most = columns.iter().map(|column| column.count_since_last_iteration()).max().unwrap_or(0).max(1);
        for (number, column) in columns.iter().enumerate() {
            let count = column.count_since_last_iteration();
            let bar = "#".repeat(usize::try_from((count * BAR).div_ceil(most)).unwrap_or(0));
            writeln!(f, "  from {:>5} ms {count:>5} {bar}", number as u128 * COLUMN.as_millis())?;
        }
        Ok(())
    }
}
