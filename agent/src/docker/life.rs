//! The life of a container: made, started, stopped, removed.

use std::time::Duration;

use bollard::{
    models::{ContainerInspectResponse, ContainerUpdateBody, VolumeCreateRequest},
    query_parameters::{CreateContainerOptions, RemoveContainerOptions, StopContainerOptions},
};
use supercloud_proto::{cores::cpu_list, id::Millis, name::VolumeName};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{
    DockerDriver,
    failure::{Failure, silent, within},
    id_of,
    list::cpus,
    mark,
    phase::{phase, start_error},
    request,
};
use crate::driver::{ACT_DEADLINE, ASK_DEADLINE, DriverError, Mark, Phase, Pin, Seen, TaskRun};

/// Time between two looks at a container that is being removed by someone else.
const REMOVAL_POLL: Duration = Duration::from_millis(100);

/// Time between two attempts to make a container whose name is taken and which is not there yet.
const NAME_POLL: Duration = Duration::from_millis(50);

/// Times that a start may lose its network to the removal of the borough's last container. Once the container is there, no removal
/// takes the network; the second time is for one that was under way.
const NETWORK_LOSSES: u32 = 2;

/// One container that is there, and what was needed to judge a start.
pub(super) struct Found {
    pub(super) seen: Seen,
    /// Docker's text of the last start.
    started: Option<String>,
    start_error: Option<String>,
    /// What it was made with of devices.
    devices: String,
}

impl Found {
    fn new(mark: Mark, runtime_id: String, devices: String) -> Self {
        let seen = Seen { mark, runtime_id, phase: Phase::Created, cpus: None };
        Self { seen, started: None, start_error: None, devices }
    }
}

impl DockerDriver {
    /// The container under the task's name, when there is one and it is this task's; `Refused` when it is another's.
    pub(super) async fn find(&self, run: &TaskRun) -> Result<Option<Found>, DriverError> {
        let name = mark::container_name(&run.mark);
        self.client.inspect(&name).await?.map(|found| ours(run, found)).transpose()
    }

    /// Makes the container unless it is there, and starts it unless it runs. One that does not run and was made with other devices than the agent's file
    /// now gives it is made anew: what it had may be somebody else's. Containers that share a network cannot be made anew one by one: they are refused.
    pub(super) async fn bring_up(&self, run: &TaskRun) -> Result<Seen, DriverError> {
        // The semaphore is never closed; if it were, a start too many is the lesser evil.
        let _turn = self.starts.acquire().await.ok();
        let found = match self.find(run).await? {
            Some(found) if matches!(found.seen.phase, Phase::Running { .. }) => return Ok(found.seen),
            Some(found) if found.devices == request::of_devices(run, &self.settings)?.text() => found,
            Some(_) if request::containers(&run.order).count() > 1 => {
                return Err(DriverError::Refused(
                    "its devices are others now than those it was made with".to_owned(),
                ));
            }
            Some(outdated) => {
                info!(instance = %run.mark.instance, "its devices are others now: its container is made anew");
                self.remove_container(&outdated.seen).await?;
                self.make(run).await?
            }
            None => self.make(run).await?,
        };
        if matches!(found.seen.phase, Phase::Running { .. }) {
            return Ok(found.seen);
        }
        self.set_going(run, found).await
    }

    async fn make(&self, run: &TaskRun) -> Result<Found, DriverError> {
        for mount in &request::container(run)?.mounts {
            self.have_volume(run, &mount.volume).await?;
        }
        self.have_network(run).await?;
        let body = request::body(run, &self.settings, self.has_init().await?)?;
        let name = mark::container_name(&run.mark);
        let options = CreateContainerOptions { name: Some(name.clone()), platform: String::new() };
        let docker = self.client.docker().await?;
        let patience = Instant::now() + ASK_DEADLINE;
        loop {
            let create = docker.create_container(Some(options.clone()), body.clone());
            let failure = match within("create", ACT_DEADLINE, create).await {
                Ok(made) => {
                    for warning in made.warnings {
                        warn!(container = name, warning, "made, with a warning of Docker's");
                    }
                    let devices = request::of_devices(run, &self.settings)?.text();
                    return Ok(Found::new(run.mark.clone(), made.id, devices));
                }
                Err(failure @ Failure::Silent(_)) => return Err(failure.of_act()),
                Err(failure) => failure,
            };
            // Made by a call whose answer was lost, or made in spite of the answer.
            if let Some(found) = self.find(run).await? {
                return Ok(found);
            }
            // Docker takes the name before the container can be found: an earlier call, dropped, may still be at work.
            let taken = matches!(failure, Failure::Answer { status: 409, .. });
            let network_gone =
                matches!(&failure, Failure::Answer { message, .. } if is_network_gone(run, message));
            if !(taken || network_gone) || Instant::now() > patience {
                return Err(failure.of_act());
            }
            sleep(NAME_POLL).await;
            self.have_network(run).await?;
        }
    }

