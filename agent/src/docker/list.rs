//! What is there: all containers of the owner, each looked at as seldom as will do.
//!
//! Decision: labels alone make no container ours, its name must be the one that they ask for. A container inherits the labels of its image,
//! and an image is whatever a borough puts into it: run by hand, it would pass for another borough's instance, and be stopped for it. The
//! price: one that somebody renames is ours no more.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::PoisonError,
};

use bollard::{
    models::{ContainerSummary, ContainerSummaryStateEnum as Summary, HostConfig},
    query_parameters::ListContainersOptions,
};
use futures::{StreamExt, TryStreamExt, stream};
use supercloud_proto::{cores::parse_cpu_list, id::UnixMillis};
use tracing::warn;

use super::{DockerDriver, failure::within, mark, phase::phase};
use crate::driver::{ASK_DEADLINE, DriverError, Mark, Phase, Seen};

/// Containers asked about at a time while listing: enough to hide the waiting, few enough not to crowd out other calls.
const PARALLEL_LOOKS: usize = 4;
/// What is remembered of the containers last listed, by id; bounded by what is there.
#[derive(Default)]
pub(super) struct Remembered {
    /// Since when a running container runs, and on which processors it may. Docker tells so only container by container, and an agent at rest lists often. Forgotten
    /// when this driver acts on the container; when someone else restarts it between two lists, the time is that of the run before.
    running: BTreeMap<String, Running>,
    /// Complained about already.
    damaged: BTreeSet<String>,
}

/// What Docker tells of a running container only when it is asked for it alone.
#[derive(Clone)]
struct Running {
    since: Option<UnixMillis>,
    cpus: Option<Vec<u16>>,
}

impl DockerDriver {
    fn remember<T>(&self, change: impl FnOnce(&mut Remembered) -> T) -> T {
        change(&mut self.remembered.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn forget(&self, id: &str) {
        self.remember(|remembered| remembered.running.remove(id));
    }

    pub(super) async fn list_marked(&self) -> Result<Vec<Seen>, DriverError> {
        let docker = self.client.docker().await?;
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), mark::filters(&self.client.owner))])),
            ..ListContainersOptions::default()
        };
        let listed = within("list", ASK_DEADLINE, docker.list_containers(Some(options)))
            .await
            .map_err(|failure| failure.of_question("list"))?;
        let marked = self.sort_out(listed);
        stream::iter(marked)
            .map(|(id, mark, state)| self.look(id, mark, state))
            .buffered(PARALLEL_LOOKS)
            .try_filter_map(async |seen| Ok(seen))
            .try_collect()
            .await
    }

    /// Leaves out and complains about, once, what bears our labels in part or under another name; forgets what is gone.
    fn sort_out(&self, listed: Vec<ContainerSummary>) -> Vec<(String, Mark, Option<Summary>)> {
        let ids: BTreeSet<String> = listed.iter().filter_map(|container| container.id.clone()).collect();
        self.remember(|remembered| {
            remembered.running.retain(|id, _| ids.contains(id));
            remembered.damaged.retain(|id| ids.contains(id));
            let mut marked = Vec::with_capacity(listed.len());
            for container in listed {
                let Some(id) = container.id else { continue };
                let names = container.names.unwrap_or_default();
                match mark::from_labels(&container.labels.unwrap_or_default()) {
                    Ok(mark) if is_named_for(&mark, &names) => marked.push((id, mark, container.state)),
                    Ok(mark) if remembered.damaged.insert(id.clone()) => {
                        let instance = mark.instance;
                        warn!(container = id, %instance, ?names, "left alone: it bears our labels under a name that is not ours");
                    }
                    Ok(_) => {}
                    Err(error) if remembered.damaged.insert(id.clone()) => {
                        warn!(container = id, %error, "left alone: its mark is damaged");
                    }
                    Err(_) => {}
                }
            }
            marked
        })
    }

    /// One listed container in full; `None` when it is gone meanwhile.
    async fn look(
        &self,
        id: String,
        mark: Mark,
        state: Option<Summary>,
    ) -> Result<Option<Seen>, DriverError> {
        if state == Some(Summary::RUNNING)
            && let Some(Running { since, cpus }) =
                self.remember(|remembered| remembered.running.get(&id).cloned())
        {
            return Ok(Some(Seen { mark, runtime_id: id, phase: Phase::Running { since }, cpus }));
        }
        let Some(found) = self.client.inspect(&id).await? else { return Ok(None) };
        let (phase, cpus) = (phase(&found.state.unwrap_or_default()), cpus(found.host_config.as_ref()));
        if let Phase::Running { since } = &phase {
            let running = Running { since: *since, cpus: cpus.clone() };
            self.remember(|remembered| remembered.running.insert(id.clone(), running));
        }
        Ok(Some(Seen { mark, runtime_id: id, phase, cpus }))
    }
}

/// The processors on which a container may run, where it was told which.
pub(super) fn cpus(config: Option<&HostConfig>) -> Option<Vec<u16>> {
    let text = config?.cpuset_cpus.as_deref().filter(|text| !text.is_empty())?;
    parse_cpu_list(text)
}

/// Whether a container bears the name that belongs to the mark. Docker writes names with a slash before.
fn is_named_for(mark: &Mark, names: &[String]) -> bool {
    let wanted = mark::container_name(mark);
    names.iter().any(|name| name.strip_prefix('/').unwrap_or(name) == wanted)
}
