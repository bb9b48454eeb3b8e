//! An instance's folder: its disks, its seed, its console's log, and two facts of its past. It makes files and removes them; it does
//! not know whether the domain runs.
//!
//! Everything is made beside its place and renamed, so that what stands in its place is whole, and a start that was cut short goes on
//! where it was. The folder may be searched by others, because QEMU runs as a user of its own; its files may be read by nobody, and
//! libvirt hands each to QEMU's user for as long as the guest runs.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use supercloud_proto::{
    amount::Bytes,
    id::InstanceId,
    spec::{ImageFormat, Vm},
};

use super::{
    domain::Disk,
    images::{Sources, failed},
    phase::History,
    seed,
};
use crate::{
    command,
    driver::{DriverError, Mark},
};

/// Time that `qemu-img` may take to make a disk: it writes a few hundred kilobytes.
const MAKE_DEADLINE: Duration = Duration::from_secs(30);
/// Mode of folders: others pass, and see no names.
const FOLDER_MODE: u32 = 0o711;
/// Mode of files.
const FILE_MODE: u32 = 0o600;

/// The folder of one instance.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder of an instance below the folder of all. It need not exist.
    pub(super) fn of(vms: &Path, instance: InstanceId) -> Self {
        Self { path: vms.join(instance.to_string()) }
    }

    /// What the console said; virtlogd writes it and rolls it over to `.0`, `.1` and so on.
    pub(super) fn console_log(&self) -> PathBuf {
        self.path.join("console.log")
    }

    fn root_disk(&self) -> PathBuf {
        self.path.join("root.qcow2")
    }

    fn seed(&self) -> PathBuf {
        self.path.join("seed.iso")
    }

    fn killed(&self) -> PathBuf {
        self.path.join("killed")
    }

    /// The disks of a VM, in the order of their letters: the root, those of the spec, the seed.
    pub(super) fn disks(&self, vm: &Vm, sources: &Sources) -> Vec<Disk> {
        let own = |path: PathBuf| Disk {
            path,
            format: ImageFormat::Qcow2,
            backing: None,
            serial: None,
            read_only: false,
        };
        let root = sources.image.clone().map(|image| Disk { backing: Some(image), ..own(self.root_disk()) });
        let data = vm.disks.iter().map(|disk| {
            let name = disk.name.as_str();
            Disk { serial: Some(name.to_owned()), ..own(self.data_disk(name)) }
        });
        let seed = vm.cloud_init.as_ref();
        let seed = seed.map(|_| Disk { format: ImageFormat::Raw, read_only: true, ..own(self.seed()) });
        root.into_iter().chain(data).chain(seed).collect()
    }

    fn data_disk(&self, name: &str) -> PathBuf {
        self.path.join(format!("disk-{name}.qcow2"))
    }

    /// Makes what is not there yet. Blocks.
    pub(super) fn make(&self, mark: &Mark, vm: &Vm, sources: &Sources) -> Result<(), DriverError> {
        let broken = |error: io::Error| {
            DriverError::Refused(format!("cannot make the folder {}: {error}", self.path.display()))
        };
        fs::create_dir_all(&self.path).map_err(broken)?;
        for folder in self.path.parent().into_iter().chain([self.path.as_path()]) {
            fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE)).map_err(broken)?;
        }
        if let Some((image, format)) = &sources.image {
            make_disk(&self.root_disk(), &Content::Above(image, *format))?;
        }
        for disk in &vm.disks {
            make_disk(&self.data_disk(disk.name.as_str()), &Content::Empty(disk.size))?;
        }
        if let Some(cloud_init) = &vm.cloud_init
            && !self.seed().exists()
        {
            seed::make(&self.seed(), mark, cloud_init)?;
        }
        Ok(())
    }

    /// Notes that the run that ends now was ended by us.
    pub(super) fn note_kill(&self) -> io::Result<()> {
        fs::write(self.killed(), "")
    }

    /// Forgets how the last run ended, because another begins.
    pub(super) fn forget_kill(&self) -> io::Result<()> {
        absent_is_fine(fs::remove_file(self.killed()))
    }

    /// What it tells of the past. virtlogd makes the console's log when a guest is first started.
    pub(super) fn history(&self) -> History {
        History { started: self.console_log().exists(), killed: self.killed().exists() }
    }

    /// Removes it with all that is in it.
    pub(super) fn remove(&self) -> Result<(), DriverError> {
        absent_is_fine(fs::remove_dir_all(&self.path))
            .map_err(|error| DriverError::Refused(format!("cannot remove {}: {error}", self.path.display())))
    }

    /// The folder above that keeps QEMU out, if one does: its user must be able to pass each.
    pub(super) fn closed_ancestor(&self) -> Option<&Path> {
        let closed =
            |path: &&Path| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o001 == 0);
        self.path.ancestors().find(closed)
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What a new disk holds.
enum Content<'a> {
    /// What an image holds, until it is written to.
    Above(&'a Path, ImageFormat),
    /// Nothing.
    Empty(Bytes),
}

