//! The few things that snapshots need of a file system, so that a simulation brings one that forgets what was not
//! synced. Knows paths and bytes.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::identity;

/// A file system. What was written is sure to be there after a crash once the file is synced, its name once the
/// directory is.
pub trait Files: fmt::Debug + Send + Sync + 'static {
    /// Makes a directory and those above it, unless they are there.
    ///
    /// # Errors
    /// When the disk refuses.
    fn make_directory(&self, path: &Path) -> io::Result<()>;
    /// What lies in a directory, in no order.
    ///
    /// # Errors
    /// When it cannot be read.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
    /// An empty file to write, in the place of one that may be there.
    ///
    /// # Errors
    /// When the disk refuses.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Written>>;
    /// A file to read.
    ///
    /// # Errors
    /// When it is not there or not readable.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Source>>;
    /// Gives a file another name, in the place of what may have that name.
    ///
    /// # Errors
    /// When the disk refuses.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Deletes a file.
    ///
    /// # Errors
    /// When the disk refuses.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes sure of the names in a directory.
    ///
    /// # Errors
    /// When the disk refuses; nobody knows then which names are sure.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// A file that is being written.
pub trait Written: Write + Send {
    /// Makes sure of its content.
    ///
    /// # Errors
    /// When the disk refuses; nobody knows then what of it is sure.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file that is read.
pub trait Source: Read + Seek + Send {}

impl<T: Read + Seek + Send> Source for T {}

/// The machine's file system.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl Files for Disk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Written>> {
        Ok(Box::new(File::create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Source>> {
        Ok(Box::new(File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        identity::sync_directory(path)
    }
}

impl Written for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
