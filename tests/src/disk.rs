//! A small disk of a node's own: an ext4 file system in a file, mounted by a loop device. It can hang, be slow, and be full.
//!
//! Decisions
//! * **Slow means frozen again and again.** This kernel has no device mapper to delay a disk with, and a busy neighbour slows it as much as
//!   the machine likes. `fsfreeze` makes the kernel itself hold every write to this one file system until it thaws, so the node's own
//!   writes and syncs take as long as we say, and nobody else's do.
//! * **Full means filled by a file**, to the last block; giving it back is one `unlink`.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::statvfs::statvfs;

use crate::{Outcome, Wrong, process::complete, wait};

/// Longest time for one command of util-linux; a freeze writes out first what is dirty.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a block.
const BLOCK: usize = 4096;
/// Within which a process that was killed lets go of its files.
const UNUSED_WITHIN: Duration = Duration::from_secs(10);
/// What fills a disk up.
const BALLAST: &str = "ballast";

/// A mounted disk; unmounted when it is dropped. Whoever has files open on it must have ended before.
#[derive(Debug)]
pub struct Disk {
    /// Where it is mounted.
    pub path: PathBuf,
}

impl Disk {
    /// Makes and mounts a disk of so many MiB in a world's folder.
    pub fn make(folder: &Path, name: &str, mebibytes: u64) -> Outcome<Self> {
        let (path, image) = (folder.join(name), folder.join(format!("{name}.img")));
        fs::create_dir(&path)?;
        fs::File::create(&image)?.set_len(mebibytes << 20)?;
        // Nothing set aside for root: the node is root, and would not notice that the disk is full.
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path))?;
        Ok(Self { path })
    }

    /// Holds every write until [`Disk::thaw`].
    pub fn freeze(&self) -> Outcome {
        freeze(&self.path, "--freeze")
    }

    /// Lets writes go on.
    pub fn thaw(&self) -> Outcome {
        freeze(&self.path, "--unfreeze")
    }

    /// Makes every write wait for up to `hold`, until what is returned is dropped.
    pub fn slow(&self, hold: Duration, between: Duration) -> Slow {
        let end = Arc::new(AtomicBool::new(false));
        let (path, ended) = (self.path.clone(), Arc::clone(&end));
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                freeze(&path, "--freeze")?;
                thread::sleep(hold);
                freeze(&path, "--unfreeze")?;
                thread::sleep(between);
            }
            Ok(())
        });
        Slow { end, thread: Some(thread) }
    }

    /// Takes all that is free.
    pub fn fill(&self) -> Outcome {
        let free = statvfs(&self.path)?;
        let bytes = free.blocks_available() * free.fragment_size();
        let ballast = self.path.join(BALLAST);
        // Most of it at once. It is refused where somebody else took a block meanwhile, and then has taken the rest all the same.
        let _ = run(Command::new("fallocate").args(["-l", &bytes.to_string()]).arg(&ballast));
        let mut ballast = fs::OpenOptions::new().create(true).append(true).open(&ballast)?;
        // Not synced: a node that gives back a reserve of its own once the disk is full shall keep what that frees.
        loop {
            match ballast.write_all(&[0; BLOCK]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives back what was taken.
    pub fn empty(&self) -> Outcome {
        Ok(fs::remove_file(self.path.join(BALLAST))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.path) {
            eprintln!("unmounting {}: {error}", self.path.display());
        }
    }
}

/// A disk that is slow until this is dropped.
#[derive(Debug)]
pub struct Slow {
    end: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Outcome>>,
}

impl Slow {
    /// Ends it, and says whether the disk was slow all the time.
    pub fn stop(mut self) -> Outcome {
        self.join()
    }

    fn join(&mut self) -> Outcome {
        self.end.store(true, Ordering::Relaxed);
        match self.thread.take() {
            Some(thread) => {
                thread.join().map_err(|_| Wrong("the thread that freezes broke down".to_owned()))?
            }
            None => Ok(()),
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            eprintln!("a disk was not slow to the end: {error}");
        }
    }
}

/// Unmounts every disk below a world's folder.
pub fn clear(folder: &Path) -> Outcome {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    for place in places.filter(|place| place.starts_with(folder)) {
        unmount(place)?;
    }
    Ok(())
}

fn unmount(path: &Path) -> Outcome {
    // A frozen one cannot be unmounted; one that is not frozen says so.
    let _ = freeze(path, "--unfreeze");
    // A process that was killed a moment ago holds its files until it is gone.
    wait::until("nothing holds the disk", UNUSED_WITHIN, || run(Command::new("umount").arg(path)))
}

fn freeze(path: &Path, what: &str) -> Outcome {
    run(Command::new("fsfreeze").arg(what).arg(path))
}

fn run(command: &mut Command) -> Outcome {
    complete(command, b"", PATIENCE)?.with_code(0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::timed;

    fn write(disk: &Disk) -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(disk.path.join("file"))?;
        file.write_all(&[1; 8192])?;
        file.sync_data()
    }

    #[test]
    fn a_disk_is_full_hangs_and_is_gone_in_the_end() -> Outcome {
        let folder = tempfile::tempdir()?;
        let disk = Disk::make(folder.path(), "disk", 16)?;
        write(&disk)?;
        disk.fill()?;
        let full = write(&disk).map_err(|error| error.kind());
        assert_eq!(full, Err(ErrorKind::StorageFull));
        disk.empty()?;
        write(&disk)?;

        let hold = Duration::from_millis(300);
        disk.freeze()?;
        let (written, took) = thread::scope(|scope| {
            let (begun, begins) = std::sync::mpsc::channel();
            let disk = &disk;
            let writing = scope.spawn(move || {
                // The other end waits for it.
                let _ = begun.send(());
                timed(|| write(disk))
            });
            // It fails only where the writer broke down, which is told below.
            let _ = begins.recv();
            thread::sleep(hold);
            disk.thaw().map(|()| writing.join())
        })?
        .map_err(|_| Wrong("the writer broke down".to_owned()))?;
        written?;
        assert!(took >= hold - Duration::from_millis(50), "{took:?}");

        clear(folder.path())?;
        assert!(!disk.path.join("file").exists());
        std::mem::forget(disk);
        Ok(())
    }
}
