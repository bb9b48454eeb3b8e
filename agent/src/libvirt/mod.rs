//! The libvirt driver: a task is a domain with a folder of its own. This file is the order of steps; each step stands in a file
//! beside it. From the ground: `xml`, `phase`, `command` · `mark`, `domain` · `raw`, `connection`, `images`, `seed`, `folder`,
//! `acceleration`, `settings`, `console` · `guests`, `events` · here.
//!
//! Decisions:
//! - **Define, then make, then boot.** The domain with its mark is there before its files, so that a start that was cut short is seen
//!   and either finished or removed. Removing goes the other way: guest, files, and the definition last.
//! - **An instance keeps its disks** over restarts on its host; only `remove` takes them.
//! - **A definition is written anew at each boot,** so that a change of settings (acceleration, network) reaches the next one. A guest
//!   that runs is adopted as it is.
//! - **No network** unless the operator names a libvirt network.
//! - Absent on purpose: fetching images by URL, growing the root disk beyond its image, a console to type into (the pty is there).

mod acceleration;
mod connection;
mod console;
mod domain;
mod events;
mod folder;
mod guests;
mod images;
mod mark;
mod phase;
mod pins;
mod raw;
mod seed;
mod settings;
mod xml;

use std::{
    fs,
    path::{self, Path},
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt, future,
    stream::{self, BoxStream},
};
use supercloud_proto::{
    host::DriverInfo,
    id::{InstanceId, Millis},
    spec::{self, DriverKind, Vm},
    v1,
};
use tokio::{sync::broadcast, time::Instant};
use tokio_stream::wrappers::BroadcastStream;
use tonic::async_trait;
use virt::connect::Connect;

use self::{
    acceleration::Accelerating,
    connection::{Lane, explain, silent},
    domain::Domain,
    events::Watcher,
    guests::Guests,
    images::{Images, Sources},
};
pub use self::{acceleration::Acceleration, settings::LibvirtSettings};
use crate::{
    devices::{Devices, addresses},
    driver::{
        ACT_DEADLINE, ASK_DEADLINE, Driver, DriverError, ExecIo, Hint, LogOptions, Owner, PREPARE_DEADLINE,
        Pin, Seen, TaskRun,
    },
};

/// Threads for calls that ask: one may wait on a domain that is busy while the other answers.
const ASKING: usize = 2;
/// Threads for calls that act: a start takes half a second and an end up to two, and an agent has few at a time.
const ACTING: usize = 2;
/// Time between looks at a guest that was asked to shut down.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time after which the power button is pressed again: a guest that is still booting does not feel the first.
const PRESS_EVERY: Duration = Duration::from_secs(3);

/// The driver.
pub struct LibvirtDriver {
    asking: Lane,
    acting: Lane,
    guests: Arc<Guests>,
    images: Arc<Images>,
    accelerating: Accelerating,
    network: Option<String>,
    devices: Devices,
    enforce_cpu: bool,
    hints: broadcast::Sender<Hint>,
    /// Ends its thread with the driver. None if there was no thread to be had: changes are then seen by asking only.
    _watcher: Option<Watcher>,
}

impl LibvirtDriver {
    /// A driver for this owner's domains. Opens nothing yet: libvirt may be away now, and at any time.
    pub fn start(settings: LibvirtSettings, owner: Owner) -> Self {
        // libvirt takes absolute paths only. This fails where there is no working folder, and then libvirt says what is wrong.
        let data_dir = path::absolute(&settings.data_dir).unwrap_or(settings.data_dir);
        let (hints, _) = broadcast::channel(events::MAX_HINTS);
        let prefix = domain::name_prefix(&owner.cluster);
        let watcher = events::watch(settings.uri.clone(), prefix, hints.clone())
            .inspect_err(|error| tracing::error!(%error, "no thread for libvirt's events"))
            .ok();
        let changed = hints.clone();
        let accelerating = Accelerating::begin(settings.acceleration, data_dir.clone(), move || {
            // Nobody listens yet: whoever comes later asks anyway.
            let _ = changed.send(Hint::Anything);
        });
        let enforce_cpu = has_cpu_cgroup(Path::new("/sys/fs/cgroup"));
        if !enforce_cpu {
            tracing::warn!(
                "this host has no cgroup for processor time: a VM may use whole cores where it was given a part of one"
            );
        }
        Self {
            asking: Lane::start("libvirt-ask", &settings.uri, ASKING),
            acting: Lane::start("libvirt-act", &settings.uri, ACTING),
            guests: Arc::new(Guests::new(owner, data_dir.join("vms"))),
            images: Arc::new(Images::new(settings.image_dirs)),
            accelerating,
            network: settings.network,
            devices: settings.devices,
            enforce_cpu,
            hints,
            _watcher: watcher,
        }
    }

