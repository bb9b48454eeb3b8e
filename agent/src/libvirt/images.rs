//! Which files of the host a VM may be made of, and whether an image is what its spec says. It reads and makes nothing.
//!
//! A borough names paths in its spec, and must not read the host's files through them. So a path counts only below a configured
//! folder, as written and again after links are followed, and an image may not refer to further files: neither a backing file nor an
//! external data file. What is not below a folder is refused with the same words whether it exists or not.

use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use supercloud_proto::spec::{ImageFormat, ImageSource, Vm, VmImage};

use super::{connection::silent, domain::Kernel};
use crate::{
    command::{self, CommandError},
    driver::{DriverError, PREPARE_DEADLINE},
};

/// Images whose check is remembered: more than a host has in use.
const MAX_REMEMBERED: usize = 256;
/// Time that `qemu-img` may take to look at an image.
const LOOK_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes hashed at a time.
const CHUNK: usize = 1 << 20;

/// The rule and the memory of what was checked.
pub(super) struct Images {
    folders: Vec<PathBuf>,
    checked: Mutex<BTreeSet<Checked>>,
}

/// A check that was passed: this file, unchanged since, against this expectation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Checked {
    path: PathBuf,
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    format: &'static str,
    sha256: Option<String>,
}

/// The files that a VM is made of, checked.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    pub(super) image: Option<(PathBuf, ImageFormat)>,
    pub(super) kernel: Option<Kernel>,
}

