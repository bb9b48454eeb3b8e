//! The same without Supercloud: a container by `docker run`, a domain by `virsh define` and `virsh start`. Both are copied from
//! what Supercloud itself made, so that the same thing is started with the same limits.

use std::path::{Path, PathBuf};

use serde_json::Value;
use supercloud_tests::{
    Outcome, Wrong, docker, docker::docker, hold, libvirt::virsh, process::write, programs,
};

/// A copy of a container of ours, as arguments of `docker run`.
pub(crate) struct Container {
    arguments: Vec<String>,
}

impl Container {
    /// Takes the limits, the command and the published port from the running original.
    pub(crate) fn like(original: &docker::Container) -> Outcome<Self> {
        let described: Value =
            serde_json::from_str(&docker(&["inspect", "--type", "container", &original.id])?)?;
        let number = |name: &str| {
            let value = described.pointer(&format!("/0/HostConfig/{name}")).and_then(Value::as_i64);
            value.ok_or_else(|| Wrong(format!("Docker tells no {name}")))
        };
        let limits = [
            format!("--cpus={}", number("NanoCpus")? as f64 / 1e9),
            format!("--cpu-shares={}", number("CpuShares")?),
            format!("--memory={}", number("Memory")?),
            format!("--memory-swap={}", number("MemorySwap")?),
            format!("--pids-limit={}", number("PidsLimit")?),
        ];
        let fixed = [
            "--security-opt=no-new-privileges",
            "--log-driver=json-file",
            "--log-opt=max-size=10m",
            "--log-opt=max-file=3",
            "--env=MODE=live",
            "--publish=127.0.0.1::8080",
            "--entrypoint=/bin/busybox",
        ];
        let names = |list: &str| -> Vec<String> {
            let list = described.pointer(&format!("/0/HostConfig/{list}")).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let init = described.pointer("/0/HostConfig/Init").and_then(Value::as_bool) == Some(true);
        let mut arguments: Vec<String> = ["run", "--detach"].map(str::to_owned).to_vec();
        arguments.extend(limits);
        arguments.extend(fixed.map(str::to_owned));
        arguments.extend(init.then(|| "--init".to_owned()));
        arguments.extend(names("CapDrop").iter().map(|name| format!("--cap-drop={name}")));
        arguments.extend(names("CapAdd").iter().map(|name| format!("--cap-add={name}")));
        // A killed bench leaves nothing that the next world would not clear away.
        arguments.push(format!("--label={}={}", docker::FOREIGN, std::process::id()));
        let command = [docker::IMAGE, "httpd", "-f", "-p", "8080", "-h", "/www"];
        arguments.extend(command.map(str::to_owned));
        Ok(Self { arguments })
    }

    /// The same on the network that another container is on.
    pub(crate) fn on_network_of(&self, other: &docker::Container) -> Outcome<Self> {
        let network = docker(&["inspect", "--format", "{{.HostConfig.NetworkMode}}", &other.id])?;
        let mut arguments = self.arguments.clone();
        // Options stand before the image.
        arguments.insert(1, format!("--network={}", network.trim()));
        Ok(Self { arguments })
    }

    /// Starts one; it runs when the command returns.
    pub(crate) fn start(&self) -> Outcome<String> {
        let words: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        docker(&words).map(|id| id.trim().to_owned())
    }

    /// Holds that it did run, and removes it.
    pub(crate) fn end(&self, id: &str) -> Outcome {
        let found = docker::inspect(id)?;
        hold(found.as_ref().is_some_and(|found| found.running), || format!("it does not run: {found:?}"))?;
        docker(&["rm", "--force", "--volumes", id]).map(|_| ())
    }
}

/// A copy of a domain of ours.
pub(crate) struct Domain {
    name: String,
    file: PathBuf,
}

impl Domain {
    /// Takes the description of the running original; name, identity, mark and console's log are its own.
    pub(crate) fn like(original: &str, folder: &Path) -> Outcome<Self> {
        let name = format!("supercloud-tests-{}-bench", std::process::id());
        let text = virsh(&["dumpxml", "--inactive", original])?;
        let text = without(&text, "<metadata>", "</metadata>")?;
        let text = without(&text, "<uuid>", "</uuid>")?;
        let text = text.replace(&format!("<name>{original}</name>"), &format!("<name>{name}</name>"));
        let log = between(&text, "<log file='", "'")?.to_owned();
        let text = text.replace(&log, &folder.join("bench-console.log").to_string_lossy());
        hold(!text.contains(original), || format!("the original's name is left in {text}"))?;
        let file = folder.join("bench-domain.xml");
        write(&file, &text)?;
        Ok(Self { name, file })
    }

    /// Defines it.
    pub(crate) fn define(&self) -> Outcome {
        virsh(&["define", &self.file.to_string_lossy()]).map(|_| ())
    }

    /// Starts it; it runs when the command returns.
    pub(crate) fn start(&self) -> Outcome {
        virsh(&["start", &self.name]).map(|_| ())
    }

    /// Holds that it did run, and removes it.
    pub(crate) fn end(&self) -> Outcome {
        let state = virsh(&["domstate", &self.name])?;
        hold(state.trim() == "running", || format!("it does not run: {state}"))?;
        virsh(&["destroy", &self.name])?;
        virsh(&["undefine", &self.name])?;
        Ok(())
    }
}

/// The kernel and the initramfs of the guest.
pub(crate) fn guest() -> (PathBuf, PathBuf) {
    (programs::images().join("vmlinuz"), programs::images().join("initrd.gz"))
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Outcome<&'a str> {
    let found = text.split_once(from).and_then(|(_, rest)| rest.split_once(to));
    found.map(|(found, _)| found).ok_or_else(|| Wrong(format!("no {from} in {text}")).into())
}

fn without(text: &str, from: &str, to: &str) -> Outcome<String> {
    let inner = between(text, from, to)?;
    Ok(text.replace(&format!("{from}{inner}{to}"), ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_and_taken_out() -> Outcome {
        let text = "<a><uuid>1-2</uuid><b file='/x'/></a>";
        assert_eq!(without(text, "<uuid>", "</uuid>")?, "<a><b file='/x'/></a>");
        assert_eq!(between(text, "file='", "'")?, "/x");
        assert!(between(text, "<c>", "</c>").is_err());
        Ok(())
    }
}