    /// Calls a function of [`Guests`] on a lane.
    async fn on<T: Send + 'static>(
        &self,
        lane: &Lane,
        what: &'static str,
        call: impl FnOnce(&Guests, &Connect) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let guests = Arc::clone(&self.guests);
        let deadline = if lane.is(&self.asking) { ASK_DEADLINE } else { ACT_DEADLINE };
        lane.call(what, deadline, move |connection| call(&guests, connection)).await
    }

    async fn sources(&self, vm: &Vm) -> Result<Sources, DriverError> {
        let (images, vm) = (Arc::clone(&self.images), vm.clone());
        blocking("checking images", PREPARE_DEADLINE, move || images.sources(&vm)).await
    }

    fn xml(&self, run: &TaskRun, vm: &Vm, sources: &Sources) -> Result<String, DriverError> {
        let folder = self.guests.folder(run.mark.instance);
        let hostdevs = addresses(&self.devices, &run.order.devices).map_err(|name| {
            DriverError::Refused(format!("device {name} has no PCI address in this agent's configuration"))
        })?;
        let domain = Domain {
            mark: &run.mark,
            accelerator: self.accelerating.accelerator(),
            cpu: run.order.resources.cpu,
            enforce_cpu: self.enforce_cpu,
            memory: run.order.resources.memory,
            kernel: sources.kernel.clone(),
            disks: folder.disks(vm, sources),
            network: self.network.as_deref(),
            console_log: folder.console_log(),
            pin: run.pin.as_ref(),
            hostdevs,
            node: run.order.cores.as_ref().and_then(|cores| cores.node),
        };
        domain.xml().map_err(|error| DriverError::Refused(error.to_string()))
    }

    /// The VM of a run of ours.
    fn vm<'a>(&self, run: &'a TaskRun) -> Result<&'a Vm, DriverError> {
        self.own(&run.mark.owner)?;
        match run.order.tasks.get(run.task).map(|task| &task.driver) {
            Some(spec::Driver::Vm(vm)) => Ok(vm),
            Some(spec::Driver::Container(_)) | None => {
                Err(DriverError::Refused(format!("task {} is no VM", run.task)))
            }
        }
    }

    fn own(&self, owner: &Owner) -> Result<(), DriverError> {
        if owner == self.guests.owner() {
            return Ok(());
        }
        Err(DriverError::Refused(format!("{} of cluster {} is another agent", owner.host, owner.cluster)))
    }

    async fn runs(&self, instance: InstanceId) -> Result<bool, DriverError> {
        self.on(&self.asking, "asking whether a domain runs", move |g, c| g.runs(c, instance)).await
    }

    async fn kill(&self, instance: InstanceId) -> Result<(), DriverError> {
        self.on(&self.acting, "ending a guest", move |g, c| g.kill(c, instance)).await
    }
}

