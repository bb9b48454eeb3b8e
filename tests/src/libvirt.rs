//! libvirt as an operator of the host sees it: through the `virsh` command, behind the agent's back.

use std::{path::Path, process::Command, time::Duration};

use crate::{
    Outcome, hold,
    process::{complete, write},
};

/// Longest time that one `virsh` command may take; the first after a start of libvirtd probes QEMU.
const PATIENCE: Duration = Duration::from_secs(120);
/// Digits of a cluster's id that its domains' names bear.
const CLUSTER_DIGITS: usize = 8;

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Its state in libvirt's words: "running", "shut off".
    pub state: String,
    /// Number of the present run; a domain that was started anew has another one. Empty while it does not run.
    pub run: String,
}

/// Runs a `virsh` command on the system's libvirt.
pub fn virsh(arguments: &[&str]) -> Outcome<String> {
    let mut command = Command::new("virsh");
    command.args(["-q", "-c", "qemu:///system"]).args(arguments).env("LC_ALL", "C");
    complete(&mut command, b"", PATIENCE)?.with_code(0).map(|answer| answer.stdout)
}

fn names(prefix: &str) -> Outcome<Vec<String>> {
    let all = virsh(&["list", "--all", "--name"])?;
    Ok(all.lines().map(str::trim).filter(|name| name.starts_with(prefix)).map(str::to_owned).collect())
}

fn prefix(cluster: &str) -> String {
    format!("sc-{}-", cluster.get(..CLUSTER_DIGITS).unwrap_or(cluster))
}

/// All domains of a cluster, running or not.
pub fn domains(cluster: &str) -> Outcome<Vec<Domain>> {
    let describe = |name: String| -> Outcome<Domain> {
        let one = |verb: &str| virsh(&[verb, &name]).map(|text| text.trim().to_owned());
        let (uuid, state, run) = (one("domuuid")?, one("domstate")?, one("domid")?);
        Ok(Domain { uuid, state, run: run.trim_matches('-').to_owned(), name })
    };
    names(&prefix(cluster))?.into_iter().map(describe).collect()
}

/// The one domain of a cluster.
pub fn only_domain(cluster: &str) -> Outcome<Domain> {
    let mut found = domains(cluster)?;
    hold(found.len() == 1, || format!("expected one domain, found {found:?}"))?;
    Ok(found.remove(0))
}

/// Destroys and undefines every domain of a cluster.
pub fn clear(cluster: &str) -> Outcome {
    clear_by(&prefix(cluster))
}

fn clear_by(prefix: &str) -> Outcome {
    for name in names(prefix)? {
        // One that does not run cannot be destroyed; whether it is gone is told by undefine.
        let _ = virsh(&["destroy", &name]);
        virsh(&["undefine", &name, "--managed-save", "--snapshots-metadata"])?;
    }
    Ok(())
}

/// A domain that Supercloud did not make and must not touch. It is only defined: that it stays defined is what is asked.
#[derive(Debug)]
pub struct Foreign {
    name: String,
    uuid: String,
}

impl Foreign {
    /// Defines one.
    pub fn define(folder: &Path) -> Outcome<Self> {
        let name = format!("{}{}", foreign_prefix(std::process::id()), "guest");
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>"
        );
        let file = folder.join("foreign.xml");
        write(&file, &xml)?;
        virsh(&["define", &file.to_string_lossy()])?;
        let uuid = virsh(&["domuuid", &name])?.trim().to_owned();
        Ok(Self { name, uuid })
    }

    /// Holds that it is still there.
    pub fn must_be_untouched(&self) -> Outcome {
        let now = virsh(&["domuuid", &self.name])?.trim().to_owned();
        hold(now == self.uuid, || format!("the foreign domain was {}, is {now}", self.uuid))
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Err(error) = virsh(&["undefine", &self.name]) {
            eprintln!("the foreign domain stays: {error}");
        }
    }
}

fn foreign_prefix(process: u32) -> String {
    format!("supercloud-tests-{process}-")
}

/// Removes foreign domains of a test process that is no more.
pub fn clear_foreign(process: u32) -> Outcome {
    clear_by(&foreign_prefix(process))
}
