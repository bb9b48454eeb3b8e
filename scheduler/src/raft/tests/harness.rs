//! A machine that remembers what it was told, a network in memory, and a cluster made of both.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use supercloud_proto::v1;
use tokio::time::{Instant, sleep, timeout};

use crate::raft::{
    Committed, Log, Machine, Member, MemberKind, Members, NodeId, OpenError, PeerAddress, ProposeError,
    Reports, RestoreError, Role, Settings, SnapshotPolicy, SnapshotToSend, Start, Status, StepError,
    Transport, install_snapshot, limits, start,
};

/// Longer than anything takes on a busy machine; only a failing test waits for it.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// What readers of the machine see.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    pub(super) applied: u64,
    pub(super) entries: imbl::Vector<(u64, Vec<u8>)>,
}

/// Keeps every entry, in order.
#[derive(Default)]
pub(in super::super) struct Journal {
    entries: imbl::Vector<(u64, Vec<u8>)>,
    view: Arc<Mutex<View>>,
}

impl Journal {
    /// An entry that takes long to apply.
    pub(in super::super) const LONG: &[u8] = b"long";

    /// An empty one, and what its readers see.
    pub(super) fn new() -> (Self, Arc<Mutex<View>>) {
        let journal = Self::default();
        let view = journal.view.clone();
        (journal, view)
    }
}

impl Machine for Journal {
    type Outcome = usize;
    type Copy = imbl::Vector<(u64, Vec<u8>)>;

    fn apply(&mut self, index: u64, entry: &[u8]) -> usize {
        assert!(self.entries.last().is_none_or(|(last, _)| *last < index), "applied twice or out of order");
        self.entries.push_back((index, entry.to_vec()));
        self.entries.len()
    }

    fn is_long(&self, entry: &[u8]) -> bool {
        entry == Self::LONG
    }

    fn applied_batch(&mut self, applied_index: u64, _members: &Members) {
        *self.view.lock().unwrap() = View { applied: applied_index, entries: self.entries.clone() };
    }

    fn copy(&self) -> Self::Copy {
        self.entries.clone()
    }

    fn write_snapshot(copy: Self::Copy, out: &mut dyn Write) -> std::io::Result<()> {
        for (index, entry) in copy {
            out.write_all(&index.to_le_bytes())?;
            out.write_all(&(entry.len() as u64).to_le_bytes())?;
            out.write_all(&entry)?;
        }
        Ok(())
    }

    fn restore(&mut self, _index: u64, input: &mut dyn Read) -> Result<(), RestoreError> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes)?;
        self.entries.clear();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let mut number = || {
                let (head, tail) = rest.split_at(8);
                rest = tail;
                u64::from_le_bytes(head.try_into().unwrap())
            };
            let (index, length) = (number(), number() as usize);
            let (entry, tail) = rest.split_at(length);
            self.entries.push_back((index, entry.to_vec()));
            rest = tail;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Net {
    nodes: BTreeMap<NodeId, Log<usize>>,
    /// Nodes that nobody hears and that hear nobody.
    cut: BTreeSet<NodeId>,
    snapshots: usize,
}

/// A network in memory. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Network(Arc<Mutex<Net>>);

impl Network {
    fn reach(&self, from: NodeId, to: NodeId) -> Option<Log<usize>> {
        let net = self.0.lock().unwrap();
        let cut = net.cut.contains(&from) || net.cut.contains(&to);
        if cut { None } else { net.nodes.get(&to).cloned() }
    }

    pub(super) fn cut(&self, id: NodeId) {
        self.0.lock().unwrap().cut.insert(id);
    }

    pub(super) fn heal(&self) {
        self.0.lock().unwrap().cut.clear();
    }

    pub(super) fn snapshots_sent(&self) -> usize {
        self.0.lock().unwrap().snapshots
    }
}

struct MemoryTransport {
    id: NodeId,
    network: Network,
    reports: Reports,
    runtime: tokio::runtime::Handle,
}

impl Transport for MemoryTransport {
    fn send(&mut self, to: &PeerAddress, message: Vec<u8>) {
        assert_eq!(to.address, peer_address(to.id));
        let Some(peer) = self.network.reach(self.id, to.id) else {
            return self.reports.unreachable(to.id);
        };
        match peer.step(self.id, &message) {
            Ok(()) => {}
            Err(StepError::SenderRemoved { .. }) => self.reports.removed(),
            Err(error) => panic!("a message of ours is refused: {error}"),
        }
    }

    fn send_snapshot(&mut self, to: &PeerAddress, snapshot: SnapshotToSend) {
        let (id, reports, to) = (self.id, self.reports.clone(), to.clone());
        let Some(peer) = self.network.reach(id, to.id) else {
            return reports.snapshot_sent(to.id, false);
        };
        self.network.0.lock().unwrap().snapshots += 1;
        self.runtime.spawn(async move {
            // A newer one may have taken its place: it is sent next.
            let Ok(whole) = std::fs::read(&snapshot.file) else {
                return reports.snapshot_sent(to.id, false);
            };
            let mut message = snapshot.message;
            let pieces: Vec<_> = whole
                .chunks(100)
                .enumerate()
                .map(|(number, data)| {
                    Ok(v1::InstallSnapshotRequest {
                        from: id.0,
                        message: std::mem::take(&mut message),
                        offset: number as u64 * 100,
                        data: data.to_vec(),
                        crc32: crc32fast::hash(data),
                        total: whole.len() as u64,
                        mark: None,
                    })
                })
                .collect();
            let sent = install_snapshot(&peer, Some(id), tokio_stream::iter(pieces)).await;
            reports.snapshot_sent(to.id, sent.is_ok());
        });
    }

    fn forget(&mut self, _id: NodeId) {}
}

