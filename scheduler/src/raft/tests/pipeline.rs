//! What may be said before a disk has written, and what may not: nodes in turns, with disks that write when told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ::raft::eraftpb::ConfState;
use tokio::sync::oneshot;

use super::harness::Journal;
use crate::raft::files;
use crate::raft::limits::{DISK_HANGS_TICKS, SnapshotPolicy};
use crate::raft::log_store::{HardState, LogStore, LogWrite, Position, Reclaim, StoreError, Ticket};
use crate::raft::membership::{ChangeContext, Membership, StoredMember};
use crate::raft::node::{Control, Inputs, Node, Parts};
use crate::raft::proposals::Proposal;
use crate::raft::snapshot_dir::SnapshotDir;
use crate::raft::snapshot_file::SnapshotMeta;
use crate::raft::{Committed, NodeId, PeerAddress, ProposeError, Role, SnapshotToSend, Transport, wire};

const CLUSTER: &str = "test";
const FOUNDING: Position = Position { index: 1, term: 1 };

/// What a disk holds, and what is on its way there.
#[derive(Default)]
struct Disk {
    entries: BTreeMap<u64, Vec<u8>>,
    under_way: Vec<(Ticket, LogWrite)>,
}

impl Disk {
    fn put(&mut self, write: LogWrite) {
        if let Some((first, _)) = write.entries.first() {
            self.entries.split_off(first);
        }
        self.entries.extend(write.entries);
    }
}

struct LateStore {
    disk: Arc<Mutex<Disk>>,
    hard_state: HardState,
    last_index: u64,
}

impl LogStore for LateStore {
    fn base(&self) -> Position {
        FOUNDING
    }

    fn last_index(&self) -> u64 {
        self.last_index
    }

    fn hard_state(&self) -> HardState {
        self.hard_state
    }

    fn installing(&self) -> u64 {
        0
    }

    fn read(&self, low: u64, high: u64, _max_bytes: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        let disk = self.disk.lock().unwrap();
        let found = (low..high).map(|index| disk.entries.get(&index).cloned()).collect::<Option<_>>();
        found.ok_or(StoreError::Missing { directory: String::new(), low, high })
    }

    fn submit(&mut self, write: LogWrite, ticket: Ticket) {
        self.last_index = write.entries.last().map_or(self.last_index, |(index, _)| *index);
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        self.disk.lock().unwrap().under_way.push((ticket, write));
    }

    fn write(&mut self, _write: LogWrite, _sync: bool) -> Result<(), StoreError> {
        panic!("nothing here installs a snapshot or changes the membership")
    }

    fn witness(&mut self, _applied: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn witnessed(&self) -> Position {
        Position::default()
    }

    fn reclaim(&self) -> Reclaim {
        Box::new(|| Ok(()))
    }
}

/// Messages on their way: to whom, and what.
#[derive(Default)]
struct Mail(Vec<(u64, Vec<u8>)>);

impl Transport for Mail {
    fn send(&mut self, to: &PeerAddress, message: Vec<u8>) {
        self.0.push((to.id.0, message));
    }

    fn send_snapshot(&mut self, _to: &PeerAddress, _snapshot: SnapshotToSend) {
        panic!("nobody is that far behind");
    }

    fn forget(&mut self, _id: NodeId) {}
}

type Answer = oneshot::Receiver<Result<Committed<usize>, ProposeError>>;

/// Nodes, of which the first leads. Messages arrive, and disks write, only when the test says so.
struct World {
    nodes: BTreeMap<u64, Node<Journal, LateStore>>,
    disks: BTreeMap<u64, Arc<Mutex<Disk>>>,
    mail: Mail,
    _folder: tempfile::TempDir,
}

impl World {
    /// Three voters.
    fn new() -> Self {
        Self::of(&Membership::of_voters(3))
    }

    fn of(membership: &Membership) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<u64> = membership.view().members.keys().map(|id| id.0).collect();
        let disks: BTreeMap<u64, Arc<Mutex<Disk>>> = ids.iter().map(|id| (*id, Arc::default())).collect();
        let node = |(id, disk): (&u64, &Arc<Mutex<Disk>>)| {
            let directory = folder.path().join(id.to_string());
            let snapshots = SnapshotDir::open(Arc::new(files::Disk), directory, CLUSTER).unwrap();
            (*id, node(*id, membership.clone(), disk.clone(), snapshots))
        };
        let nodes = disks.iter().map(node).collect();
        let mut world = Self { nodes, disks, mail: Mail::default(), _folder: folder };
        while world.role(1) != Role::Leader {
            world.turn(1, Inputs { tick: true, ..nothing() });
            world.settle();
        }
        world
    }

