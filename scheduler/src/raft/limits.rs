//! Every bound of the log in one table, and the raft configuration made of them.
//!
//! Nothing here knows a node, a disk or a network. A limit that is missing here does not exist, so a reviewer needs
//! to read this file only.

use std::time::Duration;

/// How long one tick of the raft clock lasts.
pub const TICK: Duration = Duration::from_millis(50);
/// Ticks between two heartbeats of a leader: every tick, because an election is counted in few ticks.
pub const HEARTBEAT_TICKS: usize = 1;
/// Ticks for which a follower believes in its leader (its vote is refused meanwhile), and after which a leader that
/// hears no majority steps down.
pub const ELECTION_TICKS: usize = 5;
/// First tick at which a follower may stand. One more than `ELECTION_TICKS`: a candidate that stands in the very tick
/// in which the others still believe gets no answer at all and loses a whole election timeout.
pub const MIN_ELECTION_TICKS: usize = 6;
/// Tick before which a follower stands at the latest. The earlier of two followers stands after about 0.4 s.
pub const MAX_ELECTION_TICKS: usize = 12;

/// Ticks after which a leader whose disk has not written what it was given steps down (1 s): longer than a busy disk takes,
/// and about what an election costs.
pub const DISK_HANGS_TICKS: u64 = 4 * ELECTION_TICKS as u64;

/// Largest entry that is accepted. The biggest command is a plan of some thousand placements.
pub const MAX_ENTRY_BYTES: usize = 4 << 20;
/// Aim for one append message. Small enough not to hold up a heartbeat behind it, large enough to fill a link.
pub const MAX_MESSAGE_BYTES: u64 = 1 << 20;
/// Append messages on their way to one follower without an answer.
pub const MAX_INFLIGHT_MESSAGES: usize = 64;
/// Bytes proposed and not yet committed; beyond it proposals are refused as overload.
pub const MAX_UNCOMMITTED_BYTES: u64 = 64 << 20;
/// Committed bytes applied at a stretch, before messages and ticks have their turn again.
pub const MAX_COMMITTED_BYTES_PER_READY: u64 = 4 << 20;
/// Largest encoded peer message: one entry of the largest size, and what is around it.
pub const MAX_PEER_MESSAGE_BYTES: usize = MAX_ENTRY_BYTES + (1 << 20);

/// Proposals that share one append, one sync and one message.
pub const MAX_BATCH_PROPOSALS: usize = 1024;
/// Bytes of them; just under `MAX_MESSAGE_BYTES`, so that a batch is one message.
pub const MAX_BATCH_BYTES: usize = (MAX_MESSAGE_BYTES as usize) / 8 * 7;
/// Appends on their way to the disk beyond which new proposals wait for company: another one more would only make each
/// smaller, since the disk takes what has gathered in one go.
pub const APPENDS_BEFORE_COMPANY: usize = 2;
/// Proposals that waited for their answers at a time of late, beyond which new ones wait for company too: what counts then is
/// how many share a batch, and their answers take longer than that anyway.
pub const ANSWERS_BEFORE_COMPANY: usize = 32;
/// Longest such wait. What comes sooner, a batch of the largest size or a place on the disk, ends it.
pub const COMPANY_WAIT: Duration = Duration::from_millis(1);
/// Bytes to be taken in or to be applied beyond which a turn is left to the log's own thread (about a thousand entries of a
/// few hundred bytes, some milliseconds): whoever brings something else takes the turn itself, and others may wait for it.
pub const LONG_TURN_BYTES: usize = 256 << 10;
/// Turns that whoever brings something takes at a stretch; what comes beyond is left to the log's own thread.
pub const MAX_TURNS_AT_ONCE: usize = 16;
/// Writes that share one sync; far more than raft can have under way.
pub const MAX_MERGED_WRITES: usize = 1024;
/// Proposals waiting for their batch; about a second of what one node can do.
pub const MAX_QUEUED_PROPOSALS: usize = 8192;
/// Bytes of them.
pub const MAX_QUEUED_PROPOSAL_BYTES: usize = 64 << 20;
/// What a caller is told to wait when the queue is full.
pub const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Peer messages waiting for their turn; raft repeats what is dropped beyond it.
pub const MAX_QUEUED_MESSAGES: usize = 4096;
/// Bytes of them.
pub const MAX_QUEUED_MESSAGE_BYTES: usize = 128 << 20;
/// Reads, membership changes and reports waiting for their turn.
pub const MAX_QUEUED_CONTROL: usize = 8192;
/// Rounds of raft's Ready in one turn, before new messages and ticks are looked at.
pub const MAX_READIES_PER_TURN: usize = 16;