#[async_trait]
impl Driver for LibvirtDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Libvirt
    }

    async fn probe(&self) -> DriverInfo {
        let ask = |_: &Guests, c: &Connect| {
            c.lib_version().map_err(|error| explain("asking for the version", &error))
        };
        let answer = self.on(&self.asking, "asking for the version", ask).await;
        let acceleration = self.accelerating.accelerator().as_str().to_owned();
        match answer {
            Ok(version) => DriverInfo {
                version: format!("{}.{}.{}", version / 1_000_000, version / 1000 % 1000, version % 1000),
                healthy: true,
                reason: self.guests.troubles().join("; "),
                acceleration,
            },
            Err(error) => {
                DriverInfo { version: String::new(), healthy: false, reason: error.to_string(), acceleration }
            }
        }
    }

    async fn list(&self) -> Result<Vec<Seen>, DriverError> {
        self.on(&self.asking, "listing domains", |g, c| g.list(c)).await
    }

    async fn prepare(&self, run: &TaskRun) -> Result<(), DriverError> {
        self.sources(self.vm(run)?).await.map(drop)
    }

    async fn start(&self, run: &TaskRun) -> Result<Seen, DriverError> {
        let (vm, instance) = (self.vm(run)?, run.mark.instance);
        let running =
            self.on(&self.asking, "looking for the domain", move |g, c| g.running(c, instance)).await?;
        if let Some(seen) = running {
            return Ok(seen);
        }
        let sources = self.sources(vm).await?;
        let xml = self.xml(run, vm, &sources)?;
        self.on(&self.acting, "defining a domain", move |g, c| g.define(c, instance, &xml)).await?;
        let (folder, mark, vm) = (self.guests.folder(instance), run.mark.clone(), vm.clone());
        blocking("making the disks", ACT_DEADLINE, move || folder.make(&mark, &vm, &sources)).await?;
        self.on(&self.acting, "starting a domain", move |g, c| g.boot(c, instance)).await
    }

    async fn stop(&self, seen: &Seen, grace: Millis) -> Result<(), DriverError> {
        self.own(&seen.mark.owner)?;
        let instance = seen.mark.instance;
        let begin = Instant::now();
        let grace = Duration::from_millis(grace);
        let mut press_at = Duration::ZERO;
        while self.runs(instance).await? {
            let waited = begin.elapsed();
            if waited >= grace {
                return self.kill(instance).await;
            }
            if waited >= press_at {
                press_at = waited + PRESS_EVERY;
                let press = self
                    .on(&self.acting, "asking a guest to shut down", move |g, c| g.press_power(c, instance));
                match press.await {
                    // It cannot be asked; it is still given its time.
                    Err(DriverError::Refused(reason)) => {
                        tracing::warn!(%instance, reason, "a guest cannot be asked to shut down")
                    }
                    other => other?,
                }
            }
            tokio::time::sleep(LOOK_EVERY.min(grace - waited)).await;
        }
        Ok(())
    }

    async fn pin(&self, seen: &Seen, pin: &Pin) -> Result<(), DriverError> {
        self.own(&seen.mark.owner)?;
        let (instance, pin) = (seen.mark.instance, pin.clone());
        self.on(&self.acting, "moving a guest to its processors", move |g, c| g.pin(c, instance, &pin)).await
    }

    async fn remove(&self, seen: &Seen) -> Result<(), DriverError> {
        self.own(&seen.mark.owner)?;
        let instance = seen.mark.instance;
        self.kill(instance).await?;
        let folder = self.guests.folder(instance);
        blocking("removing the disks", ACT_DEADLINE, move || folder.remove()).await?;
        self.on(&self.acting, "undefining a domain", move |g, c| g.undefine(c, instance)).await
    }

    async fn logs(
        &self,
        seen: &Seen,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<v1::LogsResponse, DriverError>>, DriverError> {
        self.own(&seen.mark.owner)?;
        let instance = seen.mark.instance;
        self.runs(instance).await?;
        let (asking, guests) = (self.asking.clone(), Arc::clone(&self.guests));
        let is_gone = move || {
            let (asking, guests) = (asking.clone(), Arc::clone(&guests));
            let ask = async move {
                let runs = asking.call("asking whether a domain is there", ASK_DEADLINE, move |c| {
                    guests.runs(c, instance)
                });
                matches!(runs.await, Err(DriverError::Missing))
            };
            Box::pin(ask) as future::BoxFuture<'static, bool>
        };
        Ok(console::read(self.guests.folder(instance).console_log(), options, Box::new(is_gone)))
    }

    async fn exec(&self, _seen: &Seen, _start: v1::ExecStart) -> Result<ExecIo, DriverError> {
        Err(DriverError::Refused("a VM has no exec; use its console or ssh".to_owned()))
    }

    /// Begins with [`Hint::Anything`]: what changed before somebody listened was not heard.
    fn hints(&self) -> BoxStream<'static, Hint> {
        let heard = BroadcastStream::new(self.hints.subscribe());
        // The only error: this listener was too slow and missed some.
        let heard = heard.map(|hint| hint.unwrap_or(Hint::Anything));
        stream::once(future::ready(Hint::Anything)).chain(heard).chain(stream::pending()).boxed()
    }
}

/// Runs what blocks on files or programs on a thread for such, until a deadline.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    deadline: Duration,
    work: impl FnOnce() -> Result<T, DriverError> + Send + 'static,
) -> Result<T, DriverError> {
    match tokio::time::timeout(deadline, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(silent(format!("{what} broke off"))),
        Err(_) => Err(silent(format!("{what} did not end within {deadline:?}"))),
    }
}

/// Whether libvirt can bound a domain's processor time: by the first or the second kind of cgroups.
fn has_cpu_cgroup(root: &Path) -> bool {
    root.join("cpu").is_dir()
        || fs::read_to_string(root.join("cgroup.controllers"))
            .is_ok_and(|controllers| controllers.split_whitespace().any(|name| name == "cpu"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_cgroups_are_known() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_cpu_cgroup(dir.path()));
        fs::write(dir.path().join("cgroup.controllers"), "cpuset io memory\n").unwrap();
        assert!(!has_cpu_cgroup(dir.path()));
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io\n").unwrap();
        assert!(has_cpu_cgroup(dir.path()));
    }
}