    fn turn(&mut self, id: u64, inputs: Inputs<usize>) {
        let node = self.nodes.get_mut(&id).unwrap();
        let mut more = node.turn(inputs, &mut self.mail).unwrap();
        while more {
            more = node.turn(nothing(), &mut self.mail).unwrap();
        }
    }

    /// The disk of a node writes what is under way.
    fn disk(&mut self, id: u64) {
        let mut disk = self.disks[&id].lock().unwrap();
        let mut last = None;
        for (ticket, write) in std::mem::take(&mut disk.under_way) {
            disk.put(write);
            last = Some(ticket);
        }
        drop(disk);
        if let Some(ticket) = last {
            self.turn(id, Inputs { control: vec![Control::Written(Ok(ticket))], ..nothing() });
        }
    }

    /// All that is on its way arrives, and whatever follows from it, with no disk writing.
    fn deliver(&mut self) {
        while !self.mail.0.is_empty() {
            for (to, bytes) in std::mem::take(&mut self.mail.0) {
                let message = wire::decode(CLUSTER, &bytes).unwrap();
                self.turn(to, Inputs { messages: vec![message], ..nothing() });
            }
        }
    }

    /// Disks write and messages arrive until nothing is left.
    fn settle(&mut self) {
        let under_way =
            |world: &Self| world.disks.values().any(|disk| !disk.lock().unwrap().under_way.is_empty());
        while under_way(self) || !self.mail.0.is_empty() {
            let ids: Vec<u64> = self.nodes.keys().copied().collect();
            ids.into_iter().for_each(|id| self.disk(id));
            self.deliver();
        }
    }

    fn propose(&mut self, entry: &str) -> Answer {
        let (reply, answer) = oneshot::channel();
        let proposals = vec![Proposal { entry: entry.as_bytes().to_vec(), reply }];
        self.turn(1, Inputs { proposals, ..nothing() });
        answer
    }

    fn role(&self, id: u64) -> Role {
        self.nodes[&id].status().role
    }

    fn commit(&self, id: u64) -> u64 {
        self.nodes[&id].status().commit
    }
}

fn nothing() -> Inputs<usize> {
    Inputs { tick: false, messages: Vec::new(), proposals: Vec::new(), control: Vec::new() }
}

fn node(
    id: u64,
    membership: Membership,
    disk: Arc<Mutex<Disk>>,
    snapshots: SnapshotDir,
) -> Node<Journal, LateStore> {
    let hard_state = HardState { term: FOUNDING.term, vote: 0, commit: FOUNDING.index };
    let (machine, _view) = Journal::new();
    Node::new(Parts {
        id,
        cluster: CLUSTER.to_owned(),
        address: format!("p{id}"),
        store: LateStore { disk, hard_state, last_index: FOUNDING.index },
        machine,
        snapshots,
        snapshot: SnapshotMeta { cluster: CLUSTER.to_owned(), position: FOUNDING, membership, bytes: 0 },
        policy: SnapshotPolicy::default(),
        life: id,
    })
    .unwrap()
}

#[test]
fn a_vote_is_given_only_once_it_is_on_disk() {
    /// More than the longest election takes.
    const LONG: usize = 40;
    let mut world = World::new();
    // The first node is not heard any more. Whether to stand is asked without a promise; the vote itself is one.
    for _ in 0..LONG {
        for id in [2, 3] {
            world.turn(id, Inputs { tick: true, ..nothing() });
            world.mail.0.retain(|(to, _)| *to != 1);
            world.deliver();
        }
    }
    let roles = [2, 3].map(|id| world.role(id));
    assert!(roles.contains(&Role::Candidate) && !roles.contains(&Role::Leader), "{roles:?}");
    for _ in 0..LONG {
        world.turn(2, Inputs { tick: true, ..nothing() });
        world.settle();
    }
    assert!([2, 3].into_iter().any(|id| world.role(id) == Role::Leader));
}