    /// Starts a container that is there, and gives it its network again when that has gone meanwhile.
    async fn set_going(&self, run: &TaskRun, before: Found) -> Result<Seen, DriverError> {
        for _ in 0..NETWORK_LOSSES {
            match self.start_once(run, &before).await {
                Err(DriverError::Refused(reason)) if is_network_gone(run, &reason) => {
                    info!(instance = %run.mark.instance, reason, "the network of its borough is gone and made again");
                    self.attach_anew(run, &before.seen.runtime_id).await?;
                }
                answer => return answer,
            }
        }
        self.start_once(run, &before).await
    }

    async fn start_once(&self, run: &TaskRun, before: &Found) -> Result<Seen, DriverError> {
        let id = before.seen.runtime_id.as_str();
        let docker = self.client.docker().await?;
        self.forget(id);
        let answer = within("start", ACT_DEADLINE, docker.start_container(id, None)).await;
        self.forget(id);
        if let Err(failure @ Failure::Silent(_)) = answer {
            return Err(failure.of_act());
        }
        let now = ours(run, self.client.inspect(id).await?.ok_or(DriverError::Missing)?)?;
        let runs = matches!(now.seen.phase, Phase::Running { .. });
        let ran = now.start_error.is_none() && now.started != before.started;
        match answer {
            Err(failure) if !runs && !ran => Err(failure.of_act()),
            Err(failure) => {
                warn!(container = id, ?failure, "Docker says it did not start, and yet it did");
                Ok(now.seen)
            }
            Ok(()) => Ok(now.seen),
        }
    }

