//! Whether KVM works here. `/dev/kvm` may be there, libvirt may offer it, and guests hang all the same; so `auto` believes only a
//! guest that ran: QEMU boots one sector (`probe.s`) that writes a byte to a port, which ends QEMU with that byte as its exit code.
//! The sector enters 64-bit mode first, and QEMU gives it the host's processor as it does a domain: where KVM runs inside another
//! virtual machine, real mode may work, the BIOS with it, and the first kernel hang or QEMU abort.
//!
//! It runs QEMU itself, not a domain: a hang then costs one process that is killed, and leaves nothing in libvirt. Once, in the
//! background, at the start; until it is known, and where the answer is no, guests are translated.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;

use super::domain::Accelerator;
use crate::command::{self, CommandError};

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acceleration {
    /// KVM where a probe shows that it works.
    #[default]
    Auto,
    /// KVM, without a probe.
    Kvm,
    /// Translation.
    Tcg,
}

/// Time that the probe has. A working KVM needs half a second, most of it QEMU's own start.
const PROBE_DEADLINE: Duration = Duration::from_secs(15);
/// Length of a boot sector.
const SECTOR: usize = 512;
/// `probe.s`, assembled.
#[rustfmt::skip]
const SAY_SO: [u8; 125] = [
    0xfa, 0xfc, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0xbf, 0x00, 0x10, 0xb9, 0x00, 0x0c, 0x66, 0x31, 0xc0,
    0x66, 0xf3, 0xab, 0xc7, 0x06, 0x00, 0x10, 0x03, 0x20, 0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, 0xc7, 0x06,
    0x00, 0x30, 0x83, 0x00, 0xb8, 0x00, 0x10, 0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xe0, 0x0c, 0x20, 0x0f, 0x22,
    0xe0, 0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x80, 0xcc, 0x01, 0x0f, 0x30, 0x0f, 0x01, 0x16,
    0x67, 0x7c, 0x0f, 0x20, 0xc0, 0x66, 0x0d, 0x01, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, 0xea, 0x57, 0x7c,
    0x08, 0x00, 0xb9, 0x00, 0x00, 0x00, 0x04, 0xff, 0xc9, 0x75, 0xfc, 0xb0, 0x10, 0xe6, 0xf4, 0xf4, 0xeb,
    0xfd, 0x0f, 0x00, 0x6d, 0x7c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x9a, 0x20, 0x00,
];
/// QEMU's exit code for the byte 0x10: shifted by one, and one.
const SAID_SO: i32 = 0x10 << 1 | 1;

/// What is known by now.
#[derive(Clone)]
pub(super) struct Accelerating {
    kvm: Arc<AtomicBool>,
}

impl Accelerating {
    /// Begins with what the setting says, and probes if it says so. `folder` takes the probe's boot sector for a moment; `known`
    /// is called when the probe has changed the answer.
    pub(super) fn begin(
        setting: Acceleration,
        folder: PathBuf,
        known: impl FnOnce() + Send + 'static,
    ) -> Self {
        let kvm = Arc::new(AtomicBool::new(setting == Acceleration::Kvm));
        if setting == Acceleration::Auto {
            let answer = Arc::clone(&kvm);
            let probe = move || match probe(&folder, "kvm", &SAY_SO, PROBE_DEADLINE) {
                Ok(()) => {
                    tracing::info!("KVM works: a guest ran");
                    answer.store(true, Ordering::Release);
                    known();
                }
                Err(reason) => tracing::info!(%reason, "KVM does not work here; guests are translated"),
            };
            let spawned = std::thread::Builder::new().name("kvm-probe".to_owned()).spawn(probe);
            if let Err(error) = spawned {
                tracing::warn!(%error, "no probe of KVM; guests are translated");
            }
        }
        Self { kvm }
    }

    /// What a guest that is started now gets.
    pub(super) fn accelerator(&self) -> Accelerator {
        if self.kvm.load(Ordering::Acquire) { Accelerator::Kvm } else { Accelerator::Tcg }
    }
}

/// Why KVM is not believed.
#[derive(Debug, thiserror::Error)]
enum NoProof {
    #[error("there is no probe for {0}")]
    Architecture(&'static str),
    #[error("the probe's boot sector could not be written: {0}")]
    Sector(#[from] io::Error),
    #[error("the guest ended without a word")]
    Silence,
    #[error(transparent)]
    Qemu(#[from] CommandError),
}

/// Boots a sector with an accelerator; `Ok` when it said so.
fn probe(folder: &Path, accelerator: &str, code: &[u8], deadline: Duration) -> Result<(), NoProof> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(NoProof::Architecture(std::env::consts::ARCH));
    }
    let mut sector = code.to_vec();
    sector.resize(SECTOR - 2, 0);
    sector.extend([0x55, 0xaa]);
    fs::create_dir_all(folder)?;
    let file = folder.join(format!("{accelerator}-probe.img"));
    fs::write(&file, sector)?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-m",
        "16",
        "-cpu",
        "max",
    ]);
    qemu.arg("-machine").arg(format!("pc,accel={accelerator}"));
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-device", "ide-hd,drive=boot"]);
    // By its name in the working folder: a comma in the folder's path would have a meaning here.
    qemu.current_dir(folder)
        .arg("-drive")
        .arg(format!("if=none,id=boot,format=raw,file={accelerator}-probe.img"));
    let ended = command::run(&mut qemu, deadline);
    fs::remove_file(&file)?;
    match ended {
        Err(CommandError::Failed { status, .. }) if status.code() == Some(SAID_SO) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(NoProof::Silence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The translator stands for a KVM that works: the same sector, the same port.
    #[test]
    fn a_guest_that_runs_is_believed_and_one_that_hangs_is_not() {
        let dir = tempfile::tempdir().unwrap();
        probe(dir.path(), "tcg", &SAY_SO, Duration::from_secs(60)).unwrap();
        let hang = probe(dir.path(), "tcg", &[0xeb, 0xfe], Duration::from_secs(2)).unwrap_err();
        assert!(matches!(hang, NoProof::Qemu(CommandError::TooSlow { .. })), "{hang}");
        let other = probe(dir.path(), "tcg", &[0xb0, 0x01, 0xe6, 0xf4], Duration::from_secs(60)).unwrap_err();
        assert!(matches!(other, NoProof::Qemu(CommandError::Failed { .. })), "{other}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_sector_is_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let (object, binary) = (dir.path().join("probe.o"), dir.path().join("probe.bin"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/libvirt/probe.s");
        let long = Duration::from_secs(20);
        command::run(Command::new("as").args(["--64", "-o"]).arg(&object).arg(source), long).unwrap();
        let extract = ["-O", "binary", "-j", ".text"];
        command::run(Command::new("objcopy").args(extract).arg(&object).arg(&binary), long).unwrap();
        assert_eq!(fs::read(&binary).unwrap(), SAY_SO);
    }

    #[test]
    fn settings_are_not_probed() {
        let begin = |setting| Accelerating::begin(setting, "/nonexistent".into(), || ()).accelerator();
        assert_eq!(begin(Acceleration::Kvm), Accelerator::Kvm);
        assert_eq!(begin(Acceleration::Tcg), Accelerator::Tcg);
    }
}