fn peer_address(id: NodeId) -> String {
    format!("peer-{id}")
}

/// Nodes, their directories and the network between them.
pub(super) struct Cluster {
    pub(super) network: Network,
    pub(super) policy: SnapshotPolicy,
    pub(super) tick: Duration,
    views: BTreeMap<NodeId, Arc<Mutex<View>>>,
    root: tempfile::TempDir,
}

/// Faster than in production, so that elections are soon over, and slow enough for a machine that is busy with other tests.
const TICK: Duration = Duration::from_millis(40);

impl Cluster {
    /// A cluster of `size` voters, all running.
    pub(super) async fn found(size: u64) -> Self {
        Self::found_with(size, SnapshotPolicy::default(), TICK).await
    }

    pub(super) async fn found_with(size: u64, policy: SnapshotPolicy, tick: Duration) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut cluster = Self { network: Network::default(), policy, tick, views: BTreeMap::new(), root };
        let member = |id| Member {
            id: NodeId(id),
            peer_address: peer_address(NodeId(id)),
            api_address: format!("api-{id}"),
            kind: MemberKind::Voter,
        };
        let members: Vec<Member> = (1..=size).map(member).collect();
        for id in 1..=size {
            cluster.start(NodeId(id), &Start::Found { members: members.clone() }).unwrap();
        }
        cluster
    }

    pub(super) fn directory(&self, id: NodeId) -> PathBuf {
        self.root.path().join(format!("node-{id}"))
    }

    pub(super) fn start(&mut self, id: NodeId, how: &Start) -> Result<(), OpenError> {
        let settings = Settings {
            cluster: "test".into(),
            id,
            directory: self.directory(id),
            peer_address: peer_address(id),
            snapshots: self.policy,
            tick: self.tick,
        };
        let (journal, view) = Journal::new();
        let (network, runtime) = (self.network.clone(), tokio::runtime::Handle::current());
        let log = start(settings, how, journal, |reports| MemoryTransport { id, network, reports, runtime })?;
        self.network.0.lock().unwrap().nodes.insert(id, log);
        self.views.insert(id, view);
        Ok(())
    }

    /// Ends a node as a crash would, as far as its disk is concerned.
    pub(super) async fn kill(&mut self, id: NodeId) {
        let log = self.network.0.lock().unwrap().nodes.remove(&id).unwrap();
        log.shutdown().await;
    }

    pub(super) fn log(&self, id: NodeId) -> Log<usize> {
        self.network.0.lock().unwrap().nodes[&id].clone()
    }

    pub(super) fn status(&self, id: NodeId) -> Status {
        self.log(id).status().borrow().clone()
    }

    pub(super) fn view(&self, id: NodeId) -> View {
        self.views[&id].lock().unwrap().clone()
    }

    pub(super) fn running(&self) -> Vec<NodeId> {
        self.network.0.lock().unwrap().nodes.keys().copied().collect()
    }

    /// Waits for a leader among the running nodes that are not cut off, and that has applied an entry of its term.
    pub(super) async fn leader(&self) -> NodeId {
        let cut = self.network.0.lock().unwrap().cut.clone();
        eventually("a leader", || {
            self.running().into_iter().filter(|id| !cut.contains(id)).find(|id| {
                let status = self.status(*id);
                status.role == Role::Leader && status.applied == status.commit && status.commit > 1
            })
        })
        .await
    }

    pub(super) async fn followers(&self) -> Vec<NodeId> {
        let leader = self.leader().await;
        self.running().into_iter().filter(|id| *id != leader).collect()
    }

    /// Writes through whoever leads, until it is acknowledged.
    pub(super) async fn write(&self, entry: &str) -> Committed<usize> {
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < DEADLINE, "nobody acknowledged {entry}");
            for id in self.running() {
                match self.log(id).propose(entry.as_bytes().to_vec()).await {
                    Ok(committed) => return committed,
                    Err(ProposeError::NotLeader { .. } | ProposeError::Overloaded { .. }) => {}
                    Err(ProposeError::OutcomeUnknown) => {
                        if let Some(committed) = self.taken(entry).await {
                            return committed;
                        }
                    }
                    Err(error) => panic!("{entry}: {error}"),
                }
            }
            sleep(self.tick).await;
        }
    }

    /// An entry of which nobody knew whether it was taken when its leader was one no more: the next one has it for good, or it never comes.
    async fn taken(&self, entry: &str) -> Option<Committed<usize>> {
        let view = self.view(self.leader().await);
        let mut counted = view.entries.iter().zip(1..);
        let is_it = |(index, found): &(u64, Vec<u8>)| (found == entry.as_bytes()).then_some(*index);
        counted.find_map(|(one, outcome)| Some(Committed { index: is_it(one)?, outcome }))
    }

    /// Waits until all running nodes have applied the same, at least up to `index`.
    pub(super) async fn agree(&self, index: u64) -> View {
        eventually("agreement", || {
            let views: Vec<View> = self.running().into_iter().map(|id| self.view(id)).collect();
            let same = views.windows(2).all(|pair| pair[0].entries == pair[1].entries);
            (same && views.iter().all(|view| view.applied >= index)).then(|| views[0].clone())
        })
        .await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A node whose directory is deleted under it would end the process, as it should.
        let nodes = std::mem::take(&mut self.network.0.lock().unwrap().nodes);
        for log in nodes.into_values() {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(log.shutdown()));
        }
    }
}

/// Polls for a fact until a deadline.
pub(super) async fn eventually<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let poll = async {
        loop {
            if let Some(found) = fact() {
                return found;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, poll).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Snapshots after a few entries, and hardly any log kept.
pub(super) fn often() -> SnapshotPolicy {
    SnapshotPolicy { entries: 10, bytes: limits::SNAPSHOT_LOG_BYTES, tail: 2 }
}