impl Images {
    /// Images below these folders.
    pub(super) fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders, checked: Mutex::default() }
    }

    /// The checked files of a VM. Blocks: a large image takes its time the first time.
    pub(super) fn sources(&self, vm: &Vm) -> Result<Sources, DriverError> {
        let image = vm.image.as_ref().map(|image| self.image(image)).transpose()?;
        let kernel = match &vm.boot {
            None => None,
            Some(boot) => Some(Kernel {
                kernel: self.allowed("vm.boot.kernel", &boot.kernel)?.0,
                initrd: match &boot.initrd {
                    None => None,
                    Some(initrd) => Some(self.allowed("vm.boot.initrd", initrd)?.0),
                },
                cmdline: boot.cmdline.clone(),
            }),
        };
        if image.is_none() && kernel.is_none() {
            return Err(DriverError::Refused("a VM needs an image or a kernel to boot from".to_owned()));
        }
        Ok(Sources { image, kernel })
    }

    fn image(&self, image: &VmImage) -> Result<(PathBuf, ImageFormat), DriverError> {
        let ImageSource::Path(path) = &image.source else {
            return Err(DriverError::Refused(
                "vm.image.url: images are not fetched yet; put it below an image folder of the host and give its path".to_owned(),
            ));
        };
        let (path, found) = self.allowed("vm.image.path", path)?;
        let check = Checked {
            path: path.clone(),
            inode: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            format: image.format.as_str(),
            sha256: image.sha256.clone(),
        };
        if !self.lock().contains(&check) {
            if image.format == ImageFormat::Qcow2 {
                stands_alone(&path)?;
            }
            if let Some(expected) = &image.sha256 {
                matches_digest(&path, expected)?;
            }
            let mut checked = self.lock();
            if checked.len() >= MAX_REMEMBERED {
                checked.clear();
            }
            checked.insert(check);
        }
        Ok((path, image.format))
    }

    /// Where a path leads, if a VM may have it.
    fn allowed(&self, field: &str, path: &str) -> Result<(PathBuf, Metadata), DriverError> {
        let outside = || {
            let folders: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
            DriverError::Refused(format!(
                "{field}: {path} is not below a folder that this host offers for images ({})",
                folders.join(", ")
            ))
        };
        let below = |path: &Path| {
            self.folders.iter().any(|folder| {
                path.starts_with(folder) || fs::canonicalize(folder).is_ok_and(|real| path.starts_with(real))
            })
        };
        let written = Path::new(path);
        let plain =
            written.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !plain || !written.is_absolute() || !below(written) {
            return Err(outside());
        }
        let unusable = |error: io::Error| DriverError::Refused(format!("{field}: {path}: {error}"));
        let real = fs::canonicalize(written).map_err(unusable)?;
        if !below(&real) {
            return Err(outside());
        }
        let found = fs::metadata(&real).map_err(unusable)?;
        if !found.is_file() {
            return Err(DriverError::Refused(format!("{field}: {path} is no file")));
        }
        Ok((real, found))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<Checked>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a qcow2 image that refers to another file.
fn stands_alone(path: &Path) -> Result<(), DriverError> {
    let mut look = Command::new("qemu-img");
    // -U: it may be below running guests, which have it locked.
    look.args(["info", "-U", "-f", "qcow2", "--output=json"]).arg(path);
    let report = command::run(&mut look, LOOK_DEADLINE).map_err(|error| failed("vm.image", &error))?;
    let report: serde_json::Value = serde_json::from_slice(&report)
        .map_err(|error| DriverError::Refused(format!("vm.image: qemu-img reported no JSON: {error}")))?;
    let data = &report["format-specific"]["data"];
    for (place, name) in [
        (&report["backing-filename"], "a backing file"),
        (&report["full-backing-filename"], "a backing file"),
        (&data["data-file"], "an external data file"),
    ] {
        if !place.is_null() {
            return Err(DriverError::Refused(format!(
                "vm.image: {} has {name}; an image must stand alone",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Refuses a file with another digest.
fn matches_digest(path: &Path, expected: &str) -> Result<(), DriverError> {
    let unreadable =
        |error: io::Error| DriverError::Refused(format!("vm.image: {}: {error}", path.display()));
    let start = Instant::now();
    let mut file = File::open(path).map_err(unreadable)?;
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut chunk).map_err(unreadable)? {
            0 => break,
            read => digest.update(&chunk[..read]),
        }
        if start.elapsed() > PREPARE_DEADLINE {
            return Err(silent(format!("{} was not read within {PREPARE_DEADLINE:?}", path.display())));
        }
    }
    let found: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found != expected.to_ascii_lowercase() {
        return Err(DriverError::Refused(format!(
            "vm.image.sha256: expected {expected}, found {found} in {}",
            path.display()
        )));
    }
    Ok(())
}

/// What a program's failure means: one that hangs says nothing of the task.
pub(super) fn failed(what: &str, error: &CommandError) -> DriverError {
    match error {
        CommandError::TooSlow { .. } => silent(format!("{what}: {error}")),
        CommandError::NotRun { .. } | CommandError::Failed { .. } => {
            DriverError::Refused(format!("{what}: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn refusal<T: std::fmt::Debug>(result: Result<T, DriverError>) -> String {
        match result.unwrap_err() {
            DriverError::Refused(words) => words,
            other => panic!("{other}"),
        }
    }

    fn vm(path: &Path, format: ImageFormat, sha256: Option<&str>) -> Vm {
        let source = ImageSource::Path(path.to_str().unwrap().to_owned());
        Vm { image: Some(VmImage { source, sha256: sha256.map(str::to_owned), format }), ..Vm::default() }
    }

    fn qemu_img(arguments: &[&str]) {
        let status =
            Command::new("qemu-img").args(arguments).stdout(std::process::Stdio::null()).status().unwrap();
        assert!(status.success());
    }

    #[test]
    fn only_files_below_an_image_folder_count() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("images"), dir.path().join("secret"));
        fs::create_dir_all(inside.join("sub")).unwrap();
        fs::write(inside.join("sub/good"), "x").unwrap();
        fs::write(&outside, "x").unwrap();
        symlink(&outside, inside.join("link")).unwrap();
        symlink(inside.join("sub/good"), inside.join("fine")).unwrap();
        fs::create_dir(dir.path().join("images-not")).unwrap();
        fs::write(dir.path().join("images-not/x"), "x").unwrap();
        let images = Images::new(vec![inside.clone()]);
        let allowed = |path: PathBuf| images.allowed("f", path.to_str().unwrap()).map(|(path, _)| path);

        assert_eq!(allowed(inside.join("sub/good")).unwrap(), inside.join("sub/good"));
        assert_eq!(allowed(inside.join("fine")).unwrap(), inside.join("sub/good"));
        for bad in [
            outside.clone(),
            dir.path().join("not-there"),
            inside.join("../secret"),
            inside.join("link"),
            dir.path().join("images-not/x"),
            PathBuf::from("sub/good"),
            PathBuf::from("json:{\"file\":{}}"),
        ] {
            let words = refusal(allowed(bad.clone()));
            assert!(words.contains("is not below a folder"), "{}: {words}", bad.display());
        }
        assert!(refusal(allowed(inside.join("sub"))).contains("is no file"));
        assert!(refusal(allowed(inside.join("missing"))).contains("No such file"));
    }

    #[test]
    fn an_image_that_refers_to_other_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        qemu_img(&["create", "-f", "qcow2", &path("alone"), "1M"]);
        qemu_img(&["create", "-f", "qcow2", "-F", "qcow2", "-b", &path("alone"), &path("above")]);
        let with_data = format!("data_file={}", path("raw"));
        qemu_img(&["create", "-f", "qcow2", "-o", &with_data, &path("external"), "1M"]);
        let images = Images::new(vec![dir.path().to_owned()]);
        let check = |name: &str| images.sources(&vm(Path::new(&path(name)), ImageFormat::Qcow2, None));

        assert!(check("alone").is_ok());
        assert!(refusal(check("above")).contains("has a backing file"));
        assert!(refusal(check("external")).contains("has an external data file"));
        fs::write(path("no-image"), "x").unwrap();
        assert!(refusal(check("no-image")).contains("qemu-img failed"));
    }

    #[test]
    fn a_digest_must_match_and_a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        fs::write(&path, "abc").unwrap();
        let images = Images::new(vec![dir.path().to_owned()]);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let vm = vm(&path, ImageFormat::Raw, Some(abc));
        assert!(images.sources(&vm).is_ok());
        assert!(images.sources(&vm).is_ok());
        fs::write(&path, "abcd").unwrap();
        assert!(refusal(images.sources(&vm)).starts_with("vm.image.sha256: expected ba7816bf"));
    }

    #[test]
    fn what_is_not_there_yet_is_refused_with_words() {
        let images = Images::new(Vec::new());
        let source = ImageSource::Url("https://example.org/x".to_owned());
        let image = Some(VmImage { source, sha256: None, format: ImageFormat::Qcow2 });
        assert!(refusal(images.sources(&Vm { image, ..Vm::default() })).contains("not fetched yet"));
        assert!(refusal(images.sources(&Vm::default())).contains("needs an image or a kernel"));
    }
}