/// Makes a disk, unless it is there.
fn make_disk(path: &Path, content: &Content<'_>) -> Result<(), DriverError> {
    if path.exists() {
        return Ok(());
    }
    let part = path.with_extension("part");
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2"]);
    match content {
        Content::Above(image, format) => {
            create.args(["-F", format.as_str(), "-b"]).arg(image).arg(&part);
        }
        Content::Empty(size) => {
            create.arg(&part).arg(size.0.to_string());
        }
    }
    command::run(&mut create, MAKE_DEADLINE).map_err(|error| failed("making a disk", &error))?;
    finish(&part, path)
        .map_err(|error| DriverError::Refused(format!("cannot make {}: {error}", path.display())))
}

/// Gives a whole file its mode and its place.
pub(super) fn finish(part: &Path, path: &Path) -> io::Result<()> {
    fs::set_permissions(part, Permissions::from_mode(FILE_MODE))?;
    fs::rename(part, path)
}

#[cfg(test)]
mod tests {
    use supercloud_proto::{name::VolumeName, spec::VmDisk};

    use super::*;
    use crate::libvirt::mark::tests::mark;

    fn info(path: &Path) -> serde_json::Value {
        let mut look = Command::new("qemu-img");
        look.args(["info", "--output=json"]).arg(path);
        serde_json::from_slice(&command::run(&mut look, MAKE_DEADLINE).unwrap()).unwrap()
    }

    #[test]
    fn disks_are_made_once_with_explicit_formats_and_nobody_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image.raw");
        fs::write(&image, vec![0; 1 << 20]).unwrap();
        let sources = Sources { image: Some((image.clone(), ImageFormat::Raw)), kernel: None };
        let disk = VmDisk { name: VolumeName::new("data").unwrap(), size: Bytes(3 << 20) };
        let vm = Vm { disks: vec![disk], ..Vm::default() };
        let mark = mark("c", 1);
        let folder = Folder::of(&dir.path().join("vms"), mark.instance);
        fs::create_dir_all(&folder.path).unwrap();
        fs::write(folder.path.join("root.part"), "left by a start that was cut short").unwrap();

        folder.make(&mark, &vm, &sources).unwrap();
        let root = info(&folder.root_disk());
        assert_eq!(root["backing-filename"], image.to_str().unwrap());
        assert_eq!(root["backing-filename-format"], "raw");
        assert_eq!(info(&folder.data_disk("data"))["virtual-size"], 3 << 20);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.root_disk()), 0o600);
        assert_eq!(mode(&folder.path), 0o711);

        fs::write(folder.root_disk(), "what a guest wrote").unwrap();
        folder.make(&mark, &vm, &sources).unwrap();
        assert_eq!(fs::read(folder.root_disk()).unwrap(), b"what a guest wrote");
        folder.remove().unwrap();
        folder.remove().unwrap();
        assert!(!folder.path.exists());
    }

    #[test]
    fn a_closed_folder_above_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::of(dir.path(), mark("c", 1).instance);
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(folder.closed_ancestor(), Some(dir.path()));
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
        assert_ne!(folder.closed_ancestor(), Some(dir.path()));
    }
}
