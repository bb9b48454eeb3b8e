//! What each member knows, as it told this node: its feature level and its version. Asks and remembers; who raises the cluster's level is
//! `leader::raising`, what a level is stands in `state::level`.
//!
//! Decisions
//! * **Asked anew before every raise**, never taken from memory: a member that is away may be away because it is being put back to an older version.
//!   So a dead member holds the level down until it is back or removed, and that is told.
//! * **A join and a raise wait for each other** ([`Levels::gate`]): otherwise a node could be let in by the old level while the new one is proposed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use supercloud_proto::v1;
use tokio::time::timeout;

use super::Core;
use crate::{
    raft::{Member, NodeId},
    state::{
        Command,
        level::{FIRST, Level},
    },
};

/// Within which a member says what it knows.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// Longest version that is remembered of a member.
const MAX_VERSION_CHARS: usize = 64;

/// What a member knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its feature level.
    pub level: Level,
    /// Its version; empty where it does not say.
    pub version: String,
}

/// The cluster's level is too low for a command. Nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cluster is at feature level {level}, this needs {needs}: {holding}")]
pub struct LevelTooLow {
    /// The cluster's.
    pub level: Level,
    /// The command's.
    pub needs: Level,
    /// Who holds it down, in words.
    pub holding: String,
}

/// The table. Cheap to clone.
#[derive(Clone)]
pub struct Levels {
    own: Known,
    known: Arc<Mutex<BTreeMap<NodeId, Known>>>,
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl Levels {
    pub(super) fn new(own: Level) -> Self {
        let own = Known { level: own, version: env!("CARGO_PKG_VERSION").to_owned() };
        Self { own, known: Arc::default(), gate: Arc::default() }
    }

    /// What this node knows.
    #[must_use]
    pub fn own(&self) -> &Known {
        &self.own
    }

    /// What the members last said, as far as this node asked them.
    #[must_use]
    pub fn known(&self) -> BTreeMap<NodeId, Known> {
        self.table().clone()
    }

    /// Held while a node joins, and while the level is raised.
    pub(crate) async fn gate(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.gate.clone().lock_owned().await
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<NodeId, Known>> {
        // A table is whole between two statements.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks every member what it knows; the lowest level, or `None` when one did not answer.
pub(crate) async fn ask_all(core: &Core) -> Option<Level> {
    let status = core.status();
    let mut lowest = Some(core.levels().own.level);
    let mut table = BTreeMap::from([(status.id, core.levels().own.clone())]);
    let others = status.members.members.values().filter(|member| member.id != status.id);
    let answers = futures::future::join_all(others.map(|member| ask(core, member))).await;
    for (id, answer) in answers {
        lowest = lowest.zip(answer.as_ref()).map(|(lowest, known)| lowest.min(known.level));
        table.extend(answer.map(|known| (id, known)));
    }
    *core.levels().table() = table;
    lowest
}

async fn ask(core: &Core, member: &Member) -> (NodeId, Option<Known>) {
    let call = async {
        let mut client = core.peers().client(member).await.ok()?;
        match client.describe(v1::DescribeRequest {}).await {
            Ok(answer) => Some(answer.into_inner().into()),
            // A version from before there were levels.
            Err(status) if status.code() == tonic::Code::Unimplemented => {
                Some(Known { level: FIRST, version: String::new() })
            }
            Err(_) => None,
        }
    };
    let known = timeout(ANSWER_DEADLINE, call).await.ok().flatten();
    if known.is_none() {
        // Its connection may hang.
        core.peers().forget(member.id);
    }
    (member.id, known)
}

impl From<v1::DescribeResponse> for Known {
    fn from(message: v1::DescribeResponse) -> Self {
        let version = message.version.chars().take(MAX_VERSION_CHARS).collect();
        Self { level: message.level.max(FIRST), version }
    }
}

/// Refuses a command that some member would not know. Asked by whichever node leads, before anything is proposed.
///
/// # Errors
/// [`LevelTooLow`], with who holds the level down.
pub(crate) async fn admit(core: &Core, command: &Command) -> Result<(), LevelTooLow> {
    let needs = command.needs();
    // What raises it was asked of everybody; and a level that is seen once never goes down.
    if matches!(command, Command::RaiseLevel { .. }) || needs <= core.level() {
        return Ok(());
    }
    // A new leader may not have applied all that was decided before it.
    let level = core.read().await.unwrap_or_else(|_| core.view()).level();
    if needs <= level {
        return Ok(());
    }
    Err(LevelTooLow { level, needs, holding: holding(core, needs) })
}

/// Who holds the level down.
fn holding(core: &Core, needs: Level) -> String {
    let known = core.levels().known();
    if known.is_empty() {
        return "`scheduler list -o wide` says which node holds it down".to_owned();
    }
    let members = core.status().members.clone();
    let behind = members.members.keys().filter_map(|id| match known.get(id) {
        None => Some(format!("node {id} did not say what it knows")),
        Some(known) if known.level >= needs => None,
        Some(known) if known.version.is_empty() => Some(format!("node {id} runs an older version still")),
        Some(known) => {
            Some(format!("node {id} runs version {} still, which knows level {}", known.version, known.level))
        }
    });
    let behind: Vec<String> = behind.collect();
    if behind.is_empty() { "it is about to be raised".to_owned() } else { behind.join(", ") }
}
