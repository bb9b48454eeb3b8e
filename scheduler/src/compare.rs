//! Whether this node's state is still that of the others: equal index must mean equal state, in production too. Knows hashes, members and verdicts;
//! what is in a state it does not know.
//!
//! Context: an applied index that was kept apart from the data cost etcd 3.5 writes on one member, unnoticed for nine months. Apply is pure, so a
//! difference means a fault in the program, in memory or on disk, and it spreads: a leader decides from its state, a snapshot hands it on.
//!
//! Decisions
//! * **The leader marks an index, every node hashes its state there.** `CompareStates` stands in the log and changes nothing. Applying it takes the
//!   O(1) copy that a snapshot takes, and a thread of its own hashes that copy as a snapshot would write it. So apply, and whoever makes it
//!   faster, pay nothing. A hash kept up to date in apply would be exact at every index, and would cost two encodings for every record that changes.
//! * **The cost is bounded**: at most one mark a minute, and none before a hundred times as long has passed as the last hash took (some seconds at a
//!   million instances): one per cent of one core. Nothing is marked while nothing changes.
//! * **Every node judges itself**, with what the others answer (`PeerService.Describe`): where more than half of the voters hold another hash than
//!   this node, this node is wrong. It notes that in its directory, ends, and is refused from then on until it is rebuilt. Where there is no such
//!   majority nobody can tell who is wrong: all that see it raise the alarm and go on.
//! * **Only nodes of the same version are compared**: a later one may encode the same record otherwise.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use supercloud_proto::{id::LogIndex, v1};
use tokio::time::{sleep, timeout};

use crate::{
    core::Core,
    raft::{MemberKind, NodeId, identity::sync_directory},
};

mod hasher;

pub use hasher::Hashes;

/// Hash of a state.
pub type Hash = [u8; 32];

/// File in the directory of a node whose state was found to be wrong.
const MARKER: &str = "deviates";
/// Wait before the others are asked, at first and again: they have to hash as long as this node had.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How often they are asked about one index. One that is away or far behind is compared at a later one.
const ATTEMPTS: u32 = 15;
/// Within which a member answers.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// What another member said about an index.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    votes: bool,
    version: String,
    /// Nothing where it has no hash of that index, yet or any more.
    hash: Option<Hash>,
}

/// How the states compare at an index.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// All that were compared are equal; with the number of others.
    Equal { others: usize },
    /// These differ from this one, and this one is not known to be wrong.
    Differ { nodes: Vec<NodeId> },
    /// More than half of the voters hold another one.
    Deviates { majority: usize },
}

/// Compares this node's hash with what the others said.
fn judge(own: &Said, others: &BTreeMap<NodeId, Said>) -> Verdict {
    let voters = usize::from(own.votes) + others.values().filter(|said| said.votes).count();
    let comparable = |said: &&Said| said.version == own.version && said.hash.is_some();
    let mut holders: BTreeMap<Hash, usize> = BTreeMap::new();
    for hash in others.values().filter(comparable).filter(|said| said.votes).filter_map(|said| said.hash) {
        *holders.entry(hash).or_default() += 1;
    }
    let majority = holders.into_iter().find(|(_, count)| *count * 2 > voters);
    if let Some((_, majority)) = majority.filter(|(hash, _)| own.hash != Some(*hash)) {
        return Verdict::Deviates { majority };
    }
    let differs = |said: &Said| said.version == own.version && said.hash.is_some() && said.hash != own.hash;
    let nodes: Vec<NodeId> = others.iter().filter(|(_, said)| differs(said)).map(|(id, _)| *id).collect();
    if nodes.is_empty() {
        Verdict::Equal { others: others.values().filter(comparable).count() }
    } else {
        Verdict::Differ { nodes }
    }
}

/// Compares at every index that is marked, until the node stops.
pub(crate) async fn run(core: Core) {
    let mut newest = core.hashes().newest();
    while newest.changed().await.is_ok() {
        let Some((index, hash)) = *newest.borrow_and_update() else { continue };
        if let Verdict::Deviates { majority } = compare(&core, index, hash).await {
            let text = format!(
                "its state at log index {index} differs from that of {majority} voters, which are equal"
            );
            tracing::error!(
                index,
                majority,
                "this node's state differs from the others': it stops serving, and must be rebuilt"
            );
            core.metrics().deviated();
            core.deviates(text);
            return;
        }
    }
}