    /// The workload's volume, made unless it is there.
    async fn have_volume(&self, run: &TaskRun, volume: &VolumeName) -> Result<(), DriverError> {
        let name = mark::volume_name(&run.mark.owner.cluster, &run.mark.workload, volume);
        let labels = mark::volume_labels(&run.mark.owner.cluster, &run.mark.workload, volume);
        let docker = self.client.docker().await?;
        let wanted = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(labels.clone()),
            ..VolumeCreateRequest::default()
        };
        // Docker answers with the volume that is there, if there is one, and its labels.
        let made = within("create volume", ACT_DEADLINE, docker.create_volume(wanted))
            .await
            .map_err(Failure::of_act)?;
        if made.labels == labels {
            Ok(())
        } else {
            Err(DriverError::Refused(format!("the volume {name} is there and is not this workload's")))
        }
    }

    /// Whether Docker found its init binary; told once, as it is part of its installation.
    async fn has_init(&self) -> Result<bool, DriverError> {
        let ask = async || {
            let docker = self.client.docker().await?;
            let info = within("info", ASK_DEADLINE, docker.info())
                .await
                .map_err(|failure| failure.of_question("info"))?;
            let missing = info.init_commit.and_then(|commit| commit.id).is_some_and(|id| id == "N/A");
            Ok(info.init_binary.is_some_and(|binary| !binary.is_empty()) && !missing)
        };
        self.init.get_or_try_init(ask).await.copied()
    }

    pub(super) async fn stop_within(&self, seen: &Seen, grace: Millis) -> Result<(), DriverError> {
        let id = id_of(seen)?;
        let docker = self.client.docker().await?;
        // Docker counts in seconds; a grace is never shortened.
        let seconds = i32::try_from(grace.div_ceil(1000)).unwrap_or(i32::MAX);
        let options = StopContainerOptions { signal: None, t: Some(seconds) };
        let deadline = ACT_DEADLINE.saturating_add(Duration::from_millis(grace));
        self.forget(id);
        match within("stop", deadline, docker.stop_container(id, Some(options))).await {
            Ok(()) => Ok(()),
            Err(Failure::Answer { status: 404, .. }) => Err(DriverError::Missing),
            Err(failure @ Failure::Silent(_)) => Err(failure.of_act()),
            // Docker could not kill it. What it runs is not at fault for that, the host is.
            Err(Failure::Answer { message, .. }) => match self.client.inspect(id).await? {
                None => Err(DriverError::Missing),
                Some(found) => match phase(&found.state.unwrap_or_default()) {
                    Phase::Running { .. } => Err(silent(format!("stop: {message}"))),
                    Phase::Created | Phase::Ended { .. } => Ok(()),
                },
            },
        }
    }

    /// Lets a container run on these processors and no others.
    pub(super) async fn move_to(&self, seen: &Seen, pin: &Pin) -> Result<(), DriverError> {
        let id = id_of(seen)?;
        let docker = self.client.docker().await?;
        let wanted = ContainerUpdateBody {
            cpuset_cpus: Some(cpu_list(pin.cpus.iter().copied())),
            ..ContainerUpdateBody::default()
        };
        self.forget(id);
        let answer = within("update", ACT_DEADLINE, docker.update_container(id, wanted)).await;
        self.forget(id);
        match answer {
            Ok(()) => Ok(()),
            Err(Failure::Answer { status: 404, .. }) => Err(DriverError::Missing),
            Err(failure) => Err(failure.of_act()),
        }
    }

    /// Removes a container, and the network of its borough after the borough's last.
    pub(super) async fn take_away(&self, seen: &Seen) -> Result<(), DriverError> {
        self.remove_container(seen).await?;
        self.drop_network(&seen.mark.workload.borough).await;
        Ok(())
    }

    async fn remove_container(&self, seen: &Seen) -> Result<(), DriverError> {
        let id = id_of(seen)?;
        let docker = self.client.docker().await?;
        // `v`: the anonymous volumes that the image asked for; named ones stay.
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        self.forget(id);
        match within("remove", ACT_DEADLINE, docker.remove_container(id, Some(options))).await {
            Ok(()) | Err(Failure::Answer { status: 404, .. }) => Ok(()),
            Err(Failure::Answer { status: 409, message }) => {
                debug!(container = id, message, "its removal is going on; waiting");
                self.await_gone(id).await
            }
            Err(failure @ Failure::Silent(_)) => Err(failure.of_act()),
            Err(Failure::Answer { message, .. }) => match self.client.inspect(id).await? {
                None => Ok(()),
                Some(_) => Err(silent(format!("remove: {message}"))),
            },
        }
    }

    async fn await_gone(&self, id: &str) -> Result<(), DriverError> {
        let gone = async {
            while self.client.inspect(id).await?.is_some() {
                sleep(REMOVAL_POLL).await;
            }
            Ok(())
        };
        timeout(ACT_DEADLINE, gone)
            .await
            .unwrap_or_else(|_| Err(silent(format!("the removal of {id} does not end"))))
    }
}

/// Whether Docker's words say that the network of a run's borough is not there. They name it, or an id that it had.
fn is_network_gone(run: &TaskRun, words: &str) -> bool {
    request::holder(run).is_none() && words.contains("network ") && words.contains("not found")
}

fn ours(run: &TaskRun, found: ContainerInspectResponse) -> Result<Found, DriverError> {
    let id = found.id.unwrap_or_default();
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    let wanted = &run.mark;
    let mark = mark::from_labels(&labels).ok().filter(|mark| {
        mark.owner == wanted.owner
            && mark.instance == wanted.instance
            && mark.workload == wanted.workload
            && mark.task == wanted.task
    });
    let Some(mark) = mark else {
        let name = mark::container_name(wanted);
        return Err(DriverError::Refused(format!(
            "the name {name} is taken by the container {id}, which is not ours"
        )));
    };
    let state = found.state.unwrap_or_default();
    Ok(Found {
        seen: Seen { mark, runtime_id: id, phase: phase(&state), cpus: cpus(found.host_config.as_ref()) },
        start_error: start_error(&state).map(str::to_owned),
        started: state.started_at,
        devices: labels.get(mark::DEVICES).cloned().unwrap_or_default(),
    })
}