/// Linearizable reads waiting for an answer.
pub const MAX_WAITING_READS: usize = 4096;
/// Read confirmations asked for and not answered; each carries all reads that waited when it was asked.
pub const MAX_ASKED_READS: usize = 64;
/// Ticks after which a confirmation is asked for again, with a fresh context.
pub const READ_ATTEMPT_TICKS: u64 = 4;
/// Ticks after which a read fails (3 s): longer than an election.
pub const READ_DEADLINE_TICKS: u64 = 60;

/// Voters of a cluster. More cost latency and buy nothing.
pub const MAX_VOTERS: usize = 7;
/// Members that are still catching up. They count in no majority, so several may join at once; each may take a
/// snapshot from the leader, so not many.
pub const MAX_LEARNERS: usize = 4;
/// A learner this many entries behind the commit index, or fewer, has caught up and is promoted.
pub const PROMOTE_GAP: u64 = 128;
/// Ticks without a message after which a member counts as unreachable, when a removal is judged.
pub const REACHABLE_TICKS: u64 = 4 * ELECTION_TICKS as u64;
/// Ticks in which a transfer of leadership succeeds or is reported as failed (3 s).
pub const TRANSFER_TICKS: u64 = 60;

/// Entries after which a snapshot is taken.
pub const SNAPSHOT_ENTRIES: u64 = 200_000;
/// Bytes of log after which a snapshot is taken, unless the last snapshot was larger than that: then after as many
/// bytes as it had, so that writing snapshots costs at most as much as writing the log.
pub const SNAPSHOT_LOG_BYTES: u64 = 64 << 20;
/// Never let the log grow beyond this between snapshots: it is read again at a start.
pub const SNAPSHOT_MAX_LOG_BYTES: u64 = 512 << 20;
/// Entries kept before the older snapshot, for followers that were away for a moment.
pub const LOG_TAIL_ENTRIES: u64 = 10_000;
/// The log is told of the free space on its disk when it has changed by as much.
pub const SPACE_STEP_BYTES: u64 = 4 << 20;
/// Free space that a snapshot must leave on the disk, beyond its own size.
pub const SNAPSHOT_SPARE_BYTES: u64 = 64 << 20;
/// Snapshots kept. The older one is there when the newer one turns out to be damaged.
pub const SNAPSHOTS_KEPT: usize = 2;
/// Bytes of one chunk of a snapshot on the wire.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;
/// Bytes of the beginning and of the end of a snapshot's file that tell it from others: the head with cluster, index and
/// term, and the tail with the checksum, are shorter.
pub const SNAPSHOT_MARK_BYTES: usize = 128;
/// Decoded entries kept in memory, for followers and for apply.
pub const ENTRY_CACHE_BYTES: usize = 16 << 20;