async fn compare(core: &Core, index: LogIndex, hash: Hash) -> Verdict {
    let mut verdict = Verdict::Equal { others: 0 };
    for _ in 0..ATTEMPTS {
        sleep(ASK_AGAIN).await;
        let status = core.status();
        let votes =
            |id: NodeId| status.members.get(id).is_some_and(|member| member.kind == MemberKind::Voter);
        let own =
            Said { votes: votes(status.id), version: core.levels().own().version.clone(), hash: Some(hash) };
        let others = status.members.members.values().filter(|member| member.id != status.id);
        let asked = others.map(|member| async {
            let call =
                async { core.peers().client(member).await.ok()?.describe(v1::DescribeRequest {}).await.ok() };
            let answer = timeout(ANSWER_DEADLINE, call).await.ok().flatten().map(tonic::Response::into_inner);
            let (version, hash) = answer.map_or((String::new(), None), |answer| {
                let hash = answer.hashes.iter().find(|said| said.index == index);
                (answer.version, hash.and_then(|said| said.hash.as_slice().try_into().ok()))
            });
            (member.id, Said { votes: votes(member.id), version, hash })
        });
        let others: BTreeMap<NodeId, Said> = futures::future::join_all(asked).await.into_iter().collect();
        verdict = judge(&own, &others);
        let all = others.values().all(|said| said.hash.is_some() || said.version != own.version);
        if all || matches!(verdict, Verdict::Deviates { .. }) {
            break;
        }
    }
    match &verdict {
        Verdict::Equal { others } => tracing::debug!(index, others, "states compared, and equal"),
        Verdict::Differ { nodes } => {
            tracing::error!(
                index,
                ?nodes,
                "the states of these nodes differ from this one's at the same log index"
            );
            core.metrics().deviated();
        }
        Verdict::Deviates { .. } => {}
    }
    verdict
}

/// What stands in the directory about a deviation, if there was one.
///
/// # Errors
/// When it cannot be read.
pub fn deviation(directory: &Path) -> io::Result<Option<(PathBuf, String)>> {
    let path = directory.join(MARKER);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Notes a deviation, so that the node does not start again.
pub(crate) fn note_deviation(directory: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::create(directory.join(MARKER))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Own hash, then the others' in the order of their numbers from 2: `a`, `b`, … are hashes, `-` is none, `o` an older version with a hash of
    /// its own; a capital is a learner's.
    fn check(states: &str, expected: Verdict) {
        let mut said = states.chars().map(|letter| Said {
            votes: !letter.is_uppercase(),
            version: if letter == 'o' { "0.1" } else { "0.2" }.to_owned(),
            hash: (letter != '-').then_some([letter.to_ascii_lowercase() as u8; 32]),
        });
        let own = said.next().unwrap();
        let others = (2..).map(NodeId).zip(said).collect();
        assert_eq!(judge(&own, &others), expected, "{states}");
    }

    #[test]
    fn who_is_wrong_is_what_most_voters_say() {
        let differ = |nodes: &[u64]| Verdict::Differ { nodes: nodes.iter().copied().map(NodeId).collect() };
        check("a", Verdict::Equal { others: 0 });
        check("aaa", Verdict::Equal { others: 2 });
        check("a-a", Verdict::Equal { others: 1 });
        check("aao", Verdict::Equal { others: 1 });
        check("baa", Verdict::Deviates { majority: 2 });
        check("aab", differ(&[3]));
        check("abb-", differ(&[2, 3]));
        check("ab", differ(&[2]));
        check("abc", differ(&[2, 3]));
        check("ab---", differ(&[2]));
        check("abbbc", Verdict::Deviates { majority: 3 });
        check("Baaa", Verdict::Deviates { majority: 3 });
        check("aaB", differ(&[3]));
        check("abB", differ(&[2, 3]));
    }
}