#[test]
fn followers_acknowledge_only_what_is_on_their_disk() {
    let mut world = World::new();
    let before = world.commit(1);
    let mut answer = world.propose("a");
    world.disk(1);
    world.deliver();
    assert_eq!((world.commit(1), answer.try_recv().is_err()), (before, true));
    world.disk(3);
    world.deliver();
    assert_eq!(world.commit(1), before + 1);
    assert_eq!(answer.try_recv().unwrap().unwrap().index, before + 1);
}

#[test]
fn a_leader_neither_counts_nor_applies_what_its_own_disk_has_not_written() {
    let mut world = World::new();
    let before = world.commit(1);
    let mut answer = world.propose("a");
    world.deliver();
    world.disk(2);
    world.deliver();
    assert_eq!(world.commit(1), before, "one of three disks is no majority");
    world.disk(3);
    world.deliver();
    assert_eq!(world.commit(1), before + 1, "two of three disks are one");
    assert!(answer.try_recv().is_err(), "what is not on this disk is not applied");
    world.disk(1);
    assert!(answer.try_recv().unwrap().is_ok());
}

#[test]
fn several_appends_are_under_way_and_each_ticket_tells_of_all_before_it() {
    let mut world = World::new();
    let before = world.commit(1);
    let answers: Vec<Answer> = (0..5).map(|number| world.propose(&format!("entry {number}"))).collect();
    assert_eq!(world.nodes[&1].appends_under_way(), 5);
    // The followers got all five although the leader's disk has written none of them.
    world.deliver();
    for id in [1, 2, 3] {
        assert_eq!(world.nodes[&id].status().last_index, before + 5);
        world.disk(id);
    }
    world.deliver();
    assert_eq!(world.nodes[&1].appends_under_way(), 0);
    for (mut answer, index) in answers.into_iter().zip(before + 1..) {
        assert_eq!(answer.try_recv().unwrap().unwrap().index, index);
    }
}

#[test]
fn a_heartbeat_is_answered_while_the_disk_writes_and_an_acknowledgement_is_not() {
    let mut world = World::new();
    let before = world.commit(1);
    world.propose("a");
    world.deliver();
    assert_eq!(world.commit(1), before);
    world.turn(1, Inputs { tick: true, ..nothing() });
    for (to, bytes) in std::mem::take(&mut world.mail.0) {
        let message = wire::decode(CLUSTER, &bytes).unwrap();
        world.turn(to, Inputs { messages: vec![message], ..nothing() });
        assert_eq!(std::mem::take(&mut world.mail.0).len(), 1, "one answer to one heartbeat");
    }
    for id in [2, 3] {
        world.disk(id);
        assert_eq!(world.mail.0.len(), 1, "the acknowledgement");
        world.deliver();
    }
    assert_eq!(world.commit(1), before + 1);
}

#[test]
fn a_learner_hears_of_a_lone_voters_term_only_after_its_disk_has_written_it() {
    let mut membership = Membership::of_voters(1);
    let conf = ConfState { voters: vec![1], learners: vec![2], ..ConfState::default() };
    let learner = StoredMember { id: 2, peer_address: "p2".to_owned(), api_address: "a2".to_owned() };
    membership.changed(conf, ChangeContext { added: Some(learner) });
    let mut world = World::of(&membership);
    assert_eq!(world.role(1), Role::Leader);
    let term = world.nodes[&1].status().term;
    world.turn(1, nothing());
    world.propose("a");
    world.turn(1, Inputs { tick: true, ..nothing() });
    world.deliver();
    assert!(world.nodes[&2].status().term < term, "a crash would let the voter use the term once more");
    world.settle();
    assert_eq!(world.nodes[&2].status().term, term);
}

#[test]
fn a_leader_whose_disk_hangs_steps_down() {
    let mut world = World::new();
    world.propose("a");
    for tick in 0..DISK_HANGS_TICKS {
        assert_eq!(world.role(1), Role::Leader, "after {tick} ticks");
        world.turn(1, Inputs { tick: true, ..nothing() });
        // The others' disks are well, and they answer.
        world.deliver();
        [2, 3].into_iter().for_each(|id| world.disk(id));
        world.deliver();
    }
    assert_ne!(world.role(1), Role::Leader);
}