/// Messages queued for one peer; beyond it they are dropped and raft repeats them.
pub const MAX_PEER_QUEUE: usize = 1024;
/// Messages that share one request on a peer's stream.
pub const MAX_STEP_MESSAGES: usize = 64;
/// Largest request on a peer's stream, for the receiver's decoding limit: messages are gathered up to
/// `MAX_MESSAGE_BYTES`, and one may be as large as it is.
pub const MAX_STEP_REQUEST_BYTES: usize = MAX_PEER_MESSAGE_BYTES + (1 << 20);
/// Largest snapshot that is taken from a peer; more than any state we can hold in memory.
pub const MAX_SNAPSHOT_BYTES: u64 = 64 << 30;
/// First wait before a peer is tried again; it doubles up to `MAX_RECONNECT`.
pub const FIRST_RECONNECT: Duration = Duration::from_millis(50);
/// Longest wait. Short, because a cluster without a majority waits for exactly this.
pub const MAX_RECONNECT: Duration = Duration::from_secs(1);
/// Within which a connection to a peer stands, or is given up.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// Within which a piece of a snapshot is taken by the peer, or the sending is given up. The last answer may take as
/// long: the peer reads the whole file once more before it.
pub const SNAPSHOT_STALL: Duration = Duration::from_secs(30);

/// When a snapshot is taken. Constants in production, small in tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// Entries since the last one.
    pub entries: u64,
    /// Bytes of log since the last one.
    pub bytes: u64,
    /// Entries kept before the older of the two.
    pub tail: u64,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self { entries: SNAPSHOT_ENTRIES, bytes: SNAPSHOT_LOG_BYTES, tail: LOG_TAIL_ENTRIES }
    }
}

/// The raft configuration of node `id`, whose state already holds everything up to `applied`.
pub(super) fn config(id: u64, applied: u64) -> ::raft::Config {
    ::raft::Config {
        id,
        applied,
        election_tick: ELECTION_TICKS,
        heartbeat_tick: HEARTBEAT_TICKS,
        min_election_tick: MIN_ELECTION_TICKS,
        max_election_tick: MAX_ELECTION_TICKS,
        max_size_per_msg: MAX_MESSAGE_BYTES,
        max_inflight_msgs: MAX_INFLIGHT_MESSAGES,
        max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
        max_committed_size_per_ready: MAX_COMMITTED_BYTES_PER_READY,
        check_quorum: true,
        pre_vote: true,
        read_only_option: ::raft::ReadOnlyOption::Safe,
        skip_bcast_commit: false,
        // With it raft would put all that a follower lacks into one message, without a limit, and the receiver refuses it.
        batch_append: false,
        priority: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_of_raft_is_set() {
        let config = config(7, 3);
        config.validate().unwrap();
        assert!(config.pre_vote && config.check_quorum && !config.batch_append);
        assert_eq!(config.read_only_option, ::raft::ReadOnlyOption::Safe);
        for limit in
            [config.max_size_per_msg, config.max_uncommitted_size, config.max_committed_size_per_ready]
        {
            assert!(limit > 0 && limit < ::raft::NO_LIMIT);
        }
        assert!((1..=256).contains(&config.max_inflight_msgs));
        assert!(config.min_election_tick > config.election_tick);
        assert!(config.max_election_tick > config.min_election_tick);
        assert!(config.election_tick >= 5 * config.heartbeat_tick);
        assert_eq!((config.id, config.applied), (7, 3));
    }

    #[test]
    fn limits_fit_each_other() {
        const {
            assert!(MAX_BATCH_BYTES as u64 <= MAX_MESSAGE_BYTES);
            assert!(MAX_ENTRY_BYTES < MAX_PEER_MESSAGE_BYTES);
            assert!(MAX_MESSAGE_BYTES < MAX_PEER_MESSAGE_BYTES as u64);
            assert!(MAX_PEER_MESSAGE_BYTES < MAX_STEP_REQUEST_BYTES);
            assert!(SNAPSHOT_CHUNK_BYTES < MAX_PEER_MESSAGE_BYTES);
            assert!(READ_DEADLINE_TICKS > READ_ATTEMPT_TICKS + 2 * MAX_ELECTION_TICKS as u64);
        }
        assert!(TICK * (MAX_ELECTION_TICKS as u32) < Duration::from_millis(1000));
    }
}
